"""One word a thing: the words that ARCHITECTURE.md keeps out of names are in none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "citlr"


def table() -> list[tuple[set[str], str]]:
    """The words of every row's left side, and the room for which they are meant (empty: everywhere)."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1].strip() for row in text[text.index("## Words") :].splitlines() if row.startswith("| ")]
    found = []
    for cell in rows[1:]:
        words, _, room = cell.partition(" (")
        found.append(({word.strip() for word in words.split(",")}, room.rstrip(")")))
    return found


def names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def uses(name: str, words: set[str]) -> bool:
    """Whether a name is one of the words that are written large, or has one that is written small among its parts."""
    return name in words or bool(words & set(name.strip("_").split("_")))


def test_the_private_words_are_in_no_name() -> None:
    listed = table()
    assert {"twins"} in [words for words, _ in listed]
    assert any("paint" in words and room == "generators" for words, room in listed)
    assert uses("_walk_down", {"walk"})
    assert not uses("walker", {"walk"})
    found = []
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        words = set().union(*(own for own, room in listed if place.startswith(room)))
        found += [
            f"{place}: {name}" for name in names(ast.parse(path.read_text(encoding="utf-8"))) if uses(name, words)
        ]
    assert found == []
