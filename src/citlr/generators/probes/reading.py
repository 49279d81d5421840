"""What a fresh probe reads of an attribute in latents that it was not trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from citlr.console import Narrator
from citlr.generators.probes.parts import Critic
from citlr.learning.loop import seeded
from citlr.learning.session import Session
from citlr.learning.store import spans
from citlr.learning.trainer import Trainer
from citlr.randomness import hashed_seed

# Widths of the fresh probe, and the raster that it averages over: an image's place is not averaged away.
CHANNELS, GRID = (16, 32), 4


@dataclass(frozen=True)
class Reading:
    """What a fresh probe reads of the attribute in latents that it was not trained on.

    - `auroc`: Mean over the levels of the AUROC of each against the others; 0.5 is nothing.
    - `information`: Lower bound of the mutual information with the attribute, nats: entropy less the probe's
      cross-entropy (Barber and Agakov 2003), never below 0. Being taken on other images than the probe was trained on,
      it cannot be too large by overfitting, as the critic's own bound can.
    """

    auroc: float
    information: float


@dataclass(frozen=True)
class Labelled:
    """Latents (n, c, h, w) with their levels (n,), and how often each image counts (n,), once without."""

    z: Tensor
    levels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64] | None = None


def read_attribute(train: Labelled, test: Labelled, *, steps: int, seed: int, part: str) -> Reading:
    """Train a fresh probe on latents and levels, and read others.

    With weights the reading is that of the population in which the images would count so often.
    """
    name, count = f"leakage-{part}", int(max(train.levels.max(), test.levels.max())) + 1
    with seeded(seed, name):
        probe = Critic(train.z.shape[1], count, CHANNELS, min(GRID, train.z.shape[-1]))
    session = Session(Trainer("cpu", "32-true"), seed, None, Narrator(), ema=0.98)
    learner = session.learner(probe, rate=2e-3, weight_decay=1e-2)
    # A fifth of the images choose among the weights: a probe that knows its images by heart reads no others.
    order = np.random.default_rng(hashed_seed(seed, "leakage", part)).permutation(len(train.z))
    held_out, learnt = order[: max(1, len(order) // 5)], order[max(1, len(order) // 5) :]

    def loss(rows: npt.NDArray[np.int64], random: torch.Generator | None) -> Tensor:
        x = train.z[rows]
        if random is not None:
            x = x + 0.1 * torch.randn(x.shape, generator=random)
        scores = (learner.runner if probe.training else probe)(x, x.new_zeros(len(x), 0))
        each = functional.cross_entropy(scores, torch.from_numpy(train.levels[rows]), reduction="none")
        return each.mean() if train.weights is None else (each * torch.from_numpy(train.weights[rows]).float()).mean()

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows = learnt[session.rows(len(learnt), part=name, step=step, batch=32)]
        return {"loss": session.trainer.descend(loss(rows, random), learner)}

    def validate() -> float:
        return float(np.mean([float(loss(held_out[rows], None)) for rows in spans(len(held_out), 64)]))

    session.train(name, {"probe": learner}, update, session.budget(steps, batch=32, rate=2e-3), validate)
    with torch.no_grad():
        parts = [test.z[rows] for rows in spans(len(test.z), 64)]
        scores = torch.cat([probe(x, x.new_zeros(len(x), 0)) for x in parts])
    return _reading(scores, test.levels, np.ones(len(test.z)) if test.weights is None else test.weights)


def _reading(scores: Tensor, levels: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> Reading:
    log_odds = functional.log_softmax(scores.double(), dim=1).numpy()
    present = np.unique(levels)
    each = [roc_auc_score(levels == level, log_odds[:, level], sample_weight=weights) for level in present]
    auroc = float(np.mean(each))
    shares = np.bincount(levels, weights=weights)[present] / weights.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    surprise = float(-np.average(log_odds[np.arange(len(levels)), levels], weights=weights))
    return Reading(auroc, max(0.0, entropy - surprise))
