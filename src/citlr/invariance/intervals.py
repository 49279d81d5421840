r"""Intervals for means over patients that hold when events are rare, and the p-values that invert them.

Hall (1992) removes the skewness of a studentised mean; his cubic transformation breaks down where it is needed most
(three flips among 200 patients give an upper limit above that of five). The same second-order correction is used here
in its score form. Let :math:`\hat\theta` have standard error s and let :math:`k = \hat\kappa_3 / s^2` be its third
cumulant over its variance. In the family tilted like the data the variance at :math:`\theta` is
:math:`s^2 + k(\theta - \hat\theta)`, and the Cornish-Fisher expansion of the standardised mean gives

.. math:: \hat\theta - \theta = \sqrt{s^2 + k(\theta - \hat\theta)}\; z + k (z^2 - 1) / 6,

whose solution for the two limits :math:`\theta_\pm` is closed:

.. math:: \theta_\pm = \hat\theta + k (2z^2 + 1)/6 \pm z \sqrt{s^2 + k^2 (z^2 + 2)/12}.

To first order in k these are Hall's limits. For a Poisson count (s^2 = X, k = 1) they are within 0.15 of the mid-p
limits from X = 1 on. z is a quantile of Student's t with the Bell-McCaffrey degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.clusters import ClusteredMean, Floats

# With fewer deviating patients than this their spread says little about what was not seen.
RARE = 5


@dataclass(frozen=True, eq=False)
class Interval:
    """An estimate with its limits; the three arrays have one shape.

    Parameters
    ----------
    estimate, low, high : ndarray of float
    """

    estimate: Floats
    low: Floats
    high: Floats


def check_alpha(alpha: float) -> None:
    """Raise `InputError` unless alpha is in (0, 0.5]."""
    if not 0 < alpha <= 0.5:
        raise InputError(f"alpha is {alpha}; give an error rate in (0, 0.5], such as 0.05.")


def skew_interval(mean: ClusteredMean, *, alpha: float = 0.05, span: tuple[float, float] = (-1.0, 1.0)) -> Interval:
    r"""Two-sided 1 - alpha interval of a clustered mean, skewness-corrected, honest where nothing varies.

    Where fewer than five patients deviate from the median value v, the interval also holds all that an unseen kind of
    patient could do: a share of patients that n of them failed to show is at most
    :math:`\beta = 1 - (\alpha/2)^{1/n}`, so the limits reach at least :math:`v + \beta(\max - v)` and
    :math:`v - \beta(v - \min)`. A column without any variance therefore never gets an interval of width zero.

    Parameters
    ----------
    mean : ClusteredMean
        Any shape.
    alpha : float
        Two-sided error rate.
    span : (float, float)
        Smallest and largest value that the population mean can have.

    Returns
    -------
    Interval

    Examples
    --------
    >>> import numpy as np
    >>> from citlr.invariance.clusters import Clusters, clustered_mean
    >>> nothing = clustered_mean(np.zeros((100, 1)), Clusters.of(range(100)))
    >>> skew_interval(nothing, span=(0.0, 1.0)).high.round(4)
    array([0.0362])
    """
    check_alpha(alpha)
    z = float(stats.t.isf(alpha / 2, mean.df))
    k = mean.skew
    centre = mean.estimate + k * (2 * z**2 + 1) / 6
    half = z * np.sqrt(np.square(mean.se) + np.square(k) * (z**2 + 2) / 12)
    beta = 1 - (alpha / 2) ** (1 / mean.patients)
    rare = mean.deviating < RARE
    floor_high = mean.median + beta * (span[1] - mean.median)
    floor_low = mean.median - beta * (mean.median - span[0])
    high = np.where(rare, np.maximum(centre + half, floor_high), centre + half)
    low = np.where(rare, np.minimum(centre - half, floor_low), centre - half)
    return Interval(
        estimate=mean.estimate,
        low=np.clip(np.minimum(low, mean.estimate), min(span[0], mean.estimate.min()), span[1]),
        high=np.clip(np.maximum(high, mean.estimate), span[0], max(span[1], mean.estimate.max())),
    )


def upper_pvalue(mean: ClusteredMean, bound: float, *, span: tuple[float, float] = (-1.0, 1.0)) -> Floats:
    """P-value of "the population mean is at least `bound`": below alpha where the one-sided upper limit is below it.

    It inverts `skew_interval` (one-sided: its limit at 2 alpha), the rare-patient floor included.

    Parameters
    ----------
    mean : ClusteredMean
    bound : float
        Inside `span`.

    Returns
    -------
    ndarray of float
        In [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from citlr.invariance.clusters import Clusters, clustered_mean
    >>> nothing = clustered_mean(np.zeros((100, 1)), Clusters.of(range(100)))
    >>> upper_pvalue(nothing, 0.03, span=(0.0, 1.0)).round(4)  # 0.97 ** 100
    array([0.0476])
    """
    k, shift = mean.skew, bound - mean.estimate
    variance = np.square(mean.se) + k * shift
    degenerate = variance <= 0
    se = np.sqrt(np.where(degenerate, 1.0, variance))
    a, x = k / se, -shift / se
    # Solve x = z + a (z^2 - 1) / 6 for z; the discriminant is at least 1/3 because a x > -1.
    root = np.sqrt(np.maximum(1 + 2 * a * x / 3 + np.square(a) / 9, 0.0))
    z = 2 * (x + a / 6) / (1 + root)
    p = np.where(degenerate, np.where(shift > 0, 0.0, 1.0), stats.t.cdf(z, mean.df))
    room = span[1] - mean.median
    share = np.clip((bound - mean.median) / np.where(room > 0, room, 1.0), 0.0, 1.0)
    unseen = (1 - share) ** mean.patients
    return np.asarray(np.where(mean.deviating < RARE, np.maximum(p, unseen), p))


def lower_pvalue(mean: ClusteredMean, bound: float, *, span: tuple[float, float] = (-1.0, 1.0)) -> Floats:
    """P-value of "the population mean is at most `bound`"; the mirror image of `upper_pvalue`."""
    return upper_pvalue(mean.negated(), -bound, span=(-span[1], -span[0]))


def wilson_interval(mean: ClusteredMean, *, alpha: float = 0.05) -> Interval:
    r"""Wilson interval of a rate with the effective sample size of the clusters (Korn and Graubard 1998).

    The effective size is :math:`p(1-p) / se^2` with the cluster-robust standard error, and the effective number of
    patients where nothing varies.

    Parameters
    ----------
    mean : ClusteredMean
        Mean of values in [0, 1].
    alpha : float
        Two-sided error rate.

    Examples
    --------
    >>> import numpy as np
    >>> from citlr.invariance.clusters import Clusters, clustered_mean
    >>> rate = clustered_mean(np.r_[np.ones(20), np.zeros(80)][:, None], Clusters.of(range(100)))
    >>> interval = wilson_interval(rate)
    >>> interval.low.round(3), interval.high.round(3)
    (array([0.132]), array([0.291]))
    """
    check_alpha(alpha)
    p = np.clip(mean.estimate, 0.0, 1.0)
    spread = p * (1 - p)
    size = np.where(
        (mean.se > 0) & (spread > 0), spread / np.where(mean.se > 0, np.square(mean.se), 1.0), mean.patients
    )
    ratio = float(stats.t.isf(alpha / 2, mean.df)) ** 2 / size
    centre = (p + ratio / 2) / (1 + ratio)
    half = np.sqrt(ratio * spread + np.square(ratio) / 4) / (1 + ratio)
    return Interval(estimate=p, low=np.clip(centre - half, 0, p), high=np.clip(centre + half, p, 1))
