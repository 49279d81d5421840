"""Training, validation and test patients: never one patient on two sides."""

from collections.abc import Sequence, Sized
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from citlr.errors import InputError, require_known
from citlr.text import listed_few, shown
from citlr.values import Whole, check_value

SPLITS = ("train", "validation", "test")
# How the world spells the three; keys are lower-case.
SYNONYMS = {
    name: split
    for split, names in {
        "train": ("train", "training"),
        "validation": ("validation", "validate", "valid", "val", "dev", "tune"),
        "test": ("test", "testing", "holdout"),
    }.items()
    for name in names
}


def assign_splits(
    frame: pd.DataFrame,
    *,
    by: str = "patient_id",
    fractions: Sequence[float] = (0.65, 0.10, 0.25),
    stratify: str | pd.Series | None = None,
    seed: int,
) -> pd.Series:
    """Draw a split for every row so that all rows of one patient land on the same side.

    Patients, not rows, are shared out, stratum by stratum with the largest remainder first, so every split holds each
    level of `stratify` (a column, or a value per row) in the same proportion up to one patient. The draw depends on the
    identifiers and the seed only, never on the order of the rows.
    """
    shares, seed = _checked_fractions(fractions), check_value("seed", seed, Annotated[Whole, Field(ge=0)])
    for column in (by, *([stratify] if isinstance(stratify, str) else [])):
        require_known(column, frame.columns, f"There is no column '{column}' to split by")
    patients = frame[by].astype(str)
    if stratify is None:
        stratum = pd.Series("all", index=frame.index)
    else:
        stratum = (frame[stratify] if isinstance(stratify, str) else stratify).astype(str)
    per_patient = _most_frequent(patients, stratum)
    rng = np.random.default_rng([seed, 0x5711])
    sides: dict[str, str] = {}
    for level in sorted(per_patient.unique()):
        members = np.array(sorted(per_patient.index[per_patient == level]), dtype=object)
        rng.shuffle(members)
        stops = np.cumsum(_apportion(len(members), shares))
        for position, side in enumerate(SPLITS):
            start = int(stops[position - 1]) if position else 0
            sides.update(dict.fromkeys(members[start : int(stops[position])], side))
    return patients.map(sides).rename("split")


def read_split_names(values: pd.Series) -> pd.Series:
    """Translate the names of a given split column to train, validation and test."""
    names = values.astype("string").str.strip().str.lower()
    known = names.map(SYNONYMS)
    strange = values[known.isna()].astype("string").fillna("(blank)").value_counts()
    if len(strange):
        listed = ", ".join(f"'{name}' ({count} images)" for name, count in strange.items())
        raise InputError(
            f"The split column '{values.name}' holds {listed}; known names are {', '.join(sorted(SYNONYMS))}."
        )
    return known.astype(str).rename("split")


def require_disjoint(frame: pd.DataFrame) -> None:
    """Refuse a table in which one patient has images in two splits."""
    pairs = frame[["patient_id", "split"]].drop_duplicates()
    several = pairs[pairs.duplicated("patient_id", keep=False)]
    if several.empty:
        return
    sides = several.groupby("patient_id", sort=True)["split"].agg(lambda names: " and ".join(sorted(names)))
    listed = listed_few(f"{patient} ({where})" for patient, where in sides.items())
    raise InputError(
        f"{len(sides)} patients have images in more than one split: {listed}. "
        "Put every patient on one side, or leave the split column out and let a seeded split be drawn by patient."
    )


def require_both(train: Sized, validation: Sized) -> None:
    """Refuse to train on no image, or to judge by none what was trained."""
    if not len(train) or not len(validation):
        raise InputError(f"{len(train)} training and {len(validation)} validation images: both need at least one.")


def _checked_fractions(fractions: Sequence[float]) -> np.ndarray:
    try:
        shares = np.asarray(fractions, dtype=float)
    except (TypeError, ValueError):
        shares = np.empty(0)
    said = tuple(fractions) if isinstance(fractions, Sequence) and not isinstance(fractions, str) else shown(fractions)
    if shares.shape != (3,) or not np.isfinite(shares).all() or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(
            f"The split fractions are {said}; three shares for train, validation and test are needed, "
            "none below 0, that add up to 1."
        )
    return shares


def _most_frequent(patients: pd.Series, stratum: pd.Series) -> pd.Series:
    counts = pd.DataFrame({"patient": patients, "stratum": stratum}).value_counts().reset_index(name="n")
    ordered = counts.sort_values(["patient", "n", "stratum"], ascending=[True, False, True])
    return ordered.drop_duplicates("patient").set_index("patient")["stratum"]


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    exact = total * shares
    whole = np.floor(exact + 1e-9).astype(int)
    # Stable on ties: train before validation before test.
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole
