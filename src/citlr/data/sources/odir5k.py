"""ODIR-5K: fundus photographs in colour, two a patient: findings are of the patient, keywords of the eye."""

from pathlib import Path

import numpy as np
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.common import Place, Tables, keys_of, located
from citlr.data.sources.study import DEFAULT, Source, Study, add_sex, begin, chosen_labels, complete
from citlr.data.tables.columns import pick_columns
from citlr.data.tables.vocabulary import raw_text, read_age
from citlr.errors import InputError

NAME = "ODIR-5K"
# Of the patient: normal, diabetes, glaucoma, cataract, macular degeneration, hypertension, myopia, other.
LABELS = ("N", "D", "G", "C", "A", "H", "M", "O")
DEFAULT_LABELS = ("D", "G", "C")
TABLES = Tables(
    NAME,
    ("data.xlsx", "full_df.csv", "ODIR-5K/data.xlsx", "ODIR-5K_Training_Annotations*.xlsx", "*/data.xlsx"),
    "data.xlsx beside the training images, or Kaggle's full_df.csv",
)
FOLDERS = (
    *("ODIR-5K_Training_Images", "ODIR-5K_Training_Dataset", "Training Images", "ODIR-5K/Training Images"),
    *("ODIR-5K/ODIR-5K/Training Images", "images", "preprocessed_images", "."),
)
SIDES = {"left": ("Left-Fundus", "Left-Diagnostic Keywords"), "right": ("Right-Fundus", "Right-Diagnostic Keywords")}
COLUMNS = {"patient_id": "ID", "age": "Patient Age", "sex": "Patient Sex"}
# Keywords that say that the photograph shows no fundus to be judged.
UNUSABLE = frozenset({"anterior segment image", "no fundus image", "low image quality"})


def prepare_odir5k(
    root: Place, *, table: str | None = None, study: Study = DEFAULT, narrator: Narrator = QUIET
) -> Cohort:
    """Prepare ODIR-5K."""
    folder, file = TABLES.find(root, table, narrator)
    frame = _eyes(file)
    frame["path"] = located(frame["image_id"], folder, FOLDERS, usual="ODIR-5K_Training_Images/")
    add_sex(frame, study, source=file.name)
    frame["age"] = read_age(frame["age"], source=file.name, zero_is_missing=True, cap=study.age_cap)
    words = frame["keywords"].map(_keywords)
    labels = _add_labels(frame, words, study, file)
    covariates = ("laterality", "age")
    source = Source(NAME, folder, ("sex", "age_group"), ("sex",), covariates=covariates, channels=3)
    recorder = begin(frame, study, source, table=f"{file.name}, an eye each")
    recorder.keep(~words.map(lambda own: bool(own & UNUSABLE)), "quality", f"marked {', '.join(sorted(UNUSABLE))}")
    recorder.keep(recorder.frame["patient_id"] != "", "patient", "no patient")
    of_patient = [name for name in labels if name in LABELS]
    if of_patient:
        recorder.remark(f"{', '.join(of_patient)} is recorded of the patient: a healthy fellow eye has it, too", [])
    return complete(recorder, study, source, labels=labels, narrator=narrator)


def _eyes(file: Path) -> pd.DataFrame:
    """Read one row per eye; Kaggle's table repeats a patient for each eye that it has a picture of."""
    wanted = {**COLUMNS, **{name: name for name in LABELS}}
    for side, (picture, keywords) in SIDES.items():
        wanted |= {f"{side} picture": picture, f"{side} keywords": keywords}
    patients = pick_columns(file, wanted, source=str(file))
    number = keys_of(patients["patient_id"])
    patients["patient_id"] = ("odir" + number).where(number != "", "")
    patients = patients.drop_duplicates(ignore_index=True)
    twice = patients["patient_id"].duplicated() & (patients["patient_id"] != "")
    if twice.any():
        name = patients["patient_id"][twice].iloc[0].removeprefix("odir")
        raise InputError(f"{file} has several rows of the patient {name} that do not agree: leave one of them there.")
    shared = ["patient_id", "age", "sex", *LABELS]
    eyes = []
    for side in SIDES:
        own = {f"{side} picture": "image_id", f"{side} keywords": "keywords"}
        eyes.append(patients[[*shared, *own]].rename(columns=own).assign(laterality=side))
    frame = pd.concat(eyes).sort_index(kind="stable").reset_index(drop=True)
    frame["image_id"] = raw_text(frame["image_id"])
    return frame[frame["image_id"] != ""].reset_index(drop=True)


def _keywords(text: object) -> frozenset[str]:
    """Read "lens dust,normal fundus": separated by a comma, full width in the owners' table."""
    plain = "" if pd.isna(text) else str(text)  # type: ignore[call-overload]
    return frozenset(part.strip().lower() for part in plain.replace("\uff0c", ",").split(",") if part.strip())


def _add_labels(frame: pd.DataFrame, words: pd.Series, study: Study, file: Path) -> tuple[str, ...]:
    """Add the labels of the study: the patient's by their letter, the eye's by a keyword."""
    known = sorted(frozenset().union(*words) - UNUSABLE)
    labels = chosen_labels(study, (*LABELS, *known), DEFAULT_LABELS, source=str(file))
    for label in labels:
        if label not in LABELS:
            frame[label] = np.asarray([float(label in own) for own in words])
    return labels
