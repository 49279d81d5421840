"""Which generator the criterion without truth picks, in worlds where the least true error is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from citlr.run.rows import Row
from citlr.studies.kit.sheet import Cell

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
