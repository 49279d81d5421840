"""What the documents and docstrings name is there: modules and their names, and files of the house."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "citlr"
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


def found(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"\bcitlr(?:\.[A-Za-z_]+)+", text)) - {"citlr.audit.json"}
    assert [name for name in sorted(names) if not found(name)] == []
    files = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)", text))
    assert [file for file in sorted(files) if not any((base / file).is_file() for base in (ROOT, SOURCE))] == []


def test_what_is_not_there_is_noticed() -> None:
    assert found("citlr.audit.stages.fit_stage")
    assert not found("citlr.experiments.demo")
    assert not found("citlr.audit.stages.no_such_stage")


def test_docstrings_name_only_modules_that_are_there() -> None:
    lost = set()
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"`(citlr(?:\.[A-Za-z_]+)+)`", path.read_text(encoding="utf-8")):
            if not found(name):
                lost.add(f"{path.relative_to(SOURCE)}: {name}")
    assert sorted(lost) == []
