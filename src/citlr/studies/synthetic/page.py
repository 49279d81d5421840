"""What the synthetic study shows: two figures, three tables (Markdown, CSV, LaTeX), and the page made of them."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from citlr.report.tables import safe_csv
from citlr.studies.kit.page import Cell, save_figure, table_lines, write_page
from citlr.studies.synthetic.run import FAMILIES, GRADED, TESTS
from citlr.studies.synthetic.summary import ALPHA, AXES, MISSED_FROM, correlations, errors, worlds

# Okabe and Ito's colours and grey shades of them: told apart without colour vision by the markers beside.
_COLOURS = (
    "#0072B2",
    "#56B4E9",
    "#004166",
    "#D55E00",
    "#009E73",
    "#7FCFB8",
    "#E69F00",
    "#CC79A7",
    "#5D3A9B",
    "#B39DDB",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_LOWEST = -12.0
_FIGURES = {"psi": "synthetic_psi.png", "eca": "synthetic_eca.png"}


def write_synthetic(
    rows: pd.DataFrame, folder: str | Path, *, page: str | Path | None = None, failed: int = 0
) -> list[Path]:
    """Write tables, figures and, on request, the page."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    tables = {"correlations": correlations(rows), "errors": errors(rows), "worlds": worlds(rows)}
    written = []
    for name, table in tables.items():
        content = {
            "csv": safe_csv(table),
            "md": markdown(table),
            "tex": table.to_latex(index=False, float_format="%.3f", escape=True),
        }
        for suffix, text in content.items():
            written.append(write_page(out / f"synthetic_{name}.{suffix}", [text]))
    places = [out] if page is None else [out, Path(page).parent]
    for axis, name in _FIGURES.items():
        figure = alignment_figure(rows, axis)
        written += [save_figure(figure, place / name, dpi=100) for place in places]
    if page is not None:
        written.append(write_page(page, [page_text(rows, tables, failed)]))
    return written


def alignment_figure(rows: pd.DataFrame, axis: str) -> Figure:
    """Draw log10 p against the true psi or ECA: a column per set, a row per test, a line with its band."""
    sets = list(dict.fromkeys(rows["set"]))
    figure = Figure(figsize=(2.4 * len(sets) + 0.6, 1.9 * len(TESTS) + 1.2), layout="constrained")
    panels = figure.subplots(len(TESTS), len(sets), squeeze=False, sharex="col", sharey="row")
    for row, test in enumerate(TESTS):
        for column, name in enumerate(sets):
            _panel(panels[row, column], rows[rows["set"] == name], test, axis)
            if row == 0:
                panels[row, column].set_title(name, fontsize=11)
        panels[row, 0].set_ylabel(_two_lines(TESTS[test]) + "\nlog10 p", fontsize=9)
    for column in range(len(sets)):
        panels[-1, column].set_xlabel("true psi" if axis == "psi" else "ECA", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, test: str, axis: str) -> None:
    y = np.maximum(rows[f"log10p_{test}"].to_numpy(), _LOWEST)
    for k, family in enumerate([*FAMILIES, GRADED]):
        chosen = (rows["family"] == family).to_numpy()
        if chosen.any():
            colour = "#777777" if family == GRADED else _COLOURS[k]
            marker = "." if family == GRADED else _MARKERS[k]
            x = rows[axis].to_numpy()[chosen]
            axes.scatter(x, y[chosen], s=11, color=colour, marker=marker, alpha=0.7, linewidths=0, label=family)
    _line(axes, rows[axis].to_numpy(), y)
    axes.axhline(np.log10(ALPHA), color="black", linewidth=0.8, linestyle=":")
    axes.tick_params(labelsize=9)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Least squares with the 95 % band of the mean."""
    if len(x) < 4 or np.ptp(x) == 0:
        return
    fit = stats.linregress(x, y)
    grid = np.linspace(x.min(), x.max(), 50)
    middle = fit.intercept + fit.slope * grid
    residual = np.sqrt(np.square(y - fit.intercept - fit.slope * x).sum() / (len(x) - 2))
    half = (
        stats.t.isf(0.025, len(x) - 2)
        * residual
        * np.sqrt(1 / len(x) + np.square(grid - x.mean()) / np.square(x - x.mean()).sum())
    )
    axes.plot(grid, middle, color="black", linewidth=1)
    axes.fill_between(grid, middle - half, middle + half, color="black", alpha=0.15, linewidth=0)


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; numbers with three digits after the point.

    >>> print(markdown(pd.DataFrame({"set": ["sin"], "rate": [0.5], "n": [3]})))
    | set | rate | n |
    |---|---|---|
    | sin | 0.500 | 3 |
    """
    columns: dict[str, Cell] = {
        str(name): f"{{{name}:.3f}}" if table[name].dtype.kind == "f" else f"{{{name}}}" for name in table
    }
    return "\n".join(table_lines(columns, table.to_dict("records")))


