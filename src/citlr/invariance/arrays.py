"""What arrays of predictions, levels and patients are asked for before anything is computed of them."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError, is_listed, require_known


def require_named(names: ArrayLike, what: str) -> None:
    """Refuse an image without a level or a patient: as text, a cell that is missing is the name "nan" or "None"."""
    if isinstance(names, np.ndarray) and names.dtype.kind in "iu" and not np.ma.is_masked(names):
        return
    cells = np.asarray(names, dtype=object)
    missing = nameless(cells)
    if isinstance(names, np.ma.MaskedArray):
        missing |= np.ma.getmaskarray(names)
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} of {missing.size} images have no {what}, image {int(np.flatnonzero(missing)[0])} "
            "first: leave them out of all arrays, or fill it in."
        )


def nameless(cells: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Say which names are missing or blank."""
    blank = [isinstance(cell, (str, bytes)) and not cell.strip() for cell in cells.ravel()]
    return np.asarray(pd.isna(cells)) | np.reshape(np.array(blank, bool), cells.shape)


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


def unmasked(numbers: Any, what: str) -> NDArray[np.float64]:
    """Give numbers as an array that nobody else changes; where they are missing or masked out they are NaN."""
    try:
        held: NDArray[Any] = np.ma.asarray(_in_memory(numbers))
        if held.dtype.kind not in "biufOSU":  # a complex number would lose its imaginary part, a date its unit
            raise TypeError(f"it holds {held.dtype}")
        missing = np.ma.getmaskarray(held)
        if held.dtype.kind == "O":
            missing = missing | pd.isna(np.ma.getdata(held))
            held = np.where(missing, np.nan, np.ma.getdata(held))
        array = np.array(held, dtype=np.float64, order="C")
        array[missing] = np.nan
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is not an array of numbers: {error}.") from error


def ordered(names: Any, what: str) -> NDArray[np.object_]:
    """Give names that belong to places, one each, shape (n,); what is missing or masked out is None.

    Text, mappings and sets have no such order: a set's is another one in every session.
    """
    if isinstance(names, str | bytes | Mapping | set | frozenset):
        kind = "one text" if isinstance(names, str | bytes) else f"a {type(names).__name__}, which has no order"
        raise InputError(f"{what} is {kind}; give a list, one entry after the other.")
    held = _in_memory(names)
    if isinstance(held, pd.DataFrame):
        held = held.to_numpy(dtype=object)
    if isinstance(held, np.ndarray) and held.ndim != 1:
        if held.size != len(held if held.ndim else ()):
            raise InputError(f"{what} has shape {held.shape}; give one entry for each.")
        held = held.ravel()
    if isinstance(held, np.ma.MaskedArray):
        gone, held = np.ma.getmaskarray(held), held.data.astype(object)
        held[gone] = None
    if not is_listed(held):
        raise InputError(f"{what} is a {type(names).__name__}; give a list, one entry after the other.")
    listed = [_plain(one) for one in held]
    odd = next((one for one in listed if not isinstance(one, Hashable)), None)
    if odd is not None:
        raise InputError(f"{what} holds a {type(odd).__name__}; give one name or number for each.")
    if len({isinstance(one, str) for one in listed}) > 1:  # a table of mixed types: 10 and "10" are one patient
        listed = [str(one) if isinstance(one, int | np.integer) else one for one in listed]
    array = np.empty(len(listed), dtype=object)
    for place, one in enumerate(listed):  # at once, tuples would be the rows of a matrix
        array[place] = one
    return array


def require_one_order(**given: Any) -> None:
    """Refuse rows of pandas that have the same index in another order: they are read by place, as arrays are."""
    indexed = [(name, one.index) for name, one in given.items() if isinstance(one, pd.Series | pd.DataFrame)]
    for (name, index), (other, against) in combinations(indexed, 2):
        if len(index) != len(against) or index.equals(against) or list(index) == list(against):
            continue
        if set(index) == set(against):
            raise InputError(
                f"{name} and {other} have the same index in another order, and rows are read by their place: bring "
                f"both into one order (reindex), or give arrays (to_numpy()) where the places agree."
            )


def _in_memory(given: Any) -> Any:
    """Bring a tensor (of torch: with gradients, on a device, sparse, of 16 bits) to where numpy reads it."""
    if not callable(getattr(given, "detach", None)):
        return given
    held = given.detach().to_dense().cpu()
    return (held.double() if held.is_floating_point() else held).numpy()


def _plain(one: Any) -> Any:
    """Give the number of a scalar of another library, two of which are never equal as names."""
    if isinstance(one, np.generic) or getattr(one, "ndim", None) != 0:
        return one
    item = getattr(one, "item", None)
    return item() if callable(item) else one


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
