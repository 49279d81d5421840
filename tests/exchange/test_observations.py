"""Embeddings, levels and predictions to what can be said without counterfactuals, as a user comes with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from as_user import citlr
from pages import ROOT, commands, python

import citlr as package
from citlr.errors import InputError
from citlr.exchange.observations import Columns, read_observations
from citlr.invariance.arrays import require_named
from citlr.invariance.observational.observe import REPEATED
from citlr.invariance.responses import Responses

COLUMNS = Columns("sex", "p", "patient", "ill", "known")


def arrays(images: int = 240, shift: float = 0.9) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    sex = np.repeat(np.where(rng.random(images // 2) < 0.5, "F", "M"), 2)
    z = rng.normal(size=(images, 3))
    p = 1 / (1 + np.exp(-(z[:, 0] + shift * (sex == "M"))))
    ill = (z[:, 0] + rng.normal(0, 1, images) > 0).astype(int)
    table = pd.DataFrame(
        {"patient": np.repeat(np.arange(images // 2), 2), "sex": sex, "p": p, "ill": ill, "known": 0.5}
    )
    return table, z


def written(folder: Path, table: pd.DataFrame, z: npt.NDArray[np.float64]) -> tuple[Path, Path]:
    table.to_csv(folder / "table.csv", index=False)
    np.save(folder / "z.npy", z)
    return folder / "table.csv", folder / "z.npy"


def test_a_table_and_embeddings_become_a_verdict_and_say_what_is_never_said(tmp_path: Path) -> None:
    table, z = written(tmp_path, *arrays())
    words = [
        "--attribute",
        "sex",
        "--prediction",
        "p",
        "--patient",
        "patient",
        "--truth",
        "ill",
        "--out",
        tmp_path / "out",
    ]
    done = citlr("observe", table, "--z", z, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dependence\n")
    assert "no verdict can be 'equivalent'" in done.stdout
    content = json.loads((tmp_path / "out" / "observed.json").read_text())
    assert [row["method"] for row in content["tests"]] == [
        *("distilled_crt", "gcm", "rms_lower_bound", "demographic_parity"),
        *("equal_opportunity", "predictive_equality", "equalised_odds", "auroc_gap"),
    ]
    assert len(pd.read_csv(tmp_path / "out" / "observed.csv")) == 8
    assert content["contrasts"][0]["overlap"] > 0.9


def test_the_command_and_the_function_say_the_same(tmp_path: Path) -> None:
    table, z = arrays()
    table["patient"] = [f"p{number:03d}" for number in table["patient"]]
    given = read_observations(*written(tmp_path, table, z), COLUMNS)
    found = package.observe(**given, seed=3)
    again = package.observe(
        z, table["sex"], table["p"], patients=table["patient"], outcome=table["ill"], propensity=table["known"], seed=3
    )
    pd.testing.assert_frame_equal(found.to_frame(), again.to_frame())
    assert found.assessments[0].tests[0].propensity == "known"


def test_an_innocent_model_is_inconclusive_however_large_its_p_value() -> None:
    table, z = arrays(shift=0.0)
    found = package.observe(z, table["sex"], table["p"], patients=table["patient"])
    assert found.verdict == "inconclusive"
    assert "absence of evidence" in found.assessments[0].reason


def test_embeddings_that_say_the_level_leave_nobody_to_compare() -> None:
    table, z = arrays()
    z[:, 1] += 20 * (table["sex"] == "M")
    found = package.observe(z, table["sex"], table["p"], patients=table["patient"])
    assert found.assessments[0].overlap < 0.1
    assert found.verdict == "inconclusive"
    assert "nobody is left to compare" in str(found)


def test_three_levels_are_compared_in_pairs_and_adjusted() -> None:
    table, z = arrays(360)
    table["sex"] = np.where(table["patient"] % 3 == 0, "other", table["sex"])
    found = package.observe(z, table["sex"], table["p"], patients=table["patient"])
    raw = [one.tests[0].pvalue for one in found.assessments]
    assert len(raw) == 3
    assert min(one.pvalue_adjusted for one in found.assessments) == pytest.approx(3 * min(raw))
    with pytest.raises(InputError, match="3 pairs"):
        package.observe(z, table["sex"], table["p"], propensity=table["known"])


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, " "])
@pytest.mark.parametrize("name", ["sex", "patient"])
def test_an_image_without_level_or_patient_is_refused(name: str, missing: object) -> None:
    """Missing cells were a level called "nan", which the others were compared with, or one patient."""
    table, z = arrays()
    table[name] = table[name].astype(object)
    table.loc[[6, 9], name] = missing
    with pytest.raises(InputError, match=r"2 of 240 images have no (level|patient), image 6 first"):
        package.observe(z, table["sex"], table["p"], patients=table["patient"])


def test_a_number_that_is_masked_out_is_missing() -> None:
    table, z = arrays()
    masked = np.ma.array(table["p"], mask=np.arange(240) < 3)
    with pytest.raises(InputError, match="3 predictions are missing"):
        package.observe(z, table["sex"], masked, patients=table["patient"])
    patients = np.ma.array(table["patient"], mask=np.arange(240) < 3)
    with pytest.raises(InputError, match="3 of 240 images have no patient, image 0 first"):
        package.observe(z, table["sex"], table["p"], patients=patients)
    with pytest.raises(InputError, match="3 entries that are not numbers"):
        Responses.from_arrays(np.ma.array(np.full((3, 2, 2), 0.5), mask=np.arange(12).reshape(3, 2, 2) < 3))


def test_images_that_are_there_twice_are_told() -> None:
    """Without patients each row is one: a table with its rows doubled had p-values that were too small."""
    table, z = arrays()
    few, again = np.arange(240), np.concatenate([np.arange(240), np.arange(20)])
    for rows, patients, told in ((again, None, True), (again, table["patient"], False), (few, None, False)):
        found = package.observe(
            z[rows], table["sex"][rows], table["p"][rows], propensity=np.full(len(rows), 0.5), redraws=99,
            patients=None if patients is None else patients[rows],
        )  # fmt: skip
        assert found.assessments[0].reason.endswith(REPEATED.format(count=40)) == told


def test_a_coarse_z_has_no_images_twice() -> None:
    """Age and a finding as Z and decisions as predictions: most images are like another, and none is there twice."""
    random = np.random.default_rng(0)
    z, decided = np.column_stack([random.integers(0, 90, (400, 2))]) // (1, 20), random.integers(0, 2, 400)
    found = package.observe(z, np.repeat(["F", "M"], 200), decided, propensity=np.full(400, 0.5), redraws=99)
    assert REPEATED[-40:] not in found.assessments[0].reason


def test_a_z_of_one_decimal_has_no_images_twice() -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(900, 3)).round(1)
    prediction = (1 / (1 + np.exp(-z.sum(axis=1)))).round(1)
    for rows, told in ((np.arange(900), False), (np.repeat(np.arange(900), 2), True)):
        found = package.observe(
            z[rows], np.where(rows % 4 < 2, "F", "M"), prediction[rows], propensity=np.full(len(rows), 0.5), redraws=99
        )
        assert (REPEATED[-40:] in found.assessments[0].reason) == told


@pytest.mark.parametrize("kind", [lambda n: b"\xff%d" % n, lambda n: f"{n}" + "x" * (n == 0) * 100_000])
def test_patients_may_be_bytes_and_one_name_long(kind: Callable[[int], object]) -> None:
    """As one array of text, one long name takes gigabytes, and bytes need not be text at all."""
    names = np.array([kind(number) for number in range(20_000)], dtype=object)
    require_named(names, "patient")


def cell(**cells: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.astype(object)
        for name, value in cells.items():
            changed.loc[6, name] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.iloc[1:], "has 240 rows and"),
        (cell(p=""), "for 'p' in row 7"),
        (cell(p=1.4), "'1.4' for 'p' in row 7"),
        (lambda t: t.assign(p=100 * t["p"]), "--percent"),
        (cell(sex=""), "no 'sex' in row 7"),
        (cell(patient=""), "no 'patient' in row 7"),
        (cell(patient="#REF!"), "'patient' holds '#REF!' (1 images)"),
        (cell(patient="2.0230101e+17"), "1 patients such as '2.0230101e+17'"),
        (cell(patient="3.0"), "patients '3.0' and '3', which look like spellings of one"),
        (cell(sex="f"), "levels 'F' and 'f', which look like spellings of one"),
        (cell(ill=2), "'2' as 'ill' in row 7"),
        (lambda t: t.rename(columns={"sex": "Sex"}), "Did you mean 'Sex'?"),
        (lambda t: t.assign(sex="F"), "a single level"),
        (lambda t: t.assign(known=0.0), "inside (0, 1)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_row(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    table, z = arrays()
    with pytest.raises(InputError) as refused:
        package.observe(**read_observations(*written(tmp_path, change(table), z), COLUMNS))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: file.unlink(), "There are no embeddings"),
        (lambda file: file.write_text("a,b"), "cannot be read as a NumPy array"),
        (lambda file: np.save(file, np.array([{"a": 1}] * 240, dtype=object), allow_pickle=True), "cannot be read"),
        (lambda file: np.save(file, np.full((240, 2), np.nan)), "in row 1 (240 rows)"),
        (lambda file: np.save(file, np.zeros((240, 2, 2))), "shape (images, numbers)"),
        (lambda file: np.save(file, np.array(["a"] * 240)), "shape (images, numbers)"),
    ],
)
def test_embeddings_that_are_none_are_refused(tmp_path: Path, write: Callable[[Path], object], said: str) -> None:
    table, z = written(tmp_path, *arrays())
    write(z)
    done = citlr("observe", table, "--z", z, "--attribute", "sex", "--prediction", "p")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr


def test_the_page_runs_as_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert commands("embeddings.md")
    for words in commands("embeddings.md"):
        assert citlr(*words, cwd=tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path)
    for block in python("embeddings.md"):
        exec(block, {})
    assert capsys.readouterr().out.startswith("dependence Without counterfactuals")


@pytest.mark.parametrize("number", [3.5e38, -1e200])
def test_numbers_that_no_learner_takes_are_refused_with_their_place(number: float) -> None:
    """The least number of 32 bits stands for "not known" in some formats; learners ended in tracebacks."""
    table, z = arrays()
    z[7, 2] = number
    with pytest.raises(InputError, match=r"in column 3 of image 7, and numbers up to 1e\+37 can be learnt from"):
        package.observe(z, table["sex"], table["p"])


def test_one_column_may_be_prediction_and_truth(tmp_path: Path) -> None:
    """The labels themselves are looked at so; and a column of levels is no prediction, which a sentence says."""
    table, z = written(tmp_path, *arrays())
    found = read_observations(table, z, Columns("sex", "ill", "patient", "ill"))
    assert np.array_equal(found["prediction"], found["outcome"])
    with pytest.raises(InputError, match=r"'[FM]' for 'sex' in row 1"):
        read_observations(table, z, Columns("sex", "sex", "patient"))
