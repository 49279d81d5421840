"""The run folder: whole files or none, one process at a time, stages done once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citlr.audit import chain
from citlr.audit.chain import Chain
from citlr.config import AuditConfig, parse_config
from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.files import atomic_write, read_json, sha256, write_json
from citlr.run.folder import Run
from citlr.run.lock import HOLDER, locked
from citlr.run.stage import Stage


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


def test_another_configuration_is_taken_and_written_when_the_run_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run.open(folder, config()).locked():
        pass
    with Run.open(folder, config(0.05)).locked():
        pass
    assert Run.open(folder).config.test.margin == 0.05


def test_a_damaged_configuration_is_named_or_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run.open(folder, config()).locked():
        pass
    (folder / "config.json").write_text('{"cohort": {"tab')
    with Run.open(folder, config()).locked():
        pass
    assert Run.open(folder).config == config()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StateError, match="not a run folder"):
        Run.open(tmp_path, config())
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path / "none")


def test_two_processes_do_not_work_in_one_run(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    with run.locked():
        pass
    program = "import sys; from citlr.run.folder import Run\nwith Run.open(sys.argv[1]).locked(): pass"
    with run.locked():
        other = subprocess.run([sys.executable, "-c", program, run.root], capture_output=True, text=True, check=False)
    assert "Another process is working" in other.stderr
    free = subprocess.run([sys.executable, "-c", program, run.root], capture_output=True, text=True, check=False)
    assert free.returncode == 0, free.stderr


def test_a_machine_that_shares_the_disk_is_refused_until_somebody_says_that_the_first_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(tmp_path / "run", config())
    program = (
        "import os, sys, platform; platform.node = lambda: 'node-7'; from citlr.run.folder import Run\n"
        "with Run.open(sys.argv[1]).locked(): os._exit(0)"
    )
    with run.locked():
        pass
    assert not run.path(HOLDER).exists()
    subprocess.run([sys.executable, "-c", program, run.root], check=True)  # the machine fails: no lock, but its note
    with (
        pytest.raises(StateError, match=r"The machine 'node-7' is working in .* remove '.*\.holder\.json'"),
        run.locked(),
    ):
        pass
    monkeypatch.setattr("platform.node", lambda: "node-7")
    with run.locked():  # the same machine knows that nobody holds the lock
        assert read_json(run.path(HOLDER))["process"] == os.getpid()
    assert not run.path(HOLDER).exists()


def test_two_machines_whose_disk_locks_for_one_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(tmp_path / "run", config())
    with run.locked():
        monkeypatch.setattr("platform.node", lambda: "node-7")
        run.path(".lock").unlink()  # to this one the lock is free
        with pytest.raises(StateError, match="is working in"), run.locked():
            pass
        assert run.path(HOLDER).exists(), "the note of the first stays"


def test_a_note_that_another_machine_is_just_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Run.open(tmp_path / "run", config()).path(HOLDER)
    note.parent.mkdir()
    note.touch()

    def written(seconds: float) -> None:
        note.write_text('{"machine": "node-7", "process": 1, "since": "now"}')

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", written)
        with pytest.raises(StateError, match="The machine 'node-7' is working in"), locked(note.parent):
            pass
    assert "node-7" in note.read_text()
    note.write_text("torn")
    with locked(note.parent):
        assert read_json(note)["process"] == os.getpid()


def test_write_json_can_be_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"ü": [1, None]}


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", config())
    leftover = run.path("deep", ".a.123.partial.json")
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half of")
    with run.locked():
        assert not leftover.exists()


def test_a_margin_that_moves_with_the_name_of_the_model_is_told(tmp_path: Path) -> None:
    def audited(margin: float, *names: str, force: bool = False) -> list[list[str]]:
        model = {"source": "m.onnx"}
        content = {**config(margin).model_dump(mode="json"), "models": dict.fromkeys(names, model)}
        run = Run(tmp_path, parse_config(content, "test"))
        for name in names:
            if force:
                run.forget(f"test.{name}")
            run.do(Stage(f"test.{name}", {"test": {"margin": margin}}, lambda folder: None, ()))
        run.history.seen()
        return [one["changes"] for one in run.history.changes()]

    assert audited(0.02, "one.v1") == []
    assert audited(0.02, "one.v1", "beside") == []
    renamed = [["model: beside -> two", "test.margin: 0.02 -> 0.3"]]
    assert audited(0.3, "two") == renamed
    assert audited(0.3, "two", force=True) == renamed
    assert audited(0.3, "two", "three") == renamed


def answered(model: str, place: str, **inputs: str) -> Stage:
    def work(folder: Path) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(f"of {model}")

    return Stage(f"predict.{model}", inputs, work, (place,))


def test_what_a_model_answered_is_not_replaced_by_another_model_of_the_same_folder(tmp_path: Path) -> None:
    place = "responses.parquet"
    run, vendor, mine = Run(tmp_path, config()), answered("vendor", place, answers="a"), answered("mine", place)
    run.do(vendor)
    run.do(mine)
    assert (tmp_path / place).read_text() == "of mine"
    assert (tmp_path / "models" / "vendor" / place).read_text() == "of vendor"
    # Neither is asked again: the one that comes back takes its place from the other.
    assert Run(tmp_path, config()).done(vendor) is not None
    assert (tmp_path / place).read_text() == "of vendor"
    assert Run(tmp_path, config()).done(mine) is not None
    assert [(tmp_path / one).read_text() for one in (place, f"models/vendor/{place}")] == ["of mine", "of vendor"]


def test_answers_that_were_sent_in_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, config())
    run.do(answered("vendor", "responses.parquet", answers="a"))
    Chain(run, Narrator(quiet=True)).forget("predict")  # of a configuration that has no closed model any more
    with pytest.raises(StateError, match="answers of 'vendor' that its owner sent in and nobody can make again"):
        run.do(answered("vendor", "responses.parquet"))
    assert (tmp_path / "responses.parquet").is_file()
    run.do(answered("vendor", "responses.parquet", answers="b"))


def finished(root: Path, seed: int) -> Run:
    """Do the stages of an audit as `Chain` has them depend on each other; one file of each says the seed."""
    run, keys = Run(root, config()), dict[str, str]()

    def do(name: str, *after: str) -> None:
        def work(folder: Path) -> None:
            (folder / name).write_text(str(seed))

        inputs = {"seed": seed, "reads": (64, 64), "share": 0.1}  # JSON gives a tuple back as a list
        keys[name] = run.do(Stage(name, inputs, work, (name,), tuple(keys[one] for one in after))).key

    do("cohort")
    do("fit")
    do("generate", "fit")
    do("quality", "generate")
    do("predict.m", "generate")
    do("test.m", "cohort", "quality", "predict.m")
    return run


@pytest.mark.parametrize("swapped", ["cohort", "fit", "generate", "quality", "predict.m", "test.m"])
def test_a_stage_of_another_run_is_not_taken_for_the_runs_own(tmp_path: Path, swapped: str) -> None:
    run, other = finished(tmp_path / "run", 0), finished(tmp_path / "other", 1)
    assert run.require("test.m", "see").inputs["seed"] == 0
    for name in (swapped, f"stages/{swapped}.json"):
        other.path(name).replace(run.path(name))
    with pytest.raises(StateError, match="is of another run than those beside it"):
        Run(run.root, config()).require("test.m", "see")


@pytest.mark.parametrize("gone", ["cohort", "fit", "generate", "quality", "predict.m"])
def test_a_record_that_is_gone_makes_no_other_run_of_it(tmp_path: Path, gone: str) -> None:
    """A run folder of which only the verdict was handed on was "of another run", for `citlr check` too."""
    run = finished(tmp_path, 0)
    run.path("stages", f"{gone}.json").write_text("{")
    assert Run(tmp_path, config()).require("test.m", "see").name == "test.m"
    for name in ("cohort", "fit", "generate", "quality", "predict.m"):
        run.path("stages", f"{name}.json").unlink()
    assert Run(tmp_path, config()).require("test.m", "see").name == "test.m"


@pytest.mark.parametrize("alike", [True, False])
def test_models_that_a_disk_takes_for_one_are_refused(tmp_path: Path, alike: bool) -> None:
    """As a disk does that knows no upper case: the second model's audit would be shown as the first one's."""
    several = config().model_copy(update={"models": dict.fromkeys(("Net", "nets", "net"), config().models["model"])})
    run = Run.open(tmp_path / "run", several)
    run.unfinished.parent.mkdir(parents=True)
    run.unfinished.touch()
    if not alike:
        run.require_folders()
        return
    run.unfinished.with_name("UNFINISHED").touch()
    with pytest.raises(InputError, match="The models 'Net' and 'net' would share files"):
        run.require_folders()
    with pytest.raises(InputError, match="would share files"):
        Chain(run, Narrator(quiet=True)).upto("cohort")


def test_whether_a_model_is_trusted_is_no_other_question_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(chain, "predict_stage", lambda model, drawn, one, **_: asked.append(dict(one.settings)))
    monkeypatch.setattr(Chain, "do", lambda *_: None)
    monkeypatch.setattr(Chain, "predictor", lambda *_: object())
    for changes in ({}, {"trust": True}, {"labels": ("x",)}):
        model = config().models["model"].model_copy(update=changes)
        one = Chain(Run(tmp_path, config().model_copy(update={"models": {"model": model}})), Narrator(quiet=True))
        one.keys["generate"] = "g"
        one.predict()
    assert asked[0] == asked[1] != asked[2]
