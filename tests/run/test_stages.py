"""A folder of stages: done once for a key, whole or not there, never of other inputs, never damaged in silence."""

from __future__ import annotations

import errno
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from citlr.errors import InputError, StateError
from citlr.run import history, lock
from citlr.run import stage as stage_module
from citlr.run import stages as stages_module
from citlr.run.stage import SCRATCH, Stage
from citlr.run.stages import Stages


def writes(text: str, *, place: str = "out", log: list[str] | None = None) -> Callable[[Path], Mapping[str, Any]]:
    def work(folder: Path) -> dict[str, Any]:
        (folder / place).mkdir(parents=True)
        (folder / place / "a.txt").write_text(text)
        if log is not None:
            log.append(text)
        return {"said": text}

    return work


def made(inputs: Mapping[str, Any], text: str = "x", log: list[str] | None = None, **more: Any) -> Stage:
    return Stage("make", dict(inputs), writes(text, log=log), ("out",), **more)


def test_a_stage_is_done_once_for_the_same_inputs_and_again_for_others(tmp_path: Path) -> None:
    folder, log = Stages(tmp_path), []
    for inputs, text in (({"a": 1}, "one"), ({"a": 1}, "two"), ({"a": 2}, "three")):
        folder.do(made(inputs, text, log))
    assert log == ["one", "three"]
    assert folder.path("out", "a.txt").read_text() == "three"
    assert [record.name for record in folder.records()] == ["make"]
    assert not any(folder.path(".work").iterdir())


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives memory back in its own way")
def test_what_a_stage_has_freed_is_given_back_to_the_system(tmp_path: Path) -> None:
    kept, most = [], 0

    def work(folder: Path) -> None:
        nonlocal most
        # Smaller than what is mapped by itself, and the last one holds the top of the heap.
        pieces = [bytes([1]) * 60_000 for _ in range(4000)]
        kept.append(pieces.pop())
        most = resident()
        del pieces
        (folder / "out").mkdir(parents=True)
        (folder / "out" / "a.txt").write_text("x")

    Stages(tmp_path).do(Stage("make", {}, work, ("out",)))
    assert resident() < most - 150e6


def test_what_a_stage_follows_and_the_version_of_the_code_are_in_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = Stages(tmp_path), []
    folder.do(made({}, "one", log, after=("k",)))
    folder.do(made({}, "two", log, after=("l",)))
    for module in (stage_module, stages_module, history):
        monkeypatch.setattr(module, "code_version", lambda: "99")
    folder.do(made({}, "three", log, after=("l",)))
    assert log == ["one", "two", "three"]


def test_what_another_key_left_unfinished_is_not_gone_on_with(tmp_path: Path) -> None:
    folder, found = Stages(tmp_path), []

    def attempt(inputs: dict[str, int], *, fail: bool) -> None:
        def work(place: Path) -> None:
            kept = place / SCRATCH / "half"
            found.append(kept.is_dir())
            kept.mkdir(parents=True, exist_ok=True)
            if fail:
                raise InputError("no")

        folder.do(Stage("fit", inputs, work, ("generator",)))

    for number, fail in ((1, True), (2, True), (1, False), (2, False)):
        if fail:
            with pytest.raises(InputError):
                attempt({"n": number}, fail=True)
        else:
            attempt({"n": number}, fail=False)
    # Each key goes on in its own folder; once one is finished, the other's leftovers go.
    assert found == [False, False, True, False]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(StateError, match="out' is a file and not a folder: give another --out"),
        Stages(tmp_path / "out").locked(),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (errno.EACCES, "cannot be written to .Permission denied.: correct its permissions, or give another --out"),
        (errno.EROFS, "cannot be written to .Read-only file system.: correct its permissions, or give another --out"),
        (errno.ENOSPC, "^.Errno 28. No space left on device$"),
    ],
)
def test_a_folder_that_may_not_be_written_to_is_named_with_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: str
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.FileLock, "acquire", refused)
    with pytest.raises((StateError, OSError), match=found), Stages(tmp_path).locked():
        pass


