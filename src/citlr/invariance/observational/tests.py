"""Tests on (Z, A, Yhat) alone, where no generator is at hand: they can flag dependence, and bound it from below.

`Z` is taken to hold everything that matters but the attribute. No honest upper bound on the effect exists from these
data (the influence-function interval covered it 0 to 80 % of the time), so the verdicts are "dependence" and
"inconclusive", and no third.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import log10, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.observational.distilled import Combine, distil
from citlr.invariance.observational.learners import PROPENSITY_FLOOR, Learners
from citlr.invariance.observational.lower_bound import sequential_bound
from citlr.invariance.observational.nuisances import Assignment, Nuisances, Observations, fit_nuisances, misfit
from citlr.invariance.observational.result import ObservationalAssessment, ObservationalResult
from citlr.text import beside

Floats = NDArray[np.float64]
# Overlap that is needed.
OVERLAP = 0.1
# Level at which A that Z still foretells withholds the verdict.
FORETOLD = 0.05
LIMIT = (
    "estimated, so the test is approximate and its size holds only as far as curves and products of Z can be learnt "
    "from these images"
)
Source = Literal["known", "estimated"]


def distilled_crt(
    data: Observations,
    fits: Nuisances,
    *,
    kernels: Sequence[str] = ("constant", "linear"),
    combine: Combine = "max",
    redraws: int = 999,
    seed: int = 0,
) -> ObservationalResult:
    """Distilled conditional randomisation test (Candes et al. 2018; Liu et al. 2022) with a second-order statistic.

    With `e = Yhat - mhat(Z)` cross-fitted on patient folds and `w = e (A - p(Z))`, summed within the unit that has the
    attribute, the statistic is the largest over kernels K of the standardised `sum_{i != j} w_i w_j K(z_i, z_j)`. The
    constant kernel sees a shift, the linear one an effect that changes along Z and cancels on average. The null
    redraws `A ~ p(A|Z)`; `mhat` never saw A, so the test is exact, at any size, where p is known.

    Where p is estimated, outputs without noise leave an e that may all be misfit, a function of Z that nobody learnt.
    If p misses the same, that passes for a dependence. So p is tried with a share of 0 to 1 of e added to its logit,
    times the slope by which the level goes with what was learnt, and that beyond lines. The largest p-value counts.

    - `kernels`: "constant", "linear", "rbf" (of the median distance): which effects to look for.
    - `combine`: The largest kernel, or their sum. Over 800 paired data sets of 500 the maximum found a uniform shift of
      .1 in 58 to 60 % and a zero-mean effect of .2 in 35 to 93 %, the sum in 56 to 60 % and 31 to 91 %.
    - `redraws`: Of the attribute; the smallest p is 1 / (redraws + 1).
    """
    if redraws < 19:
        raise InputError(f"{redraws} redraws cannot give p = 0.05; 999 are usual.")
    if np.ptp(data.y) == 0:
        return _degenerate("distilled_crt", data, fits.assignment.source)
    draws = [
        distil(
            data.z,
            one.residual,
            one.assignment,
            kernels=tuple(kernels),
            combine=combine,
            redraws=redraws,
            rng=np.random.default_rng([seed, 2]),
        )
        for one in possible(fits)
    ]
    draw = max(draws, key=lambda one: (one.pvalue, one.log10_pvalue))
    base = _effect("distilled_crt", data, fits, alpha=0.05)
    return replace(
        base,
        statistic=draw.statistic,
        pvalue=draw.pvalue,
        log10_pvalue=draw.log10_pvalue,
        pvalue_fitted=draws[0].pvalue,
    )


def possible(fits: Nuisances) -> list[Nuisances]:
    """Give the fits, then those in which more and more of the residual is misfit that the level goes with."""
    tried = [float(share * slope) for slope in fits.slopes for share in np.linspace(0.125, 1, 8)]
    return [fits, *(replace(fits, assignment=misfit(fits, slope)) for slope in tried)]


def gcm(data: Observations, fits: Nuisances, *, alpha: float = 0.05) -> ObservationalResult:
    """Generalised covariance measure (Shah & Peters 2020), cross-fitted and clustered by patient.

    `T = sqrt(G) mean(R) / sd(R)` with `R = sum_i e_i (A_i - p(Z_i))` over a patient's images, against t with G - 1
    degrees of freedom. It sees effects that do not average out; a zero-mean effect escapes it. `effect` is the
    coefficient of A in the partially linear model. Where p is estimated, interval and p-value hold for every
    share of misfit, as in `distilled_crt`.
    """
    if np.ptp(data.y) == 0:
        return _degenerate("gcm", data, fits.assignment.source)
    ways = [_effect("gcm", data, one, alpha=alpha) for one in possible(fits)]
    least = max(ways, key=lambda one: one.pvalue)
    return replace(least, effect=ways[0].effect, low=min(one.low for one in ways), high=max(one.high for one in ways))


def rms_lower_bound(
    data: Observations,
    propensity: ArrayLike | None = None,
    *,
    outcome: Learners | None = None,
    treatment: Learners | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> ObservationalResult:
    """Bound the root mean square effect from below on two sequential splits of the patients, of whom it needs 30.

    Patients are cut in three blocks; what is learnt on the first is tried on the second, what is learnt on the first
    two on the third. With `tau` the effect at z, `tauhat` learnt, `v = p (1 - p)`: `E[(Yhat - mhat)(A - p) tauhat] /
    sqrt(E[v tauhat^2]) <= sqrt(E[v tau^2]) <= sqrt(E[tau^2]) / 2` (Cauchy-Schwarz), whatever `mhat` and `tauhat` are.
    Each trial is new to its learners, which K-fold cross-fitting is not (its size was .05 to .11).

    `propensity`, `outcome` and `treatment` are as of `fit_nuisances`. `rms_low >= 0`: its square bounds psi from below.
    `pvalue` is one-sided.
    """
    source: Source = "estimated" if propensity is None else "known"
    if np.ptp(data.y) == 0:
        return replace(_degenerate("rms_lower_bound", data, source), rms_low=0.0)
    bound = sequential_bound(data, propensity, outcome=outcome, treatment=treatment, alpha=alpha, seed=seed)
    return replace(_blank("rms_lower_bound", data, source), **vars(bound))


def assess_observational(
    data: Observations,
    propensity: ArrayLike | None = None,
    *,
    kernels: Sequence[str] = ("constant", "linear"),
    redraws: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> ObservationalAssessment:
    """Run the battery on (Z, A, Yhat), cross-fitting once; the verdict is the distilled test's.

    Where the attribute varies within patients, the GCM, which is clustered by patient, has to agree.
    """
    fits = fit_nuisances(data, propensity, seed=seed)
    main = distilled_crt(data, fits, kernels=kernels, redraws=redraws, seed=seed)
    second = gcm(data, fits, alpha=alpha)
    # Redrawn image by image, a level that a patient's images have in common passes for one that they do not: what is
    # clustered by patient has to agree.
    shared = not data.constant_within_patient and data.n_patients < data.a.size
    pvalue = max(main.pvalue, second.pvalue) if shared else main.pvalue
    blank = replace(_blank("rms_lower_bound", data, main.propensity), rms_low=0.0)
    found = ObservationalAssessment((main, second, blank), pvalue, overlap_of(fits.assignment), fits.foretold)
    # It takes three quarters of the time, and is withheld where the verdict is.
    if main.propensity == "known" or _depends(found, pvalue, alpha):
        bound = rms_lower_bound(data, propensity, alpha=alpha, seed=seed)
        found = replace(found, tests=(main, second, bound))
    return judge(found, pvalue, alpha)


def overlap_of(assignment: Assignment) -> float:
    """Give the mean of p (1 - p), in relation to what it is where Z says nothing of the level: 1 there, 0 where surely.

    >>> unit = np.arange(4)
    >>> blind = Assignment(unit, np.array([1.0, 0, 0, 0]), np.full(4, 0.25), "known", "given")
    >>> overlap_of(blind)
    1.0
    """
    p, share = assignment.p, float(assignment.a.mean())
    # An estimated p is kept off 0 and 1: what that leaves of a level that is always sure is no overlap.
    kept = PROPENSITY_FLOOR * (1 - PROPENSITY_FLOOR) if assignment.source == "estimated" else 0.0
    whole = share * (1 - share) - kept
    return max((float(np.mean(p * (1 - p))) - kept) / whole, 0.0) if whole > 0 else 0.0


def judge(found: ObservationalAssessment, adjusted: float, alpha: float) -> ObservationalAssessment:
    """Decide by the distilled test's p-value, adjusted for what else is tested, where images are left to compare."""
    main, _, bound = found.tests
    basis = "known" if main.propensity == "known" else LIMIT
    depends = _depends(found, adjusted, alpha)
    if main.propensity == "estimated" and not depends:
        bound = replace(bound, rms_low=0.0, pvalue=1.0, log10_pvalue=0.0, note="0: withheld, as the verdict is")
        found = replace(found, tests=(*found.tests[:2], bound))
    if depends:
        follows = f"the root mean square effect is at least {bound.rms_low:.3g}"
    else:
        follows = _withheld(found, alpha) or "absence of evidence is not invariance"
    test = "distilled test" if found.pvalue_adjusted == main.pvalue else "distilled test and GCM"
    reason = (
        f"{main.contrast[0]} against {main.contrast[1]}: {test} p = {beside(adjusted, alpha, 3, 'g')} "
        f"({'below' if adjusted < alpha else 'not below'} {alpha:g}); p(A|Z) is {basis}; {follows}."
    )
    return replace(found, pvalue_adjusted=adjusted, verdict="dependence" if depends else "inconclusive", reason=reason)


def _depends(found: ObservationalAssessment, adjusted: float, alpha: float) -> bool:
    return adjusted < alpha and found.overlap >= OVERLAP and found.foretold >= FORETOLD


def _withheld(found: ObservationalAssessment, alpha: float) -> str:
    """Say why a test that could be significant is no verdict, if it is none."""
    main = found.tests[0]
    if found.overlap < OVERLAP:
        return (
            f"Z says the level almost surely (overlap {beside(found.overlap, OVERLAP, 2, 'g')}, at least {OVERLAP:g} "
            "is needed), so nobody is left to compare"
        )
    if found.foretold < FORETOLD:
        return (
            f"trees that had no part in it still foretell from Z who has the level (p = {found.foretold:.2g}), so "
            "p(A|Z) is not fitted well enough to tell a dependence from a misfit"
        )
    if main.pvalue_fitted < alpha <= main.pvalue:
        return (
            f"as fitted p is {beside(main.pvalue_fitted, alpha, 2, 'g')}, but not if what Z leaves of the predictions "
            "is misfit that the level goes with as with what was learnt of them: a null would look the same; more "
            "images or findings in Z would tell"
        )
    return ""


def product_statistic(products: Floats) -> tuple[float, float]:
    """Studentised mean and two-sided p of independent products of residuals (one per patient)."""
    n = products.size
    spread = float(products.std(ddof=1))
    if spread <= 1e-15 * max(1.0, float(np.abs(products).max())):
        return 0.0, 1.0
    t = sqrt(n) * float(products.mean()) / spread
    return t, max(float(2 * stats.t.sf(abs(t), n - 1)), float(np.finfo(float).tiny))


