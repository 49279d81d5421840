"""What goes with the attribute in the data: disease, missing labels, view and age by level, with tests and plots."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from citlr.data.associations.records import AgeByLevel, Association, Description, Kind, Unit
from citlr.data.cohort import Cohort
from citlr.data.tables.numbers import MAX_CATEGORIES, banded, is_number
from citlr.errors import InputError, require_known
from citlr.run.files import atomic_write

# From where on what goes with the attribute is worth holding: Cramer's V, and the p-value of independence.
NOTED, SHOWN = 0.1, 0.01


def describe(cohort: Cohort, *, attributes: Sequence[str] | None = None, split: str | None = None) -> Description:
    """Cross every label, its missingness, the view and the age with every attribute."""
    part = cohort if split is None else cohort.part(split)
    if not len(part):
        raise InputError("There are no images to describe.")
    chosen = tuple(attributes) if attributes is not None else cohort.attributes
    for name in chosen:
        require_known(name, cohort.attributes, f"'{name}' is not an attribute of the cohort")
    # Of a number, its quarters are crossed.
    numbers = {name: banded(part.frame[name]) for name in chosen if is_number(part.frame[name])}
    part = replace(part, frame=part.frame.assign(**numbers))
    associations: list[Association] = []
    ages: list[AgeByLevel] = []
    for attribute in chosen:
        for label in part.labels:
            associations += _label(part.frame, attribute, label)
        if "view" in part.frame.columns:
            view = part.frame["view"].astype("string").fillna("(blank)")
            associations.append(cross(part.frame[attribute], view, kind="view", variable="view", unit="image"))
        # An age that is cut into groups is the attribute, and no number any more.
        if "age" in part.frame.columns and pd.api.types.is_numeric_dtype(part.frame["age"]):
            ages += _ages(part.frame, attribute)
    return Description(tuple(associations), tuple(ages), len(part), int(part.frame["patient_id"].nunique()))


def cross(attribute: pd.Series, values: pd.Series, *, kind: Kind, variable: str, unit: Unit) -> Association:
    """Count one categorical variable against an attribute and test their independence.

    >>> sex = pd.Series(["f"] * 20 + ["m"] * 20, name="sex")
    >>> ill = pd.Series(["no"] * 15 + ["yes"] * 5 + ["no"] * 5 + ["yes"] * 15)
    >>> one = cross(sex, ill, kind="label", variable="ill", unit="patient")
    >>> one.statistic, one.cramers_v, round(one.pvalue, 4)
    (10.0, 0.5, 0.0016)
    """
    table = pd.crosstab(attribute.astype(str), values.astype(str))
    counts = table.to_numpy()
    return Association(
        kind=kind,
        attribute=str(attribute.name),
        variable=variable,
        unit=unit,
        levels=tuple(map(str, table.index)),
        values=tuple(map(str, table.columns)),
        table=tuple(tuple(int(count) for count in row) for row in counts),
        **_chi_square(counts),
    )


def unheld(cohort: Cohort, attribute: str, hold: Sequence[str]) -> tuple[str, ...]:
    """Say of every label and covariate that goes with an attribute, by patient, but is not held, what follows."""
    people = cohort.frame.groupby([attribute, "patient_id"], sort=True, observed=True)
    found = []
    for name in (*cohort.labels, *cohort.covariates):
        if name in hold or name == attribute:
            continue
        values = people[name].max() if is_number(cohort.frame[name]) else people[name].first()
        known = values.dropna().reset_index()
        pair = (banded(one) if one.nunique() > MAX_CATEGORIES else one for one in (known[attribute], known[name]))
        one = cross(*pair, kind="label", variable=name, unit="patient")
        if one.cramers_v >= NOTED and one.pvalue <= SHOWN:
            found.append(
                f"'{name}' goes with '{attribute}' (Cramer's V {one.cramers_v:.2f}) and is not held: what is learnt of "
                f"'{attribute}' may be that of '{name}'; name it in generator.hold"
            )
    return tuple(found)


def log10_tail(statistic: float, dof: int) -> float:
    """Give log10 of the probability that a chi-square is larger, also where scipy's logarithm is minus infinity.

    There by the expansion of the incomplete gamma function for large arguments (DLMF 8.11.2).

    >>> round(log10_tail(2409.8, 1), 6)
    -525.070652
    >>> round(float((math.log(2) + scipy.stats.norm.logsf(2409.8**0.5)) / math.log(10)), 6)
    -525.070652
    """
    logarithm = float(scipy.stats.chi2.logsf(statistic, dof))
    if math.isinf(logarithm):
        half, shape, term, total = statistic / 2, dof / 2, 1.0, 1.0
        for k in range(1, 21):
            term *= (shape - k) / half
            total += term
        logarithm = (shape - 1) * math.log(half) - half - math.lgamma(shape) + math.log(total)
    return logarithm / math.log(10)


def _chi_square(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Give the fields of an `Association` that say how strong it is."""
    if min(counts.shape) < 2:
        # One row or one column: nothing varies, so nothing is associated.
        none = {"statistic": 0.0, "dof": 0, "pvalue": 1.0, "log10_pvalue": 0.0, "cramers_v": 0.0}
        return {**none, "smallest_expected": float(counts.min()) if counts.size else 0.0}
    result = scipy.stats.chi2_contingency(counts, correction=False)
    return {
        "statistic": float(result.statistic),
        "dof": int(result.dof),
        "pvalue": float(result.pvalue),
        "log10_pvalue": log10_tail(float(result.statistic), int(result.dof)),
        "cramers_v": math.sqrt(result.statistic / (counts.sum() * (min(counts.shape) - 1))),
        "smallest_expected": float(result.expected_freq.min()),
    }


