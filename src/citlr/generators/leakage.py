"""The disentanglement report: what a fresh probe still reads of the attribute in latents that are meant to hide it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from citlr.console import Narrator
from citlr.errors import InputError
from citlr.generators.base import hashed_seed
from citlr.generators.disentangle import Critic
from citlr.generators.fitting import seeded
from citlr.generators.ldm import LatentDiffusion
from citlr.generators.sampling import Sampler
from citlr.generators.store import spans
from citlr.generators.training import Budget, Learner, Plan, Trainer, run

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

# Widths of the fresh probe, and the raster that it averages over: an image's place is not averaged away.
CHANNELS, GRID = (16, 32), 4


@dataclass(frozen=True)
class Reading:
    """What a fresh probe reads of the attribute in latents that it was not trained on.

    Parameters
    ----------
    auroc : float
        Mean over the levels of the AUROC of each against the others; 0.5 is nothing.
    information : float
        Lower bound of the mutual information with the attribute, nats: entropy less the probe's cross-entropy
        (Barber and Agakov 2003), never below 0. Being taken on other images than the probe was trained on, it cannot be
        too large by overfitting, as the critic's own bound can.
    """

    auroc: float
    information: float


@dataclass(frozen=True)
class Leakage:
    """Readings of one attribute before and after disentanglement, and the critic's bounds from training.

    Parameters
    ----------
    attribute : str
        What was to be hidden.
    latent : Reading
        Of z0, the autoencoder's latent.
    hidden : Reading
        Of z~0 = phi(z0); of z0 itself where there is no disentangler.
    noised : Reading
        Of the noised z~0 that a counterfactual starts from: what the denoiser can still see.
    bound_before, bound_after : float or None
        MINE's bounds (Donsker-Varadhan) on the training split, nats, beyond the held covariates where the configuration
        says so; None without a disentangler.
    """

    attribute: str
    latent: Reading
    hidden: Reading
    noised: Reading
    bound_before: float | None
    bound_after: float | None

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON."""
        return asdict(self)


def measure_leakage(
    model: LatentDiffusion,
    train: Cohort,
    test: Cohort,
    *,
    attribute: str,
    steps: int = 300,
    seed: int = 0,
    narrator: Narrator | None = None,
) -> Leakage:
    """Train fresh probes on the latents of one split and read those of another.

    Parameters
    ----------
    model : LatentDiffusion
        A fitted one.
    train, test : Cohort
        What the probes learn from, and what they are judged on: other patients.
    attribute : str
        A set of levels, or a number, which is read as below or above its median.
    steps, seed
        Of the probes' training.
    narrator : Narrator, optional
        Shows progress.

    Raises
    ------
    InputError
        If the attribute is unknown, or a split holds one level only.
    """
    sampler = model._fitted
    sampler.conditions.attribute(attribute)
    parts = [_encode(sampler, split, model.size, seed=seed, name=name) for name, split in (("a", train), ("b", test))]
    levels = [_levels(sampler, split, attribute, train) for split in (train, test)]
    if min(len(np.unique(found)) for found in levels) < 2:
        raise InputError(f"A split has a single level of '{attribute}': nothing can be read of it.")
    found = {}
    for name in ("latent", "hidden", "noised"):
        found[name] = read_attribute(
            parts[0][name], levels[0], parts[1][name], levels[1], steps=steps, seed=seed, part=name, narrator=narrator
        )
    report = model.report
    return Leakage(
        attribute, **found, bound_before=report.get("information_before"), bound_after=report.get("information_after")
    )


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
) -> Reading:
    """Train a fresh probe on latents (n, c, h, w) and levels (n,), and read others.

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
        return functional.cross_entropy(scores, torch.from_numpy(train_levels[rows]))

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        rows = learnt[trainer.rows(len(learnt), seed=seed, part=f"leakage-{part}", step=step, batch_size=32)]
        return {"loss": trainer.descend(loss(rows, random), learner)}

    def validate() -> float:
        return float(np.mean([float(loss(held_out[rows], None)) for rows in spans(len(held_out), 64)]))

    budget = Budget(steps, batch_size=32, learning_rate=2e-3, validate_every=max(1, steps // 10))
    run(Plan(f"leakage-{part}", {"probe": learner}, update, budget, seed, validate), trainer, narrator=narrator)
    with torch.no_grad():
        scores = torch.cat([probe(test[rows], test.new_zeros(len(test[rows]), 0)) for rows in spans(len(test), 64)])
    return _reading(scores, test_levels)


def _reading(scores: Tensor, levels: npt.NDArray[np.int64]) -> Reading:
    log_odds = functional.log_softmax(scores.double(), dim=1).numpy()
    present = np.unique(levels)
    auroc = float(np.mean([roc_auc_score(levels == level, log_odds[:, level]) for level in present]))
    shares = np.bincount(levels)[present] / len(levels)
    entropy = float(-(shares * np.log(shares)).sum())
    surprise = float(-log_odds[np.arange(len(levels)), levels].mean())
    return Reading(auroc, max(0.0, entropy - surprise))


@torch.no_grad()
def _encode(sampler: Sampler, split: Cohort, size: int, *, seed: int, name: str) -> dict[str, Tensor]:
    """Latents of a split: as encoded, disentangled, and noised to where a counterfactual starts."""
    parts: dict[str, list[Tensor]] = {"latent": [], "hidden": [], "noised": []}
    codes = sampler.conditions.encode(split.frame)
    random = torch.Generator().manual_seed(hashed_seed(seed, "leakage", name))
    for rows, images in split.batches(size=size, batch_size=64):
        z = sampler.autoencoder.encode(torch.from_numpy(images).to(sampler.device))
        hidden = sampler.hide(z, codes[rows])
        noise = torch.randn(hidden.shape, generator=random).to(hidden.device)
        for key, value in (("latent", z), ("hidden", hidden), ("noised", sampler.process.start(hidden, noise))):
            parts[key].append(value.cpu())
    return {key: torch.cat(values) for key, values in parts.items()}


def _levels(sampler: Sampler, split: Cohort, attribute: str, train: Cohort) -> npt.NDArray[np.int64]:
    variable = sampler.conditions.attribute(attribute)
    if not variable.levels:
        above = split.frame[attribute].to_numpy(dtype=np.float64) > float(train.frame[attribute].median())
        return np.asarray(above, dtype=np.int64)
    code = sampler.conditions.encode(split.frame)[:, sampler.conditions.span(attribute)]
    return np.asarray(code[:, :-1].argmax(dim=1).numpy(), dtype=np.int64)
