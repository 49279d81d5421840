"""The tutorials: each parses and names only what is public and there; the slow test runs them all."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docsite import names
from pages import ROOT

from citlr.cli.app import app

SOURCES = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_tutorial_parses_and_names_only_what_is_public(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert names.lost(ast.parse(text)) == []
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"^# !citlr (\w+)", text, re.MULTILINE)) <= verbs


def test_a_name_that_is_not_public_is_noticed() -> None:
    assert names.lost(ast.parse("import citlr\ncitlr.Twins")) == ["citlr.Twins"]
    assert names.lost(ast.parse("from citlr.config import GateConfig, NoConfig")) == ["citlr.config.NoConfig"]
    assert names.lost(ast.parse("from citlr.run.stages import Stages")) == ["citlr.run.stages.Stages"]


def test_all_four_are_there() -> None:
    assert [source.stem for source in SOURCES] == ["phantom", "radiographs", "vendor", "verdict"]


@pytest.mark.slow
def test_the_site_is_made_with_tutorials_that_run(tmp_path: Path) -> None:
    """With what `make docs` installs; every link of the site leads somewhere, and nothing is fetched from elsewhere."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra 'docs' is not installed here: make docs installs it and makes the same")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run(
        [sys.executable, "-m", "docsite"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every link leads somewhere" in done.stdout
    assert "inconclusive" in (ROOT / "site" / "docs" / "tutorials" / "verdict.html").read_text(encoding="utf-8")
