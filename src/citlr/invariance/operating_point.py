"""From probabilities to decisions: one operating point per label, and which outputs reach it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from citlr.errors import InputError, did_you_mean


def thresholds(threshold: float | Mapping[str, float], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return one operating point per label, checked."""
    if isinstance(threshold, Mapping):
        missing = [label for label in labels if label not in threshold]
        if missing:
            hint = did_you_mean(missing[0], map(str, threshold))
            raise InputError(f"No threshold for the label '{missing[0]}': name every label, or give one number.{hint}")
        cut = np.array([threshold[label] for label in labels], dtype=np.float64)
    else:
        cut = np.full(len(labels), float(threshold))
    if not bool(np.all((cut >= 0) & (cut <= 1))):
        raise InputError(f"A threshold is a probability, in [0, 1]; found {cut[~((cut >= 0) & (cut <= 1))][0]}.")
    return cut


def reaches(values: NDArray[np.float64], cut: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which outputs are at a threshold or above it, as a model of their precision would decide.

    An output of single precision is compared with the threshold in single precision: its .7 is a little less than the
    .7 of double precision, and yet it is what the model gives where it says .7.

    Shapes: `values` (..., labels), `cut` () or (labels,).

    >>> reaches(np.array([np.float32(0.7), 0.7, 0.6999999]), 0.7).tolist()
    [True, True, False]
    """
    single = values.astype(np.float32)
    return np.asarray(np.where(single == values, single >= np.asarray(cut, dtype=np.float32), values >= cut))
