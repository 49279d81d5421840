"""ARCHITECTURE.md lists every room there is, and none that is not; every file says what it is for."""

from __future__ import annotations

import ast
import re
from collections import Counter
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


# What the house measures today, in its longest file and its public functions; a number here only goes down. The goal is
# 300 lines a file, and more than 7 parameters for nothing but what users call.
LONGEST, FULLEST, PARAMETERS, OF_MORE = 363, 14, 7, 19


def test_the_house_does_not_grow_out_of_one_look() -> None:
    files = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    long = {name: count for name, text in files.items() if (count := len(text.splitlines())) > LONGEST}
    assert not long, "split what the file says in its first line in two"
    folders = Counter(name.rpartition("/")[0] for name in files)
    assert not {folder: count for folder, count in folders.items() if count > FULLEST}, "make a room of some of them"
    many = [
        f"{name}: {one.name}"
        for name, text in files.items()
        if not name.startswith("cli/")
        for one in ast.walk(ast.parse(text))
        if isinstance(one, ast.FunctionDef)
        and len({arg.arg for arg in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)} - {"self", "cls"})
        > PARAMETERS
    ]
    assert len(many) <= OF_MORE, f"a call of many settings takes a record: {', '.join(many)}"
