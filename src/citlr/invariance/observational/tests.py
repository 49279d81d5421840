"""Tests on (Z, A, Yhat) alone, where no generator is at hand: they can flag dependence, and bound it from below.

`Z` is taken to hold everything that matters but the attribute. No honest upper bound on the effect exists from these
data (the influence-function interval covered it 0 to 80 % of the time), so the verdicts are "dependence" and
"inconclusive", and no third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log10, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.observational.distilled import Combine, distil
from citlr.invariance.observational.learners import Learners
from citlr.invariance.observational.lower_bound import sequential_bound
from citlr.invariance.observational.nuisances import Nuisances, fit_nuisances
from citlr.invariance.observational.observations import Observations
from citlr.invariance.observational.result import ObservationalAssessment, ObservationalResult

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


def distilled_crt(
    representation: ArrayLike,
    level: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    propensity: ArrayLike | None = None,
    kernels: Sequence[str] = ("constant", "linear"),
    combine: Combine = "max",
    redraws: int = 999,
    folds: int = 5,
    outcome: Learners | None = None,
    treatment: Learners | None = None,
    seed: int = 0,
    nuisances: Nuisances | None = None,
) -> ObservationalResult:
    """Distilled conditional randomisation test (Candes et al. 2018; Liu et al. 2022) with a second-order statistic.

    With `e = Yhat - mhat(Z)` cross-fitted on patient folds and `w = e (A - p(Z))`, summed within the unit that has the
    attribute, the statistic is the largest over kernels K of the standardised `sum_{i != j} w_i w_j K(z_i, z_j)`. The
    constant kernel sees a shift, the linear one an effect that changes along Z and cancels on average. The null
    redraws `A ~ p(A|Z)`; `mhat` never saw A, so the test is exact, at any size, where p is known.

    Shapes: `representation` Z (n, d), `level` A (n,), `prediction` Yhat (n,) in [0, 1], `patients` (n,).

    - `patients`: Each image is a patient of its own without them.
    - `contrast`: The two levels to compare, where there are more.
    - `propensity` (n,): Known `P(A = a' | Z, A in contrast)`; cross-fitted without it, and the test then only
      approximate.
    - `kernels`: "constant", "linear", "rbf" (of the median distance): which effects to look for.
    - `combine`: The largest kernel, or their sum. Over 800 paired data sets of 500 the maximum found a uniform shift of
      .1 in 58 to 60 % and a zero-mean effect of .2 in 35 to 93 %, the sum in 56 to 60 % and 31 to 91 %.
    - `redraws`: Of the attribute; the smallest p is 1 / (redraws + 1).
    - `outcome`, `treatment`: Candidate learners of `E[Yhat|Z]` and `p(A|Z)`, see
      `citlr.invariance.observational.learners`.
    - `nuisances`: Of `fit_nuisances`; learners and propensity are then not looked at.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, a = rng.normal(size=(300, 4)), np.where(rng.random(300) < 0.5, "f", "m")
    >>> y = 1 / (1 + np.exp(-z[:, 0] - 0.8 * (a == "m")))
    >>> result = distilled_crt(z, a, y, propensity=np.full(300, 0.5))
    >>> result.pvalue, result.propensity, distilled_crt(z, a, np.zeros(300)).pvalue
    (0.001, 'known', 1.0)
    """
    if redraws < 19:
        raise InputError(f"{redraws} redraws cannot give p = 0.05; 999 are usual.")
    data = Observations.of(representation, level, prediction, patients=patients, contrast=contrast)
    if np.ptp(data.y) == 0:
        return _degenerate("distilled_crt", data, propensity)
    fits = nuisances or fit_nuisances(data, propensity, folds=folds, outcome=outcome, treatment=treatment, seed=seed)
    rng = np.random.default_rng([seed, 2])
    draw = distil(
        data.z, fits.residual, fits.assignment, kernels=tuple(kernels), combine=combine, redraws=redraws, rng=rng
    )
    base = _effect("distilled_crt", data, fits, alpha=0.05)
    return replace(base, statistic=draw.statistic, pvalue=draw.pvalue, log10_pvalue=draw.log10_pvalue)


def gcm(
    representation: ArrayLike,
    level: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    propensity: ArrayLike | None = None,
    folds: int = 5,
    outcome: Learners | None = None,
    treatment: Learners | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    nuisances: Nuisances | None = None,
) -> ObservationalResult:
    """Generalised covariance measure (Shah & Peters 2020), cross-fitted and clustered by patient.

    `T = sqrt(G) mean(R) / sd(R)` with `R = sum_i e_i (A_i - p(Z_i))` over a patient's images, against t with G - 1
    degrees of freedom. It sees effects that do not average out; a zero-mean effect escapes it.

    Arguments as of `distilled_crt`; `effect` is the coefficient of A in the partially linear model.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, a = rng.normal(size=(300, 4)), np.where(rng.random(300) < 0.5, "f", "m")
    >>> result = gcm(z, a, 0.4 + 0.2 * (a == "m") + 0.05 * rng.random(300))
    >>> result.pvalue < 1e-9, 0.19 < result.effect < 0.21
    (True, True)
    """
    data = Observations.of(representation, level, prediction, patients=patients, contrast=contrast)
    if np.ptp(data.y) == 0:
        return _degenerate("gcm", data, propensity)
    fits = nuisances or fit_nuisances(data, propensity, folds=folds, outcome=outcome, treatment=treatment, seed=seed)
    return _effect("gcm", data, fits, alpha=alpha)


def rms_lower_bound(
    representation: ArrayLike,
    level: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    propensity: ArrayLike | None = None,
    outcome: Learners | None = None,
    treatment: Learners | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> ObservationalResult:
    """Bound the root mean square effect from below on two sequential splits of the patients.

    Patients are cut in three blocks; what is learnt on the first is tried on the second, what is learnt on the first
    two on the third. With `tau` the effect at z, `tauhat` learnt, `v = p (1 - p)`:
    `E[(Yhat - mhat)(A - p) tauhat] / sqrt(E[v tauhat^2]) <= sqrt(E[v tau^2]) <= sqrt(E[tau^2]) / 2` (Cauchy-Schwarz),
    whatever `mhat` and `tauhat` are. Each trial is new to its learners, which K-fold cross-fitting is not (its size was
    .05 to .11).

    Arguments as of `distilled_crt`; needs 30 patients. `rms_low >= 0`: its square bounds psi from below. `pvalue` is
    one-sided.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, a = rng.normal(size=(600, 2)), np.where(rng.random(600) < 0.5, "f", "m")
    >>> y = 0.4 + 0.2 * (a == "m") + 0.05 * rng.random(600)
    >>> 0.19 < rms_lower_bound(z, a, y, propensity=np.full(600, 0.5)).rms_low < 0.2
    True
    """
    data = Observations.of(representation, level, prediction, patients=patients, contrast=contrast)
    if np.ptp(data.y) == 0:
        return replace(_degenerate("rms_lower_bound", data, propensity), rms_low=0.0)
    bound = sequential_bound(data, propensity, outcome=outcome, treatment=treatment, alpha=alpha, seed=seed)
    return replace(
        _blank("rms_lower_bound", data, propensity),
        statistic=bound.statistic,
        pvalue=bound.pvalue,
        log10_pvalue=bound.log10_pvalue,
        rms_low=bound.rms_low,
        learners=bound.learners,
        note=bound.note,
    )


def assess_observational(
    representation: ArrayLike,
    level: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    propensity: ArrayLike | None = None,
    kernels: Sequence[str] = ("constant", "linear"),
    redraws: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> ObservationalAssessment:
    """Run the battery on (Z, A, Yhat), cross-fitting once; the verdict is the distilled test's.

    Arguments as of `distilled_crt`; `alpha` is the error rate of the verdict and of the bound.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, a = rng.normal(size=(300, 4)), np.where(rng.random(300) < 0.5, "f", "m")
    >>> assess_observational(z, a, 0.4 + 0.2 * (a == "m"), propensity=np.full(300, 0.5)).verdict
    'dependence'
    """
    arrays = (representation, level, prediction)
    data = Observations.of(*arrays, patients=patients, contrast=contrast)
    fits = fit_nuisances(data, propensity, seed=seed)
    shared: Any = {"patients": patients, "contrast": contrast, "propensity": propensity, "seed": seed}
    main = distilled_crt(*arrays, kernels=kernels, redraws=redraws, nuisances=fits, **shared)
    second = gcm(*arrays, alpha=alpha, nuisances=fits, **shared)
    bound = rms_lower_bound(*arrays, alpha=alpha, **shared)
    found = main.pvalue < alpha
    basis = "known" if main.propensity == "known" else "estimated, so the test is approximate"
    reason = (
        f"distilled test p = {main.pvalue:.3g} ({'below' if found else 'not below'} {alpha:g}); p(A|Z) is {basis}; "
        + (
            f"the root mean square effect is at least {bound.rms_low:.3g}."
            if found
            else "absence of evidence is not invariance."
        )
    )
    return ObservationalAssessment((main, second, bound), "dependence" if found else "inconclusive", reason)


def product_statistic(products: Floats) -> tuple[float, float]:
    """Studentised mean and two-sided p of independent products of residuals (one per patient).

    Examples
    --------
    >>> t, p = product_statistic(np.array([1.0, 2.0, 3.0]))
    >>> round(t, 4), round(p, 4)
    (3.4641, 0.0742)
    """
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
    squares = np.bincount(data.cluster, weights=s**2)
    t, pvalue = product_statistic(products)
    theta = float(products.sum() / squares.sum())
    influence = (products - theta * squares) / squares.sum()
    n = data.n_patients
    half = float(stats.t.ppf(1 - alpha / 2, n - 1) * sqrt(n / (n - 1) * float(np.sum(influence**2))))
    return replace(
        _blank(method, data, None),
        statistic=t,
        pvalue=pvalue,
        log10_pvalue=log10(pvalue),
        effect=theta,
        low=theta - half,
        high=theta + half,
        propensity=treatment.source,
        learners=(fits.learner, treatment.learner),
        note=treatment.note,
    )


def _degenerate(method: str, data: Observations, propensity: ArrayLike | None) -> ObservationalResult:
    """One output for all images: nothing depends on anything."""
    note = "p = 1: all predictions are equal"
    return replace(_blank(method, data, propensity), effect=0.0, low=0.0, high=0.0, note=note)


def _blank(method: str, data: Observations, propensity: ArrayLike | None) -> ObservationalResult:
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
        propensity="estimated" if propensity is None else "known",
        learners=(),
    )
