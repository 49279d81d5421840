"""ARCHITECTURE.md lists every room there is, and none that is not; every file says what it is for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "citlr"


def test_the_list_of_rooms_is_the_tree() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- `([\w/]+)`: \S", text, flags=re.MULTILINE)
    rooms = {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")} - {"."}
    assert sorted(listed) == sorted(rooms)


def test_every_file_begins_with_what_it_is_for() -> None:
    for path in SOURCE.rglob("*.py"):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert said is not None, path
        assert len(said.splitlines()[0]) > 20, path
