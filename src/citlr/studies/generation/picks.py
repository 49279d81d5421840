"""Which generator the criterion without truth picks, in worlds where the least true error is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from citlr.run.rows import Row
from citlr.studies.kit.sheet import Cell

PICKS: dict[str, Cell] = {
    "world": "{world}",
    "training images": "{train_images}",
    "candidates": "{candidates}",
    "picked by what is left": "{picked}",
    "of the least true error": "{best}",
    "error lost": "{loss:.3f}",
}


def picks(rows: Sequence[Row]) -> list[Row]:
    """Say for every world, and number of training images, which generator the criterion without truth picks.

    To change nothing is always a candidate; it has an error of 1 and leaves everything.
    """
    groups: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row["effect"] is not None:
            group = groups.setdefault((row["world"], row["train_images"]), {"no change": (1.0, 1.0)})
            group[row["kind"]] = (mean_left(row), row["effect"]["relative_error"])
    found: list[Row] = []
    for (world, number), group in groups.items():
        picked = min(group, key=lambda kind: group[kind][0])
        best = min(group, key=lambda kind: group[kind][1])
        loss = group[picked][1] - group[best][1]
        found.append(
            {"world": world, "train_images": number, "candidates": len(group), "picked": picked, "best": best}
            | {"loss": loss}
        )
    return found


def mean_left(row: Row) -> float:
    """Mean of what is left over the levels; 1 where nothing is shown."""
    left = row["left"]["left"]
    return float(np.mean(list(left.values()))) if left else 1.0
