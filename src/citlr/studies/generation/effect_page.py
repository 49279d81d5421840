"""The page and the tables of effect maps, and which generator the criterion without truth picks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citlr.run.rows import Row
from citlr.studies.kit.cohorts import PHANTOM
from citlr.studies.kit.page import Cell, Sheet, write_page

PICKS: dict[str, Cell] = {
    "world": "{world}",
    "training images": "{train_images}",
    "candidates": "{candidates}",
    "picked without the truth": "{picked}",
    "of the least true error": "{best}",
    "error lost": "{loss:.3f}",
}


@dataclass(frozen=True)
class Candidate:
    """What is known of a generator without the truth, and its true `error`.

    - `left`, `left_error`: Share of the difference left, and its standard error, means over the levels.
    - `null`, `rms`: Mean absolute change of the null intervention, and RMS of the change to other levels, grey values.
    """

    left: float
    left_error: float
    null: float
    rms: float
    error: float


# It leaves everything.
NO_CHANGE = Candidate(1.0, 0.0, 0.0, 0.0, 1.0)


def picks(rows: Sequence[Row]) -> list[Row]:
    """Say for every world, and number of training images, which generator the criterion without truth picks.

    To change nothing is always a candidate.
    """
    groups: dict[tuple[str, int], dict[str, Candidate]] = {}
    for row in rows:
        if row["effect"] is not None:
            group = groups.setdefault((row["world"], row["train_images"]), {"no change": NO_CHANGE})
            group[row["kind"]] = _candidate(row)
    found: list[Row] = []
    for (world, number), group in groups.items():
        picked = pick(group)
        best = min(group, key=lambda kind: group[kind].error)
        loss = group[picked].error - group[best].error
        found.append(
            {"world": world, "train_images": number, "candidates": len(group), "picked": picked, "best": best}
            | {"loss": loss}
        )
    return found


def pick(group: Mapping[str, Candidate]) -> str:
    """Name the generator to take, without the truth.

    Those within a standard error of what the best leaves cannot be told from it (Breiman et al. 1984, the rule of one
    standard error). Of these it is the one whose null intervention changes least, then the one that changes least.
    """
    least = min(group.values(), key=lambda one: one.left)
    close = {kind: one for kind, one in group.items() if one.left <= least.left + least.left_error}
    return min(close, key=lambda kind: (close[kind].null, close[kind].rms))


def _candidate(row: Row) -> Candidate:
    error = row["left"]["error"]
    spread = float(np.mean(list(error.values()))) if error else 0.0
    return Candidate(mean_left(row), spread, row["null_change"], row["rms"], row["effect"]["relative_error"])


def mean_left(row: Row) -> float:
    """Mean of what is left over the levels; 1 where nothing is shown."""
    left = row["left"]["left"]
    return float(np.mean(list(left.values()))) if left else 1.0


def write_effects(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `effects.md` and the tables of what `effects.json` holds."""
    table = effect_sheet(content["rows"])
    chosen = Sheet.of("picks", "What the criterion without truth picks", PICKS, content["picks"])
    for one in (table, chosen):
        one.write(folder / "tables")
    title = "# What generators change, against what they should"
    write_page(folder / "effects.md", [title, "", *_words(content), table.markdown(), "", chosen.markdown()])


def effect_sheet(rows: Sequence[Row]) -> Sheet:
    """Make the table: a line per world, kind and number of training images."""
    names = list(dict.fromkeys(name for row in rows for name in row["drift"]))

    def of(key: str, digits: int) -> Cell:
        return lambda row: "-" if row["effect"] is None else f"{row['effect'][key]:.{digits}f}"

    columns: dict[str, Cell] = {
        "world": "{world}",
        "a fixed map explains": lambda row: "-" if row["fixed_map"] is None else f"{row['fixed_map']:.2f}",
        "generator": "{kind}",
        "training images": "{train_images}",
        "error": of("relative_error", 3),
        "cosine": of("cosine", 3),
        "scale": of("scale", 2),
        "RMS of the change, % of the effect's": lambda row: f"{100 * row['rms'] / row['true_rms']:.1f}",
        "difference left": lambda row: f"{mean_left(row):.3f}" if row["left"]["left"] else "-",
        "null intervention": "{null_change:.4f}",
        **{f"drift of {name}": _moved(name) for name in names},
        "fit, core s": "{fit_seconds:.0f}",
        "ms an image and level": "{ms_per_image:.0f}",
    }
    caption = "Effect maps: generated change from the own level to the others against the exact one, test images"
    return Sheet.of("effects", caption, columns, rows)


def _moved(name: str) -> Cell:
    return lambda row: f"{row['drift'][name]:+.4f}" if name in row["drift"] else "-"


def _read(rows: Sequence[Row]) -> str:
    """Say how well those classifiers read what they are of."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, area in row["readers"].items():
            found.setdefault(name, []).extend([] if area is None else [area])
    said = [f"{name} {min(areas):.2f} to {max(areas):.2f}" for name, areas in found.items() if areas]
    return f" Their AUROC on test images: {', '.join(said)}." if said else ""


def _words(content: Mapping[str, Any]) -> list[str]:
    of = f" of {content['cohort']}" if content["cohort"] != PHANTOM else ""
    return [
        f"Images{of} of {content['size']} x {content['size']} pixels; attribute and label correlated by "
        f"{content['correlation']:g}; preset '{content['fitting']['preset']}', seed {content['seed']}, one draw. Error "
        "is ||g - t|| / ||t|| over all test images and pixels, cosine <g, t> / (||g|| ||t||), scale <g, t> / <t, t>, "
        "with g the generated change from the image redrawn under its own level, t the exact change. A world called "
        "null shows no attribute, and its change is compared with that of the three default effects. Drift is what a "
        "classifier that is blind to the attribute reads of what is held, between the levels, less what it reads off "
        f"exact counterfactuals.{_read(content['rows'])} The difference left needs no truth: what recorded levels "
        "still differ by, beside what is held, once all are redrawn under one of them, over what they differ by under "
        "their own (`citlr.generators.quality.left`).",
        "",
    ]
