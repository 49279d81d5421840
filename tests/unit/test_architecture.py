"""ARCHITECTURE.md lists every module there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_of_modules_is_the_tree() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- `([\w/]+\.py)`: \S", text, flags=re.MULTILINE)
    source = ROOT / "src" / "citlr"
    there = [
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if path.name != "__init__.py" and "__pycache__" not in path.parts
    ]
    assert sorted(listed) == sorted(there)
    assert len(listed) == len(set(listed))
