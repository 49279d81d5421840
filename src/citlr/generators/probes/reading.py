"""What a fresh probe reads of an attribute in latents that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from citlr.console import Narrator
from citlr.generators.probes.blocks import Critic
from citlr.learning.loop import Trainer, run, seeded
from citlr.learning.plan import Budget, Learner, Plan
from citlr.learning.store import spans
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


def read_attribute(
    train: Tensor,
    train_levels: npt.NDArray[np.int64],
    test: Tensor,
    test_levels: npt.NDArray[np.int64],
    *,
    steps: int,
    seed: int,
    part: str,
    narrator: Narrator | None = None,
    train_weights: npt.NDArray[np.float64] | None = None,
    test_weights: npt.NDArray[np.float64] | None = None,
) -> Reading:
    """Train a fresh probe on latents (n, c, h, w) and levels (n,), and read others.

    With weights (n,) of the images the reading is that of the population in which they would count so often.

    Shapes: `train, test` (n, c, h, w), `train_levels, test_levels` (n,), `train_weights, test_weights` (n,).

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> levels = np.arange(64) % 2
    >>> z = torch.tensor(random.normal(size=(64, 2, 4, 4)) + 3 * levels[:, None, None, None], dtype=torch.float32)
    >>> read_attribute(z, levels, z, levels, steps=60, seed=0, part="x").auroc > 0.9
    True
    """
    count = int(max(train_levels.max(), test_levels.max())) + 1
    with seeded(seed, f"leakage-{part}"):
        probe = Critic(train.shape[1], count, CHANNELS, min(GRID, train.shape[-1]))
    trainer = Trainer("cpu", "32-true")
    learner = Learner(probe, torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=1e-2), decay=0.98)
    # A fifth of the images choose among the weights: a probe that knows its images by heart reads no others.
    own = np.random.default_rng(hashed_seed(seed, "leakage", part)).permutation(len(train))
    held_out, learnt = own[: max(1, len(own) // 5)], own[max(1, len(own) // 5) :]

    def loss(rows: npt.NDArray[np.int64], random: torch.Generator | None) -> Tensor:
        x = train[rows]
        if random is not None:
            x = x + 0.1 * torch.randn(x.shape, generator=random)
        scores = (learner.runner if probe.training else probe)(x, x.new_zeros(len(x), 0))
        each = functional.cross_entropy(scores, torch.from_numpy(train_levels[rows]), reduction="none")
        return each.mean() if train_weights is None else (each * torch.from_numpy(train_weights[rows]).float()).mean()

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        rows = learnt[trainer.rows(len(learnt), seed=seed, part=f"leakage-{part}", step=step, batch_size=32)]
        return {"loss": trainer.descend(loss(rows, random), learner)}

    def validate() -> float:
        return float(np.mean([float(loss(held_out[rows], None)) for rows in spans(len(held_out), 64)]))

    budget = Budget(steps, batch_size=32, learning_rate=2e-3, validate_every=max(1, steps // 10))
    run(Plan(f"leakage-{part}", {"probe": learner}, update, budget, seed, validate), trainer, narrator=narrator)
    with torch.no_grad():
        scores = torch.cat([probe(test[rows], test.new_zeros(len(test[rows]), 0)) for rows in spans(len(test), 64)])
    return _reading(scores, test_levels, np.ones(len(test)) if test_weights is None else test_weights)


def _reading(scores: Tensor, levels: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> Reading:
    log_odds = functional.log_softmax(scores.double(), dim=1).numpy()
    present = np.unique(levels)
    each = [roc_auc_score(levels == level, log_odds[:, level], sample_weight=weights) for level in present]
    auroc = float(np.mean(each))
    shares = np.bincount(levels, weights=weights)[present] / weights.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    surprise = float(-np.average(log_odds[np.arange(len(levels)), levels], weights=weights))
    return Reading(auroc, max(0.0, entropy - surprise))
