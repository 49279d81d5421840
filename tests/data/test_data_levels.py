"""Values of a table: one level for one thing, one age in one reading, roles that do not clash."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from PIL import Image

from citlr.audit.intake import audited_cohort
from citlr.cli.options import pairs
from citlr.config import CohortConfig
from citlr.console import Narrator
from citlr.data.associations.measures import describe, write_description
from citlr.data.cohort import Cohort
from citlr.data.prepared import write_prepared
from citlr.data.proposals.pictures import path_columns
from citlr.data.reading import read_cohort
from citlr.data.sources.study import Study
from citlr.data.tables.bins import cut_bins
from citlr.data.tables.spellings import require_one_spelling
from citlr.errors import InputError

COUNT = 48


def table(**columns: Sequence[object]) -> pd.DataFrame:
    """Two images of every patient; the sexes alternate by patient."""
    rows = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(COUNT)],
            "patient_id": [f"p{row // 2:03d}" for row in range(COUNT)],
            "sex": ["FM"[row // 2 % 2] for row in range(COUNT)],
            "edema": [row // 4 % 2 for row in range(COUNT)],
        }
    )
    return rows.assign(
        **{name: [values[row // 2 % len(values)] for row in range(COUNT)] for name, values in columns.items()}
    )


def read(frame: pd.DataFrame, **changes: Any) -> Cohort:
    usual = {"images": ".", "attribute": "sex", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    return read_cohort(frame, **{**usual, **changes})


def reasons(cohort: Cohort) -> str:
    return "; ".join(step.reason for step in cohort.flow)


SPELLINGS = ["F", "M", "f", "m ", "Female", "MALE", " female", "Male"]


def test_spellings_of_a_sex_are_one_level_and_counted() -> None:
    cohort = read(table(sex=SPELLINGS))
    assert cohort.levels("sex") == ("female", "male")
    right = ["female", "male", "female", "male", "female", "male", "female", "male"]
    assert cohort.frame["sex"].tolist() == [right[row // 2 % 8] for row in range(COUNT)]
    assert "sex: several values are one level (female from F: 6, f: 6, Female: 6, female: 6; male from" in reasons(
        cohort
    )
    assert {(one.raw, one.level, one.images_before) for one in cohort.raw} == {
        (raw.strip(), "female" if raw.strip()[0] in "Ff" else "male", 6) for raw in SPELLINGS
    }


def test_one_spelling_of_each_keeps_its_name_and_unknown_is_left_out() -> None:
    cohort = read(table(sex=["F", "M", "U", "M", "F", "M"]))
    assert cohort.levels("sex") == ("F", "M")
    assert len(cohort) == COUNT * 5 // 6
    assert "sex: not stated (U: 8)" in reasons(cohort)
    assert read(table(sex=["F", "M", "U"]), levels=["F", "M", "U"]).levels("sex") == ("F", "M", "U")


@pytest.mark.parametrize(
    ("columns", "attribute", "said"),
    [
        ({"sex": ["F", "M", "1", "0"]}, "sex", r"and beside them '1' \(12 images\), '0'.*--level 1=F"),
        ({"race": ["White", "Black", "white"]}, "race", r"look like spellings of one level.*--level white=White"),
        ({"race": ["White", "Black", "WHITE - RUSSIAN"]}, "race", "--level 'WHITE - RUSSIAN=White'"),
        ({"ward": ["Inner City", "inner  city", "Rural"]}, "ward", "spellings of one level"),
        ({"smoker": ["yes", "no", "True"]}, "smoker", "spellings of one level"),
        ({"sex": ["fe\u202emale", "male"]}, "sex", r"does not show \(U\+202E.*fe\\u202emale"),
        ({"sex": ["female", "male\u200b"]}, "sex", r"does not show \(U\+200B"),
    ],
)
def test_what_could_be_one_level_is_never_two_in_silence(
    columns: dict[str, Sequence[object]], attribute: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read(table(**columns), attribute=attribute)


def test_what_is_not_stated_is_no_level_and_what_a_spreadsheet_broke_is_refused() -> None:
    cohort = read(table(ward=["a", "b", "?", "-", "Unknown", "a"]), attribute="ward")
    assert cohort.levels("ward") == ("a", "b")
    assert "ward: not stated (?: 8, -: 8, Unknown: 8)" in reasons(cohort)
    assert read(table(sex=["F", "M", "?"])).levels("sex") == ("F", "M")
    with pytest.raises(InputError, match=r"'#REF!' \(16 images\), the error of a spreadsheet"):
        read(table(race=["White", "Asian", "#REF!"]), attribute="race")


@pytest.mark.parametrize(
    "ids",
    [
        ["1.23457E+11", "1.23458E+11"],
        ["2.0230101e+17", "2.0230102e+17"],
        ["2.0230101E17", "2e+17"],
        [9.007199254740994e15, 9.007199254740996e15],
        [2.0230101e17, 2.0230102e17],
    ],
)
def test_identifiers_that_were_rounded_are_refused(tmp_path: Path, ids: Sequence[object]) -> None:
    with pytest.raises(InputError, match=r"48 patients such as '.*', which a spreadsheet has rounded"):
        read(table(patient_id=ids))
    written = [int(float(one)) for one in ids]  # type: ignore[arg-type]
    table(patient_id=written).to_excel(tmp_path / "t.xlsx", index=False)
    if min(written) > 2**53:
        with pytest.raises(InputError, match="which a spreadsheet has rounded"):
            read(tmp_path / "t.xlsx")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_long_identifiers_beside_a_blank_are_those_of_the_file(tmp_path: Path, kind: str) -> None:
    ids = [202301010000000000 + row // 2 for row in range(COUNT)]
    frame = table().assign(patient_id=pd.array(ids, dtype="Int64"), edema=pd.array([0, 1] * 24, dtype="Int64"))
    frame.loc[COUNT - 1, ["patient_id", "edema"]] = pd.NA
    frame.loc[3, "edema"] = pd.NA
    file = tmp_path / f"t.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    cohort = read(file)  # type: ignore[arg-type]
    assert cohort.frame["patient_id"].tolist() == [str(one) for one in ids[:-1]]
    assert cohort.frame["edema"].isna().sum() == 1


def test_identifiers_that_look_like_powers_of_ten_are_names() -> None:
    assert read(table(patient_id=[f"{row}e{row:02d}" for row in range(24)])).frame["patient_id"].nunique() == 24


def test_listed_levels_take_their_spellings_and_a_mapping_means_what_it_says() -> None:
    found = read(table(sex=["F", "M", "f", "Male"]), levels=["female", "male"])
    assert found.levels("sex") == ("female", "male")
    assert read(table(race=["White", "Black", "white"]), attribute="race", levels=["White", "Black"]).levels(
        "race"
    ) == ("Black", "White")
    with pytest.raises(InputError, match=r"'f' looks like a spelling of 'F': --level f=female"):
        read(table(sex=["F", "M", "f", "M"]), levels={"F": "female", "M": "male"})
    with pytest.raises(InputError, match=r"differ by case, blanks or a \.0 only"):
        read(table(sex=["F", "M", "f", "M"]), levels={"F": "female", "f": "Female", "M": "male"})
    with pytest.raises(InputError, match="no image has the level 'other' of 'sex'"):
        read(table(), levels=["F", "M", "other"])


@pytest.mark.parametrize(
    ("values", "levels", "found"),
    [
        ([0, 1], [0, 1], ("0", "1")),
        ([0.0, 1.0], ["0", "1"], ("0", "1")),
        (["1.0", "0", "1", "0.0"], None, ("0", "1")),
        (["1.0", "0", "1", "0.0"], {1: "male", 0: "female"}, ("female", "male")),
        ([True, False], [True, False], ("False", "True")),
        (["yes", "no"], [True, False], ("False", "True")),
        (["no", "yes"], ["no", "yes"], ("no", "yes")),
    ],
)
def test_numbers_and_truths_are_levels(values: Sequence[object], levels: Any, found: tuple[str, ...]) -> None:
    assert read(table(sex=values), levels=levels).levels("sex") == found


@pytest.mark.parametrize(
    ("name", "two"), [("sex", ("F", "M")), ("race", ("White", "Asian")), ("hispanic", ("yes", "no"))]
)
def test_a_patient_has_one_value_of_what_cannot_change(name: str, two: tuple[str, str]) -> None:
    frame = table(**{name: two})
    frame.loc[0, name] = two[1]
    cohort = read(frame, attribute=name)
    assert len(cohort) == COUNT - 2
    assert "p000" not in set(cohort.frame["patient_id"])
    assert f"{name}: the records of the patient disagree" in reasons(cohort)
    kept = read(frame, attribute=name, conflicts="first").frame
    assert len(kept) == COUNT
    assert kept.groupby("patient_id")[name].nunique().max() == 1
    assert kept[name].iloc[0] == two[1]


def test_a_raw_value_is_the_level_that_its_rule_names_whatever_its_patient_counts_as() -> None:
    frame = table()
    frame.loc[[0, 2], "sex"] = ["M", "F"]
    cohort = read(frame, levels={"F": "female", "M": "male"}, conflicts="majority")
    assert cohort.frame["sex"].tolist()[:4] == ["male", "male", "female", "female"]
    assert {(one.raw, one.level) for one in cohort.raw} == {("F", "female"), ("M", "male")}


def test_too_many_torn_patients_are_another_column_and_what_may_change_stays() -> None:
    frame = table()
    frame["sex"] = ["F", "M"] * (COUNT // 2)
    with pytest.raises(InputError, match=r"24 of 24 patients have several values of 'sex'.*is 'patient_id' the column"):
        read(frame)
    site = read(frame.assign(site=frame["sex"].map({"F": "a", "M": "b"})), attribute="site")
    assert len(site) == COUNT
    assert "24 patients have images of several levels" in reasons(site)


def test_ages_and_their_groups_are_one_reading() -> None:
    ages = ["060Y", "040Y", "39.9", "27", "89+", ">89", "60+", "59 years"]
    frame = table(PatientAge=ages)
    columns = {"age_group": "PatientAge", "age": "PatientAge"}
    cohort = read(frame, attribute="age_group", bins={"age_group": [40, 60]}, columns=columns)
    right = {60.0: "60+", 40.0: "40-59", 39.9: "0-39", 27.0: "0-39", 90.0: "60+", 59.0: "40-59"}
    assert cohort.frame["age"].notna().all()
    assert {(age, right[age]) for age in cohort.frame["age"]} == set(
        zip(cohort.frame["age"], cohort.frame["age_group"], strict=True)
    )
    assert {one.images_before for one in cohort.raw} <= {6}
    above = read(frame, attribute="age_group", bins={"age_group": [40, 95]}, columns=columns)
    # Nobody knows on which side of 95 the open-ended ages are.
    assert set(above.frame["age"]) == {60.0, 40.0, 39.9, 27.0, 59.0}
    assert "age_group: above 120 years, or only known to be above a bound" in reasons(above)
    with pytest.raises(InputError, match="no age, the first in row 1: '45,5'"):
        read(table(age_group=["45,5", "60"]), attribute="age_group", bins={"age_group": [40]})
    assert set(read(table(weight=["155", "60"]), attribute="weight", bins={"weight": [100]}).frame["weight"]) == {
        "0-99",
        "100+",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bins": {"agee": [40]}}, "`bins` names 'agee', which is no attribute here. Did you mean 'age'"),
        ({"levels": {"age": ["30", "50"], "seks": ["F"]}}, "`levels` names 'seks', which is no attribute here"),
    ],
)
def test_a_misspelt_attribute_is_not_ignored(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(table(age=[30, 50]), attribute="age", **changes)


def test_names_of_groups_are_true_and_differ() -> None:
    numbers = pd.Series([0.2, 0.5, 18.4, 18.5, 24.9, 25.0], name="bmi")
    named = cut_bins(numbers, [0.5, 18.5, 25], source="t.csv").tolist()
    assert named == ["under 0.5", "0.5 to under 18.5", "0.5 to under 18.5", *["18.5 to under 25"] * 2, "25+"]
    assert cut_bins(pd.Series([24.9, 25.0]), [25], source="t.csv").tolist() == ["under 25", "25+"]
    assert cut_bins(pd.Series([-2, 0, 3]), [-1, 1], source="t.csv").tolist() == ["under -1", "-1 to under 1", "1+"]
    near = [1.00000001, 1.00000002]
    assert len(set(cut_bins(pd.Series([0, 1.000000015, 2]), near, source="t.csv"))) == 3
    with pytest.raises(InputError, match="at least one edge"):
        cut_bins(pd.Series([1.0]), [float("nan")], source="t.csv")
    with pytest.raises(InputError, match="an edge above age_cap"):
        Study(age_edges=(40.0, 95.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["sex"]}, "is the attribute and a label"),
        ({"covariates": ["sex"]}, "is the attribute and a covariate"),
        ({"labels": ["ill"], "columns": {"ill": "sex"}}, r"'sex' is the attribute and a label \('sex' of the table\)"),
        ({"labels": ["edema", "edema"]}, "named twice"),
        ({"labels": ["split"]}, "label 'split' is called as a column that every cohort has of its own"),
        ({"covariates": ["split"]}, "covariate 'split' is called as a column that every cohort"),
        ({"covariates": ["raw sex"]}, "covariate 'raw sex' is called as a column that every cohort"),
    ],
)
def test_roles_that_clash_are_refused(changes: dict[str, Any], said: str) -> None:
    # A finding, a site and so on that are called as what is written into every cohort were overwritten.
    with pytest.raises(InputError, match=said):
        read(table(split=[0, 1], **{"raw sex": ["x", "y", "x"]}), **changes)


def test_truth_that_two_programs_wrote_is_not_four_levels() -> None:
    frame = table(smoker=["True", "0", "False", "1"])
    with pytest.raises(InputError, match="which look like spellings of one level"):
        read(frame, attribute="smoker")
    levels = {"True": "yes", "1": "yes", "False": "no", "0": "no"}
    assert read(frame, attribute="smoker", levels=levels).levels("smoker") == ("no", "yes")
    assert read(table(smoker=["1", "0", "yes"]), attribute="smoker").levels("smoker") == ("0", "1", "yes")


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("group", "'a, b' with 'c' and 'a' with 'b, c' of one, two are both called 'a, b, c'"),
        ("patient_id", "The attribute 'patient_id' is called as a column that every cohort"),
    ],
)
def test_a_joint_attribute_is_no_two_things_at_once(tmp_path: Path, attribute: str, said: str) -> None:
    file = tmp_path / "t.csv"
    table(one=["a, b", "a", "a", "d"], two=["c", "b, c", "d", "d"]).to_csv(file, index=False)
    settings = CohortConfig(table=file, images=tmp_path, attribute=attribute, combine=["one", "two"], labels=["edema"])
    with pytest.raises(InputError, match=said):
        audited_cohort(settings, narrator=Narrator(quiet=True), check="none")


def of_levels(table: Path, images: Path | None, attribute: str, **changes: Any) -> Cohort:
    usual = {"table": table, "images": images, "attribute": attribute, "labels": ["edema"], "min_patients_per_level": 1}
    return audited_cohort(CohortConfig(**{**usual, **changes}), narrator=Narrator(quiet=True), check="none")


def test_images_of_levels_that_nobody_asks_for_are_counted(tmp_path: Path) -> None:
    """The page said that no image was left out, of a table and of a prepared cohort."""
    frame = table(view=["PA", "PA", "AP", "AP", "", "PA"], scanner=["a", "b", "c", "a", "b"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    parts = {"combine": ["sex", "view"], "levels": ["F, PA", "M, PA"]}
    joint = of_levels(tmp_path / "t.csv", tmp_path, "sex and view", **parts)
    read(frame, covariates=["view", "scanner"]).to_parquet(tmp_path / "cohort.parquet")
    prepared = of_levels(tmp_path / "cohort.parquet", None, "sex and view", **parts)
    scanner = of_levels(tmp_path / "cohort.parquet", None, "scanner", levels=["a", "b"])
    for cohort in (joint, prepared, scanner):
        assert len(cohort) + sum(step.excluded_images for step in cohort.flow) == COUNT
    for cohort in (joint, prepared):
        assert "no view (8 blank)" in reasons(cohort)
        assert "sex and view is not F, PA or M, PA (F, AP: 8; M, AP: 8)" in reasons(cohort)
    assert "scanner is not a or b (c: 10)" in reasons(scanner)


@pytest.mark.parametrize("changes", [{"attribute": "age"}, {"attribute": "both", "combine": ["sex", "age"]}])
def test_a_number_of_a_prepared_cohort_is_cut_or_asked_at_values(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It was compared year by year, or refused with a list of years that few patients have."""
    frame = table(age=range(30, 54), scanner=[1, 2])
    read(frame, covariates=["age", "scanner"]).to_parquet(tmp_path / "cohort.parquet")
    with pytest.raises(InputError, match=r"'age' has 24 levels .*`bins`"):
        of_levels(tmp_path / "cohort.parquet", None, **changes)
    joint = of_levels(tmp_path / "cohort.parquet", None, "one", combine=["sex", "scanner"])
    assert joint.levels("one") == ("F, 1", "M, 2"), "named as in a table of one's own"


