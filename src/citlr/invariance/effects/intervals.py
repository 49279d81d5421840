r"""Intervals for means over patients that hold when events are rare, and the p-values that invert them.

*Skewness.* Hall (1992) corrects a studentised mean for its skewness; his cubic transformation breaks down where it is
needed most (three flips among 200 patients get a higher upper limit than five). Here the same second-order correction
is in score form. Let :math:`\hat\theta` have variance :math:`s^2` and third cumulant :math:`\kappa_3`, and
:math:`k = \kappa_3 / s^2`. In the family tilted like the data the variance at :math:`\theta` is
:math:`s^2 + k(\theta - \hat\theta)`, and the Cornish-Fisher expansion of the standardised mean,

.. math:: \hat\theta - \theta = \sqrt{s^2 + k(\theta - \hat\theta)}\; z + k (z^2 - 1) / 6,

gives both limits in closed form:

.. math:: \theta_\pm = \hat\theta + k (2z^2 + 1)/6 \pm z \sqrt{s^2 + k^2 (z^2 + 2)/12},

Hall's to first order in k. z is a quantile of Student's t with the Bell-McCaffrey degrees of freedom. For a Poisson
count these are nearly the mid-p limits. The upper limit is taken as if one more patient like the most extreme one had
been met (its square and cube are added to :math:`s^2` and :math:`\kappa_3`), since what is rare is more often missed
than overrepresented: without it, equivalence tests had a size of up to 10 % where few patients respond.

*Signs.* Few events of both signs have a skewness that cannot be estimated, so the mean effect is taken apart into its
positive and its negative part, each with the limits above, put together again by recovering their variances (MOVER; Zou
and Donner 2008).

*What was not seen.* An unseen kind of patient makes up at most :math:`\beta = 1 - \alpha^{1/n}` of the population
(3/n: the rule of three), n being the effective number. Where fewer than five patients deviate from the median, or those
who do have fewer images than five of the effective size, a limit is therefore no nearer to the estimate than
:math:`\beta` times the distance to the end of the range: an interval never has width zero. And for psi of decisions,
where an image may flip outright, the upper limit is never below :math:`\beta`: n patients do not show that psi is below
3/n, however steady their outputs (such a psi is covered more often than promised). The upper limit of psi of
probabilities says nothing of kinds of patients of whom none was met; the test of equivalence allows for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.effects.clusters import ClusteredMean, Floats, SignedMean
from citlr.invariance.effects.quantiles import t_quantile
from citlr.invariance.records import Estimate

RARE = 5  # with fewer deviating patients, their spread says little about what was not seen
_ROUNDING = 1e-18
_TURN = 2.6  # z sqrt(k^2/s^2) beyond which the closed lower limit turns back up
# A limit of a mean as a function of the quantile z.
Limits = Callable[[float | Floats], Floats]


@dataclass(frozen=True, eq=False)
class Interval:
    """An estimate with its limits; the three arrays have one shape."""

    estimate: Floats
    low: Floats
    high: Floats

    def at(self, k: int) -> Estimate:
        """Return entry k."""
        return Estimate(float(self.estimate[k]), float(self.low[k]), float(self.high[k]))


def check_alpha(alpha: float) -> None:
    """Raise `InputError` unless alpha is in (0, 0.5]."""
    if not 0 < alpha <= 0.5:
        raise InputError(f"alpha is {alpha}; give an error rate in (0, 0.5], such as 0.05.")


def skew_interval(
    mean: ClusteredMean, *, alpha: float = 0.05, span: tuple[float, float] = (0.0, 1.0), decisions: bool = False
) -> Interval:
    """Two-sided 1 - alpha interval of the mean of values that are hardly ever negative, such as psi."""
    check_alpha(alpha)
    z = t_quantile(alpha / 2, mean.df)
    unseen = 1 - (alpha / 2) ** (1 / mean.patients)
    beta = np.where(mean.deviating < RARE, unseen, 0.0)
    inside = np.clip(mean.estimate, *span)
    low = np.minimum(_lowers(mean, span[0])(z), inside - beta * (inside - span[0]))
    reach = np.maximum(_uppers(mean, mean.largest)(z) - mean.estimate, beta * (span[1] - inside))
    high = inside + reach  # an estimate below the range does not make its limit any more certain
    if decisions:
        high = np.maximum(high, span[0] + unseen * (span[1] - span[0]))
    return Interval(estimate=mean.estimate, low=np.clip(low, *span), high=np.clip(high, *span))


def signed_interval(mean: SignedMean, *, alpha: float = 0.05) -> Interval:
    """Two-sided 1 - alpha interval of a mean of values in [-1, 1]; see `skew_interval` for the arguments."""
    check_alpha(alpha)
    z = np.full(mean.whole.estimate.shape, t_quantile(alpha / 2, mean.whole.df))
    beta = np.where(mean.whole.deviating < RARE, 1 - (alpha / 2) ** (1 / mean.whole.patients), 0.0)
    estimate = mean.whole.estimate
    low = np.minimum(_signed_limits(negate(mean), -1)(z), estimate - beta * (1 + estimate))
    high = np.maximum(_signed_limits(mean, 1)(z), estimate + beta * (1 - estimate))
    return Interval(estimate=estimate, low=np.clip(low, -1.0, 1.0), high=np.clip(high, -1.0, 1.0))


def upper_pvalue(
    mean: ClusteredMean, bound: float, *, span: tuple[float, float] = (0.0, 1.0), unseen: float | None = None
) -> Floats:
    """P-value of "the population mean is at least `bound`": below alpha where its one-sided upper limit is below it.

    Inverts the upper limit of `skew_interval` (whose two-sided alpha is twice the one-sided one). With `unseen` it is
    at least the chance that a kind of patient who makes up this share was not met: `bound` itself for decisions.
    """
    s2, k = _widened(mean, mean.largest)
    inside = np.clip(mean.estimate, *span)
    shift = bound - inside
    variance = s2 + k * shift
    beyond = variance <= 0  # no member of the family has this mean, or nothing varies at all
    se = np.sqrt(np.where(beyond, 1.0, variance))
    a, x = k / se, -shift / se
    # Solve x = z + a (z^2 - 1) / 6 for z, in the form that also holds at a = 0; a x > -1, so the root is real.
    root = np.sqrt(np.maximum(1 + 2 * a * x / 3 + np.square(a) / 9, 0.0))
    p = np.where(beyond, np.where(shift > 0, 0.0, 1.0), stats.t.cdf(2 * (x + a / 6) / (1 + root), mean.df))
    if unseen is None or unseen <= bound:
        share = (bound - inside) / np.maximum(span[1] - inside, 1e-300)
    else:
        share = unseen - np.sqrt(np.maximum(inside, 0.0))  # of a mean square: what is seen of the change itself
    p = _with_unseen(p, mean, share)
    return p if unseen is None else np.maximum(p, (1 - unseen) ** mean.patients)


def beyond_pvalue(mean: SignedMean, bound: float) -> Floats:
    """P-value of "the population mean is `bound` or more", for values in [-1, 1]; inverts `signed_interval`'s high."""
    estimate = mean.whole.estimate
    above = bound > estimate
    # What no z changes is computed once, and a side that none is on not at all: halving took a third of an assessment.
    upper = _signed_limits(mean, 1) if above.any() else None
    lower = None if above.all() else _signed_limits(negate(mean), -1)
    low, high = np.zeros(estimate.shape), np.full(estimate.shape, 50.0)
    for _ in range(60):  # the limits move away from the estimate as z grows
        z = (low + high) / 2
        passed = np.where(above, upper is not None and upper(z) > bound, lower is not None and lower(z) < bound)
        low, high = np.where(passed, low, z), np.where(passed, z, high)
    tail = stats.t.sf((low + high) / 2, mean.whole.df)
    p = np.where(above, tail, 1 - tail)
    return _with_unseen(p, mean.whole, (bound - estimate) / np.maximum(1 - estimate, 1e-300))


