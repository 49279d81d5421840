"""Readings of labels, calibrated within each level of an attribute.

Where an attribute goes with a label, a probe of the label reads the attribute along: weights make it unlearn that, but
not within some hundred steps, and then redrawing an image under another level seems to move the label. So after the
training an offset is fitted to the label's logits for each level, on the training images of that level, weighted as if
label and attribute were independent: there a label is as often read as it is there. An image redrawn under a level is
read with the offset of that level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

Floats = npt.NDArray[np.float64]
# Offsets: of a label, per level of the attribute, what is added to the logits.
Offsets = Mapping[str, Mapping[str, Sequence[float]]]
# Images of each value of a label in a level, without which it has no offset there.
FEWEST = 5


def fit_offsets(logits: Floats, values: npt.NDArray[np.int64], weights: Floats, *, ridge: float = 1.0) -> Floats:
    """Fit what is to be added to logits so that the values are as frequent as they are read.

    The offsets minimise the weighted cross-entropy, whose gradient is the difference of both frequencies, plus
    `ridge / 2` times their square; the first of them is 0.

    Shapes: `logits` (n, k), `values` (n,), `weights` (n,); gives (k,).
    """
    count = logits.shape[1]
    if np.bincount(values, minlength=count).min() < FEWEST:
        return np.zeros(count)
    there = np.eye(count)[values]

    def cost(free: Floats) -> tuple[float, Floats]:
        moved = logits + np.concatenate([[0.0], free])
        surprise = -(weights * log_softmax(moved, axis=1)[np.arange(len(values)), values]).sum()
        slope = (weights[:, None] * (softmax(moved, axis=1) - there)).sum(axis=0)[1:]
        return float(surprise + ridge / 2 * (free**2).sum()), slope + ridge * free

    found = minimize(cost, np.zeros(count - 1), jac=True, method="BFGS")
    return np.concatenate([[0.0], found.x])


def moved(readings: npt.NDArray[np.float32], offset: Sequence[float]) -> npt.NDArray[np.float32]:
    """Add an offset (k,) to the logits of readings (..., k), which are probabilities."""
    odds = readings * np.exp(np.asarray(offset, dtype=np.float32))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True), dtype=np.float32)
