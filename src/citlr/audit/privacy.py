"""What may leave the run: no folder of any machine, no list of files, no cell so small that it points at a person."""

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)

# Absolute, home, relative and drive paths, and file:// addresses; "AP/PA" and "A / B" are not paths.
_PATH = re.compile(r"(?:file://|~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^/\\\s'\"<>|]+[/\\])*([^/\\\s'\"<>|]*)")
_ANCHOR = re.compile(r"(?:^|(?<=[\s'\"(=]))(?:file://|~[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[/\\])(?=\S)")
_FILE = re.compile(r"(?:[\w.\-]+[/\\])+([\w.\-]+\.\w{1,12})\b")
# Folders have blanks and quotes in their names, so that a path is known to its end only where that is the text's, or a
# quote: of a text that begins with one (behind kinds, as in `quality.features`), and between quotes.
_BEGIN = r"(?:file://|~[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[/\\])(?=\S)"
_WHOLE = re.compile(rf"((?:\w[\w.-]+:(?!//))*){_BEGIN}(?:.*[/\\](?=\S))?(.*)", re.DOTALL)
_QUOTED = re.compile(rf"(?<![^\s(\[=:,])(['\"]){_BEGIN}(?:[^\n]*?[/\\])??([^\n/\\]*?)\1(?!\w)")


def without_paths(text: str) -> str:
    """Shorten every path in a text to its last name.

    >>> without_paths("read '/srv/ann/study/cohort.csv' and models/cnn.pt, views AP/PA")
    "read 'cohort.csv' and cnn.pt, views AP/PA"
    >>> without_paths("/srv/Ann Example/my study/cohort.csv")
    'cohort.csv'
    """
    whole = _WHOLE.fullmatch(text)
    if whole:
        return f"{whole.group(1)}{whole.group(2).rstrip('/') or '(folder)'}"
    text = _QUOTED.sub(lambda path: f"{path[1]}{path[2] or '(folder)'}{path[1]}", text)
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
# Raw values of the data, as the flow of exclusions lists them behind its reason.
_RAW = re.compile(r"\s*\([^()]*(?:\([^()]*\)[^()]*)*\)")


def without_raw_values(reason: str) -> str:
    """Cut the raw values of the data, and every path, from the reason of an exclusion.

    >>> without_raw_values("race: not stated ('Mr Smith, asked twice': 1, '(blank)': 3)")
    'race: not stated'
    """
    return without_paths(_RAW.sub("", reason))


def scrub(content: Any) -> Any:
    """Copy nested settings without file lists and identifiers, every path shortened to its last name."""
    if isinstance(content, Mapping):
        return {
            without_paths(str(key)): scrub(value) for key, value in content.items() if str(key).lower() not in _WITHHELD
        }
    if isinstance(content, list | tuple):
        return [scrub(item) for item in content]
    return without_paths(content) if isinstance(content, str) else content


