from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from as_user import citlr

from citlr.simulators.phantom.world import PhantomWorld


def test_a_study_that_cannot_be_is_one_sentence_and_writes_nothing(tmp_path: Path) -> None:
    done = citlr("reproduce", "imaging", "--checkpoints", "3", "--rounds", "2", "--out", tmp_path / "study")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "citlr: rounds is 2, fewer than the 3 checkpoints to keep: raise rounds or lower keep."
    ]
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_how_a_classifier_is_trained_is_the_users_choice(tmp_path: Path) -> None:
    sample = PhantomWorld(size=64).sample(200, seed=0, images_per_patient=1)
    sample.write(tmp_path / "world").to_parquet(tmp_path / "cohort.parquet")
    training = ("train-classifier", tmp_path / "cohort.parquet", "--arch", "resnet34", "--label", "effusion")
    brief = ("--rounds", "2", "--round-steps", "1", "--batch-size", "4", "--weights", "none", "--quiet")
    wrong = citlr(*training, *brief, "--schedule", "one-cycl", "--out", tmp_path / "wrong")
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == (
        "citlr: schedule is 'one-cycl'; it can be constant or one-cycle. Did you mean 'one-cycle'?"
    )
    chosen = ("--schedule", "one-cycle", "--no-augment", "--tolerance", "1")
    done = citlr(*training, *brief, *chosen, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "run" / "training.json").read_text())["settings"]
    assert {name: settings[name] for name in ("schedule", "augmented", "tolerance")} == {
        "schedule": "one-cycle", "augmented": False, "tolerance": 1.0,
    }  # fmt: skip


def test_trust_on_the_command_line_reaches_every_model(configure: Callable[..., Path], tmp_path: Path) -> None:
    done = citlr("audit", configure(), "--out", tmp_path / "run", "--until", "cohort", "--trust", "--quiet")
    assert done.returncode == 0, done.stderr
    models = json.loads((tmp_path / "run" / "config.json").read_text())["models"]
    assert [model["trust"] for model in models.values()] == [True]
