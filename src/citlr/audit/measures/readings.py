"""What is read off originals and redrawn images at one size, and the share of the attribute that it shows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.carried import measure_carried
from citlr.audit.measures.slope import carried_slope
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.records import Carried
from citlr.console import Narrator, Ticker
from citlr.data.counterfactuals import Plan
from citlr.generators.probes.probe import Probes
from citlr.generators.quality.meter import QualityMeter, Readings, ShardReadings, over_levels
from citlr.generators.variables import as_level
from citlr.predictors.specs import InputSpec
from citlr.run.engines import Engine
from citlr.run.parcel import Result


def seen_at(images: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Resize images (..., 1, s, s) as a model that reads at this size does (see `InputSpec.prepare`)."""
    flat = torch.from_numpy(np.ascontiguousarray(images.reshape(-1, 1, *images.shape[-2:])))
    seen: npt.NDArray[np.float32] = InputSpec(size=size).prepare(flat).numpy()
    return seen.reshape(*images.shape[:-2], size, size)


def carried_by(
    probes: Probes,
    read: Sequence[npt.NDArray[np.float32]],
    frame: pd.DataFrame,
    attribute: str,
    levels: Sequence[str],
    hold: Sequence[str],
    numbers: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
) -> Carried:
    """Say what redrawn images carry for a probe, by what it `read` off real (n, l) and redrawn ones (n, l, draws, l).

    `numbers` are what it reads of an attribute that is a number: off real (n,) and redrawn ones (n, l, draws).
    """
    real, redrawn = read
    # A number is read off groups of it, whose accuracy says little: its slope is tested itself.
    if numbers is not None:
        return carried_slope(*numbers, frame, attribute=attribute, levels=levels, hold=hold, size=probes.size)
    if not probes.trusted[attribute]:
        note = (
            f"At {probes.size} pixels the probe of '{attribute}' reads no better than chance (mean accuracy "
            f"{probes.accuracy[attribute]:.2f} on the validation split)."
        )
        return Carried(probes.size, {}, note)
    recorded = recorded_index(frame[attribute], levels)
    return measure_carried(real, redrawn, frame, recorded=recorded, levels=levels, hold=hold, size=probes.size)


def recorded_index(column: pd.Series, levels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Give the index of the redrawn level that each image has (n,), -1 for none of them."""
    place = {level: k for k, level in enumerate(levels)}
    return np.asarray([place.get(as_level(value), -1) for value in column], dtype=np.int64)


def read_quality(
    meter: QualityMeter, pictures: Pictures, described: npt.NDArray[np.bool_], narrator: Narrator, engine: Engine
) -> None:
    """Have a meter take in every shard, in order, whatever the order in which they are read.

    Shapes: `described` (n,), see `QualityMeter.read`.
    """
    plan, shared = pictures.part.plan, (meter, pictures, described)
    for found in in_order(_read_shard, shared, plan, narrator.progress("quality", len(pictures.part)), engine):
        meter.take(found)


def _read_shard(shared: tuple[QualityMeter, Pictures, npt.NDArray[np.bool_]], number: int) -> ShardReadings:
    meter, pictures, described = shared
    rows = pictures.part.plan.rows(number)
    factual = pictures.part.plan.factual[rows.start : rows.stop]
    return meter.read(pictures.originals(rows), pictures.read(number), factual, described[rows.start : rows.stop])


def read_carried(
    counterfactuals: Counterfactuals,
    probes: Probes,
    hold: Sequence[str],
    narrator: Narrator,
    engine: Engine | None = None,
) -> Carried:
    """Say what redrawn images carry for a probe that reads originals, and the first draw of each level, at its size."""
    attribute, levels, size = counterfactuals.attribute, counterfactuals.levels, probes.size
    pictures, shared = counterfactuals.pictures(size), (probes, counterfactuals.pictures(size), attribute)
    bar = narrator.progress(f"quality at {size} pixels", len(counterfactuals.main))
    found = in_order(_read_first_draws, shared, pictures.part.plan, bar, engine or Engine())
    target = probes.target(attribute)
    read = [np.concatenate(one) for one in zip(*found, strict=True)]
    numbers = (target.numbers(read[0]), target.numbers(read[1])) if target.centres else None
    named = [over_levels(target, one, levels) for one in read]
    return carried_by(probes, named, counterfactuals.cohort.frame, attribute, levels, hold, numbers)


def _read_first_draws(shared: tuple[Probes, Pictures, str], number: int) -> tuple[Readings, Readings]:
    """Read a shard's originals (n, k) and the first draw of every level (n, levels, 1, k)."""
    probes, pictures, attribute = shared
    plan, size = pictures.part.plan, probes.size
    rows = plan.rows(number)
    real = probes.read(pictures.originals(rows, size))[attribute]
    read = [probes.read(seen_at(one, size))[attribute] for one in pictures.batches(number, draws=1)]
    return real, np.concatenate(read).reshape(len(rows), len(plan.levels), 1, -1)


def in_order(
    read: Callable[[Any, int], Result], shared: Any, plan: Plan, bar: AbstractContextManager[Ticker], engine: Engine
) -> list[Result]:
    """Read every shard of a plan."""
    found: dict[int, Result] = {}
    with bar as tick:
        for number, result in engine.each(read, shared, range(plan.n_shards)):
            found[number] = result
            tick(min(len(found) * plan.shard, len(plan.image_ids)))
    return [found[number] for number in range(plan.n_shards)]
