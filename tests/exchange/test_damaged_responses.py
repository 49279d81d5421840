"""A page of responses that are not those of the verdict: refused in a sentence, never drawn beside it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from report_fake import make_responses, make_result

from citlr.audit.prediction import read_responses, write_responses
from citlr.config import AuditConfig
from citlr.errors import InputError, StateError
from citlr.exchange.deliver import deliver
from citlr.report.publish import run_stage
from citlr.run.folder import Run
from citlr.run.stage import Stage

CONFIG = {
    "cohort": {"table": "t.csv", "attribute": "sex", "labels": ["edema"]},
    "model": {"kind": "closed", "labels": ["edema"]},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose answers and verdict are there."""
    run, result = Run.open(tmp_path / "run", AuditConfig.model_validate(CONFIG)), make_result(("edema",))

    def predict(folder: Path) -> None:
        write_responses(folder / "responses.parquet", make_responses(result, n_images=8))

    def test(folder: Path) -> None:
        result.to_json(folder / "audit.json")

    with run.locked():
        answered = run.do(Stage("predict.model", {}, predict, ("responses.parquet",)))
        run.do(Stage("test.model", {}, test, ("audit.json",), (answered.key,)))
    return Run.open(run.root)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:500])


def replace(file: Path) -> None:
    pd.read_parquet(file).assign(probability=0.5).to_parquet(file)


@pytest.mark.parametrize("harm", [cut, replace])
def test_no_page_is_made_of_other_responses(run: Run, tmp_path: Path, harm: object) -> None:
    deliver(run, ("html",), out=tmp_path / "before")
    assert callable(harm)
    harm(run.path("responses.parquet"))
    for again in (Run.open(run.root), Run.open(run.root)):
        with pytest.raises(StateError, match=r"responses\.parquet' was changed .* run `citlr test"):
            deliver(again, ("html",), out=tmp_path / "out")
        with pytest.raises(StateError, match=r"responses\.parquet' was changed"):
            run_stage(again, "report")
    # What rests on the verdict alone is not in question.
    deliver(Run.open(run.root), ("md", "csv", "json"), out=tmp_path / "out")


def test_responses_that_are_no_table_are_said(run: Run) -> None:
    cut(run.path("responses.parquet"))
    with pytest.raises(InputError, match=r"responses\.parquet' is damaged"):
        read_responses(run.path("responses.parquet"))


def test_a_run_without_a_record_of_its_answers_still_has_its_page(run: Run, tmp_path: Path) -> None:
    run.path("stages", "predict.model.json").unlink()
    deliver(Run.open(run.root), ("html",), out=tmp_path / "out")
