"""An attribute that is a number: kept as one, redrawn at values that images show, and refused in one sentence else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from citlr.audit.intake import audited_cohort
from citlr.config import CohortConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.proposals.columns import describe_columns
from citlr.data.reading import read_cohort
from citlr.errors import InputError

QUIET = Narrator(quiet=True)


def study(ages: Sequence[Any], column: str = "age") -> pd.DataFrame:
    count = len(ages)
    return pd.DataFrame(
        {
            "path": [f"i{number}.png" for number in range(count)],
            "patient_id": [f"p{number}" for number in range(count)],
            column: ages,
            "edema": np.arange(count) % 2,
        }
    )


def years(count: int = 240) -> list[int]:
    return np.random.default_rng(0).integers(20, 86, count).tolist()


def read(ages: Sequence[Any], levels: Any = (30, 50, 70), column: str = "age", **options: Any) -> Cohort:
    columns = {} if column == "age" else {"age": column}
    return read_cohort(
        study(ages, column),
        images=".",
        attribute="age",
        labels=["edema"],
        levels={"age": list(levels)},
        columns=columns,
        check="none",
        **{"min_patients_per_level": 5, **options},
    )


def test_an_age_stays_a_number_and_every_row_stays() -> None:
    cohort = read(years())
    assert len(cohort) == 240
    assert cohort.frame["age"].dtype == float
    assert cohort.levels("age") == ()
    assert "age: a number, 20 to 85" in repr(cohort)
    parts = [cohort.part(name).frame["age"] for name in ("train", "validation", "test")]
    # Strata are quarters of the number.
    assert np.ptp([part.median() for part in parts]) < 6
    assert cohort.counts()["level"].nunique() == 4


def test_units_that_are_written_are_read() -> None:
    cohort = read([f"{age:03d}Y" for age in years()])
    assert cohort.frame["age"].between(20, 85).all()


def test_few_patients_near_a_value_are_told() -> None:
    cohort = read([*years(), 110, 105], levels=(30, 50, 100))
    assert any("few training patients are near to 100" in step.reason for step in cohort.flow)


@pytest.mark.parametrize(
    ("ages", "levels", "column", "said"),
    [
        (years(), (30, 50, 95), "age", "no training image shows 'age' = 95, the images go from 20 to 85"),
        (years(), (30, "old"), "age", r"'age' is a number \(\d+ different values\), and its level 'old' is none"),
        ([age * 12 for age in years()], (30, 50), "age", "holds 2.. ages above 120"),
        (years(), (30, 50), "age_months", "the column 'age_months' says 'months', and ages are read in years"),
        (["030M", *years()], (30, 50), "age", "mixes ages with a unit \\('030M' first, 1 images\\) and without"),
        (["forty", *years()], (30, 50), "age", "1 values that are no age, the first in row 1: 'forty'"),
        ([*years(), *["90+"] * 9], (30, 90), "age", "ends at 90, which stands for everybody older"),
    ],
)
def test_bad_input_is_one_sentence(ages: list[Any], levels: Any, column: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read(ages, levels, column)
    assert str(refused.value).count(". ") <= 1


WAYS: dict[str, dict[str, Any]] = {
    "groups": {"attribute": "age", "bins": {"age": [24, 60]}},
    "a covariate": {"covariates": ["age"]},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("ages", "column", "said"),
    [
        ([month % 216 for month in range(240)], "age_months", "the column 'age_months' says 'months'"),
        ([age * 12 for age in years()], "age", "holds 2.. ages above 120"),
        (["030M", *years()], "age", "mixes ages with a unit \\('030M' first, 1 images\\) and without"),
    ],
)
def test_ages_are_asked_for_one_unit_in_every_part_that_they_play(
    way: str, ages: list[Any], column: str, said: str
) -> None:
    table = study(ages, column).assign(sex=["FFMM"[row % 4] for row in range(len(ages))])
    usual = {"images": ".", "attribute": "sex", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    with pytest.raises(InputError, match=said):
        read_cohort(table, columns={"age": column}, **{**usual, **WAYS[way]})
    (described,) = [one for one in describe_columns(table) if one.name == column]
    assert described.kind != "age"


def test_ages_that_nobody_asked_for_stop_nothing() -> None:
    table = study([*years(), 999, 999, 999, 999]).assign(sex=["FFMM"[row % 4] for row in range(244)])
    usual = {"images": ".", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    cohort = read_cohort(table, attribute="sex", **usual)
    assert cohort.frame["age"].isna().all()
    assert any("the age is not used: " in step.reason and "leave blank" in step.reason for step in cohort.flow)


def test_an_age_above_120_is_no_blank() -> None:
    table = study([*years(), 414, None]).assign(sex=["FFMM"[row % 4] for row in range(242)])
    usual = {"images": ".", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    cohort = read_cohort(table, attribute="age", bins={"age": [50]}, **usual)
    left_out = {step.reason: step.excluded_images for step in cohort.flow if step.excluded_images}
    assert left_out == {"age: above 120 years, or only known to be above a bound": 1, "no age (1 blank)": 1}
    held = read_cohort(table, attribute="sex", covariates=["age"], **usual)
    assert held.frame["age"].isna().sum() == 2
    assert "ages above 120 years count as not stated (1)" in [step.reason for step in held.flow]


def test_a_few_typing_errors_and_open_ages_are_left_out_and_told() -> None:
    cohort = read([*years(), 414, "89+"])
    assert len(cohort) == 241
    assert cohort.frame["age"].max() == 90
    assert any("above 120 years" in step.reason for step in cohort.flow)


def test_eight_values_are_levels_as_ever() -> None:
    cohort = read([age // 10 * 10 for age in years()], levels=(20, 30, 40, 50, 60, 70, 80), min_patients_per_level=1)
    assert cohort.levels("age") == ("20", "30", "40", "50", "60", "70", "80")


def settings(**changed: Any) -> CohortConfig:
    return CohortConfig.model_validate(
        {"table": "a.csv", "images": ".", "attribute": "age", "labels": ["edema"], **changed}
    )


def test_a_grid_is_the_values_that_it_means() -> None:
    grid = settings(levels={"from": 30, "to": 80, "step": 10})
    assert grid.levels == ("30", "40", "50", "60", "70", "80")
    assert settings(levels=[30, 52.5]).levels == ("30", "52.5")
    assert settings(levels=["F", "M"]).levels == ("F", "M")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([30], "at least 2"),
        ({"from": 30, "to": 80}, "a grid is {from: 30, to: 80, step: 10}"),
        ({"from": 30, "to": 80, "step": 1}, "2 to 12 values"),
        ({"from": 30, "to": 80, "step": "ten"}, "a grid is .* in numbers$"),
        ({"F": "female", "M": "male"}, "values get names from `citlr prepare table --level raw=name`"),
        ([30, 30], "named twice"),
    ],
)
def test_bad_levels_of_a_configuration(levels: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(levels=levels)
    assert re.search(said, refused.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("key", "value"), [("fractions", (0.3, 0.2, 0.5)), ("split_seed", 7), ("max_unreadable", 0.5), ("fit", "crop")]
)
def test_what_a_prepared_cohort_has_settled_is_not_set_in_vain(tmp_path: Path, key: str, value: object) -> None:
    read(years()).to_parquet(tmp_path / "cohort.parquet")
    asked = settings(table=tmp_path / "cohort.parquet", images=None, levels=[30, 50, 70], **{key: value})
    with pytest.raises(InputError, match=f"cohort.{key} cannot be set for the prepared cohort"):
        audited_cohort(asked, narrator=QUIET)


def test_a_prepared_cohort_is_audited_by_its_ages(tmp_path: Path) -> None:
    whole = read(years())
    whole.to_parquet(tmp_path / "cohort.parquet")
    asked = settings(table=tmp_path / "cohort.parquet", images=None, levels=[30, 50, 70], min_patients_per_level=5)
    cohort = audited_cohort(asked, narrator=QUIET)
    assert len(cohort) == len(whole)
    with pytest.raises(InputError, match="'age' = 99"):
        audited_cohort(asked.model_copy(update={"levels": ("30", "99")}), narrator=QUIET)


@pytest.mark.parametrize("column", ["alter_monate", "AlterTage", "edad_meses", "age_mois"])
def test_a_unit_is_known_in_the_languages_in_which_an_age_is(column: str) -> None:
    with pytest.raises(InputError, match=f"the name of the column '{column}' says '.*', and ages are read in years"):
        read([age % 100 for age in years()], column=column)


@pytest.mark.parametrize("usual", [range(11), [0.0] * 7 + [1.0, 2.0, 5.0]])
@pytest.mark.parametrize("code", [None, 999.0, -99.0])
def test_values_far_from_all_others_are_told(usual: Sequence[float], code: float | None) -> None:
    """A dose from 0 to 10, whatever of it is common; in seven images it is a code of somebody's."""
    doses = [float(value) + 0.01 * place for place in range(9) for value in usual]
    doses = [*doses, *[code] * 7] if code else doses
    table = study(doses, "dose")
    usual_keys: dict[str, Any] = {"images": ".", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    cohort = read_cohort(table, attribute="dose", levels={"dose": ["0", "2", "5"]}, **usual_keys)
    told = [step.reason for step in cohort.flow if "far from all others" in step.reason]
    assert told == ([] if code is None else [told[0]])
    assert code is None or f"7 images have values far from all others ({code:g}: 7)" in told[0]


def test_ages_have_no_values_far_from_all_others() -> None:
    assert not any("far from" in step.reason for step in read([*years(), 1, 2, 99, 102]).flow)


@pytest.mark.parametrize("form", ["{:d}", "{:03d}Y", "{:d} years"])
def test_digits_of_full_width_are_digits(form: str) -> None:
    ages = [form.format(year) for year in years()]
    wide = ["".join(chr(ord(sign) + 0xFEE0) if sign.isdigit() else sign for sign in age) for age in ages]
    assert read(wide).frame["age"].tolist() == read(ages).frame["age"].tolist() == years()


def test_digits_that_are_not_read_are_no_typing_errors() -> None:
    arabic = ["".join(chr(0x660 + int(sign)) for sign in str(year)) for year in years()]
    with pytest.raises(InputError, match="240 values that are no age"):
        read(arabic)


@pytest.mark.parametrize("bound", ["90+", "\u226590", "90 or older", "90 years and over", ">=90"])
def test_an_age_that_is_a_bound_in_words_is_one(bound: str) -> None:
    frame = study([*years(), *[bound] * 6]).assign(sex=lambda rows: ["FM"[row % 2] for row in range(len(rows))])
    options: dict[str, Any] = {"images": ".", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    assert read_cohort(frame, attribute="sex", **options).frame["age"].tolist()[-6:] == [90.0] * 6
    with pytest.raises(InputError, match="only known to be above a bound"):
        read_cohort(study([bound] * 40), attribute="age", bins={"age": [40, 95]}, **options)


@pytest.mark.parametrize("way", ["levels", "bins", "age", "covariate"])
def test_words_for_an_age_that_is_not_known_leave_the_others_ages(way: str) -> None:
    ages: list[Any] = [*years(), *["unknown"] * 40, "?", "Not reported", None]
    frame = study(ages).assign(sex=["FM"[row % 2] for row in range(len(ages))])
    options: dict[str, Any] = {"images": ".", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    chosen: dict[str, Any] = {
        "levels": {"attribute": "age", "levels": {"age": [30, 50, 70]}},
        "bins": {"attribute": "age", "bins": {"age": [40, 60]}},
        "age": {"attribute": "sex"},
        "covariate": {"attribute": "sex", "covariates": ["age"]},
    }
    cohort = read_cohort(frame, **options, **chosen[way])
    said = "; ".join(step.reason for step in cohort.flow)
    assert "(unknown: 40, ?: 1, Not reported: 1)" in said
    if way in ("levels", "bins"):
        assert len(cohort) == 240
        assert "age: not stated (unknown" in said
        assert "no age (1 blank)" in said
    else:
        assert cohort.frame["age"].tolist()[:240] == years()
        assert cohort.frame["age"].isna().sum() == 43
    column = next(one for one in describe_columns(frame) if one.name == "age")
    assert (column.kind, column.edges) == ("age", (40.0, 60.0))


@pytest.mark.parametrize("levels", [[40], [40, 40], [40, 60, "40.0"], []])
def test_one_level_of_a_number_is_none_to_compare(levels: list[Any]) -> None:
    with pytest.raises(InputError, match="two different numbers or more"):
        read(years(), levels=levels)


def test_levels_are_no_single_number() -> None:
    with pytest.raises(InputError, match="give a list of them"):
        read_cohort(study(years()), images=".", attribute="age", labels=["edema"], levels=40, check="none")  # type: ignore[arg-type]