def test_a_rare_value_of_one_part_does_not_stop_combinations_without_it(tmp_path: Path) -> None:
    """It has no patient in the test split, and none of the combinations that are compared has it."""
    frame = table(scanner=["a", "a", "b", "b"])
    frame.loc[frame["patient_id"] == "p000", "scanner"] = "c"
    frame.to_csv(tmp_path / "t.csv", index=False)
    parts = {"combine": ["scanner", "sex"], "levels": ["a, F", "a, M", "b, F", "b, M"]}
    assert len(of_levels(tmp_path / "t.csv", tmp_path, "both", **parts)) == COUNT - 2
    with pytest.raises(InputError, match="to test 'both': 'c, F' has 0"):
        of_levels(tmp_path / "t.csv", tmp_path, "both", combine=["scanner", "sex"])


def test_one_file_and_one_patient_are_named_once() -> None:
    frame = table()
    frame.loc[7, "path"] = "./5.png"
    with pytest.raises(InputError, match="1 image files more than once"):
        read(frame.assign(image_id=range(COUNT)))
    frame = table()
    frame.loc[7, "patient_id"] = "P003"
    with pytest.raises(InputError, match="'p003' and 'P003', which look like spellings of one"):
        read(frame)
    require_one_spelling(pd.Series(["1.1", "1.10", "1.100"]), source="t.csv", what="patient")  # SITE.NUMBER
    with pytest.raises(InputError, match="the patients '7' and '07', which look like"):
        require_one_spelling(pd.Series(["7", "07"]), source="t.csv", what="patient")


