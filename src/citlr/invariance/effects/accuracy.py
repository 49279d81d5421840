"""How accurate a model is in each group: discrimination, the operating point, calibration, clustered by patient.

Accuracy is no part of a verdict: a model that does not depend on an attribute can be wrong for everyone. Every measure
is estimated on the images of one level of the attribute, with what each patient contributes to its error, so that
levels can be compared even where patients are in both.

Intervals: Wilson's for shares, with the effective number of patients; t on the logit scale for the AUROC (DeLong 1988,
Obuchowski 1997); t with a sandwich by patient for calibration (Cox 1958). A difference puts the intervals of the two
levels together by recovering their variances (MOVER; Newcombe 1998, Zou and Donner 2008), with the correlation that
patients in both bring.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from citlr.errors import InputError
from citlr.invariance.effects.auroc import clustered_auroc
from citlr.invariance.effects.clustered import Floats, Integers, auroc_part, correlation, mean_part, recovered
from citlr.invariance.effects.clusters import Clusters, clustered_mean
from citlr.invariance.effects.intervals import check_alpha, wilson_interval
from citlr.invariance.effects.quantiles import t_quantile
from citlr.invariance.operating_point import reaches
from citlr.invariance.records import Estimate

MEASURES = ("prevalence", "auroc", "sensitivity", "specificity", "in_the_large", "intercept", "slope")
# With fewer patients an interval promises what it cannot keep: the estimate stands alone.
FEWEST = 10
# Outputs of exactly 0 or 1 have no logit: single precision tells nothing nearer to them apart.
_CLIP = 1e-6
# Which patients a measure rests on, where not on both.
_NEEDS: dict[str, tuple[str, ...]] = {"prevalence": (), "sensitivity": ("with",), "specificity": ("without",)}
_STEPS, _CLOSE = 50, 1e-10


@dataclass(frozen=True)
class GroupAccuracy:
    """How accurate a model is on the images of one level; `level` is empty for all images together.

    - `n_images`, `n_patients`: Images with a known finding, and whose they are; `n_with`, `n_without`: patients who
      have an image with the finding, and one without it. None where they were masked.
    - `threshold`: The operating point of sensitivity and specificity.
    - `measures`: By name. `prevalence`, `auroc`, `sensitivity` and `specificity` in [0, 1]; `in_the_large`, the mean
      probability less the share that has the finding, in [-1, 1], 0 where both agree; `intercept` and `slope` of a
      logistic regression of the finding on the logit of the output, 0 and 1 where outputs are calibrated, the intercept
      with a slope of 1. Bounds are NaN where there is no interval.
    - `notes`: Why a measure or its interval is not there, or what the interval is.
    """

    label: str
    level: str
    threshold: float
    n_images: int | None
    n_patients: int | None
    n_with: int | None
    n_without: int | None
    measures: dict[str, Estimate] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AccuracyDifference:
    """By how much the measures of two levels (a, a') differ, the value at a' less the value at a."""

    label: str
    contrast: tuple[str, str]
    measures: dict[str, Estimate] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A measure of one group: the estimate with its interval, and each patient's part in its error, (all patients,)."""

    value: Estimate
    influence: Floats | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class _Group:
    """Images of one level with a known finding, each array (n,)."""

    output: Floats
    truth: Floats
    codes: Integers
    n_ids: int
    threshold: float
    alpha: float

    def patients(self, finding: int) -> int:
        """Count the patients who have an image with (1) or without (0) the finding."""
        return int(np.unique(self.codes[self.truth == finding]).size)


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers on one label, (n,) each: outputs in [0, 1], truth (0, 1, or NaN where unknown), level and patient."""

    label: str
    output: ArrayLike
    truth: ArrayLike
    level: ArrayLike
    patients: ArrayLike


def accuracy_by_level(
    answers: Answers, *, levels: Sequence[str], threshold: float = 0.5, alpha: float = 0.05
) -> tuple[tuple[GroupAccuracy, ...], tuple[AccuracyDifference, ...]]:
    """Measure accuracy on all images, at every level, and how levels differ."""
    check_alpha(alpha)
    label, (y, has, lev, who) = answers.label, _validate(answers)
    ids, codes = np.unique(who, return_inverse=True)
    found: dict[str, tuple[_Group, dict[str, _Measured]]] = {}
    for name in ("", *levels):
        rows = np.ones(y.size, bool) if not name else lev == name
        group = _Group(y[rows], has[rows], codes[rows], int(ids.size), float(threshold), alpha)
        found[name] = group, {measure: _measure(group, measure) for measure in MEASURES}
    groups = tuple(_record(label, name, *one) for name, one in found.items())
    differences = tuple(
        _difference(label, (first, second), found[first][1], found[second][1])
        for first, second in combinations(levels, 2)
    )
    return groups, differences


def _validate(answers: Answers) -> tuple[Floats, Floats, NDArray[np.str_], NDArray[np.str_]]:
    """Check what every measure needs, and keep the images whose finding is known."""
    y, has = np.asarray(answers.output, dtype=float), np.asarray(answers.truth, dtype=float)
    lev, who = np.asarray(answers.level).astype(str), np.asarray(answers.patients).astype(str)
    if y.ndim != 1 or not y.shape == has.shape == lev.shape == who.shape:
        raise InputError(
            f"Accuracy needs one output, finding, level and patient per image, found {y.shape}, {has.shape}, "
            f"{lev.shape} and {who.shape}: give one-dimensional arrays of equal length."
        )
    if not np.all((y >= 0) & (y <= 1)):
        raise InputError("An output is missing or outside [0, 1]: give probabilities or decisions.")
    if not np.all(np.isnan(has) | (has == 0) | (has == 1)):
        raise InputError("A finding is neither 0, 1 nor NaN: code it as 1, its absence as 0, unknown as NaN.")
    known = ~np.isnan(has)
    return y[known], has[known], lev[known], who[known]


def _record(label: str, level: str, group: _Group, found: dict[str, _Measured]) -> GroupAccuracy:
    return GroupAccuracy(
        label,
        level,
        group.threshold,
        int(group.truth.size),
        int(np.unique(group.codes).size),
        group.patients(1),
        group.patients(0),
        {name: one.value for name, one in found.items() if not np.isnan(one.value.estimate)},
        {name: one.note for name, one in found.items() if one.note},
    )


def _measure(group: _Group, name: str) -> _Measured:
    """Measure one thing of one group, or say why it cannot be."""
    if group.truth.size == 0:
        return _none("no image with a known finding")
    lacking = [word for finding, word in ((1, "with"), (0, "without")) if group.patients(finding) == 0]
    needs = _NEEDS.get(name, ("with", "without"))
    absent = [word for word in needs if word in lacking]
    if absent:
        return _none(f"no image {absent[0]} the finding")
    if name in ("in_the_large", "intercept", "slope") and np.isin(group.output, (0, 1)).all():
        return _none("the outputs are decisions (0 or 1), which have no calibration")
    few = min(
        (group.patients(finding) for finding, word in ((1, "with"), (0, "without")) if word in needs),
        default=int(np.unique(group.codes).size),
    )
    found = _estimated(group, name)
    if few < FEWEST and not np.isnan(found.value.estimate):
        which = f" {needs[0]} the finding" if len(needs) == 1 else ""
        note = f"{few} {'patient' if few == 1 else 'patients'}{which}: {FEWEST} are needed for an interval"
        return _Measured(Estimate(found.value.estimate, nan, nan), None, note)
    return found


def _none(why: str) -> _Measured:
    return _Measured(Estimate(nan, nan, nan), None, why)


def _estimated(group: _Group, name: str) -> _Measured:
    """Estimate a measure for which there are images, however few patients."""
    y, truth = group.output, group.truth
    decision = reaches(y, group.threshold).astype(float)
    if name == "auroc":
        return _auroc(group)
    if name in ("intercept", "slope"):
        return _calibration(group, name)
    values, rows = {
        "prevalence": (truth, np.ones(truth.size, bool)),
        "sensitivity": (decision, truth == 1),
        "specificity": (1 - decision, truth == 0),
        "in_the_large": (y - truth, np.ones(truth.size, bool)),
    }[name]
    return _mean(group, values[rows], group.codes[rows], share=name != "in_the_large")


def _mean(group: _Group, values: Floats, codes: Integers, *, share: bool) -> _Measured:
    part = mean_part(values, values, codes, group.n_ids)
    if part is None:
        return _Measured(Estimate(float(values.mean()), nan, nan))
    if share:
        return _Measured(
            wilson_interval(clustered_mean(values[:, None], Clusters.of(codes)), alpha=group.alpha).at(0),
            part.influence,
        )
    half = t_quantile(group.alpha / 2, part.freedom) * sqrt(part.variance)
    return _Measured(Estimate(part.value, max(part.value - half, -1.0), min(part.value + half, 1.0)), part.influence)


def _auroc(group: _Group) -> _Measured:
    found = clustered_auroc(group.output, group.truth, group.codes, alpha=group.alpha)
    part = auroc_part(group.output, group.truth, group.codes, group.n_ids)
    low, high = (nan if bound is None else bound for bound in (found.low, found.high))
    value = nan if found.estimate is None else found.estimate
    return _Measured(Estimate(value, low, high), None if part is None else part.influence, found.note)


def _calibration(group: _Group, name: str) -> _Measured:
    """Fit the finding to the logit of the output by maximum likelihood: a slope, or an intercept under a slope of 1."""
    score = special.logit(np.clip(group.output, _CLIP, 1 - _CLIP))
    case, control = score[group.truth == 1], score[group.truth == 0]
    if name == "slope" and np.ptp(score) == 0:
        return _none("the outputs are all the same, so no slope fits")
    if name == "slope" and (case.min() >= control.max() or control.min() >= case.max()):
        return _none("the outputs separate images with and without the finding wholly, so no slope fits")
    columns = np.ones((score.size, 1)) if name == "intercept" else np.stack([np.ones(score.size), score], axis=1)
    offset = score if name == "intercept" else np.zeros(score.size)
    beta = np.zeros(columns.shape[1])
    for _ in range(_STEPS):
        expected = special.expit(offset + columns @ beta)
        bread = np.linalg.pinv((columns * (expected * (1 - expected))[:, None]).T @ columns)
        step = bread @ (columns.T @ (group.truth - expected))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < _CLOSE:
            break
    else:
        return _none("the fit of the calibration did not settle")
    residual = columns * (group.truth - special.expit(offset + columns @ beta))[:, None]
    sums = [np.bincount(group.codes, weights=residual[:, k], minlength=group.n_ids) for k in range(beta.size)]
    patients, fewer = int(np.unique(group.codes).size), min(group.patients(0), group.patients(1))
    influence: Floats = np.asarray((np.stack(sums, axis=1) @ bread)[:, -1] * sqrt(patients / max(patients - 1, 1)))
    half = t_quantile(group.alpha / 2, max(fewer - 1, 1)) * float(np.linalg.norm(influence))
    return _Measured(Estimate(float(beta[-1]), float(beta[-1]) - half, float(beta[-1]) + half), influence)


def _difference(
    label: str, contrast: tuple[str, str], low: dict[str, _Measured], high: dict[str, _Measured]
) -> AccuracyDifference:
    measures, notes = {}, {}
    for name in MEASURES:
        first, second = low[name], high[name]
        reasons = [f"{level}: {one.note}" for level, one in zip(contrast, (first, second), strict=True) if one.note]
        if np.isnan(first.value.estimate) or np.isnan(second.value.estimate):
            notes[name] = "; ".join(reasons) or "one of the two is not known"
            continue
        measures[name] = _recovered(first, second)
        if reasons:
            notes[name] = "; ".join(reasons)
    return AccuracyDifference(label, contrast, measures, notes)


def _recovered(first: _Measured, second: _Measured) -> Estimate:
    """Subtract two estimates, and recover the variances of the difference from their intervals."""
    a, b = first.value, second.value
    middle = b.estimate - a.estimate
    if np.isnan([a.low, b.low]).any() or first.influence is None or second.influence is None:
        return Estimate(middle, nan, nan)
    return recovered(a, b, correlation(first.influence, second.influence))
