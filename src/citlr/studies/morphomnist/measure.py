"""One model by the protocol: composition, effectiveness, reversibility, minimality, realism, and against the truth."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.measures import effect_map, frechet_distance
from citlr.learning.loop import seeded
from citlr.learning.session import Session
from citlr.learning.store import Dataset, spans
from citlr.learning.trainer import Trainer
from citlr.run.rows import Row
from citlr.simulators.morphomnist.world import ATTRIBUTES, DIGIT, SIZE, WHITE, MorphoSample, measure
from citlr.studies.morphomnist.study import UNCHANGED, Entrant, Floats, Study

BATCH, RATE, WIDTH = 64, 2e-3, 64


class Reader(nn.Module):
    """Three strided convolutions, 64 features, and a head: two standardised numbers and ten digits.

    >>> Reader()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 12])
    """

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIZE // 8) ** 2, WIDTH), nn.SiLU())
        self.head = nn.Linear(WIDTH, len(ATTRIBUTES) + 10)
        self.register_buffer("centre", torch.zeros(len(ATTRIBUTES)))
        self.register_buffer("spread", torch.ones(len(ATTRIBUTES)))

    def features(self, images: Tensor) -> Tensor:
        """Give features (n, 64) of images (n, 1, 32, 32) in [0, 1]."""
        found: Tensor = self.body(images * 2 - 1)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Give standardised thickness and intensity and the logits of the digits, (n, 12)."""
        found: Tensor = self.head(self.features(images))
        return found

    @torch.no_grad()
    def read(self, images: Images) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Read numbers (n, 2), thickness in pixels and intensity in 0 to 255, and digits (n,)."""
        found = torch.cat([self(torch.from_numpy(images[part])) for part in spans(len(images), BATCH)])
        count = len(ATTRIBUTES)
        numbers = (found[:, :count] * self.spread + self.centre).double().numpy()
        return numbers, found[:, count:].argmax(dim=1).numpy()


def fit_reader(splits: tuple[Cohort, Cohort], *, steps: int, seed: int, directory: Path, narrator: Narrator) -> Reader:
    """Train a reader on (train, validation): squared errors of the numbers and cross-entropy of the digit."""
    sets = [Dataset.of(part, size=SIZE, directory=directory) for part in splits]
    numbers = [torch.tensor(part.frame[list(ATTRIBUTES)].to_numpy(dtype=np.float32)) for part in splits]
    digits = [torch.tensor(part.frame[DIGIT].astype(int).to_numpy()) for part in splits]
    with seeded(seed, "reader"):
        net = Reader()
    net.centre.copy_(numbers[0].mean(dim=0))
    net.spread.copy_(numbers[0].std(dim=0))
    session = Session(Trainer("cpu", "32-true"), seed, directory, narrator, ema=0.98)
    learner = session.learner(net, rate=RATE, weight_decay=1e-2)

    def loss(which: int, rows: NDArray[np.int64]) -> Tensor:
        found = (learner.runner if net.training else net)(sets[which].images(rows))
        wanted = (numbers[which][rows] - net.centre) / net.spread
        count = len(ATTRIBUTES)
        return functional.mse_loss(found[:, :count], wanted) + functional.cross_entropy(
            found[:, count:], digits[which][rows]
        )

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows = session.rows(len(sets[0]), part="reader", step=step, batch=BATCH)
        return {"loss": session.trainer.descend(loss(0, rows), learner)}

    def validate() -> float:
        return float(loss(1, np.arange(len(sets[1]))))

    keyed = session.keyed(steps, *(data.mark for data in sets))
    keyed.train("reader", {"reader": learner}, update, session.budget(steps, batch=BATCH, rate=RATE), validate)
    net.eval()
    return net


CYCLES = (1, 10)
# Weights of the two shares in minimality, as in the benchmark's code.
NEARER, FURTHER = 0.8, 0.2
# (images, their rows, thickness, intensity, seed) -> images.
Redraw = Callable[[Images, pd.DataFrame, Floats, Floats, int], Images]


@dataclass(frozen=True)
class Measures:
    """What all models are measured by.

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
