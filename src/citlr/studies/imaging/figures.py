"""The figures of `citlr reproduce imaging`, as matplotlib figures that touch no global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from citlr.report.charts.scatters import paired
from citlr.run.rows import Row
from citlr.studies.imaging.study import ImagingStudy
from citlr.studies.imaging.tables import TESTS

# Colours and shapes that stay apart in grey and for the colour blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3609a", "#56b4e9", "#e69f00")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
AXES = {"eca": "ECA of the redrawn images", "true_eca": "true ECA", "true_psi": "true psi"}


def tests_against(rows: Sequence[Row], target: str) -> Figure:
    """Draw log10 p of the four tests against the size of the effect, a row of panels per finding: Fig. 3 and 4."""
    frame = pd.DataFrame(rows)
    labels, archs = list(dict.fromkeys(frame["label"])), list(dict.fromkeys(frame["arch"]))
    figure = Figure(figsize=(3.1 * len(TESTS), 2.7 * len(labels) + 0.7), layout="constrained")
    panels = figure.subplots(len(labels), len(TESTS), squeeze=False, sharex="row")
    for i, label in enumerate(labels):
        own = frame[frame["label"] == label]
        for j, (test, words) in enumerate(TESTS.items()):
            panel = panels[i][j]
            for k, arch in enumerate(archs):
                part = own[own["arch"] == arch]
                panel.scatter(
                    part[target],
                    part[test],
                    s=26,
                    color=COLOURS[k % len(COLOURS)],
                    marker=SHAPES[k % len(SHAPES)],
                    label=arch,
                )
            fit = _fit(panel, own[target].to_numpy(float), own[test].to_numpy(float))
            panel.axhline(np.log10(0.05), color="#777777", linewidth=0.8, linestyle=":")
            # above the panel, where it hides no mark
            panel.set_title(f"{words}\n{fit}" if i == 0 else fit, fontsize=9)
            panel.set_ylabel(f"{label}\nlog10 p" if j == 0 else "", fontsize=9)
            panel.set_xlabel(AXES[target] if i == len(labels) - 1 else "", fontsize=9)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(archs), 5), fontsize=8, frameon=False)
    return figure


def _fit(panel: Axes, x: np.ndarray, y: np.ndarray) -> str:
    """Draw the linear fit, and say how well it and the ranks agree."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return "no variation"
    line = stats.linregress(x, y)
    ends = np.array([x.min(), x.max()])
    panel.plot(ends, line.intercept + line.slope * ends, color="#222222", linewidth=1)
    return f"Pearson {line.rvalue:+.2f}, Spearman {stats.spearmanr(x, y).statistic:+.2f}"


def changes(responses: dict[str, pd.DataFrame], study: ImagingStudy, label: str, contrast: tuple[str, str]) -> Figure:
    """Draw the output under do(a') against that under do(a), a panel per network: Fig. 8 to 12."""
    columns = min(len(responses), 5)
    lines = -(-len(responses) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.9 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat[len(responses) :]:
        panel.set_visible(False)
    for panel, (name, table) in zip(panels.flat, responses.items(), strict=False):
        points = paired(table)[study.attribute, label]
        panel.plot([0, 1], [0, 1], color="#777777", linewidth=0.8)
        for k, level in enumerate(study.levels):
            part = points[points["factual"] == level]
            panel.scatter(
                part[contrast[0]],
                part[contrast[1]],
                s=9,
                alpha=0.7,
                color=COLOURS[k % len(COLOURS)],
                marker=SHAPES[k % len(SHAPES)],
                label=f"recorded {level} ({len(part)})",
            )
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        panel.set_title(name, fontsize=10)
        panel.set_xlabel(f"output under do({contrast[0]})", fontsize=8)
        panel.set_ylabel(f"output under do({contrast[1]})", fontsize=8)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(study.levels), fontsize=8, frameon=False)
    return figure
