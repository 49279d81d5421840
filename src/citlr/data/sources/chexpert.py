"""CheXpert: `train.csv`, `train_CheXbert.csv`, `valid.csv`, `test.csv`, and the table of demographics."""

from pathlib import Path

import numpy as np
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.common import Place, find_file, find_optional, join_patients, require_labeller, require_root
from citlr.data.sources.study import DEFAULT, Source, Study, add_sex, begin, chosen_labels, complete
from citlr.data.tables.columns import pick_columns, table_columns
from citlr.data.tables.vocabulary import (
    ETHNICITY_CHEXPERT,
    ETHNICITY_IN_RACE_CHEXPERT,
    RACE_CHEXPERT,
    SEX,
    UNKNOWN,
    VIEW,
    raw_text,
    read_age,
    translate,
)
from citlr.errors import InputError

NAME = "CheXpert"
LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
DEFAULT_LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
# The three parts, in the order in which they are read: our split to the file names.
PARTS = {
    "train": ("train.csv", "train_CheXbert.csv"),
    "validation": ("valid.csv", "validation.csv", "val.csv"),
    "test": ("test.csv",),
}
DEMOGRAPHICS = ("CHEXPERT DEMO.xlsx", "CHEXPERT_DEMO.csv", "CHEXPERT DEMO.csv", "CHEXPERT_DEMO.xlsx")
WHERE = "distributed beside the images by the Stanford AIMI centre as CHEXPERT DEMO.xlsx"


def prepare_chexpert(
    root: Place,
    *,
    demographics: Place | None = None,
    labeller: str = "chexpert",
    study: Study = DEFAULT,
    narrator: Narrator = QUIET,
) -> Cohort:
    """Prepare CheXpert."""
    require_labeller(labeller, "chexpert", "chexbert")
    folder = _folder_with_tables(require_root(root, source=NAME))
    frame, labels = _read_parts(folder, labeller, study, narrator)
    source = Source(NAME, folder, ("race", "sex", "hispanic", "age_group"), ("race", "sex"))
    add_sex(frame, study, source=NAME)
    frame = _add_race(frame, folder, demographics, study)
    recorder = begin(frame, study, source, table=", ".join(frame["file"].unique()))
    return complete(recorder, study, source, labels=labels, narrator=narrator)


def _folder_with_tables(root: Path) -> Path:
    places = [root, *sorted(path for path in root.glob("CheXpert-v1.0*") if path.is_dir())]
    names = [name for part in PARTS.values() for name in part]
    versions = [place for place in places if any((place / name).is_file() for name in names)]
    if len(versions) > 1 and versions[0] != root:
        raise InputError(
            f"{root} holds several versions of {NAME}: {', '.join(path.name for path in versions)}; give one."
        )
    if not versions:
        find_file(root, names, source=NAME, usually="in the folder CheXpert-v1.0 or CheXpert-v1.0-small")
    return versions[0]


def _read_parts(root: Path, labeller: str, study: Study, narrator: Narrator) -> tuple[pd.DataFrame, tuple[str, ...]]:
    labels = chosen_labels(study, LABELS, DEFAULT_LABELS, source=NAME)
    parts = []
    for split, names in PARTS.items():
        if split == "train":
            names = (names[1],) if labeller == "chexbert" else (names[0],)
        file = find_optional(root, names, source=NAME)
        if file is not None:
            narrator.say(f"{NAME}: reading {file.name}")
            parts.append(_read_part(file, labels).assign(official_split=split, file=file.name))
        elif split == "train":
            find_file(root, names, source=NAME, usually=f"in {root.name}, beside the folder train/")
    frame = pd.concat(parts, ignore_index=True)
    inner = raw_text(frame["path"]).str.replace("\\", "/", regex=False)
    versions = sorted(inner.str.extract(r"^(CheXpert-v1\.0[^/]*)/")[0].dropna().unique())
    if len(versions) > 1:
        raise InputError(
            f"The tables in {root} mix versions of {NAME}: their paths start with {' and '.join(versions)}."
        )
    frame["path"] = inner.str.replace(r"^CheXpert-v1\.0[^/]*/", "", regex=True)
    frame["patient_id"] = frame["path"].str.extract(r"(?:^|/)(patient\d+)(?:/|$)")[0]
    bad = frame[frame["patient_id"].isna()]
    if len(bad):
        raise InputError(
            f"{len(bad)} paths of {bad['file'].iloc[0]} have no folder patientNNNNN, the first: "
            f"'{bad['path'].iloc[0]}'."
        )
    frame["image_id"] = frame["path"]
    frame["age"] = read_age(frame["age"], source=NAME, zero_is_missing=True, cap=study.age_cap)
    frame["view"] = _views(frame, study)
    return frame, labels


