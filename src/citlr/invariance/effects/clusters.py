"""Means over images whose unit is the patient: standard error, degrees of freedom and skewness, for many columns."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_ROUNDING = 1e-12  # outputs lie in [0, 1]; what differs by less does not differ


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which patient every image belongs to.

    - `codes` (units,): 0 .. patients-1.
    - `sizes` (patients,): Images of each patient.
    """

    codes: NDArray[np.intp]
    sizes: Floats

    @classmethod
    def of(cls, patients: ArrayLike) -> Self:
        """Give every patient a number, in order of appearance.

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

    - `variance`: Cluster-robust (CR2) variance of the estimate.
    - `third`: Third cumulant of the estimate.
    - `largest`: Largest contribution of one patient to the estimate, upwards, at least 0.
    - `df`: Bell-McCaffrey degrees of freedom.
    - `deviating`: Patients with an image whose value is not the median, or as many patients of the effective size as
      have so many images: ten patients with one image each say nothing of a patient who has 40 % of all.
    - `patients`: Effective number of patients.
    """

    estimate: Floats
    variance: Floats
    third: Floats
    largest: Floats
    df: float
    deviating: NDArray[np.intp] | Floats
    patients: float

    @property
    def se(self) -> Floats:
        """Cluster-robust (CR2) standard error."""
        return np.sqrt(self.variance)


@dataclass(frozen=True, eq=False)
class SignedMean:
    """The mean of values of either sign, with its positive and its negative part apart.

    - `whole`, `positive`, `negative`: Of y, max(y, 0) and max(-y, 0).
    - `correlation`: Between the estimates of the two parts, over patients.
    """

    whole: ClusteredMean
    positive: ClusteredMean
    negative: ClusteredMean
    correlation: Floats


def clustered_mean(values: Floats, clusters: Clusters) -> ClusteredMean:
    r"""Mean of each column with its CR2 variance (Bell and McCaffrey 2002) in closed form.

    For an intercept alone the CR2 adjustment of cluster c with :math:`n_c` of N rows is
    :math:`(1 - n_c/N)^{-1/2}`, so :math:`se^2 = \sum_c e_c^2 / (1 - n_c/N) / N^2` with
    :math:`e_c = \sum_{i \in c} (y_i - \bar y)`. With one image per patient this is the usual s / sqrt(n).

    Shapes: `values` (units, ...).
    """
    return summarise(values, clusters)[0]


def signed_mean(values: Floats, clusters: Clusters) -> SignedMean:
    """Return the mean of each column with its two parts; see `clustered_mean` for the arguments."""
    positive, up = summarise(np.maximum(values, 0), clusters)
    negative, down = summarise(np.maximum(-values, 0), clusters)
    product = np.sqrt(positive.variance * negative.variance)
    correlation = np.where(product > 0, (up * down).sum(axis=0) / np.where(product > 0, product, 1.0), 0.0)
    return SignedMean(
        whole=clustered_mean(values, clusters), positive=positive, negative=negative, correlation=correlation
    )


def summarise(values: Floats, clusters: Clusters) -> tuple[ClusteredMean, Floats]:
    """Give the mean of each column, and what every patient adds to its error (patients, ...); see `clustered_mean`."""
    n = float(len(values))
    estimate = values.mean(axis=0)
    totals = clusters.sums(values)
    sizes = clusters.sizes.reshape(-1, *([1] * (values.ndim - 1)))
    parts = (totals - sizes * estimate) / np.sqrt(1 - sizes / n) / n
    variance = np.square(parts).sum(axis=0)
    real = variance > np.square(_ROUNDING)  # else: the rounding of a constant column
    parts = parts * real
    off = clusters.sums((np.abs(values - np.median(values, axis=0)) > _ROUNDING).astype(np.float64)) > 0
    weights = (off * sizes).sum(axis=0) * clusters.effective / n
    mean = ClusteredMean(
        estimate=np.asarray(estimate),
        variance=np.asarray(variance * real),
        third=np.asarray((parts**3).sum(axis=0)),
        largest=np.asarray(np.maximum(parts.max(axis=0), 0.0)),
        df=_degrees_of_freedom(clusters.sizes),
        deviating=np.asarray(np.minimum(off.sum(axis=0), weights + _ROUNDING)),
        patients=clusters.effective,
    )
    return mean, parts


def _degrees_of_freedom(sizes: Floats) -> float:
    """Satterthwaite degrees of freedom of the CR2 variance of a mean under equal, independent errors."""
    n = sizes.sum()
    leverage = sizes / n
    spread = np.square(sizes) / (1 - leverage) / n**2
    diagonal = np.square(sizes).sum() / n**4
    off = (spread.sum() ** 2 - np.square(spread).sum()) / n**2
    return float((1 / n**2) / (diagonal + off))
