"""The public data sets by name; each is a verb of `citlr prepare`, and its reader is imported when it is asked for.

A new one is a line here, and a file beside this one with `prepare_NAME(root, *, study, narrator, **options)`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option that a data set has besides the choices of a study; without a default (...) it has to be given."""

    kind: Any
    help: str
    default: Any = None


@dataclass(frozen=True)
class DataSet:
    """What the command line has to know of a data set without reading it.

    - `options`: Further arguments of its reader by name.
    - `without`: Choices of a study that it has no use for.
    - `columns`: By which columns together its own table is recognised; several sets, where it has several forms.
    """

    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    columns: tuple[frozenset[str], ...] = ()


_TABLE = {"table": Option(str | None, "The table's file name below ROOT, where it has another one.")}
# These record no race, and their findings are present or absent.
_PLAIN = ("race", "uncertain", "blank")
# Nor have these frontal and lateral views.
_NO_FILM = (*_PLAIN, "views")

DATA_SETS: Mapping[str, DataSet] = {
    "chexpert": DataSet(
        "CheXpert, with its table of demographics. Attributes: race, sex, hispanic, age_group.",
        {
            "demographics": Option(Path | None, "CHEXPERT DEMO.xlsx or its CSV."),
            "labeller": Option(str, "chexpert or chexbert.", "chexpert"),
        },
        columns=(frozenset({"Path", "Frontal/Lateral", "AP/PA", "No Finding"}),),
    ),
    "mimic-cxr": DataSet(
        "MIMIC-CXR-JPG, with the demographics of MIMIC-IV. Attributes: race, sex, hispanic, age_group.",
        {
            "mimic_iv": Option(Path, "The folder of MIMIC-IV, or of its hosp (v1: core) tables.", ...),
            "labeller": Option(str, "chexpert or negbio.", "chexpert"),
        },
        columns=(
            frozenset({"dicom_id", "subject_id", "study_id"}),
            frozenset({"subject_id", "study_id", "No Finding"}),
        ),
    ),
    "nih": DataSet(
        "NIH ChestX-ray14 (2017, v2020, Kaggle sample). Attributes: sex, age_group.",
        _TABLE,
        _PLAIN,
        (
            frozenset({"Image Index", "Finding Labels", "Patient ID"}),
            frozenset({"Image_Index", "Finding_Labels", "Patient_ID"}),
        ),
    ),
    "padchest": DataSet(
        "PadChest. Attributes: sex, age_group.",
        _TABLE,
        _PLAIN,
        (frozenset({"ImageID", "ImageDir", "PatientID", "Projection", "Labels"}),),
    ),
    "ham10000": DataSet(
        "HAM10000, dermatoscopy in colour; its unit is the lesion. Attributes: sex, age_group.",
        _TABLE,
        _NO_FILM,
        (frozenset({"lesion_id", "image_id", "dx", "localization"}),),
    ),
    "odir5k": DataSet(
        "ODIR-5K, fundus photographs in colour, an eye each. Attributes: sex, age_group.",
        _TABLE,
        _NO_FILM,
        (frozenset({"ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus"}),),
    ),
    "fitzpatrick17k": DataSet(
        "Fitzpatrick17k, photographs of skin in colour. Attributes: skin_group, skin_type.",
        _TABLE,
        (*_NO_FILM, "age_edge", "age_cap", "min_age"),
        (frozenset({"md5hash", "three_partition_label", "nine_partition_label"}),),
    ),
}


def reader(name: str) -> Callable[..., Any]:
    """Import the function that reads a data set into a cohort."""
    module = name.replace("-", "_")
    function: Callable[..., Any] = getattr(import_module(f"citlr.data.sources.{module}"), f"prepare_{module}")
    return function


def recognised(columns: Collection[str]) -> str | None:
    """Give the name of the data set whose own table has these columns; None where it is none of them.

    >>> recognised(["ImageID", "ImageDir", "PatientID", "Projection", "Labels"]), recognised(["path", "sex"])
    ('padchest', None)
    """
    own = frozenset(columns)
    return next((name for name, one in DATA_SETS.items() if any(marks <= own for marks in one.columns)), None)
