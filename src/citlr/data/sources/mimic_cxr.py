"""MIMIC-CXR-JPG with the demographics of MIMIC-IV (v1 `ethnicity`, v2 and later `race`)."""

import re
from pathlib import Path

import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.chexpert import DEFAULT_LABELS, LABELS
from citlr.data.sources.common import (
    Place,
    find_file,
    find_optional,
    join,
    join_patients,
    keys_of,
    require_labeller,
    require_root,
    years_of,
)
from citlr.data.sources.study import DEFAULT, Source, Study, begin, chosen_labels, complete
from citlr.data.splits import read_split_names
from citlr.data.tables.columns import pick_columns, require_unique, table_columns
from citlr.data.tables.vocabulary import (
    ETHNICITY_MIMIC,
    RACE_MIMIC,
    SEX,
    UNKNOWN,
    VIEW,
    raw_text,
    read_age,
    resolve,
    translate,
)
from citlr.errors import InputError

NAME = "MIMIC-CXR-JPG"
BESIDE = "in the top folder of mimic-cxr-jpg on PhysioNet, beside files/"
HOSPITAL = "in hosp/ (v2 and later) or core/ (v1) of mimiciv on PhysioNet"


def prepare_mimic_cxr(
    root: Place, *, mimic_iv: Place, labeller: str = "chexpert", study: Study = DEFAULT, narrator: Narrator = QUIET
) -> Cohort:
    """Prepare MIMIC-CXR-JPG."""
    require_labeller(labeller, "chexpert", "negbio")
    folder = require_root(root, source=NAME)
    hospital = require_root(mimic_iv, source="MIMIC-IV")
    metadata = _find(folder, "metadata")
    label_file = _find(folder, labeller)
    split_file = find_optional(folder, ("mimic-cxr-*-split.csv.gz", "mimic-cxr-*-split.csv"), source=NAME)
    _require_one_version([file for file in (metadata, label_file, split_file) if file is not None])
    labels = chosen_labels(study, LABELS, DEFAULT_LABELS, source=NAME)
    narrator.say(f"{NAME}: reading {metadata.name}, {label_file.name} and the admissions")
    frame = _read_metadata(metadata, study)
    frame = _add_labels(frame, label_file, labels, metadata)
    frame = _add_people(frame, hospital, study)
    if split_file is not None:
        frame = _add_split(frame, split_file)
    source = Source(NAME, folder, ("race", "sex", "hispanic", "age_group"), ("race", "sex"))
    recorder = begin(frame, study, source, table=metadata.name)
    recorder.keep(recorder.frame["labelled"], "labels", f"the study has no row in {label_file.name}")
    return complete(recorder, study, source, labels=labels, narrator=narrator)


def _find(root: Path, what: str) -> Path:
    return find_file(root, (f"mimic-cxr-*-{what}.csv.gz", f"mimic-cxr-*-{what}.csv"), source=NAME, usually=BESIDE)


def _require_one_version(files: list[Path]) -> None:
    versions: dict[str, str] = {}
    for file in files:
        hit = re.search(r"mimic-cxr-(\d+\.\d+\.\d+)-", file.name)
        if hit:
            versions.setdefault(hit.group(1), file.name)
    if len(versions) > 1:
        raise InputError(f"{files[0].parent} mixes versions of {NAME}: {' and '.join(versions.values())}.")


def _read_metadata(file: Path, study: Study) -> pd.DataFrame:
    wanted = {"image_id": "dicom_id", "patient_id": "subject_id", "study_id": "study_id", "date": "StudyDate"}
    wanted.update({"view": "ViewPosition", "code": "ViewCodeSequence_CodeMeaning"})
    frame = pick_columns(file, wanted, source=str(file), optional=("code",))
    for name in ("image_id", "patient_id", "study_id"):
        frame[name] = raw_text(frame[name]) if name == "image_id" else keys_of(frame[name])
        if (frame[name] == "").any():
            raise InputError(f"{file} has {int((frame[name] == '').sum())} rows without {wanted[name]}.")
    view = translate(frame["view"], VIEW, source=file.name, what="view", allow_unknown=study.allow_unknown)
    if "code" in frame:
        # The code is a second opinion only where the position is blank; its free text is not all in the vocabulary.
        coded = translate(frame["code"], VIEW, source=file.name, what="view code", allow_unknown=True)
        view = view.where(view != UNKNOWN, coded)
    frame["view"] = view
    subject = frame["patient_id"]
    frame["path"] = (
        "files/p" + subject.str[:2] + "/p" + subject + "/s" + frame["study_id"] + "/" + frame["image_id"] + ".jpg"
    )
    return frame


def _add_labels(frame: pd.DataFrame, file: Path, labels: tuple[str, ...], metadata: Path) -> pd.DataFrame:
    keys = {"patient_id": "subject_id", "study_id": "study_id"}
    table = pick_columns(file, {**keys, **{label: label for label in labels}}, source=str(file))
    for name in keys:
        table[name] = keys_of(table[name])
    require_unique(table[[*keys]], source=str(file), what="studies")
    unmatched = f"images of {metadata.name} have no row in {file.name}; the two files are of different versions."
    return join(frame, table, [*keys], unmatched).rename(columns={"matched": "labelled"})


def _add_split(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    table = pick_columns(file, {"image_id": "dicom_id", "official_split": "split"}, source=str(file))
    table["image_id"] = raw_text(table["image_id"])
    require_unique(table["image_id"], source=str(file), what="dicom_ids")
    table["official_split"] = read_split_names(table["official_split"])
    unmatched = f"images are not in {file.name}; it is of another version than the metadata."
    joined = join(frame, table, "image_id", unmatched).drop(columns="matched")
    return joined.assign(official_split=joined["official_split"].fillna(""))


def _add_people(frame: pd.DataFrame, hospital: Path, study: Study) -> pd.DataFrame:
    file = _find_hospital(hospital, "patients")
    wanted = {"patient_id": "subject_id", "raw_sex": "gender", "anchor_age": "anchor_age", "anchor_year": "anchor_year"}
    people = pick_columns(file, wanted, source=str(file))
    people["patient_id"] = keys_of(people["patient_id"])
    allow = study.allow_unknown
    people["sex"] = translate(people["raw_sex"], SEX, source=file.name, what="gender", allow_unknown=allow)
    joined = join_patients(
        frame, people, columns=["raw_sex", "sex", "anchor_age", "anchor_year"], source=NAME, people_source=str(file)
    )
    joined["sex"] = joined["sex"].where(joined["matched"], "no record")
    joined["age"] = _ages(joined, file, study)
    visits = _read_admissions(_find_hospital(hospital, "admissions"), study)
    joined = joined.drop(columns="matched").merge(visits, on="patient_id", how="left")
    for name in ("race", "hispanic"):
        joined[name] = joined[name].fillna("no record")
    return joined


def _find_hospital(hospital: Path, what: str) -> Path:
    folders = ("", "hosp/", "core/")
    names = [f"{folder}{what}.csv{ending}" for folder in folders for ending in (".gz", "")]
    return find_file(hospital, names, source="MIMIC-IV", usually=HOSPITAL)


def _ages(frame: pd.DataFrame, file: Path, study: Study) -> pd.Series:
    """Age at the exposure: the anchor age plus the years since the anchor year (dates are shifted per patient)."""
    anchor = read_age(frame["anchor_age"], source=file.name, cap=None)
    year, start = years_of(frame["date"], source=NAME), years_of(frame["anchor_year"], source=file.name)
    age = (anchor + year - start).clip(lower=0)
    # The anchor age 91 stands for everyone above 89, so ages counted from it mean no more than "above 89".
    return age.mask((age > 89) | (anchor > 89), study.age_cap) if study.age_cap is not None else age


def _read_admissions(file: Path, study: Study) -> pd.DataFrame:
    """Give one row per patient: raw race, race and Hispanic ethnicity, resolved between admissions."""
    have = table_columns(file)
    both = [name for name in ("race", "ethnicity") if name in have]
    if len(both) == 2:
        raise InputError(f"{file} mixes two versions of MIMIC-IV: it has both 'race' and 'ethnicity'.")
    wanted = {
        "patient_id": "subject_id",
        "visit": "hadm_id",
        "time": "admittime",
        "raw_race": both[0] if both else "race",
    }
    visits = pick_columns(file, wanted, source=str(file))
    require_unique(visits["visit"], source=str(file), what="hadm_ids")
    visits["patient_id"] = keys_of(visits["patient_id"])
    visits["raw_race"] = raw_text(visits["raw_race"])
    # ISO times sort as text.
    visits = visits.sort_values(["patient_id", "time", "visit"], kind="stable")
    allow = study.allow_unknown
    visits["race"] = translate(visits["raw_race"], RACE_MIMIC, source=file.name, what="race", allow_unknown=allow)
    visits["hispanic"] = translate(
        visits["raw_race"], ETHNICITY_MIMIC, source=file.name, what="race", allow_unknown=allow
    )
    race = resolve(visits, key="patient_id", value="race", policy=study.conflicts)
    hispanic = resolve(visits, key="patient_id", value="hispanic", policy=study.conflicts)
    raw = visits.drop_duplicates(["patient_id", "race"])[["patient_id", "race", "raw_race"]]
    people = race.merge(raw, on=["patient_id", "race"], how="left")
    torn = visits[visits["patient_id"].isin(race.loc[race["race"] == "conflicting", "patient_id"])]
    names = (
        torn[torn["race"] != UNKNOWN].groupby("patient_id")["raw_race"].agg(lambda raw: " / ".join(sorted(set(raw))))
    )
    people["raw_race"] = people["raw_race"].fillna(people["patient_id"].map(names))
    return people[["patient_id", "race", "raw_race"]].merge(hispanic[["patient_id", "hispanic"]], on="patient_id")
