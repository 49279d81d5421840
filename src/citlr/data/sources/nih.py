"""NIH ChestX-ray14: `Data_Entry_2017.csv`, its v2020 revision, and the Kaggle sample."""

from pathlib import Path

import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.common import Place, Tables, find_optional, located, note_no_ages
from citlr.data.sources.study import DEFAULT, Source, Study, add_sex, begin, chosen_labels, complete
from citlr.data.splits import assign_splits
from citlr.data.tables.columns import pick_columns, table_columns
from citlr.data.tables.vocabulary import VIEW, raw_text, read_age, translate
from citlr.errors import InputError

NAME = "NIH ChestX-ray14"
NO_FINDING = "No Finding"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
    NO_FINDING,
)
# The publication's five, by their names here.
DEFAULT_LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion")
TABLES = Tables(
    NAME,
    ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz", "sample_labels.csv", "sample/sample_labels.csv"),
    "beside the folder images/, from the NIH's Box share",
)
FOLDERS = ("images", "images_0*/images", "images_0*", "sample/images", "sample/sample/images", ".")
# Our name to the spellings of the 2017, the v2020 and the underscored files.
HEADERS = {
    "image_id": ("Image Index", "Image_Index"),
    "findings": ("Finding Labels", "Finding_Labels"),
    "patient_id": ("Patient ID", "Patient_ID"),
    "age": ("Patient Age", "Patient_Age"),
    "sex": ("Patient Gender", "Patient Sex", "Patient_Gender", "Patient_Sex"),
    "view": ("View Position", "View_Position"),
}


def prepare_nih(root: Place, *, table: str | None = None, study: Study = DEFAULT, narrator: Narrator = QUIET) -> Cohort:
    """Prepare NIH ChestX-ray14."""
    folder, file = TABLES.find(root, table, narrator)
    wanted = _headers(file)
    frame = pick_columns(file, wanted, source=str(file))
    frame["image_id"] = raw_text(frame["image_id"])
    patient = raw_text(frame["patient_id"])
    frame["patient_id"] = ("nih" + patient.str.zfill(5)).where(patient != "", "")
    frame["path"] = located(frame["image_id"], folder, FOLDERS, usual="images/")
    add_sex(frame, study, source=file.name)
    frame["view"] = translate(frame["view"], VIEW, source=file.name, what="view", allow_unknown=study.allow_unknown)
    stated = raw_text(frame["age"]) != ""
    frame["age"] = read_age(frame["age"], source=file.name, cap=study.age_cap)
    labels = chosen_labels(study, LABELS, DEFAULT_LABELS, source=NAME)
    _add_findings(frame, labels, file, allow_unknown=study.allow_unknown)
    source = Source(NAME, folder, ("sex", "age_group"), ("sex",))
    recorder = begin(frame, study, source, table=file.name)
    note_no_ages(recorder, stated, frame["age"])
    recorder.keep(recorder.frame["patient_id"] != "", "patient", "no patient")
    _add_official(recorder.frame, folder, study)
    return complete(recorder, study, source, labels=labels, narrator=narrator)


def _headers(file: Path) -> dict[str, str]:
    """Choose each column's spelling; two spellings of one column at once are two versions pasted together."""
    have = table_columns(file)
    wanted = {}
    for ours, spellings in HEADERS.items():
        present = [name for name in spellings if name in have]
        if len(present) > 1:
            raise InputError(f"{file} mixes two versions of the {NAME} table: it has both {' and '.join(present)}.")
        wanted[ours] = present[0] if present else spellings[0]
    return wanted


def _add_findings(frame: pd.DataFrame, labels: tuple[str, ...], file: Path, *, allow_unknown: bool) -> None:
    text = raw_text(frame["findings"])
    codes, distinct = pd.factorize(text)
    sets = [{part.strip() for part in str(value).split("|") if part.strip()} for value in distinct]
    strange = sorted(set().union(*sets) - set(LABELS))
    if strange and not allow_unknown:
        raise InputError(
            f"{file} holds findings that {NAME} does not have: {', '.join(strange[:10])}. Use --allow-unknown to "
            "ignore them."
        )
    for label in labels:
        present = pd.Series([(1.0 if label in one else 0.0) if one else None for one in sets], dtype=float)
        frame[label] = present.to_numpy()[codes]


def _add_official(frame: pd.DataFrame, root: Path, study: Study) -> None:
    """Note the official split: the lists know train-and-validation and test; validation is drawn by patient."""
    file, others_file = (
        find_optional(root, (pattern,), source=NAME) for pattern in ("test_list*.txt", "train_val_list*.txt")
    )
    if file is None:
        return
    is_test = _listed(frame, file, study)
    inside = ~is_test
    if others_file is not None:
        inside = _listed(frame, others_file, study)
        both = sorted(frame["image_id"][is_test & inside])
        if both:
            raise InputError(
                f"{len(both)} images are in both {file.name} and {others_file.name}, the first: {both[0]}."
            )
    train, validation, _ = study.fractions
    share = validation / (train + validation) if train + validation > 0 else 0.0
    drawn = assign_splits(frame, fractions=(1.0 - share, share, 0.0), stratify="sex", seed=study.seed)
    frame["official_split"] = drawn.where(inside, "").mask(is_test, "test")


def _listed(frame: pd.DataFrame, file: Path, study: Study) -> pd.Series:
    """Say which images a list names, one a line."""
    try:
        names = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not in UTF-8 ({error.reason}); save it so.") from error
    found = frame["image_id"].isin([name.strip() for name in names])
    if study.split != "drawn" and not found.any():
        raise InputError(
            f"None of the {len(frame)} images of the table is in {file}; give the list of these images, or have a "
            "split drawn (--split drawn)."
        )
    return found
