"""Every page: its commands are ones, its Python names what is there, links lead somewhere, marked blocks run."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from as_user import citlr
from docsite import names
from pages import ROOT, SITE, marked

from citlr.cli.app import app

NAMES = [page.relative_to(ROOT).as_posix() for page in SITE]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", SITE, ids=NAMES)
def test_every_command_of_a_page_is_one(page: Path) -> None:
    """Verb, options and kinds of values; what stands for something of the reader's (DIR, ...) is a value like any."""
    group = typer.main.get_command(app)
    for line in re.findall(r"^ {4,8}(citlr .*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        for part in line.split(" && "):
            words = shlex.split(part.replace("...", ""), comments=True)[1:]
            if words == ["--version"]:
                continue
            command = group
            while words and hasattr(command, "commands"):
                assert words[0] in command.commands, f"{page.name}: {part}"
                command = command.commands[words.pop(0)]
            command.make_context("citlr", list(words), resilient_parsing=False)


@pytest.mark.parametrize("page", SITE, ids=NAMES)
def test_the_python_of_a_page_names_what_is_there(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        assert names.lost(ast.parse(block)) == []


@pytest.mark.parametrize("page", SITE, ids=NAMES)
def test_the_yaml_of_a_page_is_yaml(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("page", SITE, ids=NAMES)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """Pages that are made (docs/reference, tutorials) are looked at by `make docs`, anchors too."""
    made = {f"docs/reference/{name}" for name in ("python.md", "settings.md", "commands.md", "audit-json.md")}
    made |= {path.relative_to(ROOT).with_suffix(".md").as_posix() for path in (ROOT / "docs/tutorials").glob("*.py")}
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target = (page.parent / link).resolve()
        name = target.relative_to(ROOT).as_posix()
        assert target.exists() or name in made, f"{page.name}: {link}"
        # the site holds docs, examples and the files at the root, and no code
        assert "/" not in name or name.startswith(("docs/", "examples/")), f"{page.name}: {link} is not in the site"


def test_a_page_stands_in_the_contents_and_the_contents_name_pages() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w/.-]+\.md)$", text, re.MULTILINE))
    written = {name for name in NAMES if name.startswith("docs/")}
    assert written - listed == set()
    lost = {
        name
        for name in listed
        if not (ROOT / name).is_file() and not name.startswith(("docs/reference/", "docs/tutorials/"))
    }
    assert lost == set()


MARKED = [(name, line) for name, page in zip(NAMES, SITE, strict=True) for line in marked(page)]


def test_quick_commands_are_marked() -> None:
    assert {name for name, _ in MARKED} >= {"docs/install.md", "docs/predictions.md", "docs/embeddings.md"}


@pytest.mark.parametrize(("name", "line"), MARKED, ids=[f"{name}-{place}" for place, (name, _) in enumerate(MARKED)])
def test_a_marked_command_runs_as_it_is_written(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = citlr(*shlex.split(line, comments=True)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


LONGEST = 30  # words
# Sentences that may be longer, by how they begin, each with its reason.
LONGER = {
    "CODE is a folder of the four IDX files": "a list of file names",
    "Digits are drawn at 4 fine pixels": "made with the numbers of its page, by `citlr reproduce morphomnist`",
    "Say at which ages": "it ends in the YAML that it introduces",
    "a probe that had no part": "three numbers of one probe, which are compared",
    "no pretrained weights are to be had": "how one network was trained, told once",
    "it adds two logits where": "how one planted classifier was made, told once",
    "Against the exact change in red": "five numbers of one table's row",
    "One test image under two levels": "a count of the passes, item by item",
}


def sentences(page: Path) -> list[str]:
    """The sentences of a page, without code, tables, headings and pictures; a colon or semicolon ends one, too."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"(?<=\n\n)(    [^\s-].*\n)( {4,}.*\n|\n(?= {4}))*", "", text)  # what is indented is code
    text = re.sub(r"^(\s*\|.*|#.*|!.*)$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "CODE", re.sub(r"\]\([^)]*\)", "]", text))
    parts = re.split(r"\n\s*\n|\n\s*- |\n\d+\. ", text)
    return [one for part in parts for one in re.split(r"(?<=[.!?:;])\s+", " ".join(part.split()))]


def too_long(page: Path) -> list[str]:
    return [one for one in sentences(page) if sum(bool(re.search(r"\w", word)) for word in one.split()) > LONGEST]


@pytest.mark.parametrize("page", SITE, ids=NAMES)
def test_no_sentence_is_longer_than_thirty_words(page: Path) -> None:
    assert [one for one in too_long(page) if not one.startswith(tuple(LONGER))] == []


def test_every_exception_is_needed() -> None:
    long = [one for page in SITE for one in too_long(page)]
    assert [start for start in LONGER if not any(one.startswith(start) for one in long)] == []
