"""The tables of `citlr reproduce generation`: rows of measurements to Markdown, CSV and LaTeX, mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from citlr.run.rows import Row
from citlr.studies.kit.sheet import Cell, Sheet


@dataclass(frozen=True)
class Column:
    """A measure: its heading, where a row keeps it, digits, and what multiplies it."""

    head: str
    pick: Callable[[Row], float | None]
    digits: int = 3
    factor: float = 1.0


def spread(values: Sequence[float | None], *, digits: int) -> str:
    """Write the mean over seeds, with its standard deviation where there are several; "unknown" where one is missing.

    Examples
    --------
    >>> spread([1.0, 2.0], digits=2), spread([0.5], digits=1), spread([None, 1.0], digits=1)
    ('1.50 ± 0.71', '0.5', 'unknown')
    """
    if any(value is None or not np.isfinite(value) for value in values) or not values:
        return "unknown"
    numbers = np.asarray(values, dtype=np.float64)
    mean = f"{numbers.mean():.{digits}f}"
    return f"{mean} ± {numbers.std(ddof=1):.{digits}f}" if len(numbers) > 1 else mean


def sheet(name: str, caption: str, rows: Sequence[Row], columns: Sequence[Column]) -> Sheet:
    """Make a table of one line per model, in the order in which the models come."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = []
    for model in models:
        own = [row for row in rows if row["model"] == model]
        line = [model]
        for column in columns:
            picked = [column.pick(row) for row in own]
            values = [None if value is None else column.factor * value for value in picked]
            line.append(spread(values, digits=column.digits))
        cells.append(tuple(line))
    return Sheet(name, caption, ("model", *(column.head for column in columns)), tuple(cells))


def study_sheets(rows: Sequence[Row], probe: Sequence[Row], *, levels: Sequence[str], attribute: str) -> list[Sheet]:
    """Make all tables of a study: the publication's 6 to 11, and this project's."""
    features = rows[0]["features"]
    cycles = max(rows[0]["composition"], key=int)
    sheets = [_probe_sheet(probe, attribute)]
    sheets.append(
        sheet(
            "composition",
            "Composition (Tables 7 and 9): change by null interventions in a row, grey values in [0, 1]",
            rows,
            [
                Column("L1, 1 cycle", _at("composition", "1"), 4),
                Column(f"L1, {cycles} cycles", _at("composition", cycles), 4),
                Column("SSIM, 1 cycle", _at("similarity", "1")),
                Column(f"SSIM, {cycles} cycles", _at("similarity", cycles)),
                Column("reversibility L1", _at("reversibility"), 4),
            ],
        )
    )
    effect = [Column(f"do({level}), %", _at("effectiveness", level), 1, 100.0) for level in levels]
    effect += [Column(f"AUROC {level}", _at("auroc", level)) for level in levels]
    sheets.append(
        sheet(
            "effectiveness",
            "Effectiveness (Tables 8 and 10): share of images redrawn under a level that the probe reads as it",
            rows,
            [*effect, Column("minimality L1", _at("minimality"), 4)],
        )
    )
    sheets.append(
        sheet(
            "distance",
            f"Distance to the original test images (Table 11), features: {features}",
            rows,
            [Column("FID", _at("fid"), 2), Column("KID", _at("kid"), 4)],
        )
    )
    sheets.append(_drift_sheet(rows))
    if any(row["effect_map"] is not None for row in rows):
        names = {"relative_error": "relative error", "cosine": "cosine", "scale": "scale", "outside": "outside"}
        sheets.append(
            sheet(
                "effect_map",
                "Effect map: generated against true change between the levels; scale 1 is the whole change",
                rows,
                [Column(head, _at("effect_map", key), 4 if key == "outside" else 3) for key, head in names.items()],
            )
        )
    hidden = [row for row in rows if row["leakage"] is not None]
    if hidden:
        sheets.append(_leakage_sheet(hidden))
    sheets.append(_cost_sheet(rows))
    return sheets


def gate_lines(rows: Sequence[Row]) -> list[str]:
    """Say for every model and seed whether it passes an audit's default gates, and which fail."""
    lines = []
    for row in rows:
        failed = [gate for gate in row["gates"] if not gate["passed"]]
        verdict = "passes" if not failed else "fails: " + " ".join(gate["text"] for gate in failed)
        lines.append(f"- {row['model']}, seed {row['seed']}: {verdict}")
    return lines


def _at(*keys: str) -> Callable[[Row], float | None]:
    """Pick a number below keys; None where any of them is missing."""

    def pick(row: Row) -> float | None:
        value: Any = row
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        return None if value is None else float(value)

    return pick


def _probe_sheet(probe: Sequence[Row], attribute: str) -> Sheet:
    columns: dict[str, Cell] = {
        "read": lambda row: row["target"] + ("" if row["trusted"] else " (no better than chance)"),
        "level": "{level}",
        "test images": "{images}",
        "accuracy, %": lambda row: "unknown" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f}",
        "AUROC": lambda row: "unknown" if row["auroc"] is None else f"{row['auroc']:.3f}",
    }
    return Sheet.of("probe", f"The probe on original test images (Table 6: {attribute})", columns, probe)


def _drift_sheet(rows: Sequence[Row]) -> Sheet:
    names = list(dict.fromkeys(name for row in rows for name in row["drift"]))
    columns = [Column(name, _at("drift", name)) for name in names]
    table = sheet(
        "drift",
        "Drift: largest mean shift of a probe's probability between the levels; h: held by the model",
        rows,
        [*columns, Column("coin L1", _at("coin"), 4)],
    )
    held = {row["model"]: row["held"] for row in rows}
    cells = tuple(
        (
            line[0],
            *(_marked(cell, name in held[line[0]]) for name, cell in zip(names, line[1:-1], strict=True)),
            line[-1],
        )
        for line in table.cells
    )
    return Sheet(table.name, table.caption, table.head, cells)


def _marked(cell: str, held: bool) -> str:
    return f"{cell} h" if held else cell


def _leakage_sheet(rows: Sequence[Row]) -> Sheet:
    parts = {"latent": "z0", "hidden": "z~0", "noised": "z~0 noised", "beyond_held": "z~0 beyond held"}
    columns = [Column(f"AUROC {head}", _at("leakage", key, "auroc")) for key, head in parts.items()]
    columns += [Column(f"I {head}, nats", _at("leakage", key, "information")) for key, head in parts.items()]
    columns += [
        Column("MINE before", _at("training", "information_before")),
        Column("MINE after", _at("training", "information_after")),
        Column("inversion error", _at("round_trip", "latent"), 4),
    ]
    caption = "Disentanglement: what fresh probes read of the attribute on test patients (AUROC 0.5 is nothing)"
    return sheet("disentanglement", caption, rows, columns)


def _cost_sheet(rows: Sequence[Row]) -> Sheet:
    columns = [
        Column("fit, s", _at("fit_seconds"), 0),
        Column("s per 1000 images", _at("seconds_per_1000"), 1),
        Column("gates failed", lambda row: float(sum(not gate["passed"] for gate in row["gates"])), 1),
    ]
    return sheet("cost", "Processor time, and gates of an audit that fail", rows, columns)
