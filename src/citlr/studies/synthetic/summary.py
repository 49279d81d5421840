"""Tables of the synthetic study: does log10 p follow the true psi or ECA, how often is a test wrong, and which way.

ECA, expected counterfactual accuracy, is the publication's share of decisions that redrawing keeps
(`citlr.simulators.tabular`). A set is a tabular world; its pool "published" holds the publication's models.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from citlr.studies.synthetic.run import TESTS

ALPHA = 0.05
MISSED_FROM = 0.01  # true psi from which a test that does not reject is called a miss
_BOOTSTRAPS = 500
AXES = {"psi": "true psi", "eca": "1 - ECA, published", "eca_corrected": "1 - ECA, corrected for flips within a level"}


def correlations(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Correlate -log10 p with the true psi and with 1 - ECA, per set and test, with intervals over models.

    Over the published pool, "both" it and the graded one, and, of both, the models whose decisions vary at all.
    """
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(rows["set"]):
        mine = rows[rows["set"] == name]
        varying = mine[mine["within_flip_rate"] > 0]
        for pool, part in (("published", mine[mine["pool"] == "published"]), ("both", mine), ("varying", varying)):
            for test in TESTS:
                p = -part[f"log10p_{test}"].to_numpy()
                for axis in AXES:
                    x = part[axis].to_numpy() if axis == "psi" else 1 - part[axis].to_numpy()
                    found.append(
                        {"set": name, "pool": pool, "test": test, "axis": axis, "models": len(part)}
                        | _correlate(p, x, np.random.default_rng([seed, len(found)]))
                    )
    return pd.DataFrame(found)


def _correlate(p: NDArray[np.float64], x: NDArray[np.float64], rng: np.random.Generator) -> dict[str, float]:
    if len(p) < 3:
        return {f"{name}{part}": float("nan") for name in ("spearman", "pearson") for part in ("", "_low", "_high")}
    draws = np.vstack(
        [np.arange(len(p)), rng.integers(0, len(p), (_BOOTSTRAPS, len(p)))]
    )  # row 0: the models themselves
    a, b = p[draws], x[draws]
    out: dict[str, float] = {}
    ranked = stats.rankdata(a, axis=1), stats.rankdata(b, axis=1)
    for name, pair in (("spearman", ranked), ("pearson", (a, b))):
        values = _pearson(*pair)
        known = values[1:][np.isfinite(values[1:])]
        low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
        out |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return out


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate row by row; not a number where a row does not vary."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    varies = scale > 1e-12
    return np.where(varies, (a * b).sum(axis=1) / np.where(varies, scale, 1.0), np.nan)


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Count false alarms among exactly invariant models and misses among clearly dependent ones, over all sets.

    `allowed` false alarms are exceeded by a test of size ALPHA once in a thousand such studies.
    """
    varying = rows[rows["within_flip_rate"] > 0]
    invariant, dependent = varying[varying["invariant"]], varying[varying["psi"] >= MISSED_FROM]
    allowed = int(stats.binom.ppf(0.999, len(invariant), ALPHA)) if len(invariant) else 0
    found: list[dict[str, Any]] = []
    for test in TESTS:
        found.append(
            {
                "test": test,
                "invariant": len(invariant),
                "false_alarms": int((invariant[f"p_{test}"] <= ALPHA).sum()),
                "allowed": allowed,
                "dependent": len(dependent),
                "missed": int((dependent[f"p_{test}"] > ALPHA).sum()),
            }
        )
    return pd.DataFrame(found)


def worlds(rows: pd.DataFrame) -> pd.DataFrame:
    """Describe each set: models that never change, accuracy, and what ECA counts that the definition does not."""
    grouped = rows[rows["pool"] == "published"].groupby("set", sort=False)
    return pd.DataFrame(
        {
            "models": grouped.size(),
            "constant": grouped["within_flip_rate"].apply(lambda v: int((v == 0).sum())),
            "majority": grouped["majority"].mean(),
            "accuracy": grouped["accuracy"].mean(),
            "1 - ECA": 1 - grouped["eca"].mean(),
            "flips within a level": grouped["within_flip_rate"].mean(),
            "true psi": grouped["psi"].mean(),
        }
    ).reset_index()
