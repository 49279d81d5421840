"""What may leave the run: no folder of any machine, no list of files, no cell so small that it points at a person."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

# Absolute, home, relative and drive paths, and file:// addresses; "AP/PA" and "A / B" are not paths.
_PATH = re.compile(r"(?:file://|~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^/\\\s'\"<>|]+[/\\])*([^/\\\s'\"<>|]*)")
_ANCHOR = re.compile(r"(?:^|(?<=[\s'\"(=]))(?:file://|~[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[/\\])(?=\S)")
_FILE = re.compile(r"(?:[\w.\-]+[/\\])+([\w.\-]+\.\w{1,12})\b")


def without_paths(text: str) -> str:
    """Shorten every path in a text to its last name.

    Examples
    --------
    >>> without_paths("read '/home/ann/study/cohort.csv' and models/cnn.pt, views AP/PA")
    "read 'cohort.csv' and cnn.pt, views AP/PA"
    """
    pieces, start = [], 0
    for anchor in _ANCHOR.finditer(text):
        if anchor.start() < start:
            continue
        path = _PATH.match(text, anchor.start())
        if path is None:
            continue
        pieces += [text[start : anchor.start()], path.group(1) or "(folder)"]
        start = path.end()
    return _FILE.sub(r"\1", "".join([*pieces, text[start:]]))


# Never shown, whatever they hold: names of files and of people's images.
_WITHHELD = frozenset({"names", "image_id", "image_ids", "patient_id", "patient_ids", "path", "paths", "root"})
_LONGEST = 16


def flatten(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as (dotted name, text), with paths shortened and long lists counted.

    Examples
    --------
    >>> flatten({"a": {"b": 1, "names": ["x.png"]}, "c": [1, 2], "d": None})
    [('a.b', '1'), ('c', '1, 2'), ('d', 'not set')]
    """
    if isinstance(content, Mapping):
        rows: list[tuple[str, str]] = []
        for key, value in content.items():
            if str(key).lower() not in _WITHHELD:
                name = without_paths(str(key))
                rows += flatten(value, f"{prefix}.{name}" if prefix else name)
        return rows
    if isinstance(content, Sequence) and not isinstance(content, str):
        if len(content) > _LONGEST:
            return [(prefix, f"{len(content)} entries, in provenance.json")]
        if any(isinstance(item, Mapping) for item in content):
            return [row for index, item in enumerate(content) for row in flatten(item, f"{prefix}[{index}]")]
        return [(prefix, ", ".join(_scalar(item) for item in content) or "none")]
    return [(prefix, _scalar(content))]


def _scalar(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if value == value else "not a number"
    return without_paths(str(value))


def mask_small(cells: Sequence[Mapping[str, Any]], *, below: int) -> list[bool]:
    """Say which cells of the cohort's counts must not be shown.

    A cell with fewer than `below` patients is masked; where it is the only one of its split, level and label, the
    smallest of its siblings is masked as well, so that it cannot be found by subtraction from another label's total.

    Parameters
    ----------
    cells : sequence of mapping
        Rows of `Cohort.counts()`: split, attribute, level, label, value, images, patients.
    below : int
        1 masks nothing.

    Returns
    -------
    list of bool

    Examples
    --------
    >>> cell = {"split": "test", "attribute": "sex", "level": "f", "label": "x"}
    >>> mask_small([{**cell, "patients": 3}, {**cell, "patients": 40}, {**cell, "patients": 90}], below=5)
    [True, True, False]
    """
    masked = [0 < int(cell.get("patients", 0)) < below for cell in cells]
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        groups[tuple(cell.get(key) for key in ("split", "attribute", "level", "label"))].append(index)
    for members in groups.values():
        hidden = [index for index in members if masked[index]]
        open_cells = [index for index in members if not masked[index] and int(cells[index].get("patients", 0)) > 0]
        if len(hidden) == 1 and open_cells:
            masked[min(open_cells, key=lambda index: int(cells[index].get("patients", 0)))] = True
    return masked
