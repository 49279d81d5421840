"""MIMIC-CXR-JPG with MIMIC-IV v1 and v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.sources.chexpert import LABELS
from citlr.data.sources.mimic_cxr import prepare_mimic_cxr
from citlr.data.sources.study import Study
from citlr.errors import InputError

SUBJECTS = list(range(10_000_000, 10_000_024))
RACES = ["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN"]


def metadata() -> pd.DataFrame:
    rows = []
    for place, subject in enumerate(SUBJECTS):
        for view in ("AP" if place % 2 else "PA", "LATERAL"):
            study = 50_000_000 + place
            rows.append(
                {
                    "dicom_id": f"{subject}-{view.lower()}",
                    "subject_id": subject,
                    "study_id": study,
                    "PerformedProcedureStepDescription": "CHEST",
                    "ViewPosition": "" if place == 3 and view == "AP" else view,
                    "Rows": 20,
                    "Columns": 16,
                    "StudyDate": 21_500_101,
                    "StudyTime": 120_000.0,
                    "ProcedureCodeSequence_CodeMeaning": "CHEST",
                    "ViewCodeSequence_CodeMeaning": {"AP": "antero-posterior", "PA": "postero-anterior"}.get(
                        view, "lateral"
                    ),
                    "PatientOrientationCodeSequence_CodeMeaning": "Erect",
                }
            )
    return pd.DataFrame(rows)


def labels() -> pd.DataFrame:
    values = {label: [["1.0", "0.0", "-1.0", ""][place % 4] for place in range(24)] for label in LABELS}
    return pd.DataFrame({"subject_id": SUBJECTS, "study_id": range(50_000_000, 50_000_024), **values})


def patients() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": SUBJECTS,
            "gender": ["M" if (place // 3) % 2 else "F" for place in range(24)],
            "anchor_age": [91 if place == 0 else 60 for place in range(24)],
            "anchor_year": 2145,
            "anchor_year_group": "2014 - 2016",
            "dod": "",
        }
    )


def admissions(column: str, races: dict[int, list[str]] | None = None) -> pd.DataFrame:
    rows = []
    for place, subject in enumerate(SUBJECTS):
        for visit, race in enumerate((races or {}).get(place, [RACES[place % 3]])):
            rows.append(
                {
                    "subject_id": subject,
                    "hadm_id": 20_000_000 + 10 * place + visit,
                    "admittime": f"214{visit}-01-01 00:00:00",
                    "insurance": "Other",
                    column: race,
                }
            )
    # Rows do not come in order of time.
    return pd.DataFrame(rows).iloc[::-1]


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    root, hospital = tmp_path / "jpg", tmp_path / "mimiciv"
    root.mkdir()
    (hospital / "hosp").mkdir(parents=True)
    table = metadata()
    table.to_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)
    labels().to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    for row in table.itertuples():
        subject = str(row.subject_id)
        folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{row.study_id}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(0, 240, 15, dtype=np.uint8), (20, 1))).save(folder / f"{row.dicom_id}.jpg")
    patients().to_csv(hospital / "hosp/patients.csv.gz", index=False)
    admissions("race").to_csv(hospital / "hosp/admissions.csv.gz", index=False)
    return root, hospital


def prepare(tree: tuple[Path, Path], **choices: Any) -> Any:
    labeller = choices.pop("labeller", "chexpert")
    return prepare_mimic_cxr(tree[0], mimic_iv=tree[1], labeller=labeller, study=Study(**choices))


def test_joins(tree: tuple[Path, Path]) -> None:
    cohort = prepare(tree)
    assert len(cohort) == 24
    frame = cohort.frame.set_index("patient_id")
    assert frame["race"].tolist() == ["white", "black", "asian"] * 8
    assert frame.loc["10000000", "age"] == 90.0  # 91 stands for everyone above 89
    assert frame.loc["10000001", "age"] == 65.0
    assert frame.loc["10000003", "view"] == "AP"  # by the view code, since the position is blank
    assert frame["path"].iloc[0] == "files/p10/p10000000/s50000000/10000000-pa.jpg"
    assert np.isnan(frame.loc["10000002", "Edema"])
    assert cohort.pixels([0], size=8).shape == (1, 1, 8, 8)


def test_version_1_has_ethnicity_in_core(tree: tuple[Path, Path]) -> None:
    newer = prepare(tree).frame
    (tree[1] / "hosp/admissions.csv.gz").unlink()
    (tree[1] / "hosp/patients.csv.gz").rename(tree[1] / "patients.csv.gz")
    (tree[1] / "core").mkdir()
    admissions("ethnicity").to_csv(tree[1] / "core/admissions.csv.gz", index=False)
    pd.testing.assert_frame_equal(prepare(tree).frame, newer)


def test_patients_whose_race_differs_between_admissions(tree: tuple[Path, Path]) -> None:
    races = {
        0: ["ASIAN", "WHITE", "WHITE"],
        1: ["BLACK/AFRICAN", "BLACK/CAPE VERDEAN"],
        2: ["UNKNOWN", "ASIAN - KOREAN"],
        3: ["WHITE", "HISPANIC/LATINO - CUBAN"],
    }
    admissions("race", races).to_csv(tree[1] / "hosp/admissions.csv.gz", index=False)

    def race(policy: str) -> dict[str, str]:
        frame = prepare(tree, conflicts=policy).frame
        return dict(zip(frame["patient_id"], frame["race"], strict=True))

    dropped = race("drop")
    assert "10000000" not in dropped
    assert "10000003" not in dropped
    # Two words for one level, and an unknown beside a known race, are no conflict.
    assert (dropped["10000001"], dropped["10000002"]) == ("black", "asian")
    assert race("first")["10000000"] == "asian"
    assert race("majority")["10000000"] == "white"
    assert race("majority")["10000003"] == "white"
    cohort = prepare(tree)
    step = next(step for step in cohort.flow if "disagree" in step.reason)
    assert step.excluded_patients == 2
    assert "ASIAN / WHITE: 1" in step.reason
    hispanic = prepare(tree, races=("white", "black", "asian", "other"), conflicts="majority").frame
    assert hispanic.set_index("patient_id").loc["10000003", "hispanic"] == "hispanic"


def test_every_word_of_both_versions_has_a_level(tree: tuple[Path, Path]) -> None:
    words = [
        *("WHITE - BRAZILIAN", "PORTUGUESE", "HISPANIC/LATINO - COLUMBIAN", "HISPANIC/LATINO - CENTRAL AMERICAN"),
        *("SOUTH AMERICAN", "MULTIPLE RACE/ETHNICITY", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER"),
        *("ASIAN - SOUTH EAST ASIAN", "BLACK/CARIBBEAN ISLAND", "AMERICAN INDIAN/ALASKA NATIVE"),
        *("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "HISPANIC/LATINO"),
    ]
    admissions("race", {place: [word] for place, word in enumerate(words)}).to_csv(
        tree[1] / "hosp/admissions.csv.gz", index=False
    )
    cohort = prepare(tree)
    levels = {one.raw: one.level for one in cohort.raw if one.attribute == "race"}
    assert levels["WHITE - BRAZILIAN"] == "white"
    assert levels["PORTUGUESE"] == levels["HISPANIC/LATINO - COLUMBIAN"] == "other"
    assert levels["UNABLE TO OBTAIN"] == "unknown"
    assert levels["NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER"] == "other"


def test_official_split_and_negbio(tree: tuple[Path, Path]) -> None:
    table = metadata()
    side = ["train"] * 16 + ["validate"] * 4 + ["test"] * 4
    split = table[["dicom_id", "study_id", "subject_id"]].assign(split=np.repeat(side, 2))
    split.to_csv(tree[0] / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    labels().assign(Edema="1.0").to_csv(tree[0] / "mimic-cxr-2.0.0-negbio.csv.gz", index=False)
    cohort = prepare(tree, labeller="negbio")
    assert cohort.frame["split"].value_counts().to_dict() == {"train": 16, "validation": 4, "test": 4}
    assert (cohort.frame["Edema"] == 1.0).all()
    split.head(4).to_csv(tree[0] / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    with pytest.raises(InputError, match=r"44 of 48 images are not in .*another version"):
        prepare(tree)


def test_studies_without_labels_are_left_out(tree: tuple[Path, Path]) -> None:
    labels().iloc[2:].to_csv(tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    step = next(step for step in prepare(tree).flow if step.step == "labels")
    assert (step.excluded_images, step.excluded_patients) == (4, 2)
    labels().iloc[:2].to_csv(tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    with pytest.raises(InputError, match="different versions"):
        prepare(tree)


def test_patients_without_admission_are_counted(tree: tuple[Path, Path]) -> None:
    admissions("race").iloc[:-3].to_csv(tree[1] / "hosp/admissions.csv.gz", index=False)
    step = next(step for step in prepare(tree).flow if "not in the table of demographics" in step.reason)
    assert step.excluded_patients == 3


def test_duplicate_keys_are_listed(tree: tuple[Path, Path]) -> None:
    pd.concat([labels(), labels().head(2)]).to_csv(tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    with pytest.raises(InputError, match=r"2 studies more than once: 10000000/50000000"):
        prepare(tree)
    labels().to_csv(tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    pd.concat([patients(), patients().head(1)]).to_csv(tree[1] / "hosp/patients.csv.gz", index=False)
    with pytest.raises(InputError, match=r"1 patients more than once: 10000000"):
        prepare(tree)


def test_mixed_versions(tree: tuple[Path, Path]) -> None:
    labels().to_csv(tree[0] / "mimic-cxr-2.1.0-chexpert.csv.gz", index=False)
    with pytest.raises(InputError, match="several versions"):
        prepare(tree)
    (tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(InputError, match=r"mixes versions .*2.0.0-metadata.* and .*2.1.0-chexpert"):
        prepare(tree)
    (tree[0] / "mimic-cxr-2.1.0-chexpert.csv.gz").rename(tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz")
    admissions("race").assign(ethnicity="WHITE").to_csv(tree[1] / "hosp/admissions.csv.gz", index=False)
    with pytest.raises(InputError, match="both 'race' and 'ethnicity'"):
        prepare(tree)
    patients().assign(subject_id=lambda t: t["subject_id"] + 5_000_000).to_csv(
        tree[1] / "hosp/patients.csv.gz", index=False
    )
    with pytest.raises(InputError, match="different versions or releases"):
        prepare(tree)


def test_truncated_gz_and_wrong_folders(tree: tuple[Path, Path], tmp_path: Path) -> None:
    file = tree[0] / "mimic-cxr-2.0.0-chexpert.csv.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(InputError, match="truncated"):
        prepare(tree)
    file.write_bytes(whole)
    with pytest.raises(InputError, match=r"none of mimic-cxr-\*-metadata.csv.gz.*PhysioNet"):
        prepare((tree[1], tree[0]))
    with pytest.raises(InputError, match=r"none of patients.csv.gz.*hosp/"):
        prepare((tree[0], tree[0]))
    with pytest.raises(InputError, match="no folder"):
        prepare((tree[0], tmp_path / "none"))
    with pytest.raises(InputError, match="labeller"):
        prepare(tree, labeller="chexbert")
