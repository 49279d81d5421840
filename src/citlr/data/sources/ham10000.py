"""HAM10000: dermatoscopic images in colour; the lesion is the unit, for no patient is named."""

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.sources.common import Place, Tables, located
from citlr.data.sources.study import DEFAULT, Source, Study, add_sex, begin, class_labels, complete
from citlr.data.tables.columns import pick_columns
from citlr.data.tables.vocabulary import UNKNOWN, raw_text, read_age

NAME = "HAM10000"
# Actinic keratosis, basal cell carcinoma, benign keratosis, dermatofibroma, melanoma, nevus, vascular lesion.
LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
DEFAULT_LABELS = ("mel", "bcc", "nv")
TABLES = Tables(
    NAME,
    ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata.tsv"),
    "beside HAM10000_images_part_1/ and _2/, from Harvard Dataverse",
)
FOLDERS = ("HAM10000_images_part_[12]", "ham10000_images_part_[12]", "HAM10000_images", "images", ".")
COLUMNS = {
    "patient_id": "lesion_id",
    "image_id": "image_id",
    "diagnosis": "dx",
    "age": "age",
    "sex": "sex",
    "localization": "localization",
}


def prepare_ham10000(
    root: Place, *, table: str | None = None, study: Study = DEFAULT, narrator: Narrator = QUIET
) -> Cohort:
    """Prepare HAM10000."""
    folder, file = TABLES.find(root, table, narrator)
    frame = pick_columns(file, COLUMNS, source=str(file))
    for name in ("image_id", "patient_id", "diagnosis"):
        frame[name] = raw_text(frame[name])
    frame["path"] = located(frame["image_id"] + ".jpg", folder, FOLDERS, usual="HAM10000_images_part_1/")
    add_sex(frame, study, source=file.name)
    frame["age"] = read_age(frame["age"], source=file.name, zero_is_missing=True, cap=study.age_cap)
    place = raw_text(frame["localization"]).str.lower()
    frame["localization"] = place.mask(place.isin(("", UNKNOWN)))
    labels = class_labels(frame, study, LABELS, DEFAULT_LABELS, source=NAME, table=str(file))
    source = Source(NAME, folder, ("sex", "age_group"), ("sex",), covariates=("localization", "age"), channels=3)
    recorder = begin(frame, study, source, table=file.name)
    recorder.keep(recorder.frame["patient_id"] != "", "patient", "no lesion")
    recorder.remark(
        "no patient is named: images of one lesion are kept together, lesions of one patient may not be", []
    )
    return complete(recorder, study, source, labels=labels, narrator=narrator)
