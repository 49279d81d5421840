"""Tables and masks that a notebook makes a cohort of, and takes a part of it by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.cohort import Cohort
from citlr.data.reading import read_cohort
from citlr.errors import InputError


def test_rows_are_places_or_a_mask_of_all_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    frame = pd.DataFrame({"image_id": list("abcdef"), "path": [f"{k}.png" for k in range(6)], "patient_id": range(6)})
    cohort = Cohort(frame, tmp_path, attributes=(), labels=())
    mask = np.array([False, True, False, False, True, True])
    series = pd.Series(mask)
    wanted = cohort.pixels([1, 4, 5], size=8)
    for given in (mask, mask.tolist(), mask.astype(object), series.astype("boolean"), series.iloc[::-1], [1.0, 4, -1]):
        assert cohort.take(given).frame["image_id"].tolist() == ["b", "e", "f"]
        assert np.array_equal(cohort.pixels(given, size=8), wanted)
    by_place = series.set_axis(range(10, 16))
    assert cohort.take(by_place).frame["image_id"].tolist() == ["b", "e", "f"]
    assert len(cohort.take([])) == 0
    for wrong in (mask[:3], np.r_[mask, mask]):
        with pytest.raises(InputError, match="for 6 images; give an entry for every image"):
            cohort.take(wrong)
    for odd in ([1.5], [6], [[1, 2]], ["a"], [np.nan], series.astype("boolean").mask(series)):
        with pytest.raises(InputError, match="whole numbers below 6, or a mask"):
            cohort.take(odd)


def test_masks_and_numbers_of_pandas_are_what_they_say_whatever_their_type() -> None:
    """A mask of another type was taken by its place, and numbers of an index, or none, were refused."""
    frame = pd.DataFrame({"image_id": list("wxyz"), "path": list("wxyz"), "patient_id": range(4), "sex": list("FMFM")})
    cohort = Cohort(frame, Path(), attributes=("sex",), labels=())
    women = cohort.frame["sex"] == "F"
    for form in ("bool", "boolean"):
        assert cohort.take(women.astype(form).iloc[[2, 0, 3, 1]]).frame["image_id"].tolist() == ["w", "y"]
    assert cohort.take(cohort.frame[["sex"]] == "F").frame["image_id"].tolist() == ["w", "y"]
    for numbers in (pd.Series([2, 1], dtype="Int64"), pd.Index([2, 1], dtype=object), np.array([2, 1], dtype=object)):
        assert cohort.take(numbers).frame["image_id"].tolist() == ["y", "x"]
    for none in (pd.Index([]), pd.Series([], dtype=object), np.array([], dtype=object)):
        assert len(cohort.take(none)) == 0


def test_a_blank_finding_among_findings_as_text_is_missing() -> None:
    frame = pd.DataFrame({"image_id": list("abcd"), "path": list("abcd"), "patient_id": list("pqrs"), "sex": "F"})
    cohort = Cohort(frame.assign(flu=["1", "", "0", "  "]), Path(), attributes=("sex",), labels=("flu",))
    assert cohort.frame["flu"].fillna(9).tolist() == [1, 9, 0, 9]


def test_a_table_that_is_changed_later_does_not_change_a_cohort_made_of_it() -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "path": ["a", "b"], "patient_id": ["p", "q"], "sex": ["F", "M"]})
    cohort = Cohort(frame, Path(), attributes=("sex",), labels=())
    frame["sex"] = "F"
    frame["image_id"] = "z"
    assert cohort.levels("sex") == ("F", "M")
    assert cohort.frame["image_id"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="has the column 'sex' twice"):
        Cohort(pd.concat([frame, frame[["sex"]]], axis=1), Path(), attributes=("sex",), labels=())


@pytest.mark.parametrize("form", ["boolean", "category", "string", "Float64", "object"])
def test_findings_of_any_type_are_numbers(form: str) -> None:
    found = pd.Series([1.0, 0.0, 1.0, np.nan])
    written = {"string": found.map({1.0: "1", 0.0: "0"}), "object": found.map({1.0: True, 0.0: False})}
    column = written.get(form, found).astype(form)
    frame = pd.DataFrame({"image_id": list("abcd"), "path": list("abcd"), "patient_id": list("pqrs"), "sex": "F"})
    cohort = Cohort(frame.assign(flu=column), Path(), attributes=("sex",), labels=("flu",))
    pd.testing.assert_series_equal(cohort.frame["flu"], found, check_names=False)
    assert cohort.counts().set_index("value")["images"].to_dict() == {"positive": 2, "negative": 1, "missing": 1}
    with pytest.raises(InputError, match="The label 'flu' holds 'present'; a finding is 1, 0 or missing"):
        Cohort(frame.assign(flu="present"), Path(), attributes=("sex",), labels=("flu",))


def test_findings_as_words_are_read_as_a_table_on_disk_is() -> None:
    frame = pd.DataFrame({"image_id": list("abcd"), "path": list("abcd"), "patient_id": list("pqrs"), "sex": "F"})
    for said in (["Yes", "no", " TRUE ", ""], ["positive", "Negative", True, None]):
        cohort = Cohort(frame.assign(flu=said), Path(), attributes=("sex",), labels=("flu",))
        assert cohort.frame["flu"].fillna(9).tolist() == [1, 0, 1, 9]
    for odd, named in ((-1, r"-1\.0"), ("-1", "'-1'"), (2, r"2\.0")):
        with pytest.raises(InputError, match=f"The label 'flu' holds {named}; a finding is 1, 0 or missing"):
            Cohort(frame.assign(flu=pd.Series([1, 0, odd, None])), Path(), attributes=("sex",), labels=("flu",))


@pytest.mark.parametrize(
    "kind", [iter, dict.fromkeys, pd.Index, pd.Series, np.array, set], ids=lambda kind: kind.__name__
)
def test_names_are_all_there_in_whatever_they_are_listed(tmp_path: Path, kind: Any) -> None:
    """What can be gone through once was gone through by the first check, and there were no labels afterwards."""
    for number, image in enumerate(np.random.default_rng(2).integers(0, 255, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    paths, own = [f"{number}.png" for number in range(60)], {"sex": ["F", "M"] * 30, "race": ["a", "a", "b"] * 20}
    table = pd.DataFrame(
        {"patient_id": range(60), "path": paths, **own, "c": [0, 1] * 30, "a": 1, "site": ["x", "y"] * 30}
    )

    def listed(*names: str) -> Any:
        found = kind(list(names))
        return found.keys() if isinstance(found, dict) else found

    def read() -> Cohort:
        beside: dict[str, Any] = {
            "attributes": listed("race"),
            "labels": listed("c", "a"),
            "covariates": listed("site"),
        }
        return read_cohort(table, images=tmp_path, attribute="sex", min_patients_per_level=1, **beside)

    cohort = read()
    made = Cohort(cohort.frame, tmp_path, listed("sex", "race"), listed("c", "a"), listed("site"))
    for one in (cohort, made):
        assert [sorted(role) for role in (one.attributes, one.covariates)] == [["race", "sex"], ["site"]]
        assert list(one.labels) == (["a", "c"] if kind is set else ["c", "a"])
        assert len(one.counts()) > 0


def test_columns_of_one_name_that_nobody_uses_are_left_aside(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "path": ["a", "b"], "patient_id": ["p", "q"], "sex": ["F", "M"]})
    both = pd.concat([frame.assign(note="x"), frame.assign(note="y", split="test")[["note", "split"]]], axis=1)
    cohort = Cohort(both, Path(), attributes=("sex",), labels=())
    assert list(cohort.frame) == [*frame, "split"]
    cohort.to_parquet(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="has the column 'split' twice"):
        Cohort(pd.concat([both, both[["split"]]], axis=1), Path(), attributes=("sex",), labels=())


GIVEN = pd.DataFrame({"image_id": ["a"], "path": ["a"], "patient_id": ["p"], "sex": ["F"], "flu": [1]})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"frame": {"image_id": ["a"]}}, "The frame of a cohort is a dict; give a table of pandas"),
        ({"root": None}, "The root of a cohort is a NoneType; give the folder"),
        ({"attributes": "sex"}, "attributes is a str; give a list of names"),
        ({"labels": None}, "labels is a NoneType; give a list of names"),
    ],
)
def test_another_kind_than_a_cohort_is_made_of_is_named(given: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        Cohort(**{"frame": GIVEN, "root": Path(), "attributes": ("sex",), "labels": ("flu",), **given})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"seed": None}, "seed=None: it should be a valid integer"),
        ({"seed": -1}, "seed=-1: it should be greater than or equal to 0"),
        ({"fractions": None}, "The split fractions are None; three shares"),
        ({"by": ["patient_id"]}, "no column .*patient_id.* to split by"),
    ],
)
def test_a_split_of_something_else_is_a_sentence(given: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        Cohort(GIVEN, Path(), attributes=("sex",), labels=("flu",)).split(**{"seed": 0, **given})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"table": None}, "table is a NoneType; give a table of pandas, or the path"),
        ({"images": None}, "images is a NoneType; give the folder"),
        ({"labels": "flu"}, "labels is a str; give a list of names"),
        ({"keep": ["view"]}, "keep is a list; give a mapping"),
        ({"workers": None}, "workers=None"),
        ({"lateral": "Drop"}, r"lateral='Drop' is not known\. Did you mean 'drop'"),
        ({"fit": "zoom"}, r"fit='zoom' is not known\. Known: crop, pad, stretch"),
        ({"max_unreadable": "none"}, "max_unreadable='none': this is text; give a number"),
        ({"max_unreadable": 5}, "max_unreadable=5: it should be less than or equal to 1"),
        ({"min_patients_per_level": float("nan")}, "min_patients_per_level=nan"),
        ({"attribute": None}, "no column 'None'"),
    ],
)
def test_another_kind_than_a_table_is_read_by_is_named(given: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        read_cohort(**{"table": GIVEN, "images": Path(), "attribute": "sex", "labels": ["flu"], **given})
