"""Means and AUROCs of one level of the attribute, with what each patient contributes to their variance."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from citlr.invariance.records import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
# A standard error that is no more than the rounding of equal numbers.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Part:
    """One level's estimate: its contribution per patient, its variance, and the degrees of freedom of that variance."""

    value: float
    influence: Floats  # (all patients,), corrected so that the sum of squares is the variance
    variance: float
    freedom: float
    n_patients: int


def mean_part(y: Floats, _: Floats, codes: Integers, n_ids: int) -> Part | None:
    """Mean with the CR2 contribution of each patient: `sum_i (y_i - mean) / n / sqrt(1 - n_c / n)`."""
    share = np.bincount(codes, minlength=n_ids) / max(y.size, 1)
    inside = share[share > 0]
    if inside.size < 2:
        return None
    mean = float(y.mean())
    sums = np.bincount(codes, weights=y - mean, minlength=n_ids) / y.size
    influence = sums / np.sqrt(1 - share)
    spread = inside**2 / (1 - inside)
    # Bell & McCaffrey's traces for independent errors of equal variance: n - 1 where every patient has one image.
    freedom = 1 / float(np.sum(inside**2) + np.sum(spread) ** 2 - np.sum(spread**2))
    return Part(mean, influence, float(np.sum(influence**2)), freedom, inside.size)


def auroc_part(y: Floats, truth: Floats, codes: Integers, n_ids: int) -> Part | None:
    """AUROC with DeLong's placement values summed within patients."""
    case, control = truth == 1, truth == 0
    n_case, n_control = np.unique(codes[case]).size, np.unique(codes[control]).size
    if min(n_case, n_control) < 2:
        return None
    placement = np.empty(y.size)
    placement[case] = _share_below(y[control], y[case])
    placement[control] = 1 - _share_below(y[case], y[control])
    area = float(placement[case].mean())
    weight = np.where(case, sqrt(n_case / (n_case - 1)) / case.sum(), sqrt(n_control / (n_control - 1)) / control.sum())
    influence = np.asarray(np.bincount(codes, weights=(placement - area) * weight, minlength=n_ids), dtype=np.float64)
    return Part(area, influence, float(np.sum(influence**2)), float(min(n_case, n_control) - 1), np.unique(codes).size)


def recovered(first: Estimate, second: Estimate, together: float) -> Estimate:
    """Subtract an estimate from a second one, and recover the difference's variance from their intervals (MOVER).

    Newcombe 1998, Zou and Donner 2008; `together` is the correlation of the two.
    """

    def reach(down: float, up: float) -> float:
        return sqrt(max(down**2 + up**2 - 2 * together * down * up, 0.0))

    middle = second.estimate - first.estimate
    return Estimate(
        middle,
        middle - reach(second.estimate - second.low, first.high - first.estimate),
        middle + reach(second.high - second.estimate, first.estimate - first.low),
    )


def correlation(first: Floats, second: Floats) -> float:
    """Give the correlation of two estimates from what each patient contributes to them."""
    sizes = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    # Of patients that are all alike, what is left of the rounding correlates as it likes.
    return float(first @ second) / (sizes[0] * sizes[1]) if min(sizes) > ROUNDING else 0.0


def welch(low: Part, high: Part) -> float:
    """Degrees of freedom of a sum of two independent variances (Welch 1947)."""
    total = low.variance + high.variance
    return total**2 / (low.variance**2 / low.freedom + high.variance**2 / high.freedom)


def _share_below(reference: Floats, values: Floats) -> Floats:
    """Share of `reference` below each value, ties counted one half."""
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(below / (2 * ordered.size))
