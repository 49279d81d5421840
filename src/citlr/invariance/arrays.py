"""What arrays of predictions, levels and patients are asked for before anything is computed of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError, require_known


def require_named(names: ArrayLike, what: str) -> None:
    """Refuse an image without a level or a patient: as text, a cell that is missing is the name "nan" or "None"."""
    if isinstance(names, np.ndarray) and names.dtype.kind in "iu" and not np.ma.is_masked(names):
        return
    cells = np.asarray(names, dtype=object)
    blank = [isinstance(cell, (str, bytes)) and not cell.strip() for cell in cells.ravel()]
    missing = np.asarray(pd.isna(cells)) | np.reshape(blank, cells.shape)
    if isinstance(names, np.ma.MaskedArray):
        missing |= np.ma.getmaskarray(names)
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} of {missing.size} images have no {what}, image {int(np.flatnonzero(missing)[0])} "
            "first: leave them out of all arrays, or fill it in."
        )


def repeated(rows: NDArray[np.float64], patients: ArrayLike, varied: NDArray[np.bool_] | None = None) -> int:
    """Count the images (of those that are `varied`) whose numbers are another patient's, to the last digit.

    None are told where most are alike, as in a table that was made up, nor where as many are one step beside another
    image: numbers of one decimal coincide by chance, and then miss each other by a step more often still.
    """
    varied = np.ones(len(rows), bool) if varied is None else varied
    found, kind = np.unique(rows, axis=0, return_inverse=True)
    owners = pd.Series(np.asarray(patients)).groupby(kind.ravel()).transform("nunique").to_numpy()
    count = int((varied & (owners > 1)).sum())
    if not count or 3 * len(found) < len(rows):
        return 0
    return count if count > int((varied & _one_step_beside(found)[kind.ravel()]).sum()) else 0


def _one_step_beside(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which of different rows have another that differs by the smallest step of one column, of the first 64."""
    steps = np.zeros(rows.shape, np.uint64)
    for column, values in enumerate(rows.round(9).T):  # 1 - 0.9 is the 0.1 that it looks like
        own = np.unique(values)
        if len(own) > 1:
            steps[:, column] = np.rint((values - own[0]) / np.diff(own).min())
    # A sum of steps, each column's times a large odd number of its own, says by one number where a row lies.
    weights = np.random.default_rng(0).integers(1 << 62, size=rows.shape[1:], dtype=np.uint64) * 2 + 1
    place = (steps * weights).sum(axis=1, dtype=np.uint64)
    found = np.zeros(len(rows), bool)
    for weight in weights[:64]:
        found |= np.isin(place + weight, place) | np.isin(place - weight, place)
    return found


def unmasked(numbers: ArrayLike) -> NDArray[np.float64]:
    """Give numbers as an array; where they are masked out they are missing, whatever lies below."""
    return np.ascontiguousarray(np.ma.filled(np.ma.asarray(numbers, dtype=np.float64), np.nan))


def require_chances(prediction: NDArray[np.float64]) -> None:
    """Refuse outputs that are neither probabilities nor decisions."""
    bad = int(np.sum(~((prediction >= 0) & (prediction <= 1))))  # NaN fails both comparisons
    if bad:
        raise InputError(f"{bad} predictions are missing or outside [0, 1]; give probabilities or decisions.")


def pair_of(levels: NDArray[Any], contrast: Sequence[str]) -> tuple[str, str]:
    """Check the two levels to compare."""
    if len(contrast) != 2 or contrast[0] == contrast[1]:
        raise InputError(f"A contrast is two different levels, found {tuple(contrast)}.")
    present = [str(name) for name in np.unique(levels)]
    for name in contrast:
        require_known(str(name), present, f"No image has level '{name}'")
    return str(contrast[0]), str(contrast[1])
