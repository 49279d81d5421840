"""Redrawn images moved by what the generator's own training split leaves open, and what a model makes of them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from citlr.config import ControlsConfig
from citlr.console import Ticker, silent
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Images, write_counterfactuals
from citlr.data.edits import Edit
from citlr.generators.base import REPLICATES, CounterfactualGenerator
from citlr.invariance.responses import Responses
from citlr.invariance.tables import read_long
from citlr.run.engines import Engine

if TYPE_CHECKING:
    from citlr.invariance.generator_error import Replicates

# What the responses to these images are filed under, where others have the attribute's name; draws count replicates.
REPLICATE = "training replicate"
# Images that are moved, at most: enough for a spread of the mean effect that twelve replicates cannot know better.
REPLICATE_IMAGES = ControlsConfig().replicate_images


def draw_replicates(
    folder: Path,
    generator: CounterfactualGenerator,
    main: CounterfactualSet,
    cohort: Cohort,
    *,
    tick: Ticker = silent,
    engine: Engine | None = None,
) -> CounterfactualSet | None:
    """Move the first draw of some images, a cohort of them, by every replicate of the generator's mean effect.

    The first level stays as it was drawn, every other one is moved by its effect against the first: a contrast does not
    see more.
    """
    move = _mover(generator, main)
    if move is None or not len(cohort):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier generator, or of settings that have changed
        return None
    plan = main.plan
    some = replace(
        plan,
        attribute=REPLICATE,
        levels=plan.levels[1:],
        draws=REPLICATES,
        image_ids=tuple(cohort.frame["image_id"].astype(str)),
        patient_ids=tuple(cohort.frame["patient_id"].astype(str)),
        factual=("",) * len(cohort),
        alike=False,
    )

    def draw(rows: range) -> Images | Edit:
        return move(cohort.take(np.arange(rows.start, rows.stop)))

    return write_counterfactuals(folder, some, draw, tick=tick, engine=engine)


def _mover(generator: CounterfactualGenerator, main: CounterfactualSet) -> Callable[[Cohort], Images | Edit] | None:
    """Say how images are moved to every level but the first, by every replicate: (n, levels - 1, replicates, ...).

    A generator of edits makes an edit of its own for every replicate; one that knows how far its mean images may be off
    moves all images alike.
    """
    plan = main.plan
    edit: Callable[..., Edit] | None = getattr(generator, "edit_by_replicates", None)
    if edit is not None and plan.edits:
        weighted = {} if plan.guidance is None else {"guidance": plan.guidance}
        return lambda part: edit(part.pixels(size=plan.size), part.frame, plan.attribute, plan.levels, **weighted)
    known: Callable[..., Images] | None = getattr(generator, "mean_replicates", None)
    if known is None or plan.edits:
        return None
    found = known(plan.attribute, plan.levels)
    moves = (found[:, 1:] - found[:, :1]).swapaxes(0, 1)  # levels without the first, replicates, 1, s, s
    place = {name: row for row, name in enumerate(plan.image_ids)}

    def move(part: Cohort) -> Images:
        first = _first_draws(main, [place[name] for name in part.frame["image_id"].astype(str)])
        return np.clip(first[:, 1:, None] + moves[None], 0.0, 1.0).astype(np.float32)

    return move


def replicates_of(frame: pd.DataFrame, responses: Responses) -> "Replicates | None":
    """Take the responses to moved images out of the long table."""
    own = frame[frame["attribute"] == REPLICATE]
    if not len(own):
        return None
    # Here, for it brings statistics of .6 s, and processes that draw have no answers yet.
    from citlr.invariance.generator_error import Replicates

    moved = read_long(own, attribute=REPLICATE, levels=responses.levels[1:], labels=responses.labels)
    place = {str(unit): row for row, unit in enumerate(responses.units)}
    rows = np.array([place[str(unit)] for unit in moved["units"]], dtype=np.int64)
    return Replicates(rows=rows, values=moved["values"])


def _first_draws(main: CounterfactualSet, rows: Sequence[int]) -> Images:
    """Read the first draw of some pictures under every level, (n, levels, 1, s, s)."""
    out: dict[int, Images] = {}
    for number in sorted({row // main.plan.shard for row in rows}):
        shard = main.read(number)
        assert not isinstance(shard.drawn, Edit)
        out |= {row: shard.drawn[row - shard.rows.start, :, 0] for row in rows if row in shard.rows}
    return np.stack([out[row] for row in rows])
