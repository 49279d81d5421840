"""`citlr calibrate`: its keys, its page, and that a run cut off goes on to the same result."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_parts import Posted
from scipy import stats

from citlr.errors import InputError, StateError
from citlr.invariance.observational.published import MEASURED_SIZE
from citlr.run.engines import Engine
from citlr.simulators.families import NULLS
from citlr.studies.calibration import run as calibration
from citlr.studies.calibration.counts import CONFIDENCE, Count, exact_bounds, summary, total
from citlr.studies.calibration.page import write_calibration_page
from citlr.studies.calibration.run import FULL, QUICK, Effort, plan, run_calibration

SMALL = replace(QUICK, default_test=60, intervals=60, parity=20, sizes=(100,))
MEASURES = ["default_size", "default_power", "parity_size", "interval_coverage"]
KEYS = {
    "size": {"test", "null", "n", "clusters", "reps", "rejections", "rate", "low", "high"},
    "power": {"test", "alternative", "effect", "n", "reps", "rate"},
    "coverage": {"interval", "effect", "n", "reps", "rate"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    run_calibration(out=folder, effort=SMALL, measures=MEASURES, seed=1)
    return folder


def test_the_tables_have_exactly_the_promised_keys(finished: Path) -> None:
    tables = json.loads((finished / "calibration.json").read_text())
    assert set(tables) == set(KEYS)
    for section, rows in tables.items():
        assert rows
        assert all(set(row) == KEYS[section] for row in rows)
    for row in tables["size"]:
        assert row["rate"] == row["rejections"] / row["reps"]
        assert row["low"] <= row["rate"] <= row["high"]


def test_every_null_is_there_with_its_patients(finished: Path) -> None:
    rows = json.loads((finished / "calibration.json").read_text())["size"]
    default = [row for row in rows if row["test"] == "default test"]
    assert {row["null"] for row in default} == set(NULLS)
    assert next(row for row in default if row["null"] == "4 images per patient")["clusters"] == 25
    assert all(stats.binom.sf(row["rejections"] - 1, row["reps"], 0.05) > 1e-5 for row in default)


def test_a_run_cut_off_goes_on_to_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (finished / "calibration.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "calibration.jsonl").write_text("".join(lines[:5]) + lines[5][:40])  # killed while writing
    ran: list[str] = []
    original = calibration.run_batch

    def counted(*, measure: str, **arguments: Any) -> dict[str, Any]:
        ran.append(measure)
        return original(measure=measure, **arguments)

    monkeypatch.setattr(calibration, "run_batch", counted)
    run_calibration(out=tmp_path, effort=SMALL, measures=MEASURES, seed=1)
    assert len(ran) == len(lines) - 5
    for name in ("calibration.json", "calibration_details.json", "calibration.md"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    ran.clear()
    run_calibration(out=tmp_path, effort=SMALL, measures=MEASURES, seed=1)
    assert ran == []


def test_what_was_run_in_the_folder_before_changes_no_number(tmp_path: Path) -> None:
    """With fewer sizes a task of the same arguments stands at another place, and has another seed."""
    effort = replace(SMALL, intervals=20, default_test=8, sizes=(100, 120))
    measures = ["interval_coverage", "equivalence_size"]
    run_calibration(out=tmp_path / "one", effort=replace(effort, sizes=(100,)), measures=measures, seed=4)
    run_calibration(out=tmp_path / "one", effort=effort, measures=measures, seed=4)
    run_calibration(out=tmp_path / "two", effort=effort, measures=measures, seed=4)
    one, two = ((tmp_path / name / "calibration.json").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("other", [replace(FULL, sizes=(100, 500)), replace(FULL, sizes=(500, 2000)), QUICK])
def test_a_task_of_one_name_has_one_seed_and_the_same_arguments(other: Effort) -> None:
    known = {task.name: task for task in plan(FULL, seed=0)}
    shared = [task for task in plan(other, seed=0) if task.name in known]
    assert all((task.seed, task.arguments) == (known[task.name].seed, known[task.name].arguments) for task in shared)


def test_a_longer_run_goes_on_from_a_shorter_one() -> None:
    names = [{task.name for task in plan(replace(FULL, intervals=count), seed=0)} for count in (100, 200)]
    assert names[0] < names[1]


def test_two_workers_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "Engine", lambda *given: (Posted if given[1] > 1 else Engine)(*given))
    effort = replace(SMALL, parity=6)
    for workers in (1, 2):
        run_calibration(out=tmp_path / str(workers), effort=effort, measures=["parity_size"], workers=workers)
    one, two = ((tmp_path / w / "calibration.json").read_bytes() for w in "12")
    assert one == two


def test_the_page_shows_every_row_and_the_figures_are_there(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_calibration_page(finished / "calibration.json", page, figures="plots/")
    text = page.read_text()
    tables = json.loads((finished / "calibration.json").read_text())
    assert text.count("\n| default test") >= len(NULLS)
    assert all(row["null"] in text for row in tables["size"])
    for name in ("sizes", "qq", "power"):
        assert f"plots/calibration_{name}.png" in text
        assert (finished / f"calibration_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_another_seed_in_the_same_folder_is_refused(finished: Path) -> None:
    with pytest.raises(StateError, match=r"holds tasks of seed 1 .*, not of 2"):
        run_calibration(out=finished, effort=SMALL, measures=MEASURES, seed=2)


def test_bad_settings_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers"):
        run_calibration(out=tmp_path, workers=0)
    with pytest.raises(InputError, match="no measure 'sizes'"):
        run_calibration(out=tmp_path, effort=SMALL, measures=["sizes"])


def test_the_full_plan_meets_the_demands() -> None:
    tasks = plan(FULL, seed=0)
    assert len({task.name for task in tasks}) == len(tasks)
    assert len({task.seed for task in tasks}) == len(tasks)
    for n in (100, 500, 2000):
        for null in NULLS:
            chosen = [t.arguments for t in tasks if t.arguments["arguments"] == {"null": null, "n": n}]
            assert sum(one["reps"] for one in chosen if one["measure"] == "default_size") >= 2000
    assert sum(family.exact for family in NULLS.values()) >= 8


def test_a_wrong_test_would_be_caught() -> None:
    """The bound has teeth: 8 % in 2000 repetitions is out, 6 % of 200 is not."""
    wrong = summary(total([Count("size", "t", "x", 0.0, 9, 9, 1000, 80), Count("size", "t", "x", 0.0, 9, 9, 1000, 80)]))
    assert wrong["size"][0]["low"] > 0.05
    assert exact_bounds(12, 200, CONFIDENCE)[0] < 0.05
    low, high = exact_bounds(0, 50, CONFIDENCE)
    assert (low, round(high, 4)) == (0.0, round(1 - 0.001 ** (1 / 50), 4))


def test_the_published_sizes_in_the_code_are_those_of_the_committed_run() -> None:
    run = json.loads((Path(__file__).parents[2] / "docs" / "calibration.json").read_text())
    hits, reps = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for row in run["size"]:
        split = re.search(r"(\d+) train \+ (\d+) test", row["null"])
        if row["test"] == "published CIT-LR" and split is not None:
            sizes = tuple(map(int, split.groups()))
            hits[sizes] += row["rejections"]
            reps[sizes] += row["reps"]
    in_code = [(row.n_train, row.n_test, row.rejections, row.reps) for row in MEASURED_SIZE]
    assert in_code == [(*sizes, hits[sizes], reps[sizes]) for sizes in sorted(reps)]


def test_the_committed_page_is_made_from_the_committed_run(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    write_calibration_page(docs / "calibration.json", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (docs / "calibration.md").read_text()


def test_the_committed_run_certifies_the_default_test() -> None:
    rows = json.loads((Path(__file__).parents[2] / "docs" / "calibration.json").read_text())["size"]
    default = [row for row in rows if row["test"].startswith("default test") and NULLS[row["null"]].exact]
    assert {row["n"] for row in default} == {100, 500, 2000}
    assert len({row["null"] for row in default}) >= 8
    assert all(row["reps"] >= 2000 and row["low"] <= 0.05 for row in default)
