"""The area under the ROC curve with an interval that is clustered by patient."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from citlr.errors import InputError
from citlr.invariance.effects.clustered import Part, auroc_part
from citlr.invariance.effects.quantiles import t_quantile


@dataclass(frozen=True)
class Auroc:
    """An area under the ROC curve.

    - `estimate`, `low`, `high`: The area and its interval, in [0, 1]; None where it cannot be computed, and `note` says
      why.
    - `n_images`, `n_patients`, `n_positive`: Images with a known outcome, whose they are, and how many have the
      finding.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n_images: int
    n_patients: int
    n_positive: int
    note: str = ""


def clustered_auroc(score: ArrayLike, outcome: ArrayLike, patients: ArrayLike, *, alpha: float = 0.05) -> Auroc:
    """Estimate the area under the ROC curve.

    Variance by DeLong's structural components (1988), summed within patients (Obuchowski 1997); the interval is t on
    the logit scale, so that it stays within [0, 1]. Ties count one half.

    Shapes: `score` (n,), `outcome` (n,), `patients` (n,).
    """
    y, truth, who = np.asarray(score, dtype=float), np.asarray(outcome, dtype=float), np.asarray(patients)
    if y.ndim != 1 or not y.shape == truth.shape == who.shape:
        raise InputError(f"An AUROC needs one score, outcome and patient per image, found {y.shape}, {truth.shape}.")
    known = ~np.isnan(truth)
    y, truth, who = y[known], truth[known], who[known]
    if not np.isin(truth, (0, 1)).all() or not np.isfinite(y).all():
        raise InputError("An AUROC needs scores that are numbers, and outcomes of 0, 1 or NaN (unknown).")
    ids, codes = np.unique(who, return_inverse=True)
    positive = int(truth.sum())
    base = (int(y.size), int(ids.size), positive)
    if positive in (0, y.size):
        return Auroc(None, None, None, *base, f"no images with{'' if positive == 0 else 'out'} the finding")
    part = auroc_part(y, truth, codes, ids.size)
    if part is None:
        ranks = stats.rankdata(y)
        area = (ranks[truth == 1].sum() - positive * (positive + 1) / 2) / (positive * (y.size - positive))
        return Auroc(float(area), None, None, *base, "no interval: one patient with an outcome")
    pairs = int(part.freedom) + 1
    note = f"every pair agrees: the interval is that of {pairs} independent pairs" if _agreed(part) else ""
    return Auroc(part.value, *auroc_bounds(part, alpha), *base, note)


def auroc_bounds(part: Part, alpha: float) -> tuple[float, float]:
    """Give the interval of an area: t on the logit scale.

    An area that every patient agrees on is bounded by Clopper-Pearson over disjoint pairs.
    """
    if _agreed(part):
        reach = 1 - (alpha / 2) ** (1 / (part.freedom + 1))
        return max(part.value - reach, 0.0), min(part.value + reach, 1.0)
    middle = float(special.logit(part.value))
    half = t_quantile(alpha / 2, part.freedom) * sqrt(part.variance) / (part.value * (1 - part.value))
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def _agreed(part: Part) -> bool:
    return part.variance <= 0 or part.value in (0.0, 1.0)
