"""The output image by image: responses averaged over their draws, laid out as the points of scatter panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.audit.results.result import TestRow
from citlr.report.charts.geometry import STROKE
from citlr.report.numerals import percent

MAX_POINTS = 2000  # per scatter panel: more are neither seen nor cheap
_SHAPES = (STROKE, STROKE, "m-3 0h6m-3 -3v6", "m-2.5 -2.5l5 5m0 -5l-5 5")  # dot, square, plus, cross
SHAPE_NAMES = ("dot", "square", "plus", "cross")


@dataclass(frozen=True)
class Marks:
    """The points of one factual level as one SVG path."""

    level: str
    index: int
    path: str
    shape: str
    n: int


@dataclass(frozen=True)
class Scatter:
    """One panel: mean output under do(a) against do(a'), one path per factual level."""

    label: str
    x_level: str
    y_level: str
    verdict: str
    marks: tuple[Marks, ...]
    threshold: float | None
    note: str
    alt: str


def paired(responses: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Average the draws: for every attribute and label, one row per image and one column per level.

    Shapes: gives (attribute, label).
    """
    generated = responses.loc[responses["draw"] >= 0]
    originals = responses.loc[responses["draw"] < 0]
    tables: dict[tuple[str, str], pd.DataFrame] = {}
    keys = ["attribute", "label", "image_id", "level"]
    means = generated.groupby(keys, observed=True, sort=True)["probability"].mean()
    factual = originals.drop_duplicates(["attribute", "image_id"]).set_index(["attribute", "image_id"])["level"]
    for (attribute, label), part in means.rename("mean").reset_index().groupby(["attribute", "label"], observed=True):
        wide = part.pivot_table(index="image_id", columns="level", values="mean", observed=True)
        own = factual.xs(attribute) if attribute in factual.index.get_level_values(0) else pd.Series(dtype=object)
        wide["factual"] = own.reindex(wide.index).astype(object).fillna("unknown")
        tables[str(attribute), str(label)] = wide
    return tables


def scatter(table: pd.DataFrame, row: TestRow, *, levels: Sequence[str], threshold: float | None) -> Scatter | None:
    """Lay out one scatter panel, in a box of 200 by 200 whose origin is the lower left corner."""
    base, other = row.contrast
    if base not in table.columns or other not in table.columns:
        return None
    points = table[[base, other, "factual"]].dropna()
    step = max(1, -(-len(points) // MAX_POINTS))
    note = f"every {step}. image of {len(points)} drawn" if step > 1 else ""
    shown = points.iloc[::step]
    marks = []
    for index, level in enumerate(levels):
        part = shown.loc[shown["factual"] == level, [base, other]].to_numpy(float)
        if len(part):
            shape = index % len(_SHAPES)
            marks.append(Marks(level, index, _path(part, _SHAPES[shape]), SHAPE_NAMES[shape], len(part)))
    moved = (points[other] - points[base]).to_numpy(float)
    alt = (
        f"Scatter of the mean output for {row.label} on {len(points)} images: do({base}) across, do({other}) up. "
        f"{_share(moved > 0.01)} of the points lie more than one percentage point above the diagonal, "
        f"{_share(moved < -0.01)} below."
    )
    shown_threshold = threshold if row.outcome == "decision" else None
    return Scatter(row.label, base, other, row.verdict, tuple(marks), shown_threshold, note, alt)


def _share(mask: NDArray[np.bool_]) -> str:
    return percent(float(mask.mean()), digits=0) if len(mask) else "none"


def _path(points: NDArray[np.float64], shape: str) -> str:
    across = np.round(np.clip(points[:, 0], 0, 1) * 200, 1)
    up = np.round(200 - np.clip(points[:, 1], 0, 1) * 200, 1)
    return "".join(f"M{x:g} {y:g}{shape}" for x, y in zip(across, up, strict=True))
