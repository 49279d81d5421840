"""Rates that were counted, with exact bounds."""

from __future__ import annotations

from scipy import stats


def exact_bounds(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """Lower and upper Clopper-Pearson bounds of a rate, each one-sided at `confidence`; (0, 1) without trials."""
    low = float(stats.beta.ppf(1 - confidence, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(confidence, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high
