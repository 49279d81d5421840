from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from as_user import citlr


def test_a_study_that_cannot_be_is_one_sentence_and_writes_nothing(tmp_path: Path) -> None:
    done = citlr("reproduce", "imaging", "--checkpoints", "3", "--rounds", "2", "--out", tmp_path / "study")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "citlr: rounds is 2, fewer than the 3 checkpoints to keep: raise rounds or lower keep."
    ]
    assert not (tmp_path / "study").exists()


def test_trust_on_the_command_line_reaches_every_model(configure: Callable[..., Path], tmp_path: Path) -> None:
    done = citlr("audit", configure(), "--out", tmp_path / "run", "--until", "cohort", "--trust", "--quiet")
    assert done.returncode == 0, done.stderr
    models = json.loads((tmp_path / "run" / "config.json").read_text())["models"]
    assert [model["trust"] for model in models.values()] == [True]