def negate(mean: SignedMean) -> SignedMean:
    """Return the mean of the values with their signs changed."""
    whole = mean.whole
    flipped = ClusteredMean(
        estimate=-whole.estimate,
        variance=whole.variance,
        third=-whole.third,
        largest=whole.largest,
        df=whole.df,
        deviating=whole.deviating,
        patients=whole.patients,
    )
    return SignedMean(whole=flipped, positive=mean.negative, negative=mean.positive, correlation=mean.correlation)


def wilson_interval(mean: ClusteredMean, *, alpha: float = 0.05) -> Interval:
    r"""Wilson interval of a rate with the effective sample size of the clusters (after Korn and Graubard 1998).

    The effective size is :math:`p(1-p) / se^2` with the cluster-robust standard error, and the effective number of
    patients where nothing varies.
    """
    check_alpha(alpha)
    return wilson_bounds(mean)(t_quantile(alpha / 2, mean.df))


def wilson_bounds(mean: ClusteredMean) -> Callable[[float], Interval]:
    """Give the Wilson interval as a function of the quantile of t."""
    p = np.clip(mean.estimate, 0.0, 1.0)
    spread = p * (1 - p)
    varies = (mean.variance > _ROUNDING) & (spread > _ROUNDING)
    size = np.where(varies, spread / np.where(varies, mean.variance, 1.0), mean.patients)

    def bounds(quantile: float) -> Interval:
        ratio = np.minimum(quantile**2 / size, 1e150)  # its square is a number
        centre = (p + ratio / 2) / (1 + ratio)
        half = np.sqrt(ratio * spread + np.square(ratio) / 4) / (1 + ratio)
        low, high = np.minimum(np.maximum(centre - half, 0), p), np.minimum(np.maximum(centre + half, p), 1)
        return Interval(estimate=p, low=low, high=high)

    return bounds


