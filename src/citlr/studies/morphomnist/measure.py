"""One model by the protocol: composition, effectiveness, reversibility, minimality, realism, and against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.measures import effect_map, frechet_distance
from citlr.run.rows import Row
from citlr.simulators.morphomnist.world import ATTRIBUTES, WHITE, MorphoSample, measure
from citlr.studies.morphomnist.reader import Reader
from citlr.studies.morphomnist.study import UNCHANGED, Entrant, Floats, Study

CYCLES = (1, 10)
# Weights of the two shares in minimality, as in the benchmark's code.
NEARER, FURTHER = 0.8, 0.2
# (images, their rows, thickness, intensity, seed) -> images.
Redraw = Callable[[Images, pd.DataFrame, Floats, Floats, int], Images]


@dataclass(frozen=True)
class Measures:
    """What all models are measured by.

    - `images` (n, 1, 32, 32): The test digits.
    - `true`: By attribute: exact counterfactuals under its targets.
    - `features`: Names and gives what images are compared in.
    - `chosen` (n,): The attribute whose counterfactual enters minimality and realism, drawn by a coin.
    """

    study: Study
    images: Images
    true: dict[str, Images]
    reader: Reader
    features: Extractor
    real: NDArray[np.float32]
    chosen: NDArray[np.intp]
    cycled: int
    seed: int


def redrawing(entrant: Entrant, generator: CounterfactualGenerator | None, units: MorphoSample) -> Redraw:
    """Give the way in which a model redraws: a trained one by its joint intervention, each image to its own values."""

    def by_generator(images: Images, frame: pd.DataFrame, width: Floats, grey: Floats, seed: int) -> Images:
        assert generator is not None
        drawn = generator.generate(images, frame, attribute=ATTRIBUTES, levels=[(width, grey)], seed=seed)
        return drawn[:, 0, 0]

    def exactly(images: Images, frame: pd.DataFrame, width: Floats, grey: Floats, seed: int) -> Images:
        place = {name: row for row, name in enumerate(units.names)}
        own = units.take([place[name] for name in frame["image_id"]])
        return own.do(thickness=width, intensity=grey).images()

    if entrant.trained:
        return by_generator
    return (lambda images, *_: images.copy()) if entrant.kind == UNCHANGED else exactly


def measured(measures: Measures, redraw: Redraw) -> tuple[Row, dict[str, Images]]:
    """Measure a model; also its counterfactuals by attribute."""
    study, images, seed = measures.study, measures.images, measures.seed
    frame = study.test.frame
    own = (study.test.thickness, study.test.intensity)
    began = time.process_time()
    null = redraw(images, frame, *own, seed)
    changed = {name: redraw(images, frame, *study.targets[name], seed) for name in ATTRIBUTES}
    spent = time.process_time() - began
    back = [
        redraw(changed[name], frame.assign(**dict(zip(ATTRIBUTES, study.targets[name], strict=True))), *own, seed + 1)
        for name in ATTRIBUTES
    ]
    mixed = np.where(measures.chosen[:, None, None, None] == 0, changed["thickness"], changed["intensity"])
    row: dict[str, Any] = {
        "seconds_per_1000": 1000 * spent / (3 * len(images)),
        "composition": composition(measures, redraw),
        "reversibility": float(np.mean([distance(one, images) for one in back])),
        "effectiveness": {name: effectiveness(measures, name, changed[name]) for name in ATTRIBUTES},
        "minimality": minimality(measures, mixed),
        "fid": frechet_distance(measures.real, measures.features(mixed)),
        "truth": {name: against_truth(measures, name, changed[name], null) for name in ATTRIBUTES},
    }
    return row, changed


def distance(a: Images, b: Images) -> float:
    """Mean absolute difference over images and pixels, in 0 to 255."""
    return float(WHITE * np.abs(a - b).mean(dtype=np.float64))


def composition(measures: Measures, redraw: Redraw) -> dict[str, float]:
    """Redraw some images under their own values again and again: distance to the originals by cycle."""
    test = measures.study.test.take(np.arange(measures.cycled))
    images, frame, found = measures.images[: measures.cycled], test.frame, {}
    current = images
    for cycle in range(1, max(CYCLES) + 1):
        current = redraw(current, frame, test.thickness, test.intensity, measures.seed + cycle)
        if cycle in CYCLES:
            found[str(cycle)] = distance(current, images)
    return found


def effectiveness(measures: Measures, attribute: str, changed: Images) -> Row:
    """Mean absolute errors of thickness and intensity, by the reader and by measurement, and the digit's accuracy."""
    wanted = np.stack(measures.study.targets[attribute], axis=1)
    numbers, digits = measures.reader.read(changed)
    own = np.stack(measure(WHITE * changed[:, 0]), axis=1)
    return {
        "read": dict(zip(ATTRIBUTES, np.abs(numbers - wanted).mean(axis=0).tolist(), strict=True)),
        "measured": dict(zip(ATTRIBUTES, np.abs(own - wanted).mean(axis=0).tolist(), strict=True)),
        "digit": float((digits == measures.study.test.digits.labels).mean()),
    }


def minimality(measures: Measures, mixed: Images) -> float:
    """Counterfactual latent divergence (Melistas et al. 2024): lower is closer to the original than real images are.

    `log(.8 exp(p) + .2 exp(q))`: p, the share of originals in the target's group that are as near to the image as its
    counterfactual is; q, the share of originals in its own group that are as far. Nearness is the mean absolute
    difference of features.
    """
    study = measures.study
    before, after = measures.features(measures.images), measures.features(mixed)
    moved = np.abs(after - before).mean(axis=1)
    own = {"thickness": study.test.thickness, "intensity": study.test.intensity}
    scores = []
    for k, name in enumerate(ATTRIBUTES):
        groups = study.group(name, own[name])
        wanted = study.group(name, study.targets[name][k])
        for row in np.flatnonzero(measures.chosen == k):
            apart = np.abs(before - before[row]).mean(axis=1)
            there, here = apart[groups == wanted[row]], apart[groups == groups[row]]
            if len(there):
                shares = float((there <= moved[row]).mean()), float((here >= moved[row]).mean())
                scores.append(np.log(NEARER * np.exp(shares[0]) + FURTHER * np.exp(shares[1])))
    return float(np.mean(scores)) if scores else float("nan")


def against_truth(measures: Measures, attribute: str, changed: Images, null: Images) -> Row:
    """Compare counterfactuals with the exact ones, and the change that was made with the true one."""
    true = measures.true[attribute]
    return {"l1": distance(changed, true), **asdict(effect_map(changed - null, true - measures.images))}