def test_attempts_are_counted_and_a_failed_stage_is_not_done(tmp_path: Path) -> None:
    folder = Stages(tmp_path)

    def fail(place: Path) -> None:
        raise InputError("no")

    for _ in range(2):
        with pytest.raises(InputError):
            folder.do(Stage("make", {}, fail, ("out",)))
    assert folder.record("make") is None
    assert folder.do(made({})).attempts == 3


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "record"])
def test_a_damaged_or_missing_file_is_made_again(tmp_path: Path, harm: str) -> None:
    Stages(tmp_path).do(made({}, "whole"))
    file = tmp_path / "out" / "a.txt"
    if harm == "flip":
        file.write_text("wHole")
    elif harm == "truncate":
        file.write_text("who")
    elif harm == "delete":
        file.unlink()
    else:
        record = tmp_path / "stages" / "make.json"
        record.write_text(record.read_text()[:40])
    log: list[str] = []
    Stages(tmp_path).do(made({}, "whole", log))
    assert log == ["whole"]
    assert file.read_text() == "whole"


def test_a_damaged_file_is_named_where_it_cannot_be_made_again(tmp_path: Path) -> None:
    Stages(tmp_path).do(made({}, "whole"))
    (tmp_path / "out" / "a.txt").write_text("w")
    with pytest.raises(StateError, match=r"a\.txt' was changed or damaged.*: run it again\."):
        Stages(tmp_path).require("make", "run it again")
    (tmp_path / "stages" / "make.json").write_text('{"name": "ma')
    with pytest.raises(StateError, match=r"make\.json' is damaged: run it again\."):
        Stages(tmp_path).require("make", "run it again")
    with pytest.raises(StateError, match="no finished stage 'other'"):
        Stages(tmp_path).require("other", "run it again")


def test_killed_while_it_is_published_it_goes_on_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stages(tmp_path).do(Stage("make", {"n": 0}, _two("old"), ("one", "two")))
    moves = Path.replace

    def cut_off(source: Path, target: Path) -> Path:
        if source.name == "two":
            raise KeyboardInterrupt
        return moves(source, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).do(Stage("make", {"n": 1}, _two("new"), ("one", "two")))
    monkeypatch.undo()
    assert Stages(tmp_path).record("make") is None  # half of it is new: nobody may take it for whole

    def never(folder: Path) -> None:
        raise AssertionError("the work was whole")

    Stages(tmp_path).do(Stage("make", {"n": 1}, never, ("one", "two")))
    assert {name: (tmp_path / name).read_text() for name in ("one", "two")} == {"one": "new", "two": "new"}


def _two(text: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / "one").write_text(text)
        (folder / "two").write_text(text)

    return work


def test_a_place_that_is_left_empty_does_not_keep_what_was_there(tmp_path: Path) -> None:
    Stages(tmp_path).do(Stage("draw", {"coin": 8}, _two("x"), ("one", "two")))
    Stages(tmp_path).do(Stage("draw", {"coin": 0}, lambda folder: _write(folder / "one", "y"), ("one", "two")))
    assert (tmp_path / "one").read_text() == "y"
    assert not (tmp_path / "two").exists()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_inputs_that_only_the_output_names_are_looked_at_again(tmp_path: Path) -> None:
    outside, log = tmp_path / "image.png", []
    outside.write_text("before")
    folder = tmp_path / "run"
    for _ in range(2):
        Stages(folder).do(made({}, "rows", log, discovered=lambda root: outside.read_text()))
    outside.write_text("after")
    first = Stages(folder).record("make")
    second = Stages(folder).do(made({}, "rows", log, discovered=lambda root: outside.read_text()))
    assert log == ["rows", "rows"]
    assert first is not None
    assert first.key != second.key  # so that what follows is done again


