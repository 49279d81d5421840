"""The association tables as one figure."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from citlr.data.associations.records import AgeByLevel, Association, Description

# Okabe and Ito's colours: told apart by most colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def draw(description: Description) -> Figure:
    """Draw one row of panels per attribute: findings, missing labels, views, ages."""
    names = list(dict.fromkeys(one.attribute for one in description.associations))
    figure = Figure(figsize=(15, 3.6 * max(1, len(names))), layout="constrained")
    panels = figure.subplots(max(1, len(names)), 4, squeeze=False)
    for row, name in zip(panels, names, strict=False):
        mine = [one for one in description.associations if one.attribute == name]
        by_patient = [one for one in mine if one.kind == "label" and one.unit == "patient"]
        _rates(row[0], by_patient, f"positive, % of patients, by {_plain(name)}")
        _rates(row[1], [one for one in mine if one.kind == "missing"], "label missing, % of images")
        _views(row[2], [one for one in mine if one.kind == "view"])
        _ages(row[3], [age for age in description.ages if age.attribute == name])
    return figure


def _plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs as formulas, in which it may fail."""
    return text.replace("$", "\\$")


def _rates(axes: Any, associations: list[Association], title: str) -> None:
    axes.set_title(title, fontsize=10)
    if not associations:
        axes.set_axis_off()
        return
    if associations[0].kind == "missing" and not any(rate > 0 for one in associations for rate in one.rates().values()):
        # Bars of nothing with intervals on them would look like something.
        axes.text(0.5, 0.5, "no label is missing", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    levels = list(dict.fromkeys(level for one in associations for level in one.levels))
    width = 0.8 / len(levels)
    for place, level in enumerate(levels):
        for position, one in enumerate(associations):
            if level not in one.levels:
                continue
            total = sum(one.table[one.levels.index(level)])
            rate = one.rates()[level]
            low, high = _wilson(rate, total)
            x = position + (place - (len(levels) - 1) / 2) * width
            colour = COLOURS[place % len(COLOURS)]
            axes.bar(x, 100 * rate, width, color=colour, label=_plain(level) if position == 0 else None)
            axes.plot([x, x], [100 * low, 100 * high], color="black", linewidth=1)
    axes.set_xticks(range(len(associations)))
    marks = [f"{_plain(one.variable)}\nV = {one.cramers_v:.2f}" for one in associations]
    axes.set_xticklabels(
        marks,
        fontsize=7,
        rotation=30 if len(associations) > 3 else 0,
        ha="right" if len(associations) > 3 else "center",
    )
    axes.legend(fontsize=7)


def _wilson(rate: float, total: int) -> tuple[float, float]:
    """Wilson's interval of a proportion; inside [0, 1] even at rates of 0 and 1."""
    if not total:
        return math.nan, math.nan
    interval = binomtest(round(rate * total), total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _views(axes: Any, associations: list[Association]) -> None:
    if not associations:
        axes.set_axis_off()
        return
    one = associations[0]
    axes.set_title(f"view, % of images (V = {one.cramers_v:.2f})", fontsize=10)
    counts = np.asarray(one.table, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    bottom = np.zeros(len(one.levels))
    for place, value in enumerate(one.values):
        axes.bar(
            [*map(_plain, one.levels)],
            shares[:, place],
            0.6,
            bottom=bottom,
            color=COLOURS[place % len(COLOURS)],
            label=_plain(value),
        )
        bottom += shares[:, place]
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(one.values), frameon=False)


def _ages(axes: Any, ages: list[AgeByLevel]) -> None:
    stated = [age for age in ages if age.n_images]
    if not stated:
        axes.set_axis_off()
        return
    axes.set_title("age: median and quartiles, mean (dot)", fontsize=10)
    for place, age in enumerate(stated):
        axes.plot([place, place], [age.q25, age.q75], color=COLOURS[place % len(COLOURS)], linewidth=10, alpha=0.5)
        axes.plot([place - 0.15, place + 0.15], [age.median, age.median], color="black")
        axes.plot(place, age.mean, "o", color="black", markersize=4)
    axes.set_xticks(range(len(stated)))
    axes.set_xticklabels([_plain(age.level) for age in stated])
    axes.set_xlim(-0.6, len(stated) - 0.4)
    axes.set_ylabel("years", fontsize=8)
