"""A run folder that came from somebody else: its records name nothing outside of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citlr.run.stage import Stage
from citlr.run.stages import Stages


def make(content: str) -> Stage:
    def work(folder: Path) -> None:
        (folder / "out").write_text(content)

    return Stage("make", {"content": content}, work, ("out",))


@pytest.mark.parametrize("place", ["../mine", "out/../../mine", "{absolute}", "..", "."])
def test_a_place_outside_of_the_folder_is_left_alone(tmp_path: Path, place: str) -> None:
    mine, stages = tmp_path / "mine", Stages(tmp_path / "run")
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    stages.do(make("a"))
    file = tmp_path / "run" / "stages" / "make.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "places": ["out", place.format(absolute=mine)]}))
    assert stages.record("make") is None
    stages.do(make("b"))
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "run" / "out").read_text() == "b"


@pytest.mark.parametrize(
    "change", [{"places": [3]}, {"files": {"../mine": "0"}}, {"files": {"/etc/passwd": "0"}}, {"name": "../make"}]
)
def test_a_record_of_other_files_is_a_damaged_one(tmp_path: Path, change: dict[str, object]) -> None:
    stages = Stages(tmp_path / "run")
    stages.do(make("a"))
    file = tmp_path / "run" / "stages" / "make.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert stages.record("make") is None


def test_a_file_may_have_a_name_of_dots(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "out").mkdir()
        (folder / "out" / "a..b").write_text("a")

    Stages(tmp_path).do(Stage("make", {}, work, ("out",)))
    assert Stages(tmp_path).record("make") is not None