def _label(frame: pd.DataFrame, attribute: str, label: str) -> list[Association]:
    """Cross a finding with the attribute among images and among patients, and its missingness among images."""
    known = frame[frame[label].notna()]
    associations = []
    if len(known):
        values = known[label].map({0.0: "negative", 1.0: "positive"})
        associations.append(cross(known[attribute], values, kind="label", variable=label, unit="image"))
        # A patient whose level changes (an age group) counts once in each.
        people = known.groupby([attribute, "patient_id"], sort=True)[label].max().reset_index()
        values = people[label].map({0.0: "negative", 1.0: "positive"})
        associations.append(cross(people[attribute], values, kind="label", variable=label, unit="patient"))
    state = frame[label].isna().map({False: "known", True: "missing"})
    associations.append(cross(frame[attribute], state, kind="missing", variable=label, unit="image"))
    return associations


def _ages(frame: pd.DataFrame, attribute: str) -> list[AgeByLevel]:
    first = frame.drop_duplicates([attribute, "patient_id"]).dropna(subset=["age"])
    groups = [group["age"].to_numpy(dtype=float) for _, group in first.groupby(attribute, sort=True)]
    varied = len(groups) > 1 and len(np.unique(np.concatenate(groups))) > 1
    pvalue = float(scipy.stats.kruskal(*groups).pvalue) if varied else math.nan
    rows = []
    for level, part in frame.groupby(attribute, sort=True):
        age = part["age"].dropna().to_numpy(dtype=float)
        quartiles = np.percentile(age, [25, 50, 75]) if len(age) else np.full(3, math.nan)
        sd = float(age.std(ddof=1)) if len(age) > 1 else math.nan
        mean = float(age.mean()) if len(age) else math.nan
        missing = int(part["age"].isna().sum())
        q25, median, q75 = (float(value) for value in quartiles)
        rows.append(AgeByLevel(attribute, str(level), len(age), missing, mean, sd, q25, median, q75, pvalue))
    return rows


def write_description(description: Description, out: str | os.PathLike[str]) -> dict[str, Path]:
    """Write `associations.md`, `associations.json` and `associations.png` into a folder.

    All three are complete under temporary names before the first of them gets its own.
    """
    from citlr.data.associations.plot import draw  # a table needs no matplotlib

    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for associations.md, .json and .png.")
    paths = {kind: folder / f"associations.{kind}" for kind in ("md", "json", "png")}
    with atomic_write(paths["md"]) as page, atomic_write(paths["json"]) as data, atomic_write(paths["png"]) as picture:
        page.write_text(str(description) + "\n", encoding="utf-8")
        data.write_text(json.dumps(description.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draw(description).savefig(picture, dpi=150)
    return paths
