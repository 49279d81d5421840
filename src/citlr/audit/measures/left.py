"""What redrawing leaves of the difference between recorded levels, at the generator's size and as a model reads.

What a generator cannot draw stays where a model reads finer pixels, whatever a probe says there: one that tells the
levels by much of what is carried is sure of itself, and does not see that a part of it is not.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.covariates import coded
from citlr.audit.measures.readings import in_order, recorded_index, seen_at
from citlr.audit.redrawing.pictures import PIXELS, Pictures
from citlr.console import Narrator
from citlr.data.tables.numbers import is_number
from citlr.generators.edits.generator import some_rows
from citlr.generators.probes.linear import describe
from citlr.generators.quality.left import design_between, put_in, what_is_left
from citlr.generators.quality.records import FEWEST_PATIENTS, Left
from citlr.learning.store import spans
from citlr.randomness import hashed_seed
from citlr.run.engines import Engine

# Images whose redrawn versions are compared with real ones of that level, at most: whole patients, by the seed.
MOST_DESCRIBED = 2000
Described = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.bool_]


def chosen_images(counterfactuals: Counterfactuals, seed: int) -> Chosen:
    """Choose the images that are described (n,)."""
    chosen = np.zeros(len(counterfactuals.cohort), dtype=bool)
    chosen[some_rows(counterfactuals.cohort.frame["patient_id"].to_numpy(), MOST_DESCRIBED, seed)] = True
    return chosen


def measure_left(
    counterfactuals: Counterfactuals, described: Described, chosen: Chosen, hold: Sequence[str], seed: int
) -> Left | None:
    """Measure it by descriptions (k, levels, width) of the images that were chosen; None where it cannot be."""
    design = _recorded(counterfactuals, chosen)
    if design is None:
        return None
    frame, recorded = design
    levels = counterfactuals.levels
    between = design_between(recorded, len(levels), coded(frame, hold), frame["patient_id"])
    own = described[np.arange(len(described)), recorded]
    each = {level: described[:, number] for number, level in enumerate(levels)}
    return what_is_left(own, each, between, np.random.default_rng(hashed_seed("left", seed)))


def left_at(
    counterfactuals: Counterfactuals,
    size: int,
    chosen: Chosen,
    hold: Sequence[str],
    seed: int,
    *,
    narrator: Narrator,
    engine: Engine,
) -> Left | None:
    """Measure it for a model that reads at another size than the generator's."""
    if _recorded(counterfactuals, chosen) is None:
        return None
    pictures = counterfactuals.pictures(size)
    bar = narrator.progress(f"difference left at {size} pixels", len(pictures.part))
    found = in_order(_describe_shard, (pictures, chosen), pictures.part.plan, bar, engine)
    described = np.concatenate([one for one in found if one is not None])
    return measure_left(counterfactuals, described, chosen, hold, seed)


def _recorded(counterfactuals: Counterfactuals, chosen: Chosen) -> tuple[pd.DataFrame, npt.NDArray[np.int64]] | None:
    """Give the table of the chosen images and their levels; None where images have other ones, or too few."""
    attribute, levels = counterfactuals.attribute, counterfactuals.levels
    frame = counterfactuals.cohort.frame[chosen].reset_index(drop=True)
    if is_number(frame[attribute]):
        return None
    recorded = recorded_index(frame[attribute], levels)
    patients = [frame["patient_id"][recorded == level].nunique() for level in range(len(levels))]
    return None if recorded.min() < 0 or min(patients) < FEWEST_PATIENTS else (frame, recorded)


def _describe_shard(shared: tuple[Pictures, Chosen], number: int) -> Described | None:
    """Describe the first draws of a shard's chosen images, put into the originals: (k, levels, width)."""
    pictures, chosen = shared
    rows = pictures.part.plan.rows(number)
    places = np.flatnonzero(chosen[rows.start : rows.stop])
    # As many at a time as there may be pixels in memory.
    step = max(1, PIXELS // (len(pictures.part.plan.levels) * pictures.side**2))
    found = [_described(pictures, number, places[part].tolist()) for part in spans(len(places), step)]
    return np.concatenate(found) if found else None


def _described(pictures: Pictures, number: int, places: list[int]) -> Described:
    plan = pictures.part.plan
    rows = [plan.rows(number)[place] for place in places]
    seen = np.concatenate([seen_at(one, pictures.size) for one in pictures.batches(number, draws=1, places=places)])
    redrawn = seen.reshape(len(rows), len(plan.levels), *seen.shape[1:])
    own = recorded_index(pd.Series([plan.factual[row] for row in rows]), plan.levels)
    shown = put_in(pictures.originals(rows, pictures.size), redrawn, own)
    return np.stack([describe(shown[:, level]) for level in range(len(plan.levels))], axis=1)
