"""The disentanglement report: what a fresh probe still reads of the attribute in latents that are meant to hide it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.diffusion.ldm import LatentDiffusion
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.effects.propensity import Propensity
from citlr.generators.probes.reading import Labelled, Reading, read_attribute
from citlr.randomness import hashed_seed


@dataclass(frozen=True)
class Leakage:
    """Readings of one attribute before and after disentanglement, and the critic's bounds from training.

    - `latent`: Of z0, the autoencoder's latent.
    - `hidden`: Of z~0 = phi(z0); of z0 itself where there is no disentangler.
    - `noised`: Of the noised z~0 that a counterfactual starts from: what the denoiser can still see.
    - `beyond_held`: Of z~0, images weighted by p(a) / p(a | held): a held finding that the latent keeps tells nothing
      of the attribute then. None where the generator holds nothing.
    - `bound_before`, `bound_after`: MINE's bounds (Donsker-Varadhan) on the training split, nats, beyond the held
      covariates where the configuration says so; None without a disentangler.
    """

    attribute: str
    latent: Reading
    hidden: Reading
    noised: Reading
    beyond_held: Reading | None
    bound_before: float | None
    bound_after: float | None


def measure_leakage(
    model: LatentDiffusion, train: Cohort, test: Cohort, *, attribute: str, steps: int = 300, seed: int = 0
) -> Leakage:
    """Train fresh probes on the latents of one split and read those of another."""
    sampler = model.sampler
    sampler.conditions.attribute(attribute)
    # A row whose attribute is not recorded tells nothing of how well it can be read.
    train, test = (split.take(split.frame[attribute].notna().to_numpy()) for split in (train, test))
    parts = [_encode(sampler, split, model.size, seed=seed, name=name) for name, split in (("a", train), ("b", test))]
    levels = [_levels(sampler, split, attribute, train) for split in (train, test)]
    if min(len(np.unique(found)) for found in levels) < 2:
        raise InputError(f"A split has a single level of '{attribute}': nothing can be read of it.")

    def read(name: str, weights: Sequence[npt.NDArray[np.float64] | None] = (None, None)) -> Reading:
        splits = (Labelled(part[name], level, own) for part, level, own in zip(parts, levels, weights, strict=True))
        return read_attribute(*splits, steps=steps, seed=seed, part=name)

    found = {name: read(name) for name in ("latent", "hidden", "noised")}
    beyond = read("hidden", _balance(sampler, (train, test), levels)) if sampler.conditions.held else None
    report = model.report
    return Leakage(
        attribute,
        **found,
        beyond_held=beyond,
        bound_before=report.get("information_before"),
        bound_after=report.get("information_after"),
    )


def _balance(
    sampler: Sampler, splits: Sequence[Cohort], levels: Sequence[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.float64]]:
    """Weigh the images of both splits so that what is held goes with no level: p(a) / p(a | held), at most HEAVIEST."""
    conditions = sampler.conditions
    columns = conditions.columns(conditions.held)
    codes = [conditions.encode(split.frame)[:, columns].numpy() for split in splits]
    odds = Propensity().fit(levels[0], codes[0])
    shares = np.bincount(levels[0]) / len(levels[0])
    return [odds.weights(own, code, shares=shares) for code, own in zip(codes, levels, strict=True)]


@torch.no_grad()
def _encode(sampler: Sampler, split: Cohort, size: int, *, seed: int, name: str) -> dict[str, Tensor]:
    """Latents of a split: as encoded, disentangled, and noised to where a counterfactual starts."""
    parts: dict[str, list[Tensor]] = {"latent": [], "hidden": [], "noised": []}
    codes = sampler.conditions.encode(split.frame)
    random = torch.Generator().manual_seed(hashed_seed(seed, "leakage", name))
    for rows, images in split.batches(size=size, batch_size=64):
        x = torch.from_numpy(images).to(sampler.device)
        z = sampler.autoencoder.encode(x)
        hidden = sampler.disentangle(sampler.encode(x, codes[rows]), codes[rows])
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
