"""Redrawn images moved by what the generator's own training split leaves open, and what a model makes of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.console import Ticker, silent
from citlr.data.counterfactuals import CounterfactualSet, Images, write_counterfactuals
from citlr.generators.base import REPLICATES, CounterfactualGenerator
from citlr.invariance.generator_error import Replicates
from citlr.invariance.responses import Responses
from citlr.invariance.tables import read_long

# What the responses to these images are filed under, where others have the attribute's name; draws count replicates.
REPLICATE = "training replicate"
# Images that are moved, at most: enough for a spread of the mean effect that twelve replicates cannot know better.
REPLICATE_IMAGES = 200


def draw_replicates(
    folder: Path,
    generator: CounterfactualGenerator,
    main: CounterfactualSet,
    rows: npt.NDArray[np.int64],
    *,
    tick: Ticker = silent,
) -> CounterfactualSet | None:
    """Move the first draw of some images by every replicate of the generator's mean effect.

    The first level stays as it was drawn, every other one is moved by its effect against the first: a contrast does not
    see more.
    """
    move = _mover(generator, main)
    if move is None or not len(rows):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier generator, or of settings that have changed
        return None
    plan = main.plan
    some = replace(
        plan,
        attribute=REPLICATE,
        levels=plan.levels[1:],
        draws=REPLICATES,
        image_ids=tuple(plan.image_ids[row] for row in rows),
        patient_ids=tuple(plan.patient_ids[row] for row in rows),
        factual=("",) * len(rows),
    )

    def draw(positions: range) -> Images:
        return move(_first_draws(main, rows[positions.start : positions.stop]))

    return write_counterfactuals(folder, some, draw, tick=tick)


def _mover(generator: CounterfactualGenerator, main: CounterfactualSet) -> Callable[[Images], Images] | None:
    """Say how first draws (n, levels, 1, s, s) are moved to every other level: (n, levels - 1, replicates, 1, s, s).

    A generator of edits makes every replicate's own edit of the image under the first level; one that knows how far
    its mean images may be off moves all images alike.
    """
    plan = main.plan
    edit: Callable[..., Images] | None = getattr(generator, "move_by_replicates", None)
    if edit is not None:
        return lambda first: edit(first[:, 0], plan.attribute, plan.levels)
    known: Callable[..., Images] | None = getattr(generator, "mean_replicates", None)
    if known is None:
        return None
    found = known(plan.attribute, plan.levels)
    moves = (found[:, 1:] - found[:, :1]).swapaxes(0, 1)  # levels without the first, replicates, 1, s, s
    return lambda first: np.clip(first[:, 1:, None] + moves[None], 0.0, 1.0).astype(np.float32)


def replicates_of(frame: pd.DataFrame, responses: Responses) -> Replicates | None:
    """Take the responses to moved images out of the long table."""
    own = frame[frame["attribute"] == REPLICATE]
    if not len(own):
        return None
    moved = read_long(own, attribute=REPLICATE, levels=responses.levels[1:], labels=responses.labels)
    place = {str(unit): row for row, unit in enumerate(responses.units)}
    rows = np.array([place[str(unit)] for unit in moved["units"]], dtype=np.int64)
    return Replicates(rows=rows, values=moved["values"])


def _first_draws(main: CounterfactualSet, rows: npt.NDArray[np.int64]) -> Images:
    """Read the first draw of some images under every level, (n, levels, 1, s, s)."""
    out: dict[int, Images] = {}
    for number in sorted({int(row) // main.plan.shard for row in rows}):
        shard = main.read(number)
        out |= {row: shard.images[row - shard.rows.start, :, 0] for row in map(int, rows) if row in shard.rows}
    return np.stack([out[int(row)] for row in rows])