def test_covariates_that_say_nothing_are_left_aside_and_spellings_merge() -> None:
    frame = table(view=["PA", "pa", "postero-anterior", "AP"], one=["x"], none=[None], dose=["1.5", "2", "10", "7"])
    cohort = read(frame, covariates=["view", "one", "none", "dose"])
    assert cohort.covariates == ("view", "dose")
    assert set(cohort.frame["view"]) == {"PA", "AP"}
    assert pd.api.types.is_numeric_dtype(cohort.frame["dose"])
    assert "'one' has the one value 'x' in all images and is left aside" in reasons(cohort)
    assert "'none' is blank in all images" in reasons(cohort)
    with pytest.raises(InputError, match="Write decimal points"):
        read(table(dose=["1,5", "2", "10,5"]), covariates=["dose"])


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_a_path_without_its_suffix_finds_the_file(tmp_path: Path, suffix: str) -> None:
    for row in range(COUNT):
        Image.linear_gradient("L").resize((16, 16)).save(tmp_path / f"{row}{suffix}")
    frame = table()
    frame["path"] = frame["path"].str.removesuffix(".png")
    cohort = read(frame, images=tmp_path, check="exists")
    assert cohort.frame["path"].tolist() == [f"{row}{suffix}" for row in range(COUNT)]
    assert "48 paths have no suffix" in reasons(cohort)
    assert path_columns(frame, tmp_path)["path"] == (COUNT, COUNT)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(("there", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_in_the_other_form_of_unicode_finds_the_file(
    tmp_path: Path, there: Literal["NFC", "NFD"], written: Literal["NFC", "NFD"], bare: bool
) -> None:
    names = [f"r\u00f6ntgen/m\u00fcller{row}.png" for row in range(COUNT)]
    files = [unicodedata.normalize(there, name) for name in names]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((16, 16)).save(tmp_path / file)
    frame = table().assign(path=[unicodedata.normalize(written, name) for name in names])
    frame["path"] = frame["path"].str.removesuffix(".png") if bare else frame["path"]
    assert path_columns(frame, tmp_path)["path"] == (COUNT, COUNT)
    cohort = read(frame, images=tmp_path, check="exists")
    assert cohort.frame["path"].tolist() == files
    said = (
        "have no suffix, and the file stands there with one"
        if bare
        else "are written with other characters than their files, which look the same"
    )
    assert f"48 paths {said} ({files[0]})" in reasons(cohort)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.upper(), "'0.png' stands in that folder. Mend them"),
        (lambda path: path.replace(".png", ".jpg"), "'0.png' stands in that folder."),
        (lambda path: f"scans/{path}", "It is below {above}: give that folder."),
        (lambda path: f"other/{path}", "the path column. Mend them"),
    ],
)
def test_a_file_that_is_not_there_by_that_name_is_pointed_to(tmp_path: Path, change: Any, said: str) -> None:
    (tmp_path / "scans").mkdir()
    for row in range(COUNT):
        Image.linear_gradient("L").resize((16, 16)).save(tmp_path / "scans" / f"{row}.png")
    frame = table()
    frame["path"] = frame["path"].map(change)
    with pytest.raises(InputError) as refused:
        read(frame, images=tmp_path / "scans", check="decode")
    assert said.format(above=tmp_path) in str(refused.value)


