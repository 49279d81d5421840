"""A stage whose output comes row by row: a line each in one file, under the stage's key, as they are finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citlr.errors import StateError

Row = dict[str, Any]


class Rows:
    """The finished rows of a study; a run that was cut off goes on where it was, and processes may share the file.

    - `path`: A JSON line per row, made when the first one comes.
    - `mark`: What every line begins with, the key of the stage for example.
    - `other`: The sentence that refuses a line of another mark, which it may name, as in "of seed {seed}".
    """

    def __init__(self, path: Path, mark: Mapping[str, Any], *, other: str) -> None:
        self.path, self.mark, self.other = path, dict(mark), other
        self.lines: list[Row] = []
        whole = self.read()
        if self.path.is_file() and whole < self.path.stat().st_size:
            os.truncate(self.path, whole)  # torn by a kill

    def read(self) -> int:
        """Take in the whole lines that are there, of other processes too; give their number of bytes."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.lines = [self._row(line) for line in whole.splitlines()]
        return len(whole)

    def _row(self, line: bytes) -> Row:
        try:
            row: Row = json.loads(line)
            found = {name: row.pop(name) for name in self.mark}
        except (ValueError, KeyError) as error:
            raise StateError(f"{self.path} cannot be read ({error}); move it away and start again.") from error
        if found != self.mark:
            raise StateError(f"{self.path} {self.other.format(**found)}")
        return row

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, at once and as it will be read: NumPy's numbers become Python's."""
        plain: Row = json.loads(json.dumps(dict(row), default=lambda value: value.item()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # In one piece, so that lines of processes that share the file stay apart.
        with self.path.open("ab", buffering=0) as file:
            file.write((json.dumps(self.mark | plain) + "\n").encode())
        self.lines.append(plain)