def flatten(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as (dotted name, text), with paths shortened and long lists counted."""
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

    A cell with fewer than `below` patients is masked; where subtraction from another label's total would tell it, the
    smallest of its siblings are masked as well.
    """
    # A cell without a number was masked before, where the table was shared.
    masked = [_patients(cell) is None or 0 < (_patients(cell) or 0) < below for cell in cells]
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        groups[tuple(cell.get(key) for key in ("split", "attribute", "level", "label"))].append(index)
    for members in groups.values():
        sizes = {index: _patients(cells[index]) for index in members if _patients(cells[index]) != 0}
        for index in also_hidden(sizes, {index for index in sizes if masked[index]}, below=below):
            masked[index] = True
    return masked


def also_hidden(sizes: Mapping[Key, int | None], hidden: Collection[Key], *, below: int) -> set[Key]:
    """Say which parts of a whole, smallest first, have to be hidden beside some that subtraction would tell.

    One hidden part is found so; and so are several that together hold next to nobody.

    >>> also_hidden({"a": 1, "b": 1, "c": 98, "d": 200}, {"a", "b"}, below=5)
    {'c'}
    """
    open_parts = sorted((part for part in sizes if part not in hidden), key=lambda part: (sizes[part] or 0, str(part)))
    found: set[Key] = set()
    count, total = len(hidden), sum(below if sizes[part] is None else sizes[part] or 0 for part in hidden)
    while count and open_parts and (count == 1 or total < below):
        part = open_parts.pop(0)
        found.add(part)
        count, total = count + 1, total + (sizes[part] or 0)
    return found


def mask_raw(rows: Sequence[Mapping[str, Any]], *, below: int) -> list[dict[str, Any]]:
    """Take the numbers before exclusions off all recorded values, where they tell that few images were left out.

    Off all of them, as their sum is known.

    >>> mask_raw([{"raw": "M", "images_before": 9, "images_after": 8}], below=5)
    [{'raw': 'M', 'images_before': None, 'images_after': 8}]
    """
    lost = [row["images_before"] - row["images_after"] for row in rows if row["images_before"] is not None]
    few = len(lost) < len(rows) or any(0 < number < below for number in lost)
    return [{**row, "images_before": None} if few else dict(row) for row in rows]


def merge_small_steps(flow: Sequence[Mapping[str, Any]], *, below: int) -> list[dict[str, Any]]:
    """Put steps of the flow together until none says why fewer than `below` patients were left out.

    >>> step = {"step": "a", "reason": "r", "excluded_images": 4, "excluded_patients": 2}
    >>> merged = merge_small_steps([{**step, "excluded_patients": 0}, step, {**step, "step": "b"}], below=4)
    >>> [(one["step"], one["excluded_patients"], one["excluded_images"]) for one in merged]
    [('a', 0, 4), ('a and b', 4, 8)]
    """
    merged: list[dict[str, Any]] = []
    for step in flow:
        one = {key: value for key, value in step.items() if key not in _WITHHELD}
        one["reason"] = without_raw_values(str(step.get("reason", "")))
        if merged and _is_small(merged[-1], below):
            merged[-1] = _joined(merged[-1], one)
        else:
            merged.append(one)
    if len(merged) > 1 and _is_small(merged[-1], below):
        last = merged.pop()
        merged[-1] = _joined(merged[-1], last)
    hidden = {"excluded_images": None, "excluded_patients": None}
    return [{**one, **hidden} if _is_small(one, below) else one for one in merged]


def _is_small(step: Mapping[str, Any], below: int) -> bool:
    return 0 < int(step.get("excluded_patients") or 0) < below


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("excluded_images", "excluded_patients")
    return {
        **second,
        "step": f"{first.get('step', '')} and {second.get('step', '')}",
        "reason": "; ".join(dict.fromkeys(str(one["reason"]) for one in (first, second) if one["reason"])),
        **{name: int(first.get(name) or 0) + int(second.get(name) or 0) for name in counts},
    }


def _patients(cell: Mapping[str, Any]) -> int | None:
    found = cell.get("patients", 0)
    return None if found is None else int(found)


def mask_parts(parts: Mapping[tuple[tuple[str, str], ...], int], *, below: int) -> set[tuple[tuple[str, str], ...]]:
    """Say which parts, (variable, value) each, must not be shown, so that none is found by subtracting the others."""
    masked = {part for part, size in parts.items() if 0 < size < below}
    sums: dict[tuple[Any, ...], list[tuple[tuple[str, str], ...]]] = defaultdict(list)
    for part in parts:
        # Parts that agree in all variables but one add up to the part without that variable.
        for left_out in range(len(part)):
            rest = part[:left_out] + part[left_out + 1 :]
            sums[(rest, part[left_out][0])].append(part)
    changed = True
    while changed:
        changed = False
        for members in sums.values():
            more = also_hidden({part: parts[part] for part in members}, masked & set(members), below=below)
            changed |= bool(more)
            masked |= more
    return masked
