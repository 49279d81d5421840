"""The error of differences of many numbers between few patients, and values in units of it.

With fewer patients than numbers, the covariance of their own influences is far too sure of itself in most directions.
So its directions are taken from some patients and their variances from the others, in turn (cross-validated
eigenvalues, Bartz 2016); what no patient shows has the variance that is left out of sample.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import linalg

Floats = npt.NDArray[np.float64]
TINY = 1e-9
# Numbers whose difference would be known better than this are left out. What nobody varies in, such as the black around
# a digit or a fundus, would be known without error, and a trace of an edit there drown all else.
LEAST = 1e-4
FOLDS = 5


def decomposed(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Give the thin singular value decomposition of a matrix (m, n): (m, k), (k,), (k, n).

    Divide and conquer (LAPACK's gesdd) ends on nothing with a few harmless matrices; QR iteration is slower.
    """
    try:
        left, size, right = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        left, size, right = linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd")
    return left, size, right


@dataclass(frozen=True)
class Whitening:
    """The error of a difference: standard deviations (width,), directions (width, k) of the scaled numbers.

    The deviation of a number that is left out is infinite. `factors` (k,) and `rest` are one over the standard
    deviation along the directions, and of what is at right angles.
    """

    deviation: Floats
    directions: Floats
    factors: Floats
    rest: float

    @classmethod
    def of(cls, influences: Floats) -> Self:
        """Estimate it from influences (patients, width): the error of a difference is that of their sum."""
        # Here, for whoever draws what was learnt comes by this file and needs nothing of scikit-learn.
        from sklearn.isotonic import IsotonicRegression

        deviation = np.sqrt((influences**2).sum(axis=0)) + TINY
        deviation[deviation <= LEAST] = np.inf
        varied = int(np.isfinite(deviation).sum())
        scaled = influences / deviation
        folds = min(FOLDS, len(scaled))
        parts = [np.arange(len(scaled)) % folds == number for number in range(folds)]
        profiles, rests = [], []
        points = np.linspace(0, 1, min(scaled.shape))
        for part in parts:
            directions = _directions(scaled[~part])
            seen, size = scaled[part] @ directions, len(scaled) / part.sum()
            outside = max(varied - directions.shape[1], 1)
            rests.append(float(((scaled[part] ** 2).sum() - (seen**2).sum()) * size / outside))
            profiles.append(np.interp(points, np.linspace(0, 1, directions.shape[1]), (seen**2).sum(axis=0) * size))
        profile = IsotonicRegression(increasing=False).fit_transform(points, np.mean(profiles, axis=0))
        directions = _directions(scaled)
        variance = np.interp(np.linspace(0, 1, directions.shape[1]), points, profile)
        return cls(deviation, directions, 1 / np.sqrt(variance + TINY), 1 / np.sqrt(float(np.mean(rests)) + TINY))

    def __call__(self, values: Floats) -> Floats:
        """Give values (width,) or (width, k) in units of their error."""
        scaled = (values.T / self.deviation).T
        along = self.directions.T @ scaled
        return self.rest * scaled + self.directions @ ((self.factors - self.rest) * along.T).T

    def softened(self, misfit: float) -> Self:
        """Add an error of `misfit` times the variance of every number."""
        factors = 1 / np.sqrt(1 / self.factors**2 + misfit)
        return replace(self, factors=factors, rest=1 / np.sqrt(1 / self.rest**2 + misfit))

    def widened(self, misfits: Floats) -> Self:
        """Add an error to every number: `misfits` (width,) times its variance."""
        if not misfits.any():
            return self
        along, rest = self.directions, 1 / self.rest**2
        covariance = (along * (1 / self.factors**2 - rest)) @ along.T + np.diag(rest + misfits)
        variance, directions = np.linalg.eigh(covariance)
        return replace(self, directions=directions, factors=1 / np.sqrt(np.maximum(variance, TINY)))

    @property
    def log_size(self) -> float:
        """Log of the determinant of the error's covariance, of the scaled numbers."""
        beside = len(self.deviation) - self.directions.shape[1]
        return float(-2 * np.log(self.factors).sum() - 2 * beside * np.log(self.rest))


def _directions(scaled: Floats) -> Floats:
    """Give the directions (width, k) in which rows (n, width) vary, the widest first."""
    if len(scaled) > scaled.shape[1]:
        _, found = np.linalg.eigh(scaled.T @ scaled)
        return np.ascontiguousarray(found[:, ::-1])
    if not scaled.any():  # nobody varies: one patient, or a level that none of these has
        return np.zeros((scaled.shape[1], 1))
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    keep = values > TINY * values[-1]
    found = (scaled.T @ vectors[:, keep]) / np.sqrt(values[keep])
    return np.ascontiguousarray(found[:, ::-1])
