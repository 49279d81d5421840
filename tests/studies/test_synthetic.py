"""The synthetic study: models whose truth is known, six tests on each, tables and a page that say what was found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from as_user import citlr

from citlr.errors import InputError
from citlr.run.engines import Engine
from citlr.simulators.tabular import TabularWorld, tabular_truth
from citlr.studies.kit.sweep import Sweep
from citlr.studies.synthetic import run
from citlr.studies.synthetic.page import alignment_figure, write_synthetic
from citlr.studies.synthetic.run import FAMILIES, TESTS, assess_model, decisions, fit_family, fit_graded, run_synthetic
from citlr.studies.synthetic.summary import correlations, errors

SMALL = {"n_train": 120, "n_test": 80, "balanced": True}
# Some of the graded models: a quarter of the strengths.
STRENGTHS = (0.1, 0.4, 1.0, 2.5, 7.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def small(folder: Path) -> Sweep:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "STRENGTHS", STRENGTHS)
        return run_synthetic(folder, sets=["sin"], models=10, engine=Engine(workers=2), **SMALL)  # type: ignore[arg-type]


def test_every_model_has_a_row_with_every_test(small: Sweep) -> None:
    assert len(small.failed) == 0
    frame = small.done
    assert set(frame["family"]) == {*FAMILIES, "graded"}
    assert len(frame) == 10 + 2 * len(STRENGTHS)
    for test in TESTS:
        assert frame[f"p_{test}"].between(0, 1, inclusive="right").all()
        assert (frame[f"log10p_{test}"] <= 1e-9).all()
    assert frame["eca"].between(0.5, 1).all()


def test_the_graded_pool_runs_from_invariant_to_dependent() -> None:
    world = TabularWorld("linear")
    train, z = world.sample(800, seed=1), world.sample(600, seed=2).z
    truth = [
        tabular_truth(decisions(fit_graded(strength, train), world, z, draws=24, seed=3, shared=True))
        for strength in (0.0, 0.5, 2.0, 15.0)
    ]
    psi = [t.psi for t in truth]
    assert abs(psi[0]) < 4 * truth[0].psi_error + 1e-4
    assert psi == sorted(psi)
    assert psi[-1] > 0.05
    assert truth[0].within_flip_rate > 0.02  # invariant and yet not deterministic


def test_same_seed_same_row_whatever_the_engine(small: Sweep) -> None:
    row = small.done[small.done["task"] == "sin/graded/1/2"].iloc[0]
    again = assess_model(int(row["seed"]), set="sin", family="graded", strength=1.0, **SMALL)  # type: ignore[arg-type]
    for key, value in again.items():
        if key != "seconds_test":
            assert row[key] == value, key


def test_the_tables_count_what_the_rows_say(small: Sweep) -> None:
    frame = small.done
    table = errors(frame).set_index("test")
    varying = frame[frame["within_flip_rate"] > 0]
    blind = varying[(varying["family"] == "graded") & (varying["strength"] == 0)]
    assert table.loc["generator", "invariant"] == len(blind) == len(STRENGTHS)
    assert table.loc["generator", "false_alarms"] == (blind["p_generator"] <= 0.05).sum()
    strong = varying[varying["psi"] >= 0.01]
    assert table.loc["parity", "missed"] == (strong["p_parity"] > 0.05).sum()
    found = correlations(frame).set_index(["pool", "test", "axis"])
    expected = pd.Series(-frame["log10p_generator"]).corr(frame["psi"], method="spearman")
    assert found.loc[("both", "generator", "psi"), "spearman"] == pytest.approx(expected)
    row = found.loc[("both", "generator", "psi")]
    assert row["spearman_low"] <= row["spearman"] <= row["spearman_high"]


def test_tables_figures_and_page(small: Sweep, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    written = write_synthetic(small.done, tmp_path / "out", page=page, failed=3)
    assert {path.suffix for path in written} == {".csv", ".md", ".tex", ".png"}
    text = page.read_text()
    assert "20 models, 3 failed" in " ".join(text.split())
    for picture in re.findall(r"\]\((\S+\.png)\)", text):
        assert (page.parent / picture).stat().st_size > 10_000
    assert r"\begin{tabular}" in (tmp_path / "out" / "synthetic_correlations.tex").read_text()
    figure = alignment_figure(small.done, "eca")
    assert len(figure.axes) == len(TESTS)


def test_one_class_in_training_is_said() -> None:
    # As published, the quadratic set is nearly all positive: small training sets have one class.
    world = TabularWorld("quadratic")
    seed = next(k for k in range(1000) if np.ptp(world.sample(20, seed=k).label) == 0)
    for family in ("logistic regression", "graded"):
        with pytest.raises(
            InputError, match="The 20 training labels are all 1; give more units or the balanced option"
        ):
            assess_model(seed, set="quadratic", family=family, strength=0.0, n_train=20, n_test=20, balanced=False)


def test_constant_predictions_give_one_and_never_nan() -> None:
    row = assess_model(5, set="exponential", family="linear SVC", strength=0.0, n_train=400, n_test=60, balanced=False)
    assert row["within_flip_rate"] == 0
    assert [row[f"p_{test}"] for test in TESTS] == [1.0] * len(TESTS)
    assert row["invariant"]


def test_a_family_is_fitted_with_its_seed() -> None:
    train = TabularWorld("sin").sample(200, seed=0)
    outputs = [
        decisions(fit_family("random forest", train, seed), TabularWorld("sin"), train.z, draws=2, seed=1, shared=True)
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no synthetic set 'sine'"):
        run_synthetic(tmp_path, sets=["sine"])
    with pytest.raises(InputError, match="multiple of the ten families"):
        run_synthetic(tmp_path, models=15)
    with pytest.raises(InputError, match="At least 20 training"):
        run_synthetic(tmp_path, n_test=5)


def test_the_verb(small: Sweep, folder: Path, tmp_path: Path) -> None:
    study = shutil.copytree(folder, tmp_path / "s")
    rows = study / "synthetic.parquet"
    # One row is missing: it is computed, and only where every choice has arrived do the others count as finished.
    log = study / "synthetic.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
    arguments = ["--sets", "sin", "--models", "10", "--n-train", "120", "--n-test", "80", "--balanced"]
    choices = [*arguments, "--out", study, "--page", tmp_path / "page.md", "--quiet"]
    fewer = f"from citlr.studies.synthetic import run; run.STRENGTHS = {STRENGTHS}"
    done = citlr("reproduce", "synthetic", *choices, "--workers", "1", before=fewer)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "page.md") in done.stdout
    columns = [name for name in small.done.columns if not name.startswith("seconds")]
    again, before = (
        frame.sort_values("task").reset_index(drop=True)[columns] for frame in (pd.read_parquet(rows), small.done)
    )
    pd.testing.assert_frame_equal(again[columns], before)
    other = citlr("reproduce", "synthetic", "--sets", "linear", "--models", "10", "--out", tmp_path / "s", "--quiet")
    assert other.returncode == 2
    assert "holds the rows of another sweep" in other.stderr