# What an audit asks of its cohort, of a table and of a prepared one alike.


def prepared(tmp_path: Path, frame: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    cohort = read(frame, **{"min_patients_per_level": 0, **changes})
    return {"table": write_prepared(cohort, tmp_path / "prepared")["cohort"]}


def plain(tmp_path: Path, frame: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    for row in range(COUNT):
        Image.linear_gradient("L").resize((16, 16)).save(tmp_path / f"{row}.png")
    frame.to_csv(tmp_path / "t.csv", index=False)
    given = {name: value for name, value in changes.items() if name == "split"}
    return {"table": tmp_path / "t.csv", "images": tmp_path, **given}


def audited(settings: dict[str, Any], **more: Any) -> Cohort:
    usual = {"attribute": "sex", "labels": ("edema",), "min_patients_per_level": 1, "cache": False}
    return audited_cohort(CohortConfig(**{**usual, **settings, **more}), narrator=Narrator(quiet=True))


@pytest.mark.parametrize("way", [prepared, plain])
def test_an_audit_refuses_at_the_start_what_it_cannot_stand_on(tmp_path: Path, way: Any) -> None:
    sides = ["train", "test", "train", "validation"]
    settings = way(tmp_path, table(side=sides, sex=["F", "M", "M", "F"]), split="side")
    with pytest.raises(InputError, match="no image has the level 'other'"):
        audited(settings, levels=("F", "M", "other"))
    with pytest.raises(InputError, match="'F' has 0, 1 are needed"):
        audited(settings)
    settings = way(tmp_path, table(side=["train", "test", "train", "test"], sex=["F", "M", "F", "F"]), split="side")
    with pytest.raises(InputError, match="no image with the level 'M'"):
        audited(settings)
    settings = way(tmp_path, table(side=["test"]), split="side")
    with pytest.raises(InputError, match="The training split has no image"):
        audited(settings)


@pytest.mark.parametrize("way", [prepared, plain])
def test_an_audit_says_what_it_leaves_aside(tmp_path: Path, way: Any) -> None:
    sides = ["train", "train", "test", "test", "train", "train"]
    frame = table(
        side=sides,
        view=["AP", "PA", "LL", "AP", "PA", "AP"],
        room=["1", "1", "2", "2", "1", "1"],
        ill=[1, 1, 0, 1, 1, 1],
    )
    names = {"covariates": ["view", "room"], "labels": ["edema", "ill"]}
    settings = way(tmp_path, frame, split="side", lateral="keep", **names)
    frame_of = audited(settings, **{name: tuple(value) for name, value in names.items()}) if way is prepared else None
    if frame_of is None:
        frame["view"] = frame["view"].replace("LL", "frontal")
        frame.to_csv(tmp_path / "t.csv", index=False)
        frame_of = audited(settings, **{name: tuple(value) for name, value in names.items()})
    assert frame_of.covariates == ("view",)
    assert frame_of.frame["view"].isna().sum() == COUNT // 6
    said = reasons(frame_of)
    assert "'room' has the one value '1" in said
    assert "values of 'view' that no training image has count as not stated" in said
    assert "'ill' is present everywhere in the train split" in said


def test_uncertain_labels_have_a_key_in_an_audit(tmp_path: Path) -> None:
    settings = plain(tmp_path, table(edema=[0, 1, -1, 1, 0, 0]))
    with pytest.raises(InputError, match=r"`cohort\.uncertain` of a configuration, --uncertain"):
        audited(settings)
    assert audited(settings, uncertain="ignore").frame["edema"].isna().sum() == COUNT // 6
    done = prepared(tmp_path, table())
    with pytest.raises(InputError, match=r"cohort\.uncertain cannot be set for the prepared cohort"):
        audited(done, uncertain="ones")


def test_names_are_text_in_markdown_and_in_the_figure(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|$\\frac$"
    cohort = read(table(**{evil: [0, 1, 1]}, sex=["<b>F</b>", "`M`|x"]), labels=[evil])
    written = write_prepared(cohort, tmp_path / "c")
    described = write_description(describe(cohort), tmp_path / "d")
    for page in (written["flow_md"], described["md"]):
        text = page.read_text()
        assert "<img" not in text
        assert "<b>" not in text
        assert "\\`M\\`\\|x" in text
    assert json.loads(described["json"].read_text())["associations"][0]["variable"] == evil
    with pytest.raises(InputError, match="does not show"):
        replace(cohort, labels=("ede\u202ema",))


def test_a_level_that_comes_from_one_hospital_is_told() -> None:
    one = read(table(hospital=["north", "south"]), covariates=["hospital"])
    assert "all 24 images of 'F' have the hospital 'north', and 0 of the 24 others" in reasons(one)
    assert "may be that of the hospital or the scanner" in reasons(one)
    # A level in both hospitals, or one hospital for all, says nothing of the kind.
    assert "hospital" not in reasons(read(table(hospital=["north", "south", "south"]), covariates=["hospital"]))
    several = read(table(hospital=["north", "north", "north", "south"]), covariates=["hospital"])
    assert "may be that of" not in reasons(several)


def test_a_level_whose_files_all_have_one_size_is_told(tmp_path: Path) -> None:
    rows = table()
    for path, sex in zip(rows["path"], rows["sex"], strict=True):
        side = 24 if sex == "F" else 32
        Image.linear_gradient("L").resize((side, side - 4)).save(tmp_path / path)
    told = reasons(read(rows, images=tmp_path, check="decode"))
    assert "all 24 images of 'F' have the file side '24', and 0 of the 24 others" in told
    assert "all 24 images of 'M' have the file side '32'" in told
    for number, path in enumerate(rows["path"]):
        Image.linear_gradient("L").resize((24 + 8 * (number // 4 % 2), 20)).save(tmp_path / path)
    mixed = read(rows, images=tmp_path, check="decode")
    assert "file side" not in reasons(mixed)
    assert "file side" not in mixed.frame


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("18-40", "18\u201340"),  # the dash of a word processor
        ("site-1", "site\u20111"),
        ("St Mary's", "St Mary\u2019s"),
        ("A", "\u0410"),  # Cyrillic
        ("Port B", "\u0420\u043ert \u0412"),
    ],
)
def test_what_only_looks_otherwise_is_a_spelling(usual: str, other: str) -> None:
    frame = table(group=[usual, "Z", other, "Z"])
    with pytest.raises(InputError, match="which look like spellings of one level"):
        read(frame, attribute="group")
    merged = read(frame, attribute="group", levels=[usual, "Z"])
    assert merged.levels("group") == tuple(sorted([usual, "Z"]))
    patients = pd.Series([f"{usual}7", f"{other}7"])
    with pytest.raises(InputError, match="look like spellings of one"):
        require_one_spelling(patients, source="t", what="patient")


@pytest.mark.parametrize(("one", "two"), [("\u0416\u0430", "\u0416a"), ("5 \u00b5g", "5 mg"), ("1-2", "12")])
def test_other_words_stay_other_levels(one: str, two: str) -> None:
    assert read(table(group=[one, two]), attribute="group").levels("group") == tuple(sorted([one, two]))


def test_a_date_beside_groups_is_told() -> None:
    for date in ("2024-09-01", "2024-09-01 00:00:00", "01-Sep", "Sep-01"):
        assert f"'{date}' stands beside '10-19'" in reasons(read(table(group=[date, "10-19"]), attribute="group"))
    assert "a spreadsheet makes dates" not in reasons(read(table(group=["1-9", "10-19"]), attribute="group"))
    assert "a spreadsheet makes dates" not in reasons(read(table(group=["2024", "10-19"]), attribute="group"))


@pytest.mark.parametrize("name", ["unknown", "NONE", "Anonymous", "-", "0"])
def test_a_patient_who_may_be_many_is_told(name: str) -> None:
    frame = table(group=["A", "B"])
    frame.loc[: 2 * COUNT // 3, "patient_id"] = name
    said = f"images are of the one patient '{name}': if that stands for 'not known', leave it blank"
    assert f"{2 * COUNT // 3 + 1} {said}" in reasons(read(frame, attribute="group"))
    frame = table(group=["A", "B"])
    frame.loc[:1, "patient_id"] = name
    assert (said in reasons(read(frame, attribute="group"))) == (name != "0")


def test_patients_with_many_images_are_patients() -> None:
    frame = table(group=["A", "B"])
    frame.loc[:20, "patient_id"] = "p900"
    frame.loc[21:23, "patient_id"] = "p901"
    assert "the one patient" not in reasons(read(frame, attribute="group"))
    frame["patient_id"] = "unknown"
    frame["patient_id"] += frame.index.astype(str)
    assert "the one patient" not in reasons(read(frame, attribute="group"))


def weights(*words: str) -> pd.DataFrame:
    frame = table()
    frame["weight"] = [words[row // 2 % len(words)] if row % 2 and words else f"{50 + row}" for row in range(COUNT)]
    return frame


def test_words_for_not_known_beside_numbers_are_blanks_and_counted() -> None:
    cohort = read(weights("unknown", "?"), covariates=["weight"])
    assert cohort.frame["weight"].dtype == float
    assert cohort.frame["weight"].isna().sum() == COUNT // 2
    assert "'weight' is a number: words count as not stated (unknown: 12, ?: 12)" in reasons(cohort)


def test_other_words_beside_numbers_are_levels_and_few_numbers_are_codes() -> None:
    assert read(weights("heavy", "light"), covariates=["weight"]).frame["weight"].isna().sum() == 0
    codes = table().assign(weight=["1", "2", "unknown"] * (COUNT // 3))
    assert read(codes, covariates=["weight"]).frame["weight"].unique().tolist() == ["1", "2", "unknown"]


def test_a_covariate_with_a_name_for_every_image_is_told() -> None:
    wide = pd.concat([weights(), weights()], ignore_index=True)
    wide["path"] = [f"{row}.png" for row in range(2 * COUNT)]
    wide["weight"] = [f"{50 + row} kg" for row in range(2 * COUNT)]
    assert "'weight' has 96 different values, such as '50 kg'" in reasons(read(wide, covariates=["weight"]))


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_covariate_is_refused(value: float) -> None:
    frame = table().assign(weight=[value if row % 5 == 4 else float(row) for row in range(COUNT)])
    with pytest.raises(InputError, match=r"'weight' holds 9 values that are no numbers, the first in row 5"):
        read(frame, covariates=["weight"])


def test_what_a_sentence_proposes_can_be_typed() -> None:
    frame = table(group=[">=65 (old)", "<65", ">=65 (OLD)", "<65"])
    with pytest.raises(InputError) as refused:
        read(frame, attribute="group")
    said = str(refused.value)
    words = shlex.split(said[said.index("--level") : said.index(" merges these")])
    assert dict(pairs("--level", words[1:], "raw=name")) == {">=65 (OLD)": ">=65 (old)"}


@pytest.mark.parametrize("word", ["LL", "Lateral view", "lateral\u00a0view", "seitlich", " LAT "])
def test_a_lateral_view_is_left_out_in_the_words_of_tables(word: str) -> None:
    cohort = read(table(view=["PA", "AP view", word, "ap supine"]))
    assert len(cohort) == 3 * COUNT // 4
    assert "words that are not known" not in reasons(cohort)


def test_views_in_words_that_are_not_known_are_told_where_others_are() -> None:
    cohort = read(table(view=["PA", "AP", "swimmer style", None]))
    assert len(cohort) == COUNT
    assert "views in words that are not known are kept, also where they are lateral (swimmer style: 12)" in reasons(
        cohort
    )
    assert "words that are not known" not in reasons(read(table(view=["MLO", "CC", None])))  # mammograms
    assert "words that are not known" not in reasons(read(table(view=["PA", "AP", "unknown", "costal"])))


@pytest.mark.parametrize("code", [-9, -1, -999, 999, 9999])
@pytest.mark.parametrize("written", [str, float])
def test_a_code_among_the_numbers_of_a_covariate_is_told(code: int, written: type) -> None:
    frame = table().assign(dose=[written(code if row % 12 == 0 else row % 20) for row in range(COUNT)])
    assert f"'dose' is {code} in 4 images, which is taken as a number" in reasons(read(frame, covariates=["dose"]))


@pytest.mark.parametrize(
    "values",
    [
        [*range(COUNT)],
        [-9, *range(COUNT - 1)],
        [*range(-20, 28)],
        [900 + row // 4 * 9 for row in range(COUNT)],
        [[-1, 0, 1][row % 3] for row in range(COUNT)],
    ],
)
def test_numbers_without_codes_are_numbers(values: list[int]) -> None:
    assert "not known" not in reasons(read(table().assign(dose=values), covariates=["dose"]))


def test_a_value_to_be_kept_that_no_row_has_is_told() -> None:
    frame = table(site=["A", "b", "1.0", "c"])
    told = reasons(read(frame, keep={"site": ["A", "B", "1", "c", "7"]}))
    assert "no row has the site 'B', '7', which are to be kept; there are A, b, 1.0, c" in told
    told = reasons(read(frame, keep={"site": ["A", "b", "1", "C"]}))
    assert "no row has the site 'C', which is to be kept; there are" in told
    assert "which is to be kept" not in reasons(read(frame, keep={"site": ["A", "b", "1"]}))


def test_many_values_to_be_kept_that_no_row_has_are_one_line_without_the_names_of_others() -> None:
    frame = pd.concat([table(), table()], ignore_index=True)
    frame["patient_id"] = frame["path"] = [f"{row}.png" for row in range(len(frame))]
    wanted = [*frame["path"][4:], *(f"q{row}" for row in range(500))]
    (told, kept) = [step.reason for step in read(frame, keep={"patient_id": wanted}).flow if "keep" in step.step]
    assert told == "no row has the patient_id 'q0', 'q1', 'q2', 'q3', 'q4' and 495 more, which are to be kept"
    assert kept.startswith("patient_id is not 4.png or 5.png or")
    assert len(kept) < 500


def test_typing_errors_among_numbers_are_named_where_there_are_few_different_ones_too() -> None:
    values = [*(str(row % 18) for row in range(COUNT - 3)), "12O", "1 0", "l7"]
    with pytest.raises(InputError, match="3 values that are no numbers, the first in row 46: '12O'"):
        read(table().assign(dose=values), covariates=["dose"])
    codes = [*(str(row % 18) for row in range(COUNT - 3)), "7", "unknown", "?"]
    assert "unknown" in set(read(table().assign(dose=codes), covariates=["dose"]).frame["dose"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 2, 9], "9"),
        ([0, 1, 2, -1], "-1"),
        (["1.0", "2.0", "99.0"], "99"),
        ([1, 2, 3, 4, 5, 6, -9, 88], "-9 88"),
        ([1, 2], ""),
        ([1, 9], ""),
        ([3, 4, 9], ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], ""),
        (["1", "2", "9", "other"], ""),
        ([-1, 1], ""),
    ],
)
def test_a_level_that_looks_like_not_known_is_told(values: list[Any], told: str) -> None:
    frame = table(site=values)
    said = reasons(read(frame, attribute="site"))
    each = COUNT // len(values)
    for code in told.split():
        assert f"site: '{code}' is taken as a level of its own ({each} images): leave blank" in said
    assert said.count("leave blank") == len(told.split())
    # Who lists the levels knows them.
    listed = [*dict.fromkeys(map(str, values))]
    assert "not known" not in reasons(read(frame, attribute="site", levels={"site": listed}))


@pytest.mark.parametrize("how", ["groups", "number", "age aside"])
@pytest.mark.parametrize(
    ("name", "code", "usual", "told"),
    [
        ("bmi", -1, 20, True),
        ("bmi", 0, 20, False),
        ("bmi", 99, 20, False),
        ("bmi", 999, 20, True),
        ("age", 0, 20, True),
        ("age", 0, 1, False),
        ("age", 99, 20, True),
        ("age", 99, 60, False),
    ],
)
def test_a_code_among_numbers_that_are_the_attribute_is_told(
    how: str, name: str, code: int, usual: int, told: bool
) -> None:
    if how == "age aside" and name != "age":
        return
    values = [code if row % 12 < 2 else usual + row // 2 * 1.5 for row in range(COUNT)]
    chosen: dict[str, Any] = {"attribute": name, "bins": {name: [usual + 10, usual + 20]}}
    if how == "number":
        chosen = {"attribute": name, "levels": [usual + 10, usual + 20]}
    said = reasons(read(table().assign(**{name: values}), **({} if how == "age aside" else chosen)))
    far = how == "number" and code == 999
    assert (f"'{name}' is {code} in 8 images, which is taken as a number" in said) == (told and not far)
    assert ("far from all others (999: 8)" in said) == far


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("{}_left", "{}_right"), True),
        (("{}_left.jpeg", "{}_right.jpeg"), True),
        (("P{}-OD", "P{}-OS"), True),
        (("{} L", "{} R"), True),
        (("p{}left", "p{}Right"), True),
        (("{}L", "{}R"), False),
        (("a{}", "b{}"), False),
        (("{}_left", "{}a_right"), False),
    ],
)
def test_a_left_and_a_right_patient_are_told(names: tuple[str, str], told: bool) -> None:
    frame = table()
    frame["patient_id"] = [names[row % 2].format(row // 2) for row in range(COUNT)]
    said = reasons(read(frame))
    assert ("24 patients stand there as two, a left and a right one, such as '" in said) == told
    few = table()
    few.loc[:3, "patient_id"] = ["q_left", "q_right", "r_left", "r_right"]
    assert "left and a right" not in reasons(read(few))


def test_a_finding_that_is_blank_where_it_may_be_absent_is_told() -> None:
    said = "'edema' is 1 wherever it is stated, and blank in 24 images, which count as not stated: write 0"
    assert said in reasons(read(table(edema=[1, None])))
    for values in ([1, 0, None], [None], [1], [0, None]):
        assert "wherever it is stated" not in reasons(read(table(edema=values))), values


def test_an_l_beside_an_r_is_a_side_and_no_lateral_view() -> None:
    assert len(read(table(view=["L", "R", "r ", "l"]))) == COUNT
    assert len(read(table(view=["L", "PA", "PA", "L"]))) == COUNT // 2
    assert len(read(table(view=["L", "R", "lateral", "lateral"]))) == COUNT // 2
