"""Counts of a calibration batch, and what they add up to: the rows of `calibration.json`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats


def exact_bounds(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """Lower and upper Clopper-Pearson bounds of a rate, each one-sided at `confidence`; (0, 1) without trials."""
    low = float(stats.beta.ppf(1 - confidence, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(confidence, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


BINS = 200
# One-sided: a size is out of bounds when so many rejections have a probability below .001 at a true size of alpha.
CONFIDENCE = 0.999


@dataclass(frozen=True)
class Count:
    """How often something happened in a batch.

    - `scenario`: The null or the alternative; empty for a coverage row, whose effect says it.
    - `effect`: Size of the effect; 0 for a null.
    - `reps`, `hits`: Repetitions, and those that rejected or covered.
    - `histogram`: p-values in `BINS` equal bins of (0, 1]; empty where there are none to show.
    """

    section: str
    subject: str
    scenario: str
    effect: float | str
    n: int
    clusters: int
    reps: int
    hits: int
    histogram: Sequence[int] = ()


def total(counts: Iterable[Count]) -> list[Count]:
    """Add up the batches of each row, in order of first appearance."""
    rows: dict[tuple[Any, ...], Count] = {}
    for count in counts:
        key = (count.section, count.subject, count.scenario, count.effect, count.n, count.clusters)
        if key in rows:
            before = rows[key]
            bins = tuple(a + b for a, b in zip(before.histogram, count.histogram, strict=True))
            rows[key] = replace(before, reps=before.reps + count.reps, hits=before.hits + count.hits, histogram=bins)
        else:
            rows[key] = count
    return list(rows.values())


def summary(rows: Iterable[Count]) -> dict[str, list[dict[str, Any]]]:
    """Turn totals into the three tables of `calibration.json`.

    `low` and `high` are exact binomial (Clopper-Pearson) bounds, each one-sided at 99.9 %: a size is compatible with
    at most alpha exactly when `low <= alpha`.
    """
    tables: dict[str, list[dict[str, Any]]] = {"size": [], "power": [], "coverage": []}
    for row in rows:
        rate = row.hits / row.reps
        if row.section == "size":
            low, high = exact_bounds(row.hits, row.reps, CONFIDENCE)
            entry: dict[str, Any] = {"test": row.subject, "null": row.scenario, "n": row.n, "clusters": row.clusters}
            entry |= {"reps": row.reps, "rejections": row.hits, "rate": rate, "low": low, "high": high}
        elif row.section == "power":
            entry = {"test": row.subject, "alternative": row.scenario, "effect": row.effect, "n": row.n}
            entry |= {"reps": row.reps, "rate": rate}
        else:
            entry = {"interval": row.subject, "effect": row.effect, "n": row.n, "reps": row.reps, "rate": rate}
        tables[row.section].append(entry)
    return tables
