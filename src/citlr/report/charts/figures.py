"""The forest plot and the dose-response of an audit, as matplotlib figures for notebooks and papers.

They touch no global state.

Every text is at least 9 pt, and what colour says is said by shape as well.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from citlr.audit.results.curves import DoseCurves
from citlr.audit.results.result import AuditResult, Estimate, TestRow
from citlr.errors import InputError
from citlr.report.charts import geometry as charts
from citlr.report.numerals import is_number

_INK, _SOFT, _BAND = "#15191e", "#4c5560", "#e6eef4"
_VERDICT = {"dependence": ("#D55E00", "D"), "inconclusive": ("#66717d", "o"), "equivalent": ("#009E73", "s")}
_SIZE = 9.0  # pt: nothing smaller


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SIZE, colors=_SOFT)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_fontsize(max(_SIZE, 10.0))
        text.set_color(_INK)


def forest(result: AuditResult) -> Figure:
    """Draw every effect with its interval and margin: psi at the left, mean effect at the right."""
    rows = result.tests
    if not rows:
        raise InputError("The audit holds no test, so there is no forest to draw.")
    figure = Figure(figsize=(10, 1.6 + 0.34 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ends = [value for row in rows for value in (row.psi.low, row.psi.estimate) if is_number(value)]
    start = min([0.0, *ends]) - 0.5 * max(row.psi_margin for row in rows)
    for place, row in enumerate(rows):
        _forest_row(left, place, row, row.psi, (start, row.psi_margin))
        _forest_row(right, place, row, row.mean_effect, (-row.margin, row.margin))
    names = [f"{row.label}: {charts.contrast_text(row.contrast)}" for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlim(left=100 * start)
    for axes, name in ((left, "psi (%)"), (right, "mean effect (percentage points)")):
        axes.axvline(0, color=_SOFT, linewidth=0.8)
        axes.set_xlabel(name)
        _style(axes)
    handles = [
        Line2D([], [], color=colour, marker=marker, label=verdict, markerfacecolor=_fill(verdict, colour))
        for verdict, (colour, marker) in _VERDICT.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=_SIZE)
    return figure


def dose_curves(curves: DoseCurves) -> Figure:
    """Draw a panel per label and outcome: change from the lowest value, with the band for all values at once."""
    if not len(curves):
        raise InputError("The audit holds no dose-response: its attribute has levels and is no number.")
    figure = Figure(figsize=(4.2 * min(len(curves), 3), 3.2 * -(-len(curves) // 3)), layout="constrained")
    for place, curve in enumerate(curves):
        axes = figure.add_subplot(-(-len(curves) // 3), min(len(curves), 3), place + 1)
        doses = [one.dose for one in curve.points]
        low, middle, high = (
            [100 * getattr(one.change, name) for one in curve.points] for name in ("low", "estimate", "high")
        )
        axes.fill_between(doses, low, high, color=_BAND)
        axes.plot(doses, middle, color=_INK, marker="o", linewidth=2)
        axes.axhline(0, color=_SOFT, linewidth=0.8)
        axes.set_title(f"{curve.label}, {curve.outcome}")
        axes.set_ylabel("change (percentage points)")
        _style(axes)
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
