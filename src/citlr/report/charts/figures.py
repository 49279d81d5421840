"""Figures of an audit, as matplotlib figures for notebooks and papers; none of them touches global state.

Colours are Okabe and Ito's, every text is at least 9 pt, and what colour says is said by shape or position as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from citlr.audit.results.result import AuditResult, Estimate, TestRow
from citlr.errors import InputError, did_you_mean
from citlr.report.charts import geometry as charts
from citlr.report.charts.gallery import DIVERGING, Gallery, Strip, difference_map, signed_difference
from citlr.report.charts.scatters import paired
from citlr.report.numerals import is_number

__all__ = [
    "OKABE_ITO",
    "Gallery",
    "Strip",
    "difference_map",
    "dose_response",
    "forest",
    "pvalue_qq",
    "scatter",
    "signed_difference",
    "strips",
]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _SOFT, _BAND = "#15191e", "#4c5560", "#e6eef4"
_VERDICT = {"dependence": ("#D55E00", "D"), "inconclusive": ("#66717d", "o"), "equivalent": ("#009E73", "s")}
_MARKERS = ("o", "s", "+", "x", "^", "v")
_SIZE = 9.0  # pt: nothing smaller


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SIZE, colors=_SOFT)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_fontsize(max(_SIZE, 10.0))
        text.set_color(_INK)


def forest(result: AuditResult) -> Figure:
    """Draw every effect with its interval and margin: excess change at the left, average shift at the right."""
    rows = result.tests
    if not rows:
        raise InputError("The audit holds no test, so there is no forest to draw.")
    figure = Figure(figsize=(10, 1.6 + 0.34 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ends = [value for row in rows for value in (row.psi.low, row.psi.estimate) if is_number(value)]
    start = min([0.0, *ends]) - 0.5 * max(row.margin for row in rows)
    for place, row in enumerate(rows):
        _forest_row(left, place, row, row.psi, (start, row.margin))
        _forest_row(right, place, row, row.mean_effect, (-row.margin, row.margin))
    names = [f"{row.label}: {charts.contrast_text(row.contrast)}" for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlim(left=100 * start)
    for axes, name in ((left, "excess change ψ (%)"), (right, "average shift (percentage points)")):
        axes.axvline(0, color=_SOFT, linewidth=0.8)
        axes.set_xlabel(name)
        _style(axes)
    handles = [
        Line2D([], [], color=colour, marker=marker, label=verdict, markerfacecolor=_fill(verdict, colour))
        for verdict, (colour, marker) in _VERDICT.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=_SIZE)
    return figure


def _fill(verdict: str, colour: str) -> str:
    return "white" if verdict == "inconclusive" else colour


def _forest_row(axes: Axes, place: int, row: TestRow, estimate: Estimate, band: tuple[float, float]) -> None:
    colour, marker = _VERDICT[row.verdict]
    spans = [value for value in (estimate.low, estimate.high) if is_number(value)]
    axes.fill_between([100 * band[0], 100 * band[1]], place - 0.5, place + 0.5, color=_BAND, linewidth=0, zorder=0)
    if not is_number(estimate.estimate):
        axes.text(0, place, " n/a", va="center", fontsize=_SIZE, color=_SOFT)
        return
    if len(spans) == 2:
        axes.plot([100 * value for value in spans], [place, place], color=colour, linewidth=2)
    axes.plot(
        100 * estimate.estimate, place, marker=marker, color=colour, markerfacecolor=_fill(row.verdict, colour), ls=""
    )


def scatter(responses: pd.DataFrame, label: str, contrast: tuple[str, str], *, attribute: str | None = None) -> Figure:
    """Draw the mean output under do(a) against do(a'), image by image, coloured by the recorded level.

    Shapes: `contrast` (str, str).
    """
    tables = {key: table for key, table in paired(responses).items() if attribute in (None, key[0])}
    found = [table for (_, name), table in tables.items() if name == label]
    if not found:
        raise InputError(f"The responses hold no label '{label}'.{did_you_mean(label, {name for _, name in tables})}")
    if len(found) > 1:
        raise InputError(
            f"The responses hold '{label}' for several attributes: name one of {sorted({a for a, _ in tables})}."
        )
    table = found[0]
    known = {str(name) for name in table.columns} - {"factual"}
    for level in contrast:
        if level not in known:
            raise InputError(f"The responses hold no image redrawn as '{level}'.{did_you_mean(level, known)}")
    figure = Figure(figsize=(4.6, 4.9), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=0.8, linestyle="--", zorder=0)
    for index, (recorded, part) in enumerate(table.groupby("factual", sort=True)):
        axes.scatter(
            part[contrast[0]], part[contrast[1]], s=14, alpha=0.65, label=f"recorded as {recorded}",
            color=OKABE_ITO[index % len(OKABE_ITO)], marker=_MARKERS[index % len(_MARKERS)], linewidths=0.9,
        )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=label)
    axes.set_xlabel(f"output under do({contrast[0]})")
    axes.set_ylabel(f"output under do({contrast[1]})")
    _style(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=_SIZE)
    return figure


def strips(gallery: Gallery) -> Figure:
    """Draw the originals, null interventions, counterfactuals and signed difference maps, with the maps' scale."""
    if not gallery.strips:
        raise InputError("The gallery holds no strip: give at least one.")
    columns = 2 * max(len(strip.levels) for strip in gallery.strips)
    figure = Figure(figsize=(1.75 * columns, 2.0 * len(gallery.strips) + 0.6), layout="constrained")
    grid = np.asarray(figure.subplots(len(gallery.strips), columns, squeeze=False))
    colours = LinearSegmentedColormap.from_list("signed_difference", DIVERGING)
    shown = None
    for axes in grid.ravel():
        axes.set_axis_off()
    for row, strip in zip(grid, gallery.strips, strict=True):
        _picture(row[0], strip.original, f"{strip.caption}\noriginal, {strip.factual}")
        _picture(row[1], strip.null, f"do({strip.factual})\nnull intervention")
        for index, level in enumerate(strip.counterfactuals):
            _picture(row[2 + 2 * index], strip.levels[level], f"do({level})\ncounterfactual")
            change = signed_difference(strip.levels[level], strip.null)
            shown = row[3 + 2 * index].imshow(change, cmap=colours, vmin=-gallery.scale, vmax=gallery.scale)
            row[3 + 2 * index].set_title(f"{level} − {strip.factual}\ndifference", fontsize=_SIZE, color=_INK)
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid.ravel().tolist(), location="bottom", shrink=0.4, aspect=40)
        bar.set_label("change of grey value (share of the full scale)", fontsize=_SIZE)
        bar.ax.tick_params(labelsize=_SIZE)
    return figure


