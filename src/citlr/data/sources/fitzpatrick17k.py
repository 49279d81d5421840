"""Fitzpatrick17k: clinical photographs of skin in colour, with the skin type; each image is taken to be a patient."""

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.common import Place, Tables, keys_of, located
from citlr.data.sources.study import DEFAULT, Source, Study, begin, class_labels, complete
from citlr.data.tables.columns import pick_columns, table_columns
from citlr.data.tables.vocabulary import UNKNOWN, raw_text, translate
from citlr.errors import InputError

NAME = "Fitzpatrick17k"
TABLES = Tables(NAME, ("fitzpatrick17k.csv",), "beside the folder of images that are named by md5hash")
FOLDERS = ("images", "data/finalfitz17k", "finalfitz17k", "data", ".")
# The scale was renamed between releases; -1 is not known.
SCALES = ("fitzpatrick_scale", "fitzpatrick")
LABELS = ("malignant", "benign", "non-neoplastic")
DEFAULT_LABELS = ("malignant",)
# The six types of Fitzpatrick, and the three groups that too few images of V and VI make usual.
TYPES = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI", "-1": UNKNOWN, "": UNKNOWN}
GROUPS = {"I": "I-II", "II": "I-II", "III": "III-IV", "IV": "III-IV", "V": "V-VI", "VI": "V-VI"}
COLUMNS = {"image_id": "md5hash", "diagnosis": "three_partition_label", "quality": "qc"}
# Of the authors' review of a part of the images.
UNUSABLE = ("3 wrongly labelled", "4 other")


def prepare_fitzpatrick17k(
    root: Place, *, table: str | None = None, study: Study = DEFAULT, narrator: Narrator = QUIET
) -> Cohort:
    """Prepare Fitzpatrick17k."""
    folder, file = TABLES.find(root, table, narrator)
    scale = next((name for name in SCALES if name in table_columns(file)), SCALES[0])
    frame = pick_columns(file, {**COLUMNS, "scale": scale}, source=str(file), optional=("quality",))
    frame["image_id"] = raw_text(frame["image_id"])
    frame["patient_id"] = frame["image_id"]
    frame["path"] = located(frame["image_id"] + ".jpg", folder, FOLDERS, usual="images/")
    frame["raw_skin_type"] = frame["raw_skin_group"] = frame["scale"]
    plain = keys_of(frame["scale"])
    frame["skin_type"] = translate(plain, TYPES, source=file.name, what=scale, allow_unknown=study.allow_unknown)
    frame["skin_group"] = frame["skin_type"].replace(GROUPS)
    frame["diagnosis"] = raw_text(frame["diagnosis"]).str.lower()
    labels = class_labels(frame, study, LABELS, DEFAULT_LABELS, source=NAME, table=str(file))
    if study.min_age > 0:
        raise InputError(f"{NAME} records no age: leave min_age out.")
    attributes = ("skin_group", "skin_type")
    source = Source(NAME, folder, attributes, attributes[:1], covariates=(), channels=3)
    recorder = begin(frame, study, source, table=file.name)
    if "quality" in recorder.frame:
        review = raw_text(recorder.frame["quality"]).str.lower()
        recorder.keep(~review.isin(UNUSABLE), "review", "reviewed as wrongly labelled or of something else")
    recorder.remark("no patient is named: every image is taken to be of a patient of its own", [])
    return complete(recorder, study, source, labels=labels, narrator=narrator)
