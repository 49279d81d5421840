"""A run on two workers, as a user asks for it: the same files; and no cluster where one is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from as_user import citlr

from citlr.report.publish import run_stage
from citlr.run.engines import Engine
from citlr.run.folder import Run

SHARED = ("generate", "quality", "predict.cnn")


@pytest.fixture
def undrawn(never_killed: Path, tmp_path: Path) -> Path:
    """A run whose generator is trained, and of which nothing is redrawn yet."""
    run = tmp_path / "run"
    shutil.copytree(never_killed, run)
    for name in (*SHARED, "test.cnn", "report"):
        (run / "stages" / f"{name}.json").unlink()
    for name in ("counterfactuals", "quality"):
        shutil.rmtree(run / name)
    for name in ("responses.parquet", "audit.json"):
        (run / name).unlink()
    return run


def files(run: Path, stage: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((run / "stages" / f"{stage}.json").read_text())["files"]
    return found


def test_two_workers_write_the_same_files(never_killed: Path, undrawn: Path) -> None:
    run = Run.open(undrawn)
    run_stage(run, "predict", engine=Engine(workers=2))
    run_stage(run, "quality", engine=Engine(workers=2))
    assert files(undrawn, "fit") == files(never_killed, "fit"), "the generator was not trained again"
    for stage in SHARED:
        assert files(undrawn, stage) == files(never_killed, stage), stage


def test_no_cluster_where_one_is_named_is_a_sentence_and_loses_nothing(undrawn: Path) -> None:
    done = citlr("generate", undrawn, "--engine", "ray", "--scheduler", "127.0.0.1:1", "--quiet")
    assert done.returncode == 2
    assert done.stderr.startswith("citlr: No ray cluster answers at '127.0.0.1:1' (ConnectionRefusedError); start one")
    assert len(done.stderr.splitlines()) == 1
    assert not (undrawn / "stages" / "generate.json").exists()
    assert citlr("generate", undrawn, "--quiet").returncode == 0
