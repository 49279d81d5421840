"""Figures and page of the calibration, made from `calibration.json` alone (and the histograms beside it)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from citlr.run.files import read_json
from citlr.run.rows import Row
from citlr.studies.calibration.text import ALPHA, COVERAGE, HEAD, SECTIONS, exceeds, findings
from citlr.studies.kit.page import Cell, save_figure, table_lines, write_page

# The columns of the page's tables.
SIZES: dict[str, Cell] = {
    "test": "{test}",
    "null": "{null}",
    "n": "{n}",
    "patients": "{clusters}",
    "repetitions": "{reps}",
    "rejected": "{rate:.2%}",
    "bounds": "{low:.2%} to {high:.2%}",
    "at most 5 %?": lambda row: "**no**" if exceeds(row) else "yes",
}
POWERS: dict[str, Cell] = {
    "test": "{test}",
    "alternative": "{alternative}",
    "effect": "{effect:g}",
    "n": "{n}",
    "repetitions": "{reps}",
    "power": "{rate:.1%}",
}
COVERAGES: dict[str, Cell] = {
    "interval": "{interval}",
    "truth": "{effect}",
    "n": "{n}",
    "repetitions": "{reps}",
    "coverage": "{rate:.1%}",
}


def write_calibration_page(source: str | Path, page: str | Path, *, figures: str = "") -> None:
    """Write the Markdown page of a calibration."""
    tables = read_json(source)
    parts = [HEAD, "## What was found\n", *[f"- {line}" for line in findings(tables)], ""]
    for name, caption in (
        ("sizes", "Size of the default test with its exact 99.9 % bounds; the line is 5 %"),
        ("qq", "p-values of the default test under its nulls, n = 500: observed share at or below p, against p"),
        ("power", "Power against the size of the effect"),
    ):
        parts.append(f"![{caption}]({figures}calibration_{name}.png)\n")
    for title, tests, words in SECTIONS:
        rows = [row for row in tables["size"] if row["test"].startswith(tests)]
        power = [row for row in tables["power"] if row["test"].startswith(tests)]
        if rows or power:
            parts.append(f"## {title}\n\n{words}\n")
            for columns, chosen, align in ((SIZES, rows, "llrrrrll"), (POWERS, power, "llrrrr")):
                parts += [*table_lines(columns, chosen, align), ""] if chosen else []
    parts.append(f"## Coverage of the intervals\n\n{COVERAGE}\n")
    parts += table_lines(COVERAGES, tables["coverage"], "llrrr")
    write_page(page, parts)


def write_figures(source: str | Path, folder: str | Path) -> None:
    """Draw sizes, p-value QQ and power curves as PNG into `folder`; the QQ needs `calibration_details.json` beside."""
    tables = read_json(source)
    target = Path(folder)
    sizes = [row for row in tables["size"] if row["test"].startswith("default test")]
    details = Path(source).with_name("calibration_details.json")
    histograms = read_json(details)["pvalues"] if details.is_file() else []
    for name, figure in {"sizes": _sizes(sizes), "qq": _qq(histograms), "power": _power(tables["power"])}.items():
        save_figure(figure, target / f"calibration_{name}.png", dpi=110)


def _null(row: Row) -> str:
    return f"{row['null']}{' (omnibus)' if 'omnibus' in row['test'] else ''}"


def _sizes(rows: Sequence[Row]) -> Figure:
    """Rate and bounds of every null and n."""
    labels = list(dict.fromkeys(map(_null, rows)))
    numbers = sorted({row["n"] for row in rows})
    figure = Figure(figsize=(8, 0.36 * max(len(labels), 3) + 1.2), layout="constrained")
    axes = figure.subplots()
    for k, n in enumerate(numbers):
        chosen = [row for row in rows if row["n"] == n]
        y = [labels.index(_null(row)) + 0.22 * (k - (len(numbers) - 1) / 2) for row in chosen]
        rate = np.array([row["rate"] for row in chosen])
        spread = [rate - [row["low"] for row in chosen], [row["high"] for row in chosen] - rate]
        axes.errorbar(rate, y, xerr=spread, fmt="o", markersize=3.5, linewidth=1.2, label=f"n = {n}")
    axes.axvline(ALPHA, color="black", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("share of true nulls rejected at 5 %")
    axes.set_xlim(left=-0.002)
    if numbers:
        axes.legend(frameon=False)
    return figure


def _qq(histograms: Iterable[Row]) -> Figure:
    """Observed distribution of p under each null at n = 500; at or below the diagonal is valid."""
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=[colormaps["tab20"](k) for k in range(20)])
    for row in histograms:
        counts = np.asarray(row["counts"])
        if row["n"] == 500 and counts.sum():
            grid = np.arange(1, counts.size + 1) / counts.size
            style = "--" if "omnibus" in row["test"] else "-"
            axes.plot(grid, np.cumsum(counts) / counts.sum(), style, linewidth=1.3, label=_null(row))
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set_xlabel("p")
    axes.set_ylabel("share of p-values at or below p")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _power(rows: Sequence[Row]) -> Figure:
    """Power curves of the default test against the paired t-test of the mean, one panel per family."""
    names = ("uniform shift", "zero-mean effect", "zero-mean effect, quieter", "zero-mean effect, shared seeds")
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=True):
        for test, style in (("default test", "-o"), ("paired t-test of the mean", ":s")):
            for k, n in enumerate(sorted({row["n"] for row in rows if row["alternative"] == name})):
                curve = [row for row in rows if (row["alternative"], row["test"], row["n"]) == (name, test, n)]
                curve.sort(key=lambda row: row["effect"])
                x, y = [row["effect"] for row in curve], [row["rate"] for row in curve]
                axes.plot(x, y, style, color=f"C{k}", markersize=3.5, label=f"{test}, n = {n}")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("mean effect" if name == "uniform shift" else "psi")
        axes.set_ylabel("power")
        axes.axhline(ALPHA, color="black", linewidth=0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure
