"""Demographic parity, error rates by level (opportunity, predictive equality, odds) and the AUROC gap: associations.

A model that is invariant to the attribute fails all of them where the attribute and the disease go together, so they
stand beside a verdict and are never part of it. They are computed on the data as they are: pairs are not resampled to
a made-up number, which is how the published comparison comes to reject exact parity 56 % of the time at n = 200.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.arrays import pair_of, require_chances, require_named, unmasked
from citlr.invariance.effects.auroc import auroc_bounds
from citlr.invariance.effects.clustered import (
    Floats,
    Integers,
    Part,
    auroc_part,
    correlation,
    mean_part,
    recovered,
    welch,
)
from citlr.invariance.effects.clusters import Clusters, clustered_mean
from citlr.invariance.effects.intervals import wilson_bounds
from citlr.invariance.effects.quantiles import t_quantile
from citlr.invariance.operating_point import reaches
from citlr.invariance.records import Estimate

LARGEST = 1e50  # quantile of t beyond which its fourth power is no number
# One level's estimate with its interval at an alpha.
Bounded = Callable[[float], Estimate]


@dataclass(frozen=True)
class Found:
    """What a test that is no part of a verdict found at one contrast, `(a, a')`.

    - `pvalue`: Two-sided p of the statistic, in (0, 1].
    - `estimate`, `low`, `high`: A difference with its interval, on the scale of the prediction.
    """

    method: str
    contrast: tuple[str, str]
    statistic: float
    pvalue: float
    estimate: float
    low: float
    high: float
    n_images: int
    n_patients: int


@dataclass(frozen=True)
class ParityResult(Found):
    """One association between the output and the attribute.

    - `method`: "demographic_parity", "equal_opportunity", "predictive_equality", "equalised_odds" or "auroc_gap".
    - `statistic`, `estimate`: t of the difference, and the difference: the value at a' minus the value at a.
    - `n_images`, `n_patients`: What the numbers rest on: rows at one of the two levels, with an outcome where one is
      needed.
    - `note`: What a reader has to know: why p is 1, what was left out, which stratum speaks.
    - `strata`: The parts of a combined result, one per outcome.
    """

    note: str = ""
    strata: tuple[ParityResult, ...] = ()


def demographic_parity(
    prediction: ArrayLike, level: ArrayLike, patients: ArrayLike, *, contrast: Sequence[str], alpha: float = 0.05
) -> ParityResult:
    """Compare the mean output between two levels: `E[Yhat | A=a'] - E[Yhat | A=a]`.

    The standard error is CR2 by patient (Bell & McCaffrey 2002), which for two means has a closed form; degrees of
    freedom are Bell-McCaffrey's within a level, joined by Welch-Satterthwaite. With one image per patient this is
    Welch's test, exactly. Where a level's interval would reach 0 or 1, Wilson intervals are put together by recovering
    their variances (Newcombe 1998), and p is the alpha at which that interval reaches zero.

    Shapes: `prediction` (n,), `level` (n,), `patients` (n,), `contrast` (str, str).
    """
    rows = _validate(prediction, level, patients, None, contrast)
    return _difference("demographic_parity", mean_part, rows, alpha)


def equal_opportunity(
    prediction: ArrayLike,
    level: ArrayLike,
    outcome: ArrayLike,
    patients: ArrayLike,
    *,
    contrast: Sequence[str],
    alpha: float = 0.05,
) -> ParityResult:
    """Compare the mean output among those with the finding: `E[Yhat | A=a', Y=1] - E[Yhat | A=a, Y=1]`.

    Of decisions, the gap of the true positive rates (Hardt et al. 2016), tested as in `demographic_parity`.
    """
    return _within("equal_opportunity", _validate(prediction, level, patients, outcome, contrast), 1, alpha)


def predictive_equality(
    prediction: ArrayLike,
    level: ArrayLike,
    outcome: ArrayLike,
    patients: ArrayLike,
    *,
    contrast: Sequence[str],
    alpha: float = 0.05,
) -> ParityResult:
    """Compare the mean output among those without the finding: `E[Yhat | A=a', Y=0] - E[Yhat | A=a, Y=0]`.

    Of decisions, the gap of the false positive rates (Corbett-Davies et al. 2017); the rest is `equal_opportunity`.
    """
    return _within("predictive_equality", _validate(prediction, level, patients, outcome, contrast), 0, alpha)


def equalised_odds(
    prediction: ArrayLike,
    level: ArrayLike,
    outcome: ArrayLike,
    patients: ArrayLike,
    *,
    contrast: Sequence[str],
    threshold: float = 0.5,
    alpha: float = 0.05,
) -> ParityResult:
    """Compare decisions between two levels within each outcome: the larger of the gaps in false and true positive rate.

    Decisions are `prediction >= threshold` (Hardt et al. 2016). Each outcome stratum is tested as in
    `demographic_parity`; the combined null is equality in both. The combined result is that of the stratum with the
    smallest p, with p and interval widened by Bonferroni for the choice, so that p < alpha exactly when the interval
    leaves zero out, whatever patients the strata share.
    """
    rows = _validate(prediction, level, patients, outcome, contrast)
    return _stratified("equalised_odds", replace(rows, y=reaches(rows.y, threshold).astype(float)), alpha)


def auroc_gap(
    prediction: ArrayLike,
    level: ArrayLike,
    outcome: ArrayLike,
    patients: ArrayLike,
    *,
    contrast: Sequence[str],
    alpha: float = 0.05,
) -> ParityResult:
    """Compare the area under the ROC curve between two levels.

    Variance by DeLong's structural components (1988), summed within patients (Obuchowski 1997); with one image per
    patient it is DeLong's. Where a level's interval would reach 0 or 1, intervals on the logit scale are put together
    by recovering their variances. Ties count one half.
    """
    rows = _validate(prediction, level, patients, outcome, contrast)
    known = ~np.isnan(rows.truth)
    result = _difference("auroc_gap", auroc_part, rows.take(known), alpha)
    return replace(result, note=_join(result.note, _left_out(known)))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Images at the two levels of a contrast, each array (n,); the truth is NaN where it is not known."""

    contrast: tuple[str, str]
    y: Floats
    level: NDArray[Any]
    patients: NDArray[Any]
    truth: Floats

    def take(self, rows: NDArray[np.bool_]) -> _Rows:
        """Keep some of them."""
        return _Rows(self.contrast, self.y[rows], self.level[rows], self.patients[rows], self.truth[rows])


def _validate(
    prediction: ArrayLike, level: ArrayLike, patients: ArrayLike, outcome: ArrayLike | None, contrast: Sequence[str]
) -> _Rows:
    """Check once what every test needs, and keep the rows of the two levels."""
    require_named(level, "level")
    require_named(patients, "patient")
    y, lev, who = unmasked(prediction, "prediction"), np.asarray(level).astype(str), np.asarray(patients)
    truth = np.zeros(y.shape) if outcome is None else unmasked(outcome, "outcome")
    if y.ndim != 1 or not y.shape == lev.shape == who.shape == truth.shape:
        raise InputError(
            f"Parity needs one prediction, level, patient and outcome per image, found shapes "
            f"{y.shape}, {lev.shape}, {who.shape}, {truth.shape}; give one-dimensional arrays of equal length."
        )
    require_chances(y)
    if not np.all(np.isnan(truth) | (truth == 0) | (truth == 1)):
        raise InputError("An outcome is neither 0, 1 nor NaN; code the finding as 1, its absence as 0, unknown as NaN.")
    names = pair_of(lev, contrast)
    return _Rows(names, y, lev, who, truth).take(np.isin(lev, names))


def _difference(
    method: str, part: Callable[[Floats, Floats, Integers, int], Part | None], images: _Rows, alpha: float
) -> ParityResult:
    """Estimate a quantity at both levels and test that it is the same."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, found {alpha}; 0.05 gives a 95 % interval.")
    ids, codes = np.unique(images.patients, return_inverse=True)
    names, rows = images.contrast, [images.level == name for name in images.contrast]
    base = ParityResult(method, names, 0.0, 1.0, 0.0, -1.0, 1.0, images.y.size, ids.size)
    low, high = (part(images.y[r], images.truth[r], codes[r], ids.size) for r in rows)
    if low is None or high is None:
        sizes = ", ".join(f"{name}: {np.unique(codes[r]).size}" for name, r in zip(names, rows, strict=True))
        return replace(base, note=f"p = 1: too few patients to compare ({sizes}).")
    estimate = high.value - low.value
    variance = float(np.sum((high.influence - low.influence) ** 2))
    if variance <= 1e-24 and abs(estimate) < 1e-12:
        reach = sum(1 - (alpha / 4) ** (1 / part.n_patients) for part in (low, high))
        note = "p = 1: the value is the same for every patient."
        return replace(base, low=max(-reach, -1.0), high=min(reach, 1.0), note=note)
    if _at_an_end(low) or _at_an_end(high):
        parts = [_bounded(method, images, r, one) for r, one in zip(rows, (low, high), strict=True)]
        return _by_intervals(replace(base, estimate=estimate), parts, correlation(low.influence, high.influence), alpha)
    shared = bool(np.any((high.influence != 0) & (low.influence != 0)))
    freedom = min(low.freedom, high.freedom) if shared else welch(low, high)
    error = sqrt(variance)
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * error
    return replace(
        base,
        statistic=estimate / error,
        pvalue=max(float(2 * stats.t.sf(abs(estimate) / error, freedom)), np.finfo(float).tiny),
        estimate=estimate,
        low=max(estimate - half, -1.0),
        high=min(estimate + half, 1.0),
    )


def _at_an_end(part: Part) -> bool:
    """Say whether a symmetric interval would reach an end of the range: what is rare is then not normal.

    One of 95 %, whatever is asked for: a p-value and all intervals are of one method then.
    """
    half = t_quantile(0.025, part.freedom) * sqrt(part.variance)
    return part.variance <= 1e-24 or part.value - half <= 0 or part.value + half >= 1


def _bounded(method: str, images: _Rows, rows: NDArray[np.bool_], part: Part) -> Bounded:
    """Give one level's estimate with its interval at any alpha: Wilson's of a mean, t on the logit scale of an area."""
    if method == "auroc_gap":
        return lambda alpha: Estimate(part.value, *auroc_bounds(part, alpha))
    mean = clustered_mean(images.y[rows, None], Clusters.of(images.patients[rows]))
    bounds = wilson_bounds(mean)
    return lambda alpha: bounds(min(t_quantile(alpha / 2, mean.df), LARGEST)).at(0)


def _by_intervals(base: ParityResult, parts: Sequence[Bounded], together: float, alpha: float) -> ParityResult:
    """Put the two intervals together (MOVER); p is the alpha at which the interval reaches zero."""

    def bounds(level: float) -> Estimate:
        return recovered(parts[0](level), parts[1](level), together)

    small, large = log(np.finfo(float).tiny), 0.0
    for _ in range(60):
        middle = (small + large) / 2
        at = bounds(exp(middle))
        small, large = (middle, large) if at.low <= 0 <= at.high else (small, middle)
    pvalue, found = exp(large), bounds(alpha)
    statistic = float(np.sign(base.estimate) * stats.norm.isf(pvalue / 2))
    low, high = max(found.low, -1.0), min(found.high, 1.0)
    return replace(base, statistic=statistic, pvalue=pvalue, low=low, high=high)


def _within(method: str, images: _Rows, value: int, alpha: float) -> ParityResult:
    """Test among those of one outcome."""
    result = _difference(method, mean_part, images.take(images.truth == value), alpha)
    return replace(result, note=_join(result.note, _left_out(~np.isnan(images.truth))))


def _stratified(method: str, images: _Rows, alpha: float) -> ParityResult:
    """Test within each outcome and combine: the most extreme stratum, with p and interval widened for the choice."""
    strata = [images.take(images.truth == value) for value in (0, 1)]
    tests, wide = ([_difference(method, mean_part, part, error) for part in strata] for error in (alpha, alpha / 2))
    usable = [k for k, test in enumerate(tests) if not test.note.startswith("p = 1: too few")]
    tests = [replace(test, note=_join(f"y = {k}", test.note)) for k, test in enumerate(tests)]
    known = ~np.isnan(images.truth)
    n_images, n_patients = int(known.sum()), int(np.unique(images.patients[known]).size)
    if not usable:
        empty = replace(
            tests[0],
            n_images=n_images,
            n_patients=n_patients,
            note=_join("p = 1: too few patients in every outcome", _left_out(known)),
        )
        return replace(empty, strata=tuple(tests))
    best = min(usable, key=lambda k: (tests[k].pvalue, -abs(tests[k].estimate)))
    chosen = wide[best] if len(usable) == 2 else tests[best]
    skipped = "" if len(usable) == 2 else f"outcome {1 - best} has too few patients"
    return replace(
        chosen,
        n_images=n_images,
        n_patients=n_patients,
        pvalue=min(1.0, len(usable) * tests[best].pvalue),
        note=_join(
            f"y = {best} speaks", "" if chosen.note.startswith("y =") else chosen.note, skipped, _left_out(known)
        ),
        strata=tuple(tests),
    )


def _left_out(known: NDArray[np.bool_]) -> str:
    missing = int(np.sum(~known))
    return f"{missing} images without a known outcome left out" if missing else ""


def _join(*notes: str) -> str:
    return "; ".join(note.rstrip(".") for note in notes if note) + ("." if any(notes) else "")