def test_output_moves_with_its_name(tmp_path: Path) -> None:
    log: list[str] = []
    Stages(tmp_path).do(Stage("predict.m", {}, writes("x", place="a", log=log), ("a",)))
    moved = Stages(tmp_path).do(Stage("predict.m", {}, writes("x", place="models/m/a", log=log), ("models/m/a",)))
    assert log == ["x"]
    assert (tmp_path / "models" / "m" / "a" / "a.txt").read_text() == "x"
    assert list(moved.files) == ["models/m/a/a.txt"]
    assert not (tmp_path / "a").exists()


def test_output_that_was_moved_by_a_process_that_was_killed_then_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of a closed model, which nobody can make again, move as a run gets a second model."""

    def stopped(file: Path, content: object) -> None:
        raise KeyboardInterrupt

    log: list[str] = []
    Stages(tmp_path).do(Stage("make", {}, writes("x", log=log), ("out",)))
    again = Stage("make", {}, writes("x", place="models/m/out", log=log), ("models/m/out",))
    with monkeypatch.context() as killed:
        killed.setattr(stages_module, "write_json", stopped)
        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path).do(again)
    record = Stages(tmp_path).do(again)
    assert (log, record.places, list(record.files)) == (["x"], ("models/m/out",), ["models/m/out/a.txt"])
    Stages(tmp_path).path("models", "m", "out", "a.txt").write_text("another")
    Stages(tmp_path).do(again)
    assert log == ["x", "x"], "what is there is held against the record"


def test_changes_after_a_first_verdict_are_kept_and_before_it_are_not(tmp_path: Path) -> None:
    folder = Stages(tmp_path)
    folder.do(made({"margin": 0.1}))
    folder.do(made({"margin": 0.02}))
    assert folder.history.changes() == []
    folder.history.seen()
    folder.do(made({"margin": 0.05, "model": "0" * 64}))
    folder.do(made({"margin": 0.05, "model": "1" * 64}))
    told = folder.history.changes()
    assert [one["changes"] for one in told] == [
        ["margin: 0.02 -> 0.05", "model: other content"],
        ["model: other content"],
    ]
    assert all(one["stage"] == "make" for one in told)


def test_what_was_forgotten_is_still_compared_with(tmp_path: Path) -> None:
    folder, log = Stages(tmp_path), []
    folder.do(made({"margin": 0.02}, log=log))
    folder.history.seen()
    folder.forget("make")
    folder.forget("make")
    assert folder.record("make") is None
    assert folder.records() == []
    folder.do(made({"margin": 0.3}, log=log))
    folder.forget("make")
    folder.do(made({"margin": 0.3}, log=log))
    assert log == ["x", "x", "x"]
    assert [one["changes"] for one in folder.history.changes()] == [["margin: 0.02 -> 0.3"]]
    assert [file.name for file in tmp_path.glob("stages/*")] == ["make.json"]


def test_a_tuple_is_no_change_of_the_list_that_was_written_of_it(tmp_path: Path) -> None:
    folder = Stages(tmp_path)
    folder.do(made({"hold": ("view",), "sizes": {"read": (32,)}, "steps": 8}))
    folder.history.seen()
    folder.do(made({"hold": ("view",), "sizes": {"read": (32,)}, "steps": 9}))
    assert [one["changes"] for one in folder.history.changes()] == [["steps: 8 -> 9"]]


def test_a_damaged_history_is_not_forgotten(tmp_path: Path) -> None:
    folder = Stages(tmp_path)
    folder.history.seen()
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(StateError, match="what was changed after the first verdict, is damaged"):
        folder.do(made({})) and folder.do(made({"n": 2}))


def test_a_record_says_what_it_was_made_of(tmp_path: Path) -> None:
    Stages(tmp_path).do(made({"a": [1, 2]}, "x"))
    content = json.loads((tmp_path / "stages" / "make.json").read_text())
    assert content["inputs"] == {"a": [1, 2]}
    assert list(content["files"]) == ["out/a.txt"]
    assert content["facts"] == {"said": "x"}