def _read_part(file: Path, labels: tuple[str, ...]) -> pd.DataFrame:
    have = table_columns(file)
    wanted = {"path": "Path", "sex": "Sex", "age": "Age", "side": "Frontal/Lateral", "beam": "AP/PA"}
    wanted.update({label: label for label in labels})
    # The official test table has paths and labels alone; sex and age then come from the demographics.
    bare = ("sex", "age", "side", "beam") if "Sex" not in have and file.name == "test.csv" else ()
    frame = pick_columns(file, wanted, source=str(file), optional=bare)
    for name in bare:
        frame[name] = pd.NA
    return frame


def _views(frame: pd.DataFrame, study: Study) -> pd.Series:
    beam = translate(frame["beam"], VIEW, source=NAME, what="AP/PA", allow_unknown=study.allow_unknown)
    side = translate(frame["side"], VIEW, source=NAME, what="Frontal/Lateral", allow_unknown=study.allow_unknown)
    name = frame["path"].str.extract(r"view\d+_(frontal|lateral)\.")[0].fillna(UNKNOWN)
    side = side.where(side != UNKNOWN, name)
    # Frontal images keep AP or PA where it is stated; everything else goes by its side.
    return beam.where((side == "frontal") & beam.isin(("AP", "PA")), side)


def _add_race(frame: pd.DataFrame, root: Path, demographics: Place | None, study: Study) -> pd.DataFrame:
    needed = study.attributes is None or bool({"race", "hispanic"} & set(study.attributes))
    if demographics is not None:
        file: Path | None = Path(demographics)
    else:
        file = find_optional(root, DEMOGRAPHICS, source=NAME) or find_optional(root.parent, DEMOGRAPHICS, source=NAME)
    if file is None:
        if needed:
            raise InputError(
                f"None of {', '.join(DEMOGRAPHICS)} is in {root} or above it; it is {WHERE}. Give its path, or study "
                "attributes that the images' own table has, such as sex."
            )
        return frame.assign(raw_race="", race=UNKNOWN, hispanic=UNKNOWN)
    wanted = {"patient_id": "PATIENT", "demo_sex": "GENDER", "demo_age": "AGE_AT_CXR"}
    wanted.update({"raw_race": "PRIMARY_RACE", "ethnicity": "ETHNICITY"})
    people = pick_columns(file, wanted, source=str(file), optional=("demo_sex", "demo_age"))
    people["patient_id"] = raw_text(people["patient_id"])
    allow = study.allow_unknown
    people["race"] = translate(people["raw_race"], RACE_CHEXPERT, source=file.name, what="race", allow_unknown=allow)
    people["hispanic"] = translate(
        people["ethnicity"], ETHNICITY_CHEXPERT, source=file.name, what="ethnicity", allow_unknown=allow
    )
    said = translate(people["raw_race"], ETHNICITY_IN_RACE_CHEXPERT, source=file.name, what="race", allow_unknown=allow)
    people["hispanic"] = people["hispanic"].where(people["hispanic"] != UNKNOWN, said)
    extra = [name for name in ("demo_sex", "demo_age") if name in people]
    joined = join_patients(
        frame, people, columns=["raw_race", "race", "hispanic", *extra], source=NAME, people_source=str(file)
    )
    for name in ("race", "hispanic"):
        joined[name] = joined[name].where(joined["matched"], "no record")
    return _fill_from_demographics(joined, study)


def _fill_from_demographics(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Take sex and age from the demographics for the images whose own table does not record them."""
    bare = raw_text(frame["raw_sex"]) == ""
    if "demo_sex" in frame and bare.any():
        sex = translate(frame["demo_sex"], SEX, source=NAME, what="GENDER", allow_unknown=study.allow_unknown)
        frame["sex"] = frame["sex"].where(~bare, sex)
        frame["raw_sex"] = frame["raw_sex"].where(~bare, frame["demo_sex"])
    if "demo_age" in frame and bare.any():
        age = read_age(frame["demo_age"], source=NAME, zero_is_missing=True, cap=study.age_cap)
        frame["age"] = np.where(bare, age, frame["age"])
    return frame
