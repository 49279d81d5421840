"""How far redrawing moves what should stay: as a mean over all images, and in kinds of images that cancel out there."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.tables.numbers import MAX_CATEGORIES, banded, is_number

Readings = npt.NDArray[np.floating]
Kinds = npt.NDArray[np.intp]
# Of a kind's shift counts what exceeds so many standard errors: one kind in a hundred does by chance.
SURE = 2.6


def drifts(
    means: Mapping[str, float | None], readings: Mapping[str, Readings], frame: pd.DataFrame, attribute: str
) -> dict[str, float | None]:
    """Give the drift of every label and covariate: its mean shift, or what moves without a mean where that is larger.

    Kinds of images are those of a recorded value, and these by recorded level (quarters, of numbers). A finding that is
    put into healthy patients and taken from as many sick ones has no mean shift; nor has one that any change brings.

    Shapes: `means`, the mean shifts (None is unknown), `readings` (n, levels, draws, k) by name, `frame` of n images.
    """
    own, patients = _kinds(frame[attribute]), frame["patient_id"].to_numpy()
    found: dict[str, float | None] = {}
    for name, mean in means.items():
        found[name] = mean
        if mean is not None:
            value = _kinds(frame[name])
            each = [drift_of_kinds(readings[name], kinds, patients) for kinds in (value, value * (own.max() + 1) + own)]
            found[name] = max([mean, *each], key=abs)
    return found


def _kinds(column: pd.Series) -> Kinds:
    """Give numbers to the values of a column (n,), quarters of a scale; blanks are a kind of their own."""
    scale = is_number(column) and column.nunique() > MAX_CATEGORIES
    kinds = (banded(column) if scale else column).astype(str).to_numpy(dtype=str)
    return np.where(column.isna(), 0, 1 + np.unique(kinds, return_inverse=True)[1])


def drift_of_kinds(readings: Readings, kinds: Kinds, patients: npt.NDArray[np.object_]) -> float:
    """Largest shift between two levels that is added up over kinds of images (n,) without signs; that of the largest.

    Shapes: `readings` (n, levels, draws, k), `patients` (n,).

    >>> up = np.array([[[[0.9, 0.1]], [[0.1, 0.9]]]] * 3)
    >>> round(drift_of_kinds(np.concatenate([up, up[..., ::-1]]), np.repeat([0, 1], 3), np.arange(6)), 6)
    0.8
    """
    drawn = readings.mean(axis=2, dtype=np.float64)
    drawn = drawn[..., 1:] if drawn.shape[-1] == 2 else drawn
    low, high = np.triu_indices(drawn.shape[1], 1)
    moved = (drawn[:, high] - drawn[:, low]).reshape(len(drawn), -1)
    sure = np.stack([_surely(moved[kinds == kind], patients[kinds == kind]) for kind in np.unique(kinds)])
    every = np.abs(sure).sum(axis=0) / len(moved)
    most = int(every.argmax())
    return float(every[most] * (np.sign(sure[np.abs(sure[:, most]).argmax(), most]) or 1.0))


def _surely(moved: npt.NDArray[np.float64], patients: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Give the part of the summed shifts (n, columns) of a kind's images that exceeds what chance does."""
    total, (_, patient) = moved.sum(axis=0), np.unique(patients, return_inverse=True)
    count = int(patient.max()) + 1
    if count < 2:
        return np.zeros_like(total)
    each = np.zeros((count, moved.shape[1]))
    np.add.at(each, patient, moved - total / len(moved))
    error = np.sqrt((each**2).sum(axis=0) * count / (count - 1))
    sure: npt.NDArray[np.float64] = np.sign(total) * np.maximum(np.abs(total) - SURE * error, 0)
    return sure
