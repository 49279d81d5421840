"""Effects in parts of the test set: by recorded level, by covariate, by age, and where two of them meet."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from citlr.audit.results.statistics import recorded_of
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.invariance.records import SubgroupRow
from citlr.invariance.responses import Responses
from citlr.invariance.subgroups import subgroup_effects

# A variable with more values describes single patients rather than groups.
MOST_VALUES = 8
# Years; the bounds that reporting guidance for imaging uses most: children, younger and older adults, the very old.
AGE_EDGES = (0, 18, 40, 60, 80)


def audit_subgroups(
    responses: Responses, cohort: Cohort, *, settings: TestConfig, shared_seeds: bool
) -> tuple[SubgroupRow, ...]:
    """Estimate the effects in every part of the test set that the cohort can name."""
    covariates = groupings(cohort, responses.units)
    if responses.factual is None and not covariates:
        return ()
    return subgroup_effects(
        responses,
        covariates,
        depth=2,
        alpha=settings.alpha,
        outcome=settings.outcome,
        threshold=settings.threshold,
        shared_seeds=shared_seeds,
    )


def groupings(cohort: Cohort, units: Any) -> dict[str, Any]:
    """Return the covariates of the images as categories."""
    known = recorded_of(cohort.frame, units)
    extra = [name for name in ("age", "view") if name in known.columns]
    found = {}
    for name in dict.fromkeys((*cohort.covariates, *extra)):
        if name in cohort.attributes:
            continue
        values = _categories(known[name], name)
        if 2 <= values.nunique(dropna=False) <= MOST_VALUES:
            found[str(name)] = values.to_numpy(dtype=object)
    return found


def _categories(column: pd.Series, name: str) -> pd.Series:
    """Give a column as text categories: ages in fixed bands, other numbers with many values in thirds."""
    if not pd.api.types.is_numeric_dtype(column) or (name != "age" and column.nunique() <= MOST_VALUES):
        return column.map(_text, na_action="ignore")
    if name == "age":
        names = [f"{low} to {high - 1}" for low, high in pairwise(AGE_EDGES)]
        bands = np.array([*names, f"{AGE_EDGES[-1]} and over"], dtype=object)
        ages = column.to_numpy(float, na_value=np.nan)
        band = np.clip(np.digitize(np.nan_to_num(ages), AGE_EDGES) - 1, 0, len(bands) - 1)
        return pd.Series(bands[band], index=column.index).where(column.notna())
    low, high = (float(bound) for bound in column.quantile([1 / 3, 2 / 3]))
    labels = [f"up to {low:g}", f"{low:g} to {high:g}", f"over {high:g}"]
    thirds = np.select([column <= low, column <= high], labels[:2], labels[2])
    return pd.Series(thirds, index=column.index, dtype=object).where(column.notna())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
