"""Words of the command line that failed new users, as they are now."""

from __future__ import annotations

import re

import typer

from citlr.cli.app import app
from citlr.predictors.weights import WEIGHTS_ONLY
from citlr.report.publish import STAGES


def options(verb: str) -> dict[str, str]:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    return {one.opts[0]: one.help or "" for one in command.params if one.opts[0].startswith("--")}


def test_until_lists_the_stages() -> None:
    listed = re.findall(r"\w+", options("audit")["--until"].removeprefix("Stop after "))
    assert tuple(name for name in listed if name != "or") == STAGES


def test_hold_is_explained_with_the_same_words_everywhere() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = [options(verb)["--hold"] for verb in verbs if "--hold" in options(verb)]
    assert all("kept as observed" in one for one in found)


def test_weights_alone_are_told_their_two_lines() -> None:
    said = WEIGHTS_ONLY.format(path="a/b.pt", name="b.pt")
    assert "`source: file.py:factory`" in said
    assert "`weights: b.pt`" in said
