"""The table of public data sets against the readers that it names; data sets that other programs saved again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trees

from citlr.data.sources.mimic_cxr import prepare_mimic_cxr
from citlr.data.sources.padchest import prepare_padchest
from citlr.data.sources.registry import DATA_SETS, reader
from citlr.data.sources.study import Study
from citlr.errors import InputError


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_reader_takes_what_the_command_line_offers_of_it(name: str) -> None:
    taken = dict(inspect.signature(reader(name)).parameters)
    assert list(taken) == ["root", *DATA_SETS[name].options, "study", "narrator"]
    for option, offered in DATA_SETS[name].options.items():
        default = taken[option].default
        assert offered.default is ... if default is inspect.Parameter.empty else offered.default == default


def test_what_a_data_set_has_no_use_for_is_a_choice_of_a_study() -> None:
    choices = {"race": "races", "age_edge": "age_edges"}
    left_out = {choices.get(name, name) for one in DATA_SETS.values() for name in one.without}
    assert left_out <= set(inspect.signature(Study).parameters)


def resave(folder: Path, name: str, **columns: Callable[[pd.Series], Any]) -> None:
    """Save a table again as another program does."""
    (file,) = folder.rglob(name)
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.assign(**{column: change(table[column]) for column, change in columns.items()}).to_csv(file, index=False)


def dashed(dates: pd.Series) -> pd.Series:
    return dates.str[:4] + "-" + dates.str[4:6] + "-" + dates.str[6:]


@pytest.mark.parametrize("name", ["*-metadata*", "*-chexpert*", "patients*", "admissions*"])
def test_mimic_may_have_been_saved_again(tmp_path: Path, name: str) -> None:
    expected = prepare_mimic_cxr(trees.mimic(tmp_path / "a")[0], mimic_iv=tmp_path / "a" / "mimiciv").frame
    images, hospital = trees.mimic(tmp_path / "b")
    resave(tmp_path / "b", name, subject_id=lambda numbers: numbers + ".0")
    resave(tmp_path / "b", "*-metadata*", StudyDate=dashed)
    found = prepare_mimic_cxr(images, mimic_iv=hospital).frame
    pd.testing.assert_frame_equal(found, expected)
    assert found["age"].eq(62).all()


@pytest.mark.parametrize("write", [dashed, lambda dates: dashed(dates) + " 00:00:00", lambda dates: dates + ".0"])
def test_padchest_may_have_been_saved_again(tmp_path: Path, write: Callable[[pd.Series], pd.Series]) -> None:
    root = trees.padchest(tmp_path)
    resave(root, "PADCHEST*", StudyDate_DICOM=write, PatientBirth=lambda years: write(years.str[:4] + "0203"))
    assert prepare_padchest(root).frame["age"].tolist() == [64.0] * len(trees.PATIENTS)


@pytest.mark.parametrize("column", ["StudyDate_DICOM", "PatientBirth"])
def test_dates_that_nobody_can_read_are_no_missing_ages(tmp_path: Path, column: str) -> None:
    root = trees.padchest(tmp_path)
    resave(root, "PADCHEST*", **{column: lambda dates: "15.09." + dates.str[:4]})
    with pytest.raises(InputError, match=r"holds 48 dates that cannot be read, the first '15\.09\."):
        prepare_padchest(root)
