"""A stage whose output comes row by row: a line each in one file, under the stage's key, as they are finished."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citlr.errors import StateError
from citlr.run.files import disk_full, disk_is_full

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
        self.read()

    def read(self) -> None:
        """Take in the whole lines that are there, of other processes too; nothing of the file is changed."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        # Another process may be writing what comes after the last end of a line, or was killed there.
        whole = content[: content.rfind(b"\n") + 1].splitlines()
        self.lines = [row for line in whole if (row := self._row(line)) is not None]

    def _row(self, line: bytes) -> Row | None:
        """Read a line; None of one that was torn, which the line after it closed."""
        try:
            row: Row = json.loads(line)
            found = {name: row.pop(name) for name in self.mark}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ValueError) and json.dumps(self.mark)[:-1].encode() in line:
                return None
            raise StateError(f"{self.path} cannot be read ({error}); move it away and start again.") from error
        if found != self.mark:
            raise StateError(f"{self.path} {self.other.format(**found)}")
        return row

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, at once and as it will be read: NumPy's numbers become Python's."""
        plain: Row = json.loads(json.dumps(dict(row), default=lambda value: value.item()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(self.mark | plain) + "\n").encode()
        # Behind what a kill or a full disk has torn it is no line, but closes that one: so once more. Cutting the torn
        # one off would ask for a lock, which disks that machines share need not have.
        while not self._append(line):
            pass
        self.lines.append(plain)

    def _append(self, line: bytes) -> bool:
        """Write at the end of the file; say whether a line ended there."""
        try:
            # In one piece, so that lines of processes that share the file stay apart.
            with self.path.open("ab+", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                start = file.tell() - len(line)
                file.seek(max(start - 1, 0))
                return start == 0 or file.read(1) == b"\n"
        except OSError as error:
            if not disk_is_full(error, self.path.parent):
                raise
            raise disk_full(self.path) from error
