"""The charts of a dose-response: how the output changes with a number that is intervened on, one panel per label."""

from __future__ import annotations

from dataclasses import dataclass

from citlr.audit.results.result import AuditResult
from citlr.invariance.records import DoseResponse
from citlr.report.charts.geometry import Tick, percent_ticks, scale
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
