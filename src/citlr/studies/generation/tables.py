"""The tables of `citlr reproduce generation`, mean and spread of measurements, and its picture grid (Fig. 13, 14)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from citlr.run.rows import Row
from citlr.studies.generation.measure import Measures, picture_rows, true_images
from citlr.studies.generation.study import Entrant
from citlr.studies.kit.page import Cell, Sheet


@dataclass(frozen=True)
class Column:
    """A measure: its heading, where a row keeps it, digits, and what multiplies it."""

    head: str
    pick: Callable[[Row], float | None]
    digits: int = 3
    factor: float = 1.0


def spread(values: Sequence[float | None], *, digits: int) -> str:
    """Write the mean over seeds, with its standard deviation where there are several; "unknown" if one is missing."""
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
    composition = [
        Column("L1, 1 cycle", _at("composition", "1"), 4),
        Column(f"L1, {cycles} cycles", _at("composition", cycles), 4),
        Column("SSIM, 1 cycle", _at("similarity", "1")),
        Column(f"SSIM, {cycles} cycles", _at("similarity", cycles)),
        Column("reversibility L1", _at("reversibility"), 4),
    ]
    effect = [Column(f"do({level}), %", _at("effectiveness", level), 1, 100.0) for level in levels]
    effect += [Column(f"AUROC {level}", _at("auroc", level)) for level in levels]
    effect += [Column("minimality L1", _at("minimality"), 4)]
    distance = [Column("FID", _at("fid"), 2), Column("KID", _at("kid"), 4)]
    captions = {
        "composition": "Composition (Tables 7 and 9): change by null interventions in a row, grey values in [0, 1]",
        "effectiveness": "Effectiveness (Tables 8 and 10): share of images redrawn under a level that the probe reads "
        "as it",
        "effect_map": "Effect map: generated against true change between the levels; scale 1 is the whole change",
    }
    sheets = [
        _probe_sheet(probe, attribute),
        sheet("composition", captions["composition"], rows, composition),
        sheet("effectiveness", captions["effectiveness"], rows, effect),
        sheet("distance", f"Distance to the original test images (Table 11), features: {features}", rows, distance),
        _drift_sheet(rows),
    ]
    if any(row["effect_map"] is not None for row in rows):
        names = {"relative_error": 3, "cosine": 3, "scale": 3, "outside": 4}
        columns = [Column(key.replace("_", " "), _at("effect_map", key), digits) for key, digits in names.items()]
        sheets.append(sheet("effect_map", captions["effect_map"], rows, columns))
    hidden = [row for row in rows if row["leakage"] is not None]
    return [*sheets, *([_leakage_sheet(hidden)] if hidden else []), _cost_sheet(rows)]


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
            *(f"{cell} h" if name in held[line[0]] else cell for name, cell in zip(names, line[1:-1], strict=True)),
            line[-1],
        )
        for line in table.cells
    )
    return Sheet(table.name, table.caption, table.head, cells)


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


# A change by this share of the grey scale is shown in full colour.
FULL = 0.25
Pictures = npt.NDArray[np.float32]


def picture_grid(measures: Measures, entrants: Sequence[Entrant], *, seed: int) -> Figure:
    """Draw a grid: per image the null intervention, every other level, and the signed difference of the two."""
    study, rows = measures.study, picture_rows(measures.test.frame, measures.study)
    own = [study.levels.index(str(level)) for level in measures.test.frame[study.attribute].iloc[rows]]
    stacks = _stacks(measures, entrants, rows, seed)
    per_image = 1 + 2 * (len(study.levels) - 1)
    columns = per_image * len(rows)
    figure = Figure(figsize=(1.05 * columns + 1.6, 1.05 * (len(stacks) + 1) + 0.9), layout="constrained")
    axes = figure.subplots(len(stacks) + 1, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for position, row in enumerate(rows):
        first = axes[0, position * per_image]
        _show(first, measures.images[row, 0])
        first.set_title(f"original\n{study.levels[own[position]]}", fontsize=7)
    for number, (name, pictures) in enumerate(stacks, start=1):
        axes[number, 0].text(-0.15, 0.5, name, transform=axes[number, 0].transAxes, ha="right", va="center", fontsize=8)
        for position in range(len(rows)):
            place = axes[number, position * per_image : (position + 1) * per_image]
            _show_levels(place, pictures[position], own[position], study.levels if number == 1 else ())
    figure.suptitle(
        f"{study.name}: test images redrawn under every level of {study.attribute}; change in red (brighter) and blue "
        f"(darker), full colour at {FULL:g} of the grey scale",
        fontsize=8,
    )
    return figure


def _stacks(
    measures: Measures, entrants: Sequence[Entrant], rows: Sequence[int], seed: int
) -> list[tuple[str, Pictures]]:
    """Give the rows of the grid, a name and its pictures (images, levels, s, s): the truth first, where it is known."""
    true = true_images(measures)
    stacks = [] if true is None else [("truth", true[list(rows), :, 0])]
    for entrant in entrants:
        if entrant.kind != "oracle":
            stacks.append((entrant.name, np.load(measures.stages.path("pictures", f"{entrant.slug}-{seed}.npy"))))
    return stacks


def _show_levels(axes: npt.NDArray[np.object_], pictures: Pictures, own: int, titles: Sequence[str]) -> None:
    """Show one image: the null intervention, then every other level with its change; titles where they are given."""
    _show(axes[0], pictures[own])
    others = [k for k in range(len(pictures)) if k != own]
    for step, other in enumerate(others):
        _show(axes[1 + 2 * step], pictures[other])
        change = pictures[other] - pictures[own]
        axes[2 + 2 * step].imshow(change, cmap="bwr", vmin=-FULL, vmax=FULL, interpolation="nearest")
        if titles:
            axes[1 + 2 * step].set_title(f"do({titles[other]})", fontsize=7)
            axes[2 + 2 * step].set_title("change", fontsize=7)
    if titles:
        axes[0].set_title(f"do({titles[own]})", fontsize=7)


def _show(axis: Axes, image: Pictures) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
