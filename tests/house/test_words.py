"""One word a thing: the words that ARCHITECTURE.md keeps out of names are in none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "citlr"


def banned() -> set[str]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = text[text.index("## Words") :].splitlines()
    left = [row.split("|")[1] for row in rows if row.startswith("| ") and not row.startswith("| not")]
    return {word.strip().lower() for cell in left for word in cell.split(",") if " " not in word.strip()}


def names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_the_private_words_are_in_no_name() -> None:
    words = banned()
    assert {"twins", "voice", "workshop", "paint"} <= words
    found = []
    for path in SOURCE.rglob("*.py"):
        for name in names(ast.parse(path.read_text(encoding="utf-8"))):
            parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}
            found += [f"{path.relative_to(SOURCE)}: {name}" for word in parts & words]
    assert found == []
