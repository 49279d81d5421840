"""Finished audits: which images they were of, as long as the files can still say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from citlr.audit.finished import _contents, _redrawn
from citlr.audit.stages import cohort_stage
from citlr.config import AuditConfig
from citlr.console import Narrator
from citlr.run.folder import Run
from citlr.run.stage import Stage


def run_of(folder: Path, *, seed: int) -> Run:
    """Start a run on sixty images that are named alike whatever the seed, and read its cohort."""
    rng, scans = np.random.default_rng(seed), folder / "scans"
    scans.mkdir(parents=True)
    names = [f"{row}.png" for row in range(60)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(scans / name)
    table = {"path": names, "patient_id": names, "sex": ["F", "M"] * 30, "edema": [0, 0, 1, 1] * 15}
    pd.DataFrame(table).to_csv(folder / "study.csv", index=False)
    settings = {
        "cohort": {"table": folder / "study.csv", "images": scans, "attribute": "sex", "labels": ["edema"],
                   "columns": {"path": "path", "patient_id": "patient_id"}, "min_patients_per_level": 2},
        "model": {"source": "m.onnx"},
    }  # fmt: skip
    run = Run.open(folder / "run", AuditConfig.model_validate(settings))
    with run.locked():
        run.do(cohort_stage(run.config.cohort, Narrator(quiet=True)))
    return run


def test_images_of_the_same_names_in_another_folder_are_told_apart(tmp_path: Path) -> None:
    one, other, same = (run_of(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 0)))
    mine, theirs = _contents(one), _contents(other)
    assert mine is not None
    assert theirs is not None
    assert mine.keys() == theirs.keys()
    assert all(mine[name] != theirs[name] for name in mine)
    assert _contents(same) == mine


def test_files_that_were_replaced_since_say_nothing_of_the_audit(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", seed=0)
    found = _contents(run)
    assert found is not None
    name = next(iter(found))
    shutil.copy(tmp_path / "a" / "scans" / list(found)[1], tmp_path / "a" / "scans" / name)
    assert _contents(run) is None
    shutil.rmtree(tmp_path / "a" / "scans")
    assert _contents(run) is None


def test_what_redraws_is_the_generator_with_its_draws_and_seed(tmp_path: Path) -> None:
    def redrawn(name: str, *, weights: str = "w", losses: str = "1", **asked: object) -> str:
        run = Run(tmp_path / name, run_of(tmp_path / f"of {name}", seed=0).config)

        def fit(folder: Path) -> None:
            (folder / "generator" / "training").mkdir(parents=True)
            (folder / "generator" / "weights").write_text(weights)
            (folder / "generator" / "training" / "losses.csv").write_text(losses)

        run.do(Stage("fit", {}, fit, ("generator",)))
        run.do(Stage("generate", {"generate": {"draws": 4, "seed": 0, **asked}}, lambda _: None, ()))
        return _redrawn(run)

    first = redrawn("a")
    assert first == redrawn("b", losses="2", placebo_images=7)
    assert len({first, redrawn("c", weights="other"), redrawn("d", seed=1), redrawn("e", draws=2)}) == 4
