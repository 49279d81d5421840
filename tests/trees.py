"""Small trees of files in the layouts of the public data sets, as their owners give them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
# Every patient of a tree: number, sex and race change at different paces, so that all levels are in all splits.
PATIENTS = range(1, 49)
RACE = {"white": "White, non-Hispanic", "black": "Black or African American", "asian": "Asian - Historical Conv"}


def race_of(patient: int) -> str:
    return ("white", "black", "asian")[patient % 3]


def is_male(patient: int) -> bool:
    return (patient // 3) % 2 == 1


def picture(patient: int, view: int = 0, side: int = 40) -> Image.Image:
    small = np.random.default_rng((patient, view)).integers(20, 235, (9, 7), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side + 8), Image.Resampling.BICUBIC)


def save(file: Path, patient: int, view: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(patient, view).save(file)


def labels(patient: int) -> dict[str, str]:
    return {name: ("1.0", "0.0", "-1.0", "")[(patient + place) % 4] for place, name in enumerate(FINDINGS)}


def chexpert(root: Path) -> Path:
    """CheXpert-v1.0-small below `root`, and the workbook of demographics beside it."""
    folder = root / "CheXpert-v1.0-small"
    for part, patients in (("train", PATIENTS[:36]), ("valid", PATIENTS[36:])):
        rows = []
        for patient in patients:
            for place, view in enumerate(("frontal", "lateral")):
                path = f"{part}/patient{patient:05d}/study1/view{place + 1}_{view}.jpg"
                save(folder / path, patient, place)
                row = {"Path": f"CheXpert-v1.0-small/{path}", "Sex": "Male" if is_male(patient) else "Female"}
                row.update({"Age": str(30 + patient), "Frontal/Lateral": view.capitalize()})
                row.update({"AP/PA": "AP" if view == "frontal" else ""})
                rows.append({**row, **labels(patient)})
        pd.DataFrame(rows).to_csv(folder / f"{part}.csv", index=False)
    people = {"PATIENT": [f"patient{patient:05d}" for patient in PATIENTS]}
    people["GENDER"] = ["Male" if is_male(patient) else "Female" for patient in PATIENTS]
    people["AGE_AT_CXR"] = [str(30 + patient) for patient in PATIENTS]
    people["PRIMARY_RACE"] = [RACE[race_of(patient)] for patient in PATIENTS]
    people["ETHNICITY"] = ["Non-Hispanic/Non-Latino"] * len(PATIENTS)
    pd.DataFrame(people).to_excel(root / "CHEXPERT DEMO.xlsx", index=False)
    return folder


def mimic(root: Path, version: int = 2) -> tuple[Path, Path]:
    """MIMIC-CXR-JPG 2.0.0 and MIMIC-IV v1 or v2 below `root`."""
    jpg, hospital = root / "mimic-cxr-jpg", root / "mimiciv" / ("hosp" if version == 2 else "core")
    jpg.mkdir(parents=True)
    hospital.mkdir(parents=True)
    rows, found, people, stays = [], [], [], []
    words = {"white": "WHITE", "black": "BLACK/AFRICAN AMERICAN", "asian": "ASIAN"}
    for patient in PATIENTS:
        subject, study = 10_000_000 + patient, 50_000_000 + patient
        for place, view in enumerate(("PA", "LATERAL")):
            name = f"{patient:08x}-{place}"
            save(jpg / f"files/p10/p{subject}/s{study}/{name}.jpg", patient, place)
            row = {"dicom_id": name, "subject_id": subject, "study_id": study, "ViewPosition": view}
            rows.append({**row, "Rows": 48, "Columns": 40, "StudyDate": 21_500_101, "StudyTime": 1.0})
        found.append({"subject_id": subject, "study_id": study, **labels(patient)})
        people.append({"subject_id": subject, "gender": "M" if is_male(patient) else "F", "anchor_age": 60})
        people[-1].update({"anchor_year": 2148, "anchor_year_group": "2014 - 2016", "dod": ""})
        stay = {"subject_id": subject, "hadm_id": 20_000_000 + patient, "admittime": "2149-01-01 00:00:00"}
        stays.append({**stay, "race" if version == 2 else "ethnicity": words[race_of(patient)]})
    pd.DataFrame(rows).to_csv(jpg / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)
    for labeller in ("chexpert", "negbio"):
        pd.DataFrame(found).to_csv(jpg / f"mimic-cxr-2.0.0-{labeller}.csv.gz", index=False)
    split = pd.DataFrame(rows)[["dicom_id", "study_id", "subject_id"]]
    parts = np.array(["train", "validate", "test"])[((split["subject_id"] - 10_000_001) // 6 % 3).to_numpy()]
    split.assign(split=parts).to_csv(jpg / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    pd.DataFrame(people).to_csv(hospital / "patients.csv.gz", index=False)
    pd.DataFrame(stays).to_csv(hospital / "admissions.csv.gz", index=False)
    return jpg, root / "mimiciv"


def nih(root: Path, gender: str = "Patient Sex") -> Path:
    """NIH ChestX-ray14 with the header as it is: commas inside names, not quoted."""
    rows = [
        f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{gender},View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    for patient in PATIENTS:
        name = f"{patient:08d}_000.png"
        save(root / "images" / name, patient)
        findings = ("No Finding", "Edema|Effusion", "Cardiomegaly|Atelectasis", "Consolidation")[patient % 4]
        view = "PA" if patient % 5 else "AP"
        rows.append(f"{name},{findings},0,{patient},{20 + patient},{'FM'[is_male(patient)]},{view},40,48,0.1,0.1")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    return root


def padchest(root: Path) -> Path:
    """PadChest with 16-bit images."""
    rows = []
    for patient in PATIENTS:
        file = root / str(patient % 3) / f"{patient}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(picture(patient)).astype(np.uint16) * 200).save(file)
        found = ("['normal']", "['cardiomegaly', 'pleural effusion']", "['atelectasis']")[patient % 3]
        row = {"ImageID": file.name, "ImageDir": patient % 3, "StudyDate_DICOM": 20_140_915, "PatientID": f"p{patient}"}
        row.update({"PatientBirth": 1950.0, "PatientSex_DICOM": "FM"[is_male(patient)], "Projection": "PA"})
        rows.append({**row, "Report": "texto del informe", "Labels": found})
    pd.DataFrame(rows).to_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv")
    return root


def table(root: Path) -> Path:
    """A study's own table, with its own names."""
    rows = []
    for patient in PATIENTS:
        save(root / "files" / f"{patient}.png", patient)
        row = {"file": f"files/{patient}.png", "subject": f"s{patient}", "gender": "FM"[is_male(patient)]}
        rows.append({**row, "edema": patient % 2, "side": ("train", "val", "test")[patient // 6 % 3]})
    pd.DataFrame(rows).to_csv(root / "study.csv", index=False)
    return root / "study.csv"
