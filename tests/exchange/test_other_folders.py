"""What is written for people outside never takes the place of another audit's own artefacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_fake import make_responses, make_result
from typer.testing import CliRunner

from citlr.audit.prediction import write_responses
from citlr.cli.app import app
from citlr.config import AuditConfig
from citlr.errors import CitlrError, InputError
from citlr.run.folder import Run
from citlr.run.stage import Stage

CONFIG = {
    "cohort": {"table": "t.csv", "attribute": "sex", "labels": ["edema"]},
    "model": {"kind": "closed", "labels": ["edema"]},
}


def run_at(root: Path) -> Run:
    """Make a run of which just the verdict is there."""
    run, result = Run.open(root, AuditConfig.model_validate(CONFIG)), make_result(("edema",))

    def test(folder: Path) -> None:
        result.to_json(folder / "audit.json")

    with run.locked():
        run.do(Stage("test.model", {"run": root.name}, test, ("audit.json",)))
    write_responses(root / "responses.parquet", make_responses(result, n_images=8))
    (root / "audit.html").write_text(f"the page of {root.name}")
    return run


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def said(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return str(done.exception) if isinstance(done.exception, CitlrError) else f"{done.exit_code}"


def table(folder: Path) -> Path:
    rows = [
        (f"i{image}", f"p{image}", level, draw, "edema", 0.1 + 0.8 * (image % 2) + 0.001 * draw)
        for image in range(60)
        for level in ("F", "M")
        for draw in range(2)
    ]
    names = ["image_id", "patient_id", "level", "draw", "label", "probability"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "predictions.csv", index=False)
    return folder / "predictions.csv"


def test_a_run_keeps_its_verdict_where_a_table_is_judged(tmp_path: Path) -> None:
    run, predictions = run_at(tmp_path / "run"), table(tmp_path)
    before = contents(run.root)
    words = ("assess", predictions, "--margin", ".05", "--out")
    assert "is the run folder of an audit, whose files would be replaced" in said(*words, run.root)
    assert contents(run.root) == before
    assert said(*words, tmp_path / "out") == "0"
    assert said(*words, tmp_path / "out") == "0", "judged again"


def test_a_run_keeps_its_page_where_another_is_handed_on(tmp_path: Path) -> None:
    one, other = run_at(tmp_path / "one"), run_at(tmp_path / "other")
    before = contents(other.root)
    words = ("report", one.root, "--format", "md", "--format", "json", "--out")
    assert "is the run folder of an audit" in said(*words, other.root)
    assert contents(other.root) == before
    for place in (one.root, one.root / "handed on", tmp_path / "out"):
        assert said(*words, place) == "0"


def test_a_run_keeps_its_cohort_where_another_is_prepared(tmp_path: Path) -> None:
    run = run_at(tmp_path / "run")
    before = contents(run.root)
    (tmp_path / "scans").mkdir()
    names = [f"{row}.png" for row in range(160)]
    for row, name in enumerate(names):
        Image.fromarray(np.random.default_rng(row).integers(0, 255, (32, 32), np.uint8)).save(tmp_path / "scans" / name)
    table = pd.DataFrame({"path": names, "patient_id": names, "sex": ["F", "M"] * 80, "edema": [0, 0, 1, 1] * 40})
    table.to_csv(tmp_path / "study.csv", index=False)
    words = ("prepare", "table", tmp_path / "study.csv", "--images", tmp_path / "scans", "--attribute", "sex")
    words = (*words, "--label", "edema", "--quiet", "--out")
    assert "is the run folder of an audit" in said(*words, run.root)
    assert contents(run.root) == before
    assert said(*words, tmp_path / "cohort") == "0"


@pytest.mark.parametrize("text", ["", "\n \n", "# What a release has to meet:\n", "---\n"])
def test_a_policy_that_was_cut_off_is_not_taken_for_the_defaults(tmp_path: Path, text: str) -> None:
    run = run_at(tmp_path / "run")
    (tmp_path / "policy.yaml").write_text(text)
    assert "policy.yaml' holds no rule" in said("check", run.root, "--policy", tmp_path / "policy.yaml")
    (tmp_path / "policy.yaml").write_text(text + "\nfail_on: []\nrequire_gates: false\n")
    assert said("check", run.root, "--policy", tmp_path / "policy.yaml") == "0"


def test_an_operating_point_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    words = ("assess", table(tmp_path), "--margin", ".05", "--out", tmp_path / "out", "--threshold")
    twice = said(*words, "edema=.3", "--threshold", "edema=.4")
    assert twice == "--threshold gives 'edema' twice, as '.3' and as '.4'; leave one out."
    assert said(*words, "edema=.3", "--threshold", "edema=.3") == "0"


def test_a_run_folder_is_named_in_the_refusal(tmp_path: Path) -> None:
    from citlr.exchange.deliver import deliver

    one, other = run_at(tmp_path / "one"), run_at(tmp_path / "other")
    with pytest.raises(CitlrError, match="other' is the run folder") as refused:
        deliver(one, ("md",), out=other.root)
    assert not isinstance(refused.value, InputError)