def _with_unseen(p: Floats, mean: ClusteredMean, share: Floats) -> Floats:
    missed = (1 - np.clip(share, 0.0, 1.0)) ** mean.patients
    return np.asarray(np.where(mean.deviating < RARE, np.maximum(p, missed), p))


def _widened(mean: ClusteredMean, pseudo: Floats) -> tuple[Floats, Floats]:
    """Variance and k with one more extreme patient; `pseudo` is what that patient would add to the estimate."""
    weight = mean.variance + np.square(pseudo)
    k = np.where(weight > 0, (mean.third + pseudo**3) / np.where(weight > 0, weight, 1.0), 0.0)
    return mean.variance + np.square(mean.largest), k


def _uppers(mean: ClusteredMean, pseudo: Floats) -> Limits:
    """Give the upper limit by the quantile z."""
    s2, k = _widened(mean, pseudo)
    k2 = np.square(k)

    def at(z: float | Floats) -> Floats:
        z2 = np.square(z)
        return np.asarray(mean.estimate + k * (2 * z2 + 1) / 6 + z * np.sqrt(s2 + k2 * (z2 + 2) / 12))

    return at


def _lowers(mean: ClusteredMean, least: float) -> Limits:
    """Give the lower limit by the quantile z."""
    s2 = mean.variance
    k = np.where(s2 > 0, mean.third / np.where(s2 > 0, s2, 1.0), 0.0)
    k2, skew, turn = np.square(k), np.maximum(k, 0), _TURN * np.sqrt(s2)

    def at(z: float | Floats) -> Floats:
        z2 = np.square(z)
        limit = mean.estimate + k * (2 * z2 + 1) / 6 - z * np.sqrt(s2 + k2 * (z2 + 2) / 12)
        return np.asarray(np.where(z * skew > turn, least, np.maximum(limit, least)))

    return at


def _signed_limits(mean: SignedMean, sign: int) -> Limits:
    """Upper limit of the mean (sign 1) by z; of its mirror image, the lower limit of what was mirrored (sign -1)."""
    up, down = mean.positive, mean.negative
    uppers, lowers = _uppers(up, np.maximum(up.largest, down.largest)), _lowers(down, 0.0)
    twice = 2 * mean.correlation

    def at(z: float | Floats) -> Floats:
        a = uppers(z) - up.estimate
        b = down.estimate - np.minimum(lowers(z), down.estimate)
        reach = np.sqrt(np.maximum(np.square(a) + np.square(b) - twice * a * b, 0.0))
        return np.asarray(sign * (mean.whole.estimate + reach))

    return at
