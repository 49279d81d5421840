"""Edits along which people differ: an attribute goes the ways in which anatomy, position and exposure vary.

A prior of one variance a block takes every direction in it for equally likely. Most directions hardly vary between
people, and are known well; that nothing happens there would speak against a change of what does vary, such as width,
depth of breath or brightness, which is where women and men differ most. So edits have besides their coefficients a few
directions: those in which they write best what patients vary by, kinds together (a prior in proportion to the natural
covariance, as Zellner's g of 1986, on its leading directions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citlr.generators.edits.shrinkage import TINY, Floats
from citlr.generators.effects.whitening import LEAST

# Directions at most, and the ridge that keeps their coefficients small.
DIRECTIONS, RIDGE = 12, 0.1


@dataclass(frozen=True)
class Modes:
    """What patients vary by, and how summaries answer to edits, both in units of a difference's error.

    - `answers` (width of a summary, width): to coefficients.
    - `targets` (width of a summary, k): a standard deviation of patients along each of the leading directions.
    """

    answers: Floats
    targets: Floats

    @classmethod
    def of(cls, table: Floats, influences: Floats) -> Modes:
        """Find them from answers `table` (width of a summary, width) and influences (patients, width of a summary)."""
        deviation = np.sqrt((influences**2).sum(axis=0))
        deviation[deviation <= LEAST] = np.inf  # what nobody varies in, see `Whitening`
        _, size, ways = np.linalg.svd(influences / deviation, full_matrices=False)
        # The difference of two halves of the patients has an error of two deviations over the root of their number.
        each = size[:DIRECTIONS, None] * np.sqrt(len(influences)) / 2
        return cls(table / deviation[:, None], (ways[:DIRECTIONS] * each).T)

    def directions(self, allowed: npt.NDArray[np.bool_]) -> Floats:
        """Give the coefficients (width, k) of allowed columns (width,) that write each of them best."""
        own = self.answers[:, allowed]
        square = own.T @ own
        ridge = RIDGE * np.trace(square) / len(square) + TINY
        found = np.zeros((len(allowed), self.targets.shape[1]))
        found[allowed] = np.linalg.solve(square + ridge * np.eye(len(square)), own.T @ self.targets)
        return found
