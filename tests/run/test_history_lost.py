"""The list of what was changed after a first verdict, where somebody has taken it away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from citlr.audit.chain import Chain
from citlr.config import AuditConfig
from citlr.console import Narrator
from citlr.run.folder import Run
from citlr.run.stage import Stage


def audited(root: Path, margin: float, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run a chain of which nothing but the test is done; give the changes that it knows of."""
    content = {
        "cohort": {"table": "t.csv", "attribute": "sex", "labels": ["edema"]},
        "model": {"kind": "closed", "labels": ["edema"]},
        "test": {"margin": margin},
    }

    def test(chain: Chain) -> None:
        inputs = chain.config.model_dump(mode="json", include={"test"})
        chain.do(
            Stage(
                "test.model", inputs, lambda folder: {"file": (folder / "audit.json").write_text("{}")}, ("audit.json",)
            )
        )
        chain.run.history.seen()

    for name in ("cohort", "fit", "generate", "quality", "predict"):
        monkeypatch.setattr(Chain, name, lambda _: None)
    monkeypatch.setattr(Chain, "test", test)
    run = Run.open(root, AuditConfig.model_validate(content))
    with run.locked():
        Chain(run, Narrator(quiet=True)).upto("test")
    return run.history.changes()


def test_a_list_that_was_taken_away_hides_no_margin_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(tmp_path / "run", 0.02, monkeypatch) == []
    record = json.loads((tmp_path / "run" / "stages" / "test.model.json").read_text())
    (tmp_path / "run" / "history.json").unlink()
    gone, moved = audited(tmp_path / "run", 0.05, monkeypatch)
    assert gone["changes"] == ["'history.json' was gone: what was changed before is not known"]
    assert moved["changes"] == ["test.margin: 0.02 -> 0.05"]
    assert json.loads((tmp_path / "run" / "history.json").read_text())["first_verdict"] == record["finished"]
    assert audited(tmp_path / "run", 0.05, monkeypatch) == [gone, moved], "told once"


def test_what_force_undid_is_a_verdict_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audited(tmp_path / "run", 0.02, monkeypatch)
    (tmp_path / "run" / "history.json").unlink()
    Run.open(tmp_path / "run").forget("test.model")
    assert len(audited(tmp_path / "run", 0.05, monkeypatch)) == 2


def test_killed_as_the_first_verdict_was_written_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited(tmp_path / "run", 0.02, monkeypatch)
    (tmp_path / "run" / "history.json").unlink()
    Run.open(tmp_path / "run").unfinished.touch()
    assert audited(tmp_path / "run", 0.02, monkeypatch) == []
    assert [one["changes"] for one in audited(tmp_path / "run", 0.05, monkeypatch)] == [["test.margin: 0.02 -> 0.05"]]
