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
