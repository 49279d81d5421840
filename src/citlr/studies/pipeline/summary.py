"""What the audits of known classifiers add up to: false alarms, detection, agreement with the truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from citlr.run.rows import Row
from citlr.studies.kit.rates import exact_bounds

CONFIDENCE = 0.95
# True flip rates from which on a bias is to be found.
RELEVANT = 0.05
# What the names of the gates begin with that a classifier which reads what is not redrawn may fail.
HIDDEN_GATES = ("effectiveness", "difference left", "agreement", "unexplained difference")
BINS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20, 1.01)


def rate(rows: Sequence[Row], says: Callable[[Row], bool]) -> dict[str, Any]:
    """Count how many rows say so, with exact bounds; the rate of no rows is None."""
    hits = sum(bool(says(row)) for row in rows)
    low, high = exact_bounds(hits, len(rows), CONFIDENCE)
    return {"hits": hits, "of": len(rows), "rate": hits / len(rows) if rows else None, "low": low, "high": high}


def spearman(rows: Sequence[Row], estimated: str, true: str) -> float | None:
    """Rank correlation of what was estimated with what is true; None where either is the same everywhere.

    Examples
    --------
    >>> spearman([{"a": 1, "b": 2}, {"a": 2, "b": 5}, {"a": 3, "b": 9}], "a", "b")
    1.0
    """
    a, b = ([float(row[name]) for row in rows] for name in (estimated, true))
    if len(rows) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def summarise_pipeline(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up the audits."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in sorted(rows, key=lambda row: float(row["correlation"])):
        groups.setdefault(f"{row['correlation']:g}", []).append(row)
    return {name: _summary(group) for name, group in groups.items()}


def summarise_hidden(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up the audits of classifiers that read a cue: verdicts and failed gates, "all" and by cue."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(str(row["cue"]), []).append(row)
    return {
        name: {
            **{
                verdict: rate(group, lambda row, verdict=verdict: row["verdict"] == verdict)  # type: ignore[misc]
                for verdict in ("equivalent", "inconclusive", "dependence")
            },
            "equivalent_on_trust": rate(group, lambda row: row["ungated_verdict"] == "equivalent"),
            "smallest_flip_rate": min((float(row["true_flip_rate"]) for row in group), default=None),
            "gates": {
                gate: sum(any(name.startswith(gate) for name in row["failed_gates"]) for row in group)
                for gate in HIDDEN_GATES
            },
        }
        for name, group in groups.items()
    }


def _largest(rows: list[Row], key: str) -> float | None:
    return max((float(row[key]) for row in rows), default=None)


def _psi_share(rows: Sequence[Row]) -> float | None:
    """Give the median of estimated over true psi, of those that have any; None without such.

    Examples
    --------
    >>> _psi_share([{"psi": 0.1, "true_psi": 0.2}, {"psi": 0.0, "true_psi": 0.0}])
    0.5
    """
    shares = [row["psi"] / row["true_psi"] for row in rows if row["true_psi"] > 0]
    return float(np.median(shares)) if shares else None


def _summary(rows: list[Row]) -> dict[str, Any]:
    blind = [row for row in rows if row["kind"] == "blind"]
    seeing = [row for row in rows if row["kind"] in ("biased", "shortcut")]
    indifferent = [row for row in rows if row["kind"] == "indifferent"]
    strong = [row for row in seeing if row["true_flip_rate"] >= RELEVANT]
    ladder = []
    for low, high in itertools.pairwise(BINS):
        part = [row for row in seeing if low <= row["true_flip_rate"] < high]
        found = rate(part, lambda row: row["verdict"] == "dependence")
        ladder.append({"from": low, "below": high, **found, "psi_share": _psi_share(part)})
    return {
        "false_alarms": rate(blind, lambda row: row["verdict"] == "dependence"),
        "false_alarms_on_trust": rate(blind, lambda row: row["ungated_verdict"] == "dependence"),
        "cleared": rate(blind, lambda row: row["verdict"] == "equivalent"),
        "indifferent_accused": rate(indifferent, lambda row: row["verdict"] == "dependence"),
        "indifferent_accused_on_trust": rate(indifferent, lambda row: row["ungated_verdict"] == "dependence"),
        "indifferent_cleared": rate(indifferent, lambda row: row["verdict"] == "equivalent"),
        "indifferent_psi": [_largest(indifferent, "true_psi"), _largest(indifferent, "psi")],
        "inconclusive": rate(rows, lambda row: row["verdict"] == "inconclusive"),
        # What the gates cost: settled on trust, and settled no more.
        "held_up": rate([*blind, *seeing], lambda row: row["verdict"] == "inconclusive" != row["ungated_verdict"]),
        "withheld": rate(rows, lambda row: bool(row["failed_gates"])),
        "detected": rate(strong, lambda row: row["verdict"] == "dependence"),
        "detected_on_trust": rate(strong, lambda row: row["ungated_verdict"] == "dependence"),
        "acquitted": rate(strong, lambda row: row["verdict"] == "equivalent"),
        "detected_by_flip_rate": ladder,
        "spearman_psi": spearman(rows, "psi", "true_psi"),
        "spearman_psi_seeing": spearman(seeing, "psi", "true_psi"),
        "spearman_mean_effect": spearman(rows, "mean_effect", "true_mean_effect"),
    }
