"""The output image by image, as points of scatter panels, and the change of the output with a dose."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.audit.results.result import AuditResult, TestRow
from citlr.invariance.records import DoseResponse
from citlr.report.charts.geometry import STROKE, Tick, percent_ticks, scale
from citlr.report.numerals import percent

# Of the drawing, pixels.
WIDTH, HEIGHT = 220, 150
# Values that are written on the axis: more would touch.
MOST_TICKS = 6


@dataclass(frozen=True)
class DosePanel:
    """One curve: its line and band as paths, its points, its axes, and where the margin and zero lie (pixels)."""

    label: str
    what: str
    line: str
    band: str
    points: tuple[Tick, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    zero: float
    margin: tuple[float, float]
    alt: str


def dose_panels(result: AuditResult) -> tuple[DosePanel, ...]:
    """Lay out the curves of the outcome that is tested, one per label."""
    if not result.tests:
        return ()
    margin = result.tests[0].margin
    return tuple(_panel(one, margin) for one in result.dose_response if one.outcome == result.tests[0].outcome)


def what_changes(outcome: str) -> str:
    """Name what a curve is of."""
    return "share of positive decisions" if outcome == "decision" else "mean probability"


def _panel(curve: DoseResponse, margin: float) -> DosePanel:
    points = curve.points
    every = [bound for one in points for bound in (one.change.low, one.change.high)]
    low, high = min(*every, -margin), max(*every, margin)
    pad = 0.06 * (high - low)
    x = scale(points[0].dose, points[-1].dose, 8, WIDTH - 8)
    y = scale(low - pad, high + pad, HEIGHT, 0)
    upper = [f"{x(one.dose):g} {y(one.change.high):g}" for one in points]
    lower = [f"{x(one.dose):g} {y(one.change.low):g}" for one in reversed(points)]
    middle = [f"{x(one.dose):g} {y(one.change.estimate):g}" for one in points]
    step = -(-len(points) // MOST_TICKS)
    largest, (least, most) = curve.largest, curve.contrast
    alt = (
        f"Change of the {what_changes(curve.outcome)} for {curve.label} from {curve.reference} on: "
        + ", ".join(f"{percent(one.change.estimate, signed=True)} at {one.level}" for one in points[1:])
        + f". The largest change is {percent(largest.estimate, signed=True)} ({percent(largest.low)} to "
        f"{percent(largest.high)}), at {most} against {least}."
    )
    return DosePanel(
        curve.label,
        what_changes(curve.outcome),
        "M" + "L".join(middle),
        "M" + "L".join([*upper, *lower]) + "Z",
        tuple(Tick(x(one.dose), f"{y(one.change.estimate):g}") for one in points),
        tuple(Tick(x(one.dose), one.level) for one in points[::step]),
        percent_ticks((low - pad, high + pad), y, about=4),
        y(0.0),
        (y(margin), y(-margin)),
        alt,
    )


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
    """Average the draws: for every attribute and label, one row per image and one column per level."""
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