def _effect(method: str, data: Observations, fits: Nuisances, *, alpha: float) -> ObservationalResult:
    """GCM with the effect it estimates: `theta = sum e (A - p) / sum (A - p)^2`, clustered by patient."""
    treatment = fits.assignment
    s = (treatment.a - treatment.p)[treatment.unit]
    products = np.bincount(data.cluster, weights=fits.residual * s).astype(float)
    squares = np.bincount(data.cluster, weights=s**2).astype(float)
    t, pvalue = product_statistic(products)
    theta = float(products.sum() / squares.sum())
    low, high = _not_refused(products, squares, (theta, pvalue), alpha)
    return replace(
        _blank(method, data, treatment.source),
        statistic=t,
        pvalue=pvalue,
        log10_pvalue=log10(pvalue),
        effect=theta,
        low=low,
        high=high,
        learners=(fits.learner, treatment.learner),
        note=treatment.note,
    )


def _not_refused(products: Floats, squares: Floats, found: tuple[float, float], alpha: float) -> tuple[float, float]:
    """Give the effects that the test itself does not refuse: those where `products - effect * squares` averages zero.

    So p is below alpha exactly where zero lies outside (Fieller 1954). An interval by the error of `theta` alone is too
    narrow where few patients have the level: it left zero out beside a p of .3. Chances differ by 1 at most.
    """
    n, (theta, pvalue) = products.size, found
    limit = float(stats.t.ppf(1 - alpha / 2, n - 1)) ** 2 / n
    means, spread = (products.mean(), squares.mean()), np.cov(products, squares)
    curve = means[1] ** 2 - limit * spread[1, 1]
    middle = means[0] * means[1] - limit * spread[0, 1]
    end = means[0] ** 2 - limit * spread[0, 0]
    reach = sqrt(max(middle**2 - curve * end, 0.0))
    low, high = min(-1.0, theta), max(1.0, theta)
    if curve > 0:
        low, high = max(low, (middle - reach) / curve), min(high, (middle + reach) / curve)
    elif pvalue < alpha:
        # So few that effects of either sign would do, but none at all: those on the side of the estimate.
        nearest = end / (middle + np.copysign(reach, theta))
        low, high = (nearest, high) if theta > 0 else (low, nearest)
    kept = (theta,) if pvalue < alpha else (theta, 0.0)
    return float(min(low, *kept)), float(max(high, *kept))


def _degenerate(method: str, data: Observations, source: Source) -> ObservationalResult:
    """One output for all images: nothing depends on anything."""
    note = "p = 1: all predictions are equal"
    return replace(_blank(method, data, source), effect=0.0, low=0.0, high=0.0, note=note)


def _blank(method: str, data: Observations, source: Source) -> ObservationalResult:
    """Say what is known before a test: whose images they are, and nothing of an effect."""
    return ObservationalResult(
        method=method,
        contrast=data.contrast,
        statistic=0.0,
        pvalue=1.0,
        log10_pvalue=0.0,
        effect=nan,
        low=nan,
        high=nan,
        rms_low=nan,
        n_images=data.y.size,
        n_patients=data.n_patients,
        propensity=source,
        learners=(),
    )
