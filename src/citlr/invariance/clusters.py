"""Means over images whose unit is the patient: standard error, degrees of freedom and skewness, for many columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which patient every image belongs to.

    Parameters
    ----------
    codes : ndarray of int, shape (units,)
        0 .. patients-1.
    sizes : ndarray of float, shape (patients,)
        Images of each patient.
    """

    codes: NDArray[np.intp]
    sizes: Floats

    @classmethod
    def of(cls, patients: ArrayLike) -> Clusters:
        """Give every patient a number, in order of appearance.

        Examples
        --------
        >>> Clusters.of(["b", "a", "b"]).sizes
        array([2., 1.])
        """
        codes, _ = pd.factorize(np.asarray(patients))
        return cls(codes=codes, sizes=np.bincount(codes).astype(np.float64))

    @property
    def count(self) -> int:
        """Number of patients."""
        return int(self.sizes.size)

    @property
    def effective(self) -> float:
        """Patients that would say as much if all had the same number of images: (sum n_c)^2 / sum n_c^2."""
        return float(self.sizes.sum() ** 2 / np.square(self.sizes).sum())

    def sums(self, values: Floats) -> Floats:
        """Sum the rows of `values` (units, ...) within each patient -> (patients, ...)."""
        if self.count == len(self.codes):
            out = np.empty_like(values)
            out[self.codes] = values
            return out
        flat = values.reshape(len(values), -1).astype(np.float64)
        columns = [np.bincount(self.codes, weights=flat[:, j], minlength=self.count) for j in range(flat.shape[1])]
        return np.stack(columns, axis=1, dtype=np.float64).reshape(self.count, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class ClusteredMean:
    """A mean over images with what its interval needs; every field has the shape of the columns.

    Parameters
    ----------
    estimate : ndarray
        Mean over images.
    se : ndarray
        Cluster-robust (CR2) standard error.
    skew : ndarray
        Third cumulant of the estimate over its variance, in units of the estimate (0 where the variance is 0): how
        fast the variance grows as the mean moves, d se^2 / d mean, in a family tilted like the data.
    df : float
        Bell-McCaffrey degrees of freedom.
    median : ndarray
        Median over images: what most images do.
    deviating : ndarray of int
        Patients with an image whose value is not the median.
    patients : float
        Effective number of patients.
    """

    estimate: Floats
    se: Floats
    skew: Floats
    df: float
    median: Floats
    deviating: NDArray[np.intp]
    patients: float

    def negated(self) -> ClusteredMean:
        """Return the mean of the values with their signs changed."""
        return replace(self, estimate=-self.estimate, skew=-self.skew, median=-self.median)


def clustered_mean(values: Floats, clusters: Clusters) -> ClusteredMean:
    r"""Mean of each column with its CR2 standard error (Bell and McCaffrey 2002) in closed form.

    For an intercept alone the CR2 adjustment of cluster c with :math:`n_c` of N rows is
    :math:`(1 - n_c/N)^{-1/2}`, so :math:`se^2 = \sum_c e_c^2 / (1 - n_c/N) / N^2` with
    :math:`e_c = \sum_{i \in c} (y_i - \bar y)`. With one image per patient this is the usual s / sqrt(n).

    Parameters
    ----------
    values : ndarray of float, shape (units, ...)
        One row per image.
    clusters : Clusters
        At least two patients.

    Returns
    -------
    ClusteredMean

    Examples
    --------
    >>> import numpy as np
    >>> m = clustered_mean(np.array([1.0, 2.0, 4.0]), Clusters.of([0, 1, 2]))
    >>> round(float(m.estimate), 4), round(float(m.se), 4), round(m.df, 6)
    (2.3333, 0.8819, 2.0)
    """
    n = float(len(values))
    estimate = values.mean(axis=0)
    totals = clusters.sums(values)
    sizes = clusters.sizes.reshape(-1, *([1] * (values.ndim - 1)))
    residual = totals - sizes * estimate
    scaled = residual / np.sqrt(1 - sizes / n)
    variance = np.square(scaled).sum(axis=0) / n**2
    third = (scaled**3).sum(axis=0) / n**3
    tiny = variance <= (1e-12 * np.abs(estimate)) ** 2  # rounding of a constant column
    skew = np.where(tiny, 0.0, third / np.where(tiny, 1.0, variance))
    median = np.median(values, axis=0)
    off = clusters.sums((values != median).astype(np.float64))
    return ClusteredMean(
        estimate=estimate,
        se=np.where(tiny, 0.0, np.sqrt(variance)),
        skew=skew,
        df=_degrees_of_freedom(clusters.sizes),
        median=np.asarray(median),
        deviating=np.count_nonzero(off, axis=0),
        patients=clusters.effective,
    )


def _degrees_of_freedom(sizes: Floats) -> float:
    """Satterthwaite degrees of freedom of the CR2 variance of a mean under equal, independent errors."""
    n = sizes.sum()
    leverage = sizes / n
    spread = np.square(sizes) / (1 - leverage) / n**2
    diagonal = np.square(sizes).sum() / n**4
    off = (spread.sum() ** 2 - np.square(spread).sum()) / n**2
    return float((1 / n**2) / (diagonal + off))
