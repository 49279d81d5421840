"""Geometry of the forest, dose-response and QQ charts, which the templates draw as inline SVG in the page's colours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citlr.audit.results.result import AuditResult, Estimate, TestRow
from citlr.report.numerals import NARROW, decimal, is_number, margin, nice_ticks, percent

STROKE = "h.01"  # a dot: a stroke of no length to speak of; of none at all, some printers draw nothing


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where (percent of the axis, or pixels) and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Track:
    """An estimate with its interval and margin on an axis, in percent of the axis' length; `absent` says why not."""

    low: float
    mid: float
    high: float
    band: tuple[float, float]
    text: str
    alt: str
    absent: str = ""


@dataclass(frozen=True)
class ForestRow:
    """One test of the forest plot."""

    label: str
    contrast: str
    verdict: str
    psi: Track
    mean: Track


@dataclass(frozen=True)
class Axis:
    """An axis of the forest plot: its ticks and where zero is, in percent of its length."""

    ticks: tuple[Tick, ...]
    zero: float


@dataclass(frozen=True)
class Forest:
    """The forest plot: the rows share the two axes."""

    rows: tuple[ForestRow, ...]
    psi: Axis
    mean: Axis


def contrast_text(contrast: tuple[str, str]) -> str:
    """Write (a, a') as it is read: a' instead of a."""
    return f"{contrast[1]} instead of {contrast[0]}"


def forest(tests: Sequence[TestRow]) -> Forest | None:
    """Lay out the forest plot of psi and the mean effect."""
    if not tests:
        return None
    psi_span = _span([(row.psi, (0.0, row.psi_margin)) for row in tests])
    mean_span = _span([(row.mean_effect, (-row.margin, row.margin)) for row in tests])
    rows = tuple(
        ForestRow(
            row.label,
            contrast_text(row.contrast),
            row.verdict,
            _track(row.psi, psi_span, (psi_span[0], row.psi_margin), row, "psi"),
            _track(row.mean_effect, mean_span, (-row.margin, row.margin), row, "mean effect"),
        )
        for row in tests
    )
    return Forest(rows, _axis(psi_span), _axis(mean_span))


def _span(items: list[tuple[Estimate, tuple[float, float]]]) -> tuple[float, float]:
    values = [
        value
        for estimate, band in items
        for value in (estimate.low, estimate.estimate, estimate.high, *band, 0.0)
        if is_number(value)
    ]
    low, high = min(values), max(values)
    pad = max(high - low, 1e-3) * 0.05
    return low - pad, high + pad


def _axis(span: tuple[float, float]) -> Axis:
    return Axis(percent_ticks(span, lambda value: _place(value, span)), _place(0.0, span))


def percent_ticks(span: tuple[float, float], place: Callable[[float], float], *, about: int = 4) -> tuple[Tick, ...]:
    """Mark round shares, with as many digits as their step needs, so that no two marks read alike."""
    values = nice_ticks(*span, about=about)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    return tuple(Tick(place(value), percent(value, digits=digits)) for value in values)


def _place(value: float, span: tuple[float, float]) -> float:
    return round(100 * (value - span[0]) / (span[1] - span[0]), 2)


def _track(estimate: Estimate, span: tuple[float, float], band: tuple[float, float], row: TestRow, name: str) -> Track:
    edges = (_place(band[0], span), _place(band[1], span))
    if not is_number(estimate.estimate):
        return Track(0, 0, 0, edges, "", "", row.reason or "the effect could not be computed")
    mid = _place(estimate.estimate, span)
    text = percent(estimate.estimate, signed=name == "mean effect")
    if not (is_number(estimate.low) and is_number(estimate.high)):
        return Track(mid, mid, mid, edges, text, f"{name} {text}, no interval; margin {margin(band[1])}")
    bounds = f"{percent(estimate.low)} to {percent(estimate.high)}"
    alt = f"{name} {text}, interval {bounds}, margin {margin(band[1])}"
    low, high = _place(estimate.low, span), _place(estimate.high, span)
    return Track(low, mid, high, edges, f"{text} ({bounds})", alt)


