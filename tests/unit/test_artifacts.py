"""The run folder: whole files or none, one process at a time, stages done once."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from citlr.run.files import atomic_write, read_json, sha256, write_json
from citlr.run.folder import Run
from citlr.audit.pipeline import PARTIAL, Chain
from citlr.config import AuditConfig, ReportConfig, parse_config
from citlr.console import Narrator
from citlr.errors import InputError, StateError


def config(margin: float = 0.02) -> AuditConfig:
    return parse_config(
        {
            "cohort": {"table": "/a.csv", "images": "/", "attribute": "sex", "labels": ["x"]},
            "model": {"source": "m.onnx"},
            "test": {"margin": margin},
        },
        "test",
    )


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="disk is full"), atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_of_another_configuration_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run.open(folder, config())
    before = (folder / "config.json").read_bytes()
    with pytest.raises(StateError, match=r"test\.margin: 0\.02 -> 0\.05"):
        Run.open(folder, config(0.05))
    assert (folder / "config.json").read_bytes() == before
    assert Run.open(folder).config.test.margin == 0.02


def test_what_the_page_says_may_change_and_no_number_with_it(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", config())
    spoken = config().model_copy(update={"report": ReportConfig(intended_use="triage")})
    assert Run.open(tmp_path / "run", spoken).config.report.intended_use == "triage"
    assert Run.open(tmp_path / "run").config == spoken
    with pytest.raises(StateError, match=r"test\.margin"):
        Run.open(tmp_path / "run", config(0.05).model_copy(update={"report": spoken.report}))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StateError, match="not a run folder"):
        Run.open(tmp_path, config())
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path / "none")


def test_a_stage_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    calls: list[str] = []

    def work() -> dict[str, int]:
        calls.append("work")
        return {"n": len(calls)}

    assert run.stage("fit", "key", work).facts == {"n": 1}
    assert run.stage("fit", "key", work).facts == {"n": 1}
    assert run.stage("fit", "other key", work).facts == {"n": 2}
    assert [record.name for record in run.records()] == ["fit"]


def test_what_other_inputs_left_half_done_is_not_gone_on_with(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    folder, found = run.path("generator", "training"), []

    def work(*, fail: bool = False) -> None:
        found.append(folder.is_dir())
        folder.mkdir(parents=True, exist_ok=True)
        if fail:
            raise InputError("no")

    for key, fail in (("a", True), ("a", False), ("b", True), ("b", False)):
        if fail:
            with pytest.raises(InputError):
                run.stage("fit", key, lambda: work(fail=True), partial=folder)
        else:
            run.stage("fit", key, work, partial=folder)
    # Under the same inputs it is gone on with, also after a failure; under others it starts anew.
    assert found == [False, True, False, True]


def test_a_stage_that_is_forced_goes_on_from_nothing(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    for parts in PARTIAL.values():
        run.path(*parts).mkdir(parents=True)
    Chain(run, Narrator(quiet=True)).forget("generate")
    assert {stage: run.path(*parts).is_dir() for stage, parts in PARTIAL.items()} == {
        "fit": True,
        "generate": False,
        "quality": False,
    }


def test_a_stage_that_fails_is_not_done_and_attempts_are_counted(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())

    def fail() -> None:
        raise InputError("no")

    for _ in range(2):
        with pytest.raises(InputError):
            run.stage("fit", "key", fail)
    assert run.record("fit") is None
    assert run.stage("fit", "key", lambda: None).attempts == 3


def test_two_processes_do_not_work_in_one_run(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    program = "import sys; from citlr.run.folder import Run\nwith Run.open(sys.argv[1]).locked(): pass"
    with run.locked():
        other = subprocess.run([sys.executable, "-c", program, run.folder], capture_output=True, text=True, check=False)
    assert "Another process is working" in other.stderr
    free = subprocess.run([sys.executable, "-c", program, run.folder], capture_output=True, text=True, check=False)
    assert free.returncode == 0, free.stderr


def test_write_json_can_be_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"ü": [1, None]}


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    leftover = run.path("deep", ".a.123.partial.json")
    leftover.parent.mkdir()
    leftover.write_text("half of")
    with run.locked():
        assert not leftover.exists()