def page_text(rows: pd.DataFrame, tables: dict[str, pd.DataFrame], failed: int) -> str:
    """Return the Markdown page, every number of it from the rows."""
    found, wrong = tables["correlations"], tables["errors"]
    text = [
        "# The publication's synthetic study, corrected",
        "",
        _intent(rows, failed),
        "",
        "## What holds and what does not",
        "",
        *_findings(found, wrong),
        "",
        "Models whose output never changes are left out of these correlations: every test gives them p = 1, which",
        "lifts every correlation alike. The tables below have them too.",
        "",
        "## log10 p against the true psi",
        "",
        f"![log10 p of six tests against true psi on six sets; the dotted line is 5 %]({_FIGURES['psi']})",
        "",
        "## log10 p against ECA, as the publication has it",
        "",
        f"![log10 p of six tests against ECA on six sets; the dotted line is 5 %]({_FIGURES['eca']})",
        "",
        "Where a randomisation p is at its floor the asymptotic log10 p stands for it; below -12 it is drawn at -12.",
        "",
        "## Spearman correlation of -log10 p, with bootstrap intervals over models",
        "",
        *(_spearman_table(found, axis, pool) for axis in AXES for pool in ("published", "both", "varying")),
        "## False alarms and misses",
        "",
        "Invariant: exactly, by construction, and not constant. Dependent: a true psi of "
        f"{MISSED_FROM:g} or more. Allowed: the exact 99.9 % bound of 5 %.",
        "",
        markdown(wrong.assign(test=wrong["test"].map(TESTS))),
        "",
        "## The sets",
        "",
        markdown(tables["worlds"]),
        "",
    ]
    return "\n".join(text)


def _intent(rows: pd.DataFrame, failed: int) -> str:
    n_train, n_test = int(rows["n_train"].iloc[0]), int(rows["n_test"].iloc[0])
    sets = rows["set"].nunique()
    return textwrap.fill(
        f"Made by `citlr reproduce synthetic --page docs/synthetic.md`. On each of {sets} sets the publication's ten "
        "families of models, and a graded pool of 40 beside, whose models run from exactly invariant to strongly "
        f"dependent: {len(rows)} models, {failed} failed. Every model has {n_train} training units and {n_test} test "
        "units of its own, and every test sees the same predictions. True psi, `E[(g(1,Z) - g(0,Z))^2]`, comes from "
        "many draws of the world's own equations, so that it is known for every model. ECA is the published one (same "
        "noise, other level): it also counts the flips that noise makes within a level, which no test of the "
        "definition should follow; beside it stands an ECA corrected for them.",
        width=118,
    )


def _findings(found: pd.DataFrame, wrong: pd.DataFrame) -> list[str]:
    lines = []
    for test in TESTS:
        ours = {axis: _range(found, test, axis, "varying") for axis in AXES}
        row = wrong.set_index("test").loc[test]
        verdict = "inside" if row["false_alarms"] <= row["allowed"] else "**outside**"
        lines.append(
            f"- *{TESTS[test]}*: Spearman with true psi {ours['psi']}, with 1 - ECA {ours['eca']}, with 1 - ECA "
            f"corrected {ours['eca_corrected']}; accuses {row['false_alarms']} of {row['invariant']} invariant models "
            f"({verdict} the bound of {row['allowed']}), misses {row['missed']} of {row['dependent']} dependent ones."
        )
    return lines


def _range(found: pd.DataFrame, test: str, axis: str, pool: str) -> str:
    mine = found[(found["test"] == test) & (found["axis"] == axis) & (found["pool"] == pool)]["spearman"].dropna()
    return f"{mine.min():.2f} to {mine.max():.2f}" if len(mine) else "not defined"


def _spearman_table(found: pd.DataFrame, axis: str, pool: str) -> str:
    mine = found[(found["axis"] == axis) & (found["pool"] == pool)]
    numbers = mine[["spearman", "spearman_low", "spearman_high"]].to_numpy(dtype=float)
    cells = mine.assign(cell=["-" if np.isnan(v) else f"{v:.2f} [{low:.2f}, {high:.2f}]" for v, low, high in numbers])
    sets = list(dict.fromkeys(mine["set"]))
    wide = cells.pivot_table(index="test", columns="set", values="cell", aggfunc="first").reindex(list(TESTS))[sets]
    wide.insert(0, "test", [TESTS[name] for name in wide.index])
    models = {"published": "the publication's pool", "both": "both pools"}.get(
        pool, "both pools, constant models left out"
    )
    return f"With {AXES[axis]}, {models}:\n\n{markdown(wide)}\n"


def _two_lines(text: str) -> str:
    words, half = text.split(), len(text) / 2
    first = ""
    while words and len(first) < half:
        first = f"{first} {words.pop(0)}".strip()
    return f"{first}\n{' '.join(words)}" if words else first
