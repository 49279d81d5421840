"""PadChest: one table, findings as Python list literals, sex as DICOM wrote it, no race."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.sources.common import Place, Tables, keys_of, note_no_ages, years_of
from citlr.data.sources.study import DEFAULT, Source, Study, add_sex, begin, chosen_labels, complete
from citlr.data.tables.columns import pick_columns
from citlr.data.tables.vocabulary import VIEW, raw_text, read_age, translate
from citlr.errors import InputError
from citlr.run.files import kind_of_path

NAME = "PadChest"
TABLES = Tables(
    NAME,
    ("PADCHEST_chest_x_ray_images_labels*.csv", "PADCHEST_chest_x_ray_images_labels*.csv.gz"),
    "beside the image folders 0/ to 54/, from BIMCV",
)
# The publication's five, by their names here.
DEFAULT_LABELS = ("cardiomegaly", "pulmonary edema", "consolidation", "atelectasis", "pleural effusion")
# Written among the findings, these say that the image is not to be used.
UNUSABLE = frozenset({"exclude", "suboptimal study"})
# Columns with the report, the exposure and the station are never read.
COLUMNS = {
    "image_id": "ImageID",
    "folder": "ImageDir",
    "patient_id": "PatientID",
    "date": "StudyDate_DICOM",
    "birth": "PatientBirth",
    "sex": "PatientSex_DICOM",
    "view": "Projection",
    "findings": "Labels",
}


def prepare_padchest(
    root: Place, *, table: str | None = None, study: Study = DEFAULT, narrator: Narrator = QUIET
) -> Cohort:
    """Prepare PadChest."""
    folder, file = TABLES.find(root, table, narrator)
    frame = pick_columns(file, COLUMNS, source=str(file))
    frame["image_id"] = raw_text(frame["image_id"])
    frame["patient_id"] = raw_text(frame["patient_id"])
    frame["path"] = _paths(frame, folder)
    allow = study.allow_unknown
    add_sex(frame, study, source=file.name)
    frame["view"] = translate(frame["view"], VIEW, source=file.name, what="projection", allow_unknown=allow)
    age = years_of(frame["date"], source=file.name) - years_of(frame["birth"], source=file.name)
    frame["age"] = read_age(age.where(age >= 0).rename("age"), source=file.name, cap=study.age_cap)
    source = Source(NAME, folder, ("sex", "age_group"), ("sex",))
    recorder = begin(frame, study, source, table=file.name)
    note_no_ages(recorder, age.notna(), frame["age"])
    recorder.keep(recorder.frame["patient_id"] != "", "patient", "no patient")
    labels = _add_findings(recorder, study, file)
    return complete(recorder, study, source, labels=labels, narrator=narrator)


def _paths(frame: pd.DataFrame, root: Path) -> pd.Series:
    """Try the layouts in use on the first rows; without any image there the published one is taken."""
    names = frame["image_id"]
    numbered = keys_of(frame["folder"]) + "/" + names
    layouts = (numbered, "images/" + numbered, "images/" + names, names)
    for paths in layouts:
        if any(kind_of_path(root / path) == "a file" for path in paths.head(50) if ".." not in path):
            return paths
    return numbered


def _add_findings(recorder: FlowRecorder, study: Study, file: Path) -> tuple[str, ...]:
    codes, distinct = pd.factorize(raw_text(recorder.frame["findings"]))
    sets = [_findings(str(value), file) for value in distinct]
    known = sorted(set().union(*(one for one in sets if one is not None)))
    labels = chosen_labels(study, known, [name for name in DEFAULT_LABELS if name in known], source=str(file))
    if not labels:
        raise InputError(f"{file} has none of the findings {', '.join(DEFAULT_LABELS)}; name the labels to study.")
    for label in labels:
        present = pd.Series([None if one is None else float(label in one) for one in sets], dtype=float)
        recorder.frame[label] = present.to_numpy()[codes]
    usable = np.asarray([one is not None and not (one & UNUSABLE) for one in sets], dtype=bool)[codes]
    recorder.keep(usable, "labels", f"no findings stated, or marked {' or '.join(sorted(UNUSABLE))}")
    return labels


def _findings(text: str, file: Path) -> frozenset[str] | None:
    """Read "['normal', ' pleural effusion']" as data, never as code; a blank cell is None."""
    if not text:
        return None
    try:
        parts = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{file} has a Labels cell that is no list: '{text[:80]}'.") from error
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"{file} has a Labels cell that is no list of names: '{text[:80]}'.")
    return frozenset(part.strip() for part in parts if part.strip())
