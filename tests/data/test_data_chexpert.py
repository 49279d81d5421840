"""CheXpert, in every version of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.prepared import write_prepared
from citlr.data.sources.chexpert import LABELS, prepare_chexpert
from citlr.data.sources.study import Study
from citlr.errors import InputError, StateError

RACES = ["White or Caucasian", "Black, non-Hispanic", "Asian - Historical Conv", "White, Hispanic"]


def rows_of(part: str, first: int, patients: int, prefix: str = "CheXpert-v1.0-small/") -> pd.DataFrame:
    rows = []
    for patient in range(first, first + patients):
        for view, beam in (("frontal", "AP" if patient % 3 else "PA"), ("lateral", "")):
            row: dict[str, Any] = {
                "Path": f"{prefix}{part}/patient{patient:05d}/study1/view1_{view}.jpg",
                "Sex": "Male" if (patient // 4) % 2 else "Female",
                "Age": 0 if patient == 1 else 90 if patient == 2 else 30 + patient,
                "Frontal/Lateral": view.capitalize(),
                "AP/PA": beam,
            }
            row.update({label: ["1.0", "0.0", "-1.0", ""][patient % 4] for label in LABELS})
            rows.append(row)
    return pd.DataFrame(rows)


def write_images(root: Path, table: pd.DataFrame) -> None:
    for path in table["Path"].str.replace(r"^CheXpert-v1.0[^/]*/", "", regex=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(50, 150, 10, dtype=np.uint8), (12, 1))).save(root / path)


def demographics(patients: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "PATIENT": [f"patient{number:05d}" for number in range(1, patients + 1)],
            "GENDER": ["Male" if (number // 4) % 2 else "Female" for number in range(1, patients + 1)],
            "AGE_AT_CXR": [30 + number for number in range(1, patients + 1)],
            "PRIMARY_RACE": [RACES[number % 4] for number in range(1, patients + 1)],
            "ETHNICITY": ["Not Hispanic" if number % 4 else "" for number in range(1, patients + 1)],
        }
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "CheXpert-v1.0-small"
    folder.mkdir()
    for part, first, patients in (("train", 1, 24), ("valid", 25, 8)):
        table = rows_of(part, first, patients)
        table.to_csv(folder / f"{part}.csv", index=False)
        write_images(folder, table)
    demographics(40).to_excel(tmp_path / "CHEXPERT DEMO.xlsx", index=False)
    return folder


def test_from_the_tables_to_the_cohort(root: Path) -> None:
    cohort = prepare_chexpert(root)
    assert len(cohort) == 32
    assert cohort.attributes == ("race", "sex")
    assert cohort.levels("race") == ("asian", "black", "white")
    frame = cohort.frame.set_index("patient_id")
    assert frame.loc["patient00001", "race"] == "black"
    # Not a word of "Caucasian" is read as "asian".
    assert frame.loc["patient00004", "race"] == "white"
    assert np.isnan(frame.loc["patient00001", "age"])
    assert frame.loc["patient00002", "age"] == 90.0
    assert frame.loc["patient00003", "view"] == "PA"
    # Race says it where the ethnicity is blank.
    assert frame.loc["patient00007", "hispanic"] == "non-hispanic"
    # 1, 0, -1 (ignored) and blank (not mentioned, so absent).
    assert frame.loc[["patient00004", "patient00005", "patient00007"], "Edema"].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(frame.loc["patient00006", "Edema"])
    assert cohort.flow[1].step == "view"
    assert cohort.flow[1].excluded_images == 32
    assert cohort.frame.select_dtypes("number").columns.tolist() == ["age", *cohort.labels]


def test_a_sex_of_one_size_of_file_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "file side" not in "".join(step.reason for step in prepare_chexpert(root).flow)
    for file in (root / "train").rglob("*.jpg"), (root / "valid").rglob("*.jpg"):
        for image in file:
            if (int(image.parts[-3].removeprefix("patient")) // 4) % 2:  # male
                Image.open(image).resize((20, 20)).save(image)
    found = prepare_chexpert(root, study=Study(check="decode"), narrator=Narrator(quiet=False))
    assert "of 'male' have the file side '20', and 0 of the 16 others" in "".join(step.reason for step in found.flow)
    assert "have the file side '20'" in " ".join(capsys.readouterr().err.split())
    assert "file side" not in found.frame


def test_raw_values_are_counted_before_and_after(root: Path) -> None:
    people = demographics(40)
    people.loc[:3, "PRIMARY_RACE"] = ["Other", "Unknown", "Pacific Islander, non-Hispanic", None]
    people.to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    cohort = prepare_chexpert(root, demographics=root / "CHEXPERT_DEMO.csv")
    raw = {one.raw: one for one in cohort.raw if one.attribute == "race"}
    assert (raw["Other"].level, raw["Other"].images_before, raw["Other"].images_after) == ("other", 2, 0)
    assert (raw[""].level, raw[""].images_before) == ("unknown", 2)
    assert raw["Pacific Islander, non-Hispanic"].level == "other"
    white = raw["White or Caucasian"]
    assert (white.level, white.images_before, white.images_after) == ("white", 14, 7)
    steps = [step for step in cohort.flow if step.step == "race"]
    assert [step.excluded_patients for step in steps] == [2, 2]
    assert "Unknown: 1" in steps[0].reason
    assert "(blank): 1" in steps[0].reason
    kept = prepare_chexpert(
        root, demographics=root / "CHEXPERT_DEMO.csv", study=Study(races=("white", "black", "asian", "other"))
    )
    assert "other" in kept.levels("race")


def test_flow_adds_up_and_the_files_are_whole(root: Path, tmp_path: Path) -> None:
    cohort = prepare_chexpert(root)
    images, patients = cohort.flow[0].n_images, cohort.flow[0].n_patients
    for step in cohort.flow[1:]:
        assert step.n_images == images - step.excluded_images
        assert step.n_patients == patients - step.excluded_patients
        images, patients = step.n_images, step.n_patients
    assert images == len(cohort)
    paths = write_prepared(cohort, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == [".lock", "cohort.parquet", "flow.json", "flow.md"]
    back = Cohort.from_parquet(paths["cohort"])
    assert back.raw == cohort.raw
    assert back.pixels([0], size=8).mean() > 0.2
    content = json.loads(paths["flow_json"].read_text())
    assert content["flow"][-1]["n_images"] == len(cohort)
    assert content["raw"]
    assert "| view |" in paths["flow_md"].read_text()
    assert "White or Caucasian" in paths["flow_md"].read_text()


def test_the_folder_above_and_the_other_spellings_of_demographics(root: Path) -> None:
    here = prepare_chexpert(root)
    above = prepare_chexpert(root.parent)
    pd.testing.assert_frame_equal(here.frame, above.frame)
    (root.parent / "CHEXPERT DEMO.xlsx").unlink()
    demographics(40).to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    pd.testing.assert_frame_equal(here.frame, prepare_chexpert(root).frame)


def test_official_split_with_test_table_and_bare_columns(root: Path) -> None:
    assert prepare_chexpert(root).flow[-1].reason.startswith("drawn by patient")
    table = rows_of("test", 33, 8, prefix="")
    # The official test table has paths and labels alone.
    table.drop(columns=["Sex", "Age", "Frontal/Lateral", "AP/PA"]).to_csv(root / "test.csv", index=False)
    write_images(root, table)
    cohort = prepare_chexpert(root)
    assert cohort.frame["split"].value_counts().to_dict() == {"train": 24, "validation": 8, "test": 8}
    test = cohort.part("test").frame
    assert test["age"].iloc[0] == 63.0
    assert test["sex"].tolist() == ["female"] * 3 + ["male"] * 4 + ["female"]
    drawn = prepare_chexpert(root, study=Study(split="drawn"))
    assert (drawn.frame["split"] != drawn.frame["official_split"]).any()
    (root / "test.csv").unlink()
    with pytest.raises(InputError, match="no official test split"):
        prepare_chexpert(root, study=Study(split="official"))


def test_chexbert_labels(root: Path) -> None:
    table = rows_of("train", 1, 24)
    table["Edema"] = "1.0"
    table.to_csv(root / "train_CheXbert.csv", index=False)
    cohort = prepare_chexpert(root, labeller="chexbert")
    trained = cohort.frame["official_split"] == "train"
    assert (cohort.frame.loc[trained, "Edema"] == 1.0).all()
    with pytest.raises(InputError, match="labeller"):
        prepare_chexpert(root, labeller="negbio")


def test_policies_for_labels(root: Path) -> None:
    def edema(**choices: Any) -> list[float]:
        frame = prepare_chexpert(root, study=Study(**choices)).frame.set_index("patient_id")
        return frame.loc[["patient00006", "patient00007"], "Edema"].tolist()

    assert edema(uncertain="ones") == [1.0, 0.0]
    assert edema(uncertain="zeros") == [0.0, 0.0]
    assert all(map(np.isnan, edema(blank="ignore")))


def test_patients_without_demographics_are_counted_and_kept_out(root: Path) -> None:
    demographics(28).to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    cohort = prepare_chexpert(root)
    step = next(step for step in cohort.flow if "not in the table of demographics" in step.reason)
    assert (step.excluded_images, step.excluded_patients) == (4, 4)
    demographics(4).to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    with pytest.raises(InputError, match=r"28 of 32 patients .* different versions"):
        prepare_chexpert(root)


def test_no_demographics(root: Path) -> None:
    (root.parent / "CHEXPERT DEMO.xlsx").unlink()
    with pytest.raises(InputError, match=r"CHEXPERT DEMO.xlsx.*Stanford AIMI"):
        prepare_chexpert(root)
    cohort = prepare_chexpert(root, study=Study(attributes=("sex", "age_group")))
    assert cohort.attributes == ("sex", "age_group")
    # The one patient without a stated age is left out, not put into a group.
    assert "patient00001" not in set(cohort.frame["patient_id"])


def test_hispanic_as_attribute_and_adults_only(root: Path) -> None:
    people = demographics(40)
    people["ETHNICITY"] = ["Hispanic/Latino" if number % 2 else "Non-Hispanic/Non-Latino" for number in range(40)]
    people.to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    cohort = prepare_chexpert(root, study=Study(attributes=("hispanic",), min_age=40))
    assert cohort.levels("hispanic") == ("hispanic", "non-hispanic")
    assert cohort.frame["age"].min() >= 40


def test_unknown_strings_stop_the_run_unless_allowed(root: Path) -> None:
    people = demographics(40)
    people.loc[[0, 4], "PRIMARY_RACE"] = "Martian"
    people.to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    with pytest.raises(InputError, match=r"race .*'Martian' \(2\).*--allow-unknown"):
        prepare_chexpert(root)
    cohort = prepare_chexpert(root, study=Study(allow_unknown=True))
    assert any("Martian: 2" in step.reason for step in cohort.flow)


def test_duplicates_and_mixed_versions_and_wrong_roots(root: Path, tmp_path: Path) -> None:
    pd.concat([demographics(40), demographics(2)]).to_csv(root / "CHEXPERT_DEMO.csv", index=False)
    with pytest.raises(InputError, match=r"2 patients more than once: patient00001, patient00002"):
        prepare_chexpert(root)
    (root / "CHEXPERT_DEMO.csv").unlink()
    rows_of("valid", 25, 8, prefix="CheXpert-v1.0/").to_csv(root / "valid.csv", index=False)
    with pytest.raises(InputError, match=r"mix versions .*CheXpert-v1.0 and CheXpert-v1.0-small"):
        prepare_chexpert(root)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"none of train.csv.*usually in the folder CheXpert-v1.0"):
        prepare_chexpert(empty)
    with pytest.raises(InputError, match="no folder"):
        prepare_chexpert(tmp_path / "nowhere")


def test_damaged_demographics_and_unsafe_paths(root: Path) -> None:
    (root / "CHEXPERT DEMO.xlsx").write_bytes(b"PK\x03\x04 junk")
    with pytest.raises(InputError, match="cannot be read as an Excel table"):
        prepare_chexpert(root)
    (root / "CHEXPERT DEMO.xlsx").unlink()
    table = rows_of("valid", 25, 8)
    table.loc[0, "Path"] = "CheXpert-v1.0-small/../../patient00025/view1_frontal.jpg"
    table.to_csv(root / "valid.csv", index=False)
    with pytest.raises(InputError, match=r"leaves the image folder"):
        prepare_chexpert(root)


def test_missing_images(root: Path) -> None:
    (root / "train/patient00003/study1/view1_frontal.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 32 images .* more than the share"):
        prepare_chexpert(root)
    cohort = prepare_chexpert(root, study=Study(max_unreadable=0.1))
    assert any(step.names == ("train/patient00003/study1/view1_frontal.jpg",) for step in cohort.flow)


def test_sex_that_differs_between_images_of_a_patient(root: Path) -> None:
    table = rows_of("train", 1, 24)
    again = table[table["Path"].str.contains("patient00009") & (table["Frontal/Lateral"] == "Frontal")].copy()
    again["Path"] = again["Path"].str.replace("study1", "study2")
    again["Sex"] = "Male"
    both = pd.concat([table, again])
    both.to_csv(root / "train.csv", index=False)
    write_images(root, again)
    dropped = prepare_chexpert(root)
    assert "patient00009" not in set(dropped.frame["patient_id"])
    assert any("records of the patient disagree" in step.reason for step in dropped.flow)
    first = prepare_chexpert(root, study=Study(conflicts="first")).frame
    assert first.loc[first["patient_id"] == "patient00009", "sex"].tolist() == ["female", "female"]


def test_choices_are_checked(root: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'frontal'"):
        Study(views="frontl")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not record 'race2'"):
        prepare_chexpert(root, study=Study(attributes=("race2",)))
    with pytest.raises(InputError, match="Did you mean 'Edema'"):
        prepare_chexpert(root, study=Study(labels=("Edem",)))


def test_nothing_half_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = prepare_chexpert(root)

    def full(self: Cohort, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Cohort, "to_parquet", full)
    with pytest.raises(StateError, match="disk is full"):
        write_prepared(cohort, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write_prepared(cohort, tmp_path / "file")
