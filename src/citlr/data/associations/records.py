"""What goes with an attribute, as tables: one frozen record per association."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from citlr.text import markdown_table
from citlr.values import plain

Unit = Literal["image", "patient"]
Kind = Literal["label", "missing", "view"]
SCHEMA = "citlr.description/1"


@dataclass(frozen=True)
class Association:
    """One variable against one attribute.

    - `kind`: A finding, the absence of its label, or the view.
    - `unit`: What is counted; a patient has a finding if one of his images does. Only patients are independent: the
      image's p-value is the publication's and too small where patients have several images.
    - `levels`, `values`: Rows and columns of `table`.
    - `statistic`, `dof`: Pearson's chi-square without continuity correction.
    - `pvalue`, `log10_pvalue`: The latter is exact where the former is too small for a float. 1 and 0 where nothing
      varies.
    - `cramers_v`: In [0, 1]; 0 where nothing varies.
    - `smallest_expected`: Expected count of the emptiest cell; below 5 the chi-square's p-value is rough.
    """

    kind: Kind
    attribute: str
    variable: str
    unit: Unit
    levels: tuple[str, ...]
    values: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    statistic: float
    dof: int
    pvalue: float
    log10_pvalue: float
    cramers_v: float
    smallest_expected: float

    def rates(self) -> dict[str, float]:
        """Give the share of positive (or missing) rows by level; NaN for a level without rows."""
        wanted = {"label": "positive", "missing": "missing"}.get(self.kind, self.values[-1])
        if wanted not in self.values:
            return dict.fromkeys(self.levels, 0.0)
        place = self.values.index(wanted)
        rows = zip(self.levels, self.table, strict=True)
        return {level: row[place] / sum(row) if sum(row) else math.nan for level, row in rows}


@dataclass(frozen=True)
class AgeByLevel:
    """Age (of images) in one level of an attribute; the p-value is Kruskal and Wallis's over patients' first ages.

    - `n_images`, `n_missing`: With and without a stated age.
    - `mean`, `sd`, `q25`, `median`, `q75`: In years; NaN where no age is stated.
    - `pvalue`: The same for all levels of an attribute; NaN where it cannot be computed.
    """

    attribute: str
    level: str
    n_images: int
    n_missing: int
    mean: float
    sd: float
    q25: float
    median: float
    q75: float
    pvalue: float


@dataclass(frozen=True)
class Description:
    """The association tables of a cohort (the publication's Fig. 6, for any cohort)."""

    associations: tuple[Association, ...]
    ages: tuple[AgeByLevel, ...]
    n_images: int
    n_patients: int

    def to_frame(self) -> pd.DataFrame:
        """Give the associations as a table, one row each, with the rate of the last value by level."""
        rows = []
        for one in self.associations:
            row = {key: value for key, value in asdict(one).items() if key not in ("levels", "values", "table")}
            rates = {f"rate {level}": rate for level, rate in one.rates().items()} if one.kind != "view" else {}
            rows.append({**row, "n": sum(map(sum, one.table)), **rates})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON content; NaN becomes null."""
        return {"schema": SCHEMA, **plain(asdict(self))}

    def __str__(self) -> str:
        """Write Markdown tables."""
        parts = [f"# {self.n_images} images of {self.n_patients} patients", ""]
        head = ["attribute", "variable", "unit", "rates or counts", "chi-square (df)", "p", "Cramer's V"]
        parts.append(markdown_table(head, map(_association_cells, self.associations), right=3))
        if self.ages:
            head = ["attribute", "level", "images", "age missing", "mean (sd)", "median (quartiles)", "p"]
            parts += ["", markdown_table(head, map(_age_cells, self.ages), right=5)]
        return "\n".join(parts)


def _association_cells(one: Association) -> tuple[str, ...]:
    name = f"{one.variable} missing" if one.kind == "missing" else one.variable
    mark = " (expected counts below 5)" if one.dof and one.smallest_expected < 5 else ""
    statistic = f"{one.statistic:.2f} ({one.dof})"
    return one.attribute, name, one.unit, _cells(one), statistic, f"{_p(one)}{mark}", f"{one.cramers_v:.3f}"


def _age_cells(age: AgeByLevel) -> tuple[object, ...]:
    mean, median = f"{age.mean:.1f} ({age.sd:.1f})", f"{age.median:.1f} ({age.q25:.1f} to {age.q75:.1f})"
    return age.attribute, age.level, age.n_images, age.n_missing, mean, median, f"{age.pvalue:.3g}"


def _cells(one: Association) -> str:
    if one.kind == "view":
        rows = zip(one.levels, one.table, strict=True)
        return "; ".join(
            f"{level}: " + ", ".join(f"{value} {count}" for value, count in zip(one.values, row, strict=True))
            for level, row in rows
        )
    return "; ".join(f"{level} {rate:.1%}" for level, rate in one.rates().items())


def _p(one: Association) -> str:
    return f"10^{one.log10_pvalue:.0f}" if one.log10_pvalue < -12 else f"{one.pvalue:.3g}"
