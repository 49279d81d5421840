"""NIH ChestX-ray14 in its three spellings, PadChest, tables, and the real subset."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.sources.nih import LABELS, prepare_nih
from citlr.data.sources.padchest import prepare_padchest
from citlr.data.sources.study import Study
from citlr.data.sources.table import prepare_table
from citlr.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "nih_cxr14_1000_256px"
HEAD_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
HEAD_2020 = HEAD_2017.replace("Patient Gender", "Patient Sex")
HEAD_KAGGLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
HEAD_UNDERSCORED = HEAD_KAGGLE.replace(" #", "_#").replace(" ", "_").replace("-up", "_Up")


def lines(age: str = "{}") -> list[str]:
    found = ["No Finding", "Edema|Effusion", "Cardiomegaly", "Pleural_Thickening|Mass"]
    rows = []
    for patient in range(1, 25):
        stated = age.format(400 if patient == 1 else 20 + patient)
        sex, view = "MF"[patient % 2], "PA" if patient % 3 else "AP"
        name = f"{patient:08d}_000.png"
        rows.append(f"{name},{found[patient % 4]},0,{patient},{stated},{sex},{view},2682,2749,0.143,0.143")
    return rows


# An image that shows nothing would be left out.
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8)


def tree(root: Path, name: str, head: str, age: str = "{}", folder: str = "images") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([head, *lines(age)]) + "\n")
    (root / folder).mkdir(parents=True, exist_ok=True)
    for patient in range(1, 25):
        Image.fromarray(RAMP + np.uint8(patient)).save(root / folder / f"{patient:08d}_000.png")
    return root


@pytest.mark.parametrize(
    ("name", "head", "age", "folder"),
    [
        ("Data_Entry_2017.csv", HEAD_2017, "{}", "images"),
        ("Data_Entry_2017.csv", HEAD_2017, "0{}Y", "images_001/images"),
        ("Data_Entry_2017_v2020.csv", HEAD_2020, "{}", "images"),
        ("sample_labels.csv", HEAD_KAGGLE, "0{}Y", "sample/images"),
        ("sample/sample_labels.csv", HEAD_UNDERSCORED, "0{}Y", "sample/images"),
    ],
)
def test_every_spelling_gives_the_same_cohort(tmp_path: Path, name: str, head: str, age: str, folder: str) -> None:
    cohort = prepare_nih(tree(tmp_path, name, head, age, folder))
    assert len(cohort) == 24
    frame = cohort.frame.set_index("image_id")
    second = frame.loc["00000002_000.png"]
    assert (second["patient_id"], second["sex"], second["view"], second["age"]) == ("nih00002", "male", "PA", 22.0)
    assert second["path"] == f"{folder}/00000002_000.png"
    # Nobody is 400 years old.
    assert np.isnan(frame.loc["00000001_000.png", "age"])
    assert frame.loc["00000001_000.png", ["Edema", "Effusion", "Cardiomegaly"]].tolist() == [1.0, 1.0, 0.0]
    assert cohort.pixels([4], size=8).max() == pytest.approx((63 + 5) / 255)


def test_ages_that_are_none_are_told(tmp_path: Path) -> None:
    flow = prepare_nih(tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)).flow
    assert [step.reason for step in flow if step.step == "age"] == [
        "ages above 120 years or below 0 count as not stated (1)"
    ]
    table = tmp_path / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(",400,", ",,"))
    assert not [step for step in prepare_nih(tmp_path).flow if step.step == "age"]


def test_official_lists_and_their_faults(tmp_path: Path) -> None:
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    names = [f"{patient:08d}_000.png" for patient in range(1, 25)]
    (root / "test_list.txt").write_text("\n".join(names[16:]) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:16]))
    cohort = prepare_nih(root)
    assert set(cohort.part("test").frame["image_id"]) == set(names[16:])
    assert len(cohort.part("validation")) > 0
    (root / "train_val_list.txt").write_text("\n".join(names[:17]))
    with pytest.raises(InputError, match="1 images are in both"):
        prepare_nih(root)
    (root / "train_val_list.txt").write_text("\n".join(names[:10]))
    step = next(step for step in prepare_nih(root).flow if "official split" in step.reason)
    assert step.excluded_images == 6


def test_an_official_list_that_names_no_image_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    names = [f"{patient:08d}_000.png" for patient in range(1, 25)]
    lists = {"test_list.txt": names[16:], "train_val_list.txt": names[:16]}
    for wrong in lists:
        for name, own in lists.items():
            (root / name).write_text("\n".join(own).replace(".png", ".jpg" if name == wrong else ".png"))
        with pytest.raises(InputError, match=rf"None of the 24 images of the table is in .*{wrong}; .*--split drawn"):
            prepare_nih(root)
    assert len(prepare_nih(root, study=Study(split="drawn"))) == 24
    # As Notepad saves it; then as PowerShell does.
    for name, own in lists.items():
        (root / name).write_text("\n".join(own), encoding="utf-8-sig")
    assert set(prepare_nih(root).part("test").frame["image_id"]) == set(names[16:])
    (root / "test_list.txt").write_text("\n".join(names[16:]), encoding="utf-16")
    with pytest.raises(InputError, match=r"test_list\.txt is not in UTF-8"):
        prepare_nih(root)


def test_images_of_no_patient_are_not_of_one(tmp_path: Path) -> None:
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    table = pd.read_csv(root / "Data_Entry_2017.csv", dtype=str)
    table.loc[[0, 1, 2], "Patient ID"] = ["", " ", None]
    table.to_csv(root / "Data_Entry_2017.csv", index=False)
    cohort = prepare_nih(root)
    step = next(step for step in cohort.flow if step.step == "patient")
    assert (step.reason, step.excluded_images, len(cohort)) == ("no patient", 3, 21)
    assert not any("conflicting" in one.level for one in cohort.raw)


def test_a_raw_value_is_not_named_by_the_first_patient_who_has_it(tmp_path: Path) -> None:
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    text = (root / "Data_Entry_2017.csv").read_text().splitlines()
    text[1:3] = [text[1].replace(",M,", ",F,"), text[2].replace(",2,22,", ",1,22,")]
    (root / "Data_Entry_2017.csv").write_text("\n".join(text))
    cohort = prepare_nih(root)
    assert any("disagree" in step.reason for step in cohort.flow)
    assert {(one.raw, one.level) for one in cohort.raw} == {("F", "female"), ("M", "male")}


def test_two_versions_at_once(tmp_path: Path) -> None:
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    tree(root, "Data_Entry_2017_v2020.csv", HEAD_2020)
    with pytest.raises(InputError, match="several versions"):
        prepare_nih(root)
    assert len(prepare_nih(root, table="Data_Entry_2017_v2020.csv")) == 24
    mixed = root / "mixed.csv"
    mixed.write_text(HEAD_2017 + ",Patient Sex\n" + "\n".join(line + ",M" for line in lines()))
    with pytest.raises(InputError, match=r"mixes two versions .* both Patient Gender and Patient Sex"):
        prepare_nih(root, table="mixed.csv")


def test_nih_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of Data_Entry_2017\*.csv.*beside the folder images"):
        prepare_nih(tmp_path)
    root = tree(tmp_path, "Data_Entry_2017.csv", HEAD_2017)
    text = (root / "Data_Entry_2017.csv").read_text()
    (root / "Data_Entry_2017.csv").write_text(text.replace("Cardiomegaly", "Cardiomagely"))
    with pytest.raises(InputError, match="Cardiomagely"):
        prepare_nih(root)
    assert prepare_nih(root, study=Study(allow_unknown=True)).frame["Cardiomegaly"].sum() == 0
    (root / "Data_Entry_2017.csv").write_text(text.replace(",F,", ",X,"))
    with pytest.raises(InputError, match=r"sex .*'X' \(12\)"):
        prepare_nih(root)
    (root / "Data_Entry_2017.csv").write_text(text.replace(",42,", ",old,"))
    with pytest.raises(InputError, match=r"no age, the first in row 22: 'old'"):
        prepare_nih(root)


@pytest.mark.skipif(not REAL.is_dir(), reason="the 1000 real radiographs are not on this machine")
def test_the_real_subset_is_reproduced_exactly(tmp_path: Path) -> None:
    truth = pd.read_csv(REAL / "metadata.csv", dtype={"patient_id": str})
    names = truth["image"].str.removeprefix("images/")
    with (tmp_path / "Data_Entry_2017_v2020.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        # The header's commas lie inside names and are not quoted in the official file.
        stream.write(HEAD_2020 + "\n")
        for name, row in zip(names, truth.itertuples(), strict=True):
            patient = int(row.patient_id.removeprefix("nih"))
            sizes = [2048, 2500, 0.168, 0.168]
            writer.writerow(
                [name, row.findings or "No Finding", row.follow_up, patient, row.age, row.sex, row.view, *sizes]
            )
    (tmp_path / "images").symlink_to(REAL / "images")
    cohort = prepare_nih(tmp_path, study=Study(labels=LABELS))
    assert cohort.frame["image_id"].tolist() == names.tolist()
    assert cohort.frame["patient_id"].tolist() == truth["patient_id"].tolist()
    assert cohort.frame["sex"].tolist() == truth["sex"].map({"M": "male", "F": "female"}).tolist()
    assert cohort.frame["age"].tolist() == truth["age"].astype(float).tolist()
    assert cohort.frame["view"].tolist() == truth["view"].tolist()
    for label in LABELS:
        column = label.lower().replace(" ", "_")
        assert cohort.frame[label].tolist() == truth[column].astype(float).tolist(), label


PADCHEST = (
    *("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"),
    *("ViewPosition_DICOM", "Projection", "Report", "Labels"),
)


def padchest(root: Path, layout: str = "{folder}/{name}", **changes: Any) -> Path:
    rows = []
    for patient in range(24):
        name, folder = f"{patient}.png", str(patient % 2)
        found = ["['normal']", "['cardiomegaly', ' pleural effusion']", "['atelectasis', 'cardiomegaly']"][patient % 3]
        row = [patient, name, folder, 20_140_915, f"s{patient}", f"p{patient}", 1950.0, "MF"[(patient // 3) % 2], "PA"]
        row += ["PA" if patient % 4 else "L", "informe secreto", found]
        rows.append(dict(zip(PADCHEST, row, strict=True)) | changes.get(f"row{patient}", {}))
        file = root / layout.format(folder=folder, name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RAMP.astype(np.uint16) * 400).save(file)
    pd.DataFrame(rows).to_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", index=False)
    return root


@pytest.mark.parametrize("layout", ["{folder}/{name}", "images/{folder}/{name}", "images/{name}", "{name}"])
def test_padchest(tmp_path: Path, layout: str) -> None:
    cohort = prepare_padchest(padchest(tmp_path, layout))
    assert len(cohort) == 18
    assert cohort.labels == ("cardiomegaly", "atelectasis", "pleural effusion")
    first = cohort.frame.set_index("patient_id").loc["p1"]
    assert (first["age"], first["sex"], first["cardiomegaly"], first["pleural effusion"]) == (64.0, "male", 1.0, 1.0)
    assert cohort.pixels([0], size=8).max() == pytest.approx(63 * 400 / 65_535, abs=1e-4)
    assert "secreto" not in cohort.frame.to_csv()


def test_padchest_looks_past_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    folder = padchest(tmp_path, row1={"ImageID": "n" * 300})
    cohort = prepare_padchest(folder, study=Study(max_unreadable=0.1))
    assert (len(cohort), max(step.excluded_images for step in cohort.flow if step.step == "readable")) == (17, 1)


def test_rounded_patients_of_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"PadChest has 1 patients such as '8\.4E\+35', which a spreadsheet"):
        prepare_padchest(padchest(tmp_path, row1={"PatientID": "8.4E+35"}))


def test_padchest_edges(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "row1": {"Labels": "['exclude']"},
        "row2": {"Labels": ""},
        "row3": {"PatientSex_DICOM": "O"},
        "row5": {"PatientSex_DICOM": ""},
        "row6": {"Projection": "COSTAL"},
    }
    cohort = prepare_padchest(padchest(tmp_path, **changes))
    assert len(cohort) == 13
    assert any("COSTAL" not in step.reason and "other: 1" in step.reason for step in cohort.flow)
    labels = cohort.flow[1]
    assert (labels.step, labels.excluded_images) == ("labels", 2)
    picked = prepare_padchest(tmp_path, study=Study(labels=("normal",), views="all"))
    assert picked.labels == ("normal",)
    with pytest.raises(InputError, match="Did you mean 'cardiomegaly'"):
        prepare_padchest(tmp_path, study=Study(labels=("cardiomegali",)))
    with pytest.raises(InputError, match="does not record 'race'"):
        prepare_padchest(tmp_path, study=Study(attributes=("race",)))


@pytest.mark.parametrize("cell", ["__import__('os').getcwd()", "['a'", "{'a': 1}", "[1, 2]"])
def test_padchest_labels_are_data_not_code(tmp_path: Path, cell: str) -> None:
    with pytest.raises(InputError, match="Labels cell that is no list"):
        prepare_padchest(padchest(tmp_path, row4={"Labels": cell}))


def test_prepare_table(tmp_path: Path) -> None:
    rows = []
    for patient in range(8):
        Image.fromarray(RAMP).save(tmp_path / f"{patient}.png")
        rows.append({"path": f"{patient}.png", "patient_id": patient, "sex": "fm"[patient % 2], "edema": patient % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    cohort = prepare_table(tmp_path / "t.csv", attribute="sex", labels=["edema"], fit="crop")
    assert (len(cohort), cohort.fit, cohort.root) == (8, "crop", tmp_path)
    with pytest.raises(InputError, match="Did you mean 'levels'"):
        prepare_table(tmp_path / "t.csv", attribute="sex", labels=["edema"], level={})
    assert json.dumps([asdict(step) for step in cohort.flow])