@dataclass(frozen=True)
class Dose:
    """A planted bias of one strength: where its point lies (pixels) and whether the audit found it."""

    x: float
    y: float
    detected: bool
    alt: str


@dataclass(frozen=True)
class DoseChart:
    """Dose-response of one label, in a box of 190 by 110."""

    label: str
    doses: tuple[Dose, ...]
    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: float | None
    alt: str


def dose_response(result: AuditResult) -> tuple[DoseChart, ...]:
    """Lay out the response to planted bias, one chart per label; strengths without a number are left out."""
    charts = []
    for label in dict.fromkeys(dose.label for dose in result.controls.planted):
        doses = sorted(
            (dose for dose in result.controls.planted if dose.label == label and is_number(dose.psi)),
            key=lambda dose: dose.strength,
        )
        if not doses:
            continue
        top_x = max(dose.strength for dose in doses) * 1.05 or 1.0
        top_y = max(max(dose.psi for dose in doses), 1e-3) * 1.1
        low_y = min(0.0, min(dose.psi for dose in doses) * 1.1)
        x = scale(0.0, top_x, 0, 190)
        y = scale(low_y, top_y, 110, 0)
        marks = tuple(
            Dose(x(dose.strength), y(dose.psi), dose.detected, f"strength {dose.strength:g}: {percent(dose.psi)}")
            for dose in doses
        )
        limit = result.controls.detection_limit
        found = sum(dose.detected for dose in doses)
        alt = (
            f"Response to planted bias for {label}: psi {percent(doses[0].psi)} at strength "
            f"{doses[0].strength:g}, {percent(doses[-1].psi)} at {doses[-1].strength:g}; {found} of {len(doses)} found."
        )
        charts.append(
            DoseChart(
                label,
                marks,
                "M" + "L".join(f"{mark.x:g} {mark.y:g}" for mark in marks),
                tuple(Tick(x(value), f"{value:g}") for value in nice_ticks(0.0, top_x)),
                percent_ticks((low_y, top_y), y, about=3),
                x(limit) if limit is not None and is_number(limit) and limit <= top_x else None,
                alt,
            )
        )
    return tuple(charts)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Map values from low to high onto pixels from start to end."""
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


@dataclass(frozen=True)
class QQ:
    """Sorted p-values against the uniform, on -log10 axes, in a box of 240 by 240."""

    path: str
    ticks: tuple[Tick, ...]
    n: int
    alt: str


def quantiles(pvalues: Sequence[float], log10: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Pair -log10 of the expected uniform quantiles with -log10 of the sorted p-values.

    Shapes: gives (n, 2).

    >>> quantiles([0.5, float("nan")]).round(3).tolist()
    [[0.301, 0.301]]
    """
    pairs = list(zip(pvalues, log10 if log10 is not None else [float("nan")] * len(pvalues), strict=True))
    observed = sorted(
        -(log if p <= 0 and is_number(log) else float(np.log10(max(p, 1e-300)))) for p, log in pairs if is_number(p)
    )[::-1]
    expected = -np.log10((np.arange(len(observed)) + 0.5) / max(len(observed), 1))
    return np.column_stack([expected, np.array(observed, float)]) + 0.0


def qq(tests: Sequence[TestRow]) -> QQ | None:
    """Lay out the QQ plot of the unadjusted p-values; None for fewer than eight."""
    points = quantiles([row.pvalue for row in tests], [row.log10_pvalue for row in tests])
    if len(points) < 8:
        return None
    top = float(points.max()) * 1.05
    place = scale(0.0, top, 0, 240)
    path = "".join(f"M{place(x):g} {240 - place(y):g}{STROKE}" for x, y in points)
    ticks = tuple(Tick(place(value), decimal(value, 0 if value == int(value) else 1)) for value in nice_ticks(0, top))
    alt = (
        f"QQ plot of {len(points)} p-values on a minus log 10 scale; the smallest lies at {points[0, 1]:.1f} where "
        f"{points[0, 0]:.1f} is expected if the model did not depend on the attribute anywhere."
    )
    return QQ(path, ticks, len(points), alt.replace(" %", f"{NARROW}%"))