def _picture(axes: Axes, image: Any, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=_SIZE, color=_INK)


def dose_response(result: AuditResult) -> Figure:
    """Draw what the audit found of bias planted at known strengths; filled markers were detected."""
    planted = [dose for dose in result.controls.planted if is_number(dose.psi)]
    if not planted:
        raise InputError("The audit holds no planted bias: run its controls to get a dose-response.")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for index, label in enumerate(dict.fromkeys(dose.label for dose in planted)):
        doses = sorted((dose for dose in planted if dose.label == label), key=lambda dose: dose.strength)
        colour, marker = OKABE_ITO[index % len(OKABE_ITO)], _MARKERS[index % 2]
        axes.plot([d.strength for d in doses], [100 * d.psi for d in doses], color=colour, label=label, zorder=1)
        for dose in doses:
            fill = colour if dose.detected else "white"
            axes.plot(dose.strength, 100 * dose.psi, marker=marker, color=colour, markerfacecolor=fill, ls="", zorder=2)
    limit = result.controls.detection_limit
    if limit is not None and is_number(limit):
        axes.axvline(limit, color=_SOFT, linestyle=":", linewidth=1.2)
    axes.set_xlabel("planted strength (logit); dotted: limit of detection")
    axes.set_ylabel("excess change ψ (%)")
    _style(axes)
    axes.legend(frameon=False, fontsize=_SIZE)
    return figure


def pvalue_qq(pvalues: Sequence[float] | Mapping[str, Sequence[float]]) -> Figure:
    """Draw sorted p-values against the uniform, -log10; a calibrated test follows the diagonal under the null."""
    series = dict(pvalues) if isinstance(pvalues, Mapping) else {"": pvalues}
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    top = 0.0
    for index, (name, values) in enumerate(series.items()):
        points = charts.quantiles(list(values))
        if not len(points):
            raise InputError(f"The series '{name}' holds no p-value to draw.")
        top = max(top, float(points.max()))
        colour, marker = OKABE_ITO[index % len(OKABE_ITO)], _MARKERS[index % len(_MARKERS)]
        axes.plot(points[:, 0], points[:, 1], ls="", marker=marker, ms=4, color=colour, label=name or None)
    axes.plot([0, top], [0, top], color=_SOFT, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xlabel("expected −log10 p")
    axes.set_ylabel("observed −log10 p")
    _style(axes)
    if any(series):
        axes.legend(frameon=False, fontsize=_SIZE)
    return figure
