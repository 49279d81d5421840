"""What is read off originals and redrawn images at one size: what they show of the attribute, and of whom."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.nn import functional

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.carried import measure_carried
from citlr.audit.measures.slope import carried_slope
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.records import Carried
from citlr.console import Narrator, Ticker
from citlr.data.counterfactuals import Plan
from citlr.generators.edits.generator import some_rows
from citlr.generators.on_disk import ImagesOnDisk
from citlr.generators.probes.probe import Probes
from citlr.generators.quality.meter import QualityMeter, Readings, ShardReadings, over_levels
from citlr.generators.variables import as_level
from citlr.learning.store import spans
from citlr.predictors.specs import InputSpec
from citlr.run.engines import Engine
from citlr.run.parcel import Result
from citlr.text import listed_few

# Sides of the fields of pixels that patients are told apart by, and images that are compared at most.
FIELDS, MOST_COMPARED = 16, 4000
# A redrawn image is another patient's where its squared distance to that original is below a quarter of that to its
# own, which is no small one: of two images that are drawn at random it is 2.
QUARTER, NO_SMALL = 0.25, 0.1
# Images of a level whose mean is what they have in common; of fewer it is half of what each shows.
A_GROUP = 10


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
    """Have a meter take in every shard, in order, however they are read; `described` (n,) as of `QualityMeter.read`."""
    plan, shared = pictures.part.plan, (meter, pictures, described)
    for found in in_order(_read_shard, shared, plan, narrator.progress("quality", len(pictures.part)), engine):
        meter.take(found)


def _read_shard(shared: tuple[QualityMeter, Pictures, npt.NDArray[np.bool_]], number: int) -> ShardReadings:
    meter, pictures, described = shared
    rows = pictures.part.plan.rows(number)
    factual = pictures.part.plan.factual[rows.start : rows.stop]
    return meter.read(pictures.originals(rows), pictures.read(number), factual, described[rows.start : rows.stop])


def find_strangers(
    counterfactuals: Counterfactuals, seed: int, narrator: Narrator, engine: Engine
) -> tuple[tuple[str, str], ...] | None:
    """Name the images that somebody else has redrawn as another patient's, with the image that each shows.

    All originals are compared, and redrawn images of MOST_COMPARED at most. Ours are nobody else's: None.
    """
    if not isinstance(counterfactuals.generator, ImagesOnDisk):
        return None
    plan = counterfactuals.main.plan
    names, patients = plan.image_ids, np.unique(plan.patient_ids, return_inverse=True)[1]
    compared = np.zeros(len(names), dtype=bool)
    compared[some_rows(patients, MOST_COMPARED, seed)] = True
    parts = []
    for own in (counterfactuals.main, counterfactuals.null):
        if own is None:
            continue
        pictures = Pictures(own, counterfactuals.cohort, plan.size)
        bar = narrator.progress("quality, whose images they are", len(own))
        found = in_order(_outline_shard, (pictures, compared), own.plan, bar, engine)
        parts.append([np.concatenate(one) for one in zip(*found, strict=True)])
    redrawn = np.concatenate([part[1] for part in parts], axis=1)
    numbers = counterfactuals.null is not None  # no image is at a level then but by chance
    recorded = None if numbers else recorded_index(pd.Series(plan.factual), plan.levels)
    shown = strangers(redrawn, parts[0][0], np.flatnonzero(compared), patients, recorded)
    pairs = zip(np.flatnonzero(compared), shown, strict=True)
    mixed_up = tuple((names[row], names[other]) for row, other in pairs if other >= 0)
    if mixed_up:
        told = listed_few([f"{one} as {other}" for one, other in mixed_up])
        narrator.say(f"quality: images that are redrawn as another patient's: {len(mixed_up)}, {told}")
    return mixed_up


def _outline_shard(shared: tuple[Pictures, npt.NDArray[np.bool_]], number: int) -> tuple[Readings, Readings]:
    """Outline a shard's originals (n, width), and those compared, redrawn (k, levels, width)."""
    pictures, compared = shared
    rows = pictures.part.plan.rows(number)
    drawn = pictures.read(number)[compared[rows.start : rows.stop]].mean(axis=2)
    redrawn = outline(drawn.reshape(-1, *drawn.shape[2:]))
    return outline(pictures.originals(rows)), redrawn.reshape(*drawn.shape[:2], redrawn.shape[1])


def outline(images: npt.NDArray[np.float32]) -> Readings:
    """Give the grey values of the fields of images (n, c, s, s), of no mean and one deviation each: (n, width)."""
    grey = torch.from_numpy(np.ascontiguousarray(images)).mean(dim=1, keepdim=True)
    fields = functional.adaptive_avg_pool2d(grey, min(FIELDS, images.shape[-1])).flatten(1)
    rest = fields - fields.mean(dim=1, keepdim=True)
    return (rest / rest.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6)).numpy()


def strangers(
    redrawn: Readings,
    originals: Readings,
    rows: npt.NDArray[np.int64],
    patients: npt.NDArray[Any],
    recorded: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Give the original of another patient that each redrawn image shows, or -1: (k,).

    What all originals have in common is taken off. Where redrawing leaves so little of the patients that most images
    are nearer to some other one, only what most images show counts: files in another order. It has to be so as well
    where of each level is taken off what its images, `recorded` with it, have in common: else whoever is redrawn under
    another level, and looks so, is one of the others who do.

    Shapes: outlines `redrawn` (k, levels, width) of `originals` (n, width), `rows` (k,) among these, `patients` (n,),
    `recorded` (n,): the level's index, or -1.
    """
    common, found = originals.mean(axis=0), np.full(len(rows), -1)
    of = np.full(len(originals), -1) if recorded is None else recorded
    sizes = zip(*np.unique(of, return_counts=True), strict=True)
    means = {level: originals[of == level].mean(axis=0) for level, count in sizes if level >= 0 and count >= A_GROUP}
    known, within = originals - common, originals - np.stack([means.get(level, common) for level in of])
    for level in range(redrawn.shape[1]):
        shown = _shown(redrawn[:, level] - common, known, rows, patients)
        if means:
            so_too = _shown(redrawn[:, level] - means.get(level, common), within, rows, patients) >= 0
            shown = np.where(so_too, shown, -1)
        found = np.where(shown >= 0, shown, found)
    return found


def _shown(
    redrawn: Readings, known: Readings, rows: npt.NDArray[np.int64], patients: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Give the original `known` (n, width) of another patient that each image (k, width) shows, or -1: (k,)."""
    known = _unit(known)
    near, which = np.empty((2, len(rows)), dtype=np.float32), np.empty(len(rows), dtype=np.int64)
    for part in spans(len(rows), 256):
        alike = _unit(redrawn[part]) @ known.T
        own = patients[rows[part], None] == patients
        near[:, part] = np.where(own, alike, -1).max(axis=1), alike.max(axis=1)
        which[part] = alike.argmax(axis=1)
    its, least = 1 - near
    shown = (its > NO_SMALL) & (least < QUARTER * its)
    tell = (least < its).mean() <= 0.5 or shown.mean() > 0.5
    return np.where(shown & tell, which, -1)


def _unit(rows: Readings) -> Readings:
    unit: Readings = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)
    return unit


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
