"""Training of the parts of a latent diffusion generator, one after the other: autoencoder, disentangler, denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.console import Narrator
from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.autoencoder import Autoencoder, kl_to_normal, reconstruction_loss
from citlr.generators.diffusion.denoiser import Denoiser, target_of
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.settings import LDMConfig
from citlr.learning.loop import VALIDATION, Trainer, run
from citlr.learning.plan import Budget, Learner, Plan
from citlr.learning.store import Dataset, Rows, spans, stored
from citlr.randomness import hashed_seed

# What the autoencoder's weights depend on.
AUTOENCODER = (
    "size",
    "patch",
    "ae_channels",
    "ae_blocks",
    "latent_channels",
    "local",
    "shortcut",
    "groups",
    "kl_weight",
    "structure",
    "ae_steps",
    "ae_batch",
    "ae_rate",
    "ema",
    "patience",
)
# What no weights depend on: how they are trained in time, and how they are used.
AFTERWARDS = {
    "preset",
    "checkpoint_minutes",
    "accelerator",
    "devices",
    "guidance",
    "detail",
    "spread",
    "support",
    "abduction",
    "eta",
}


@dataclass(frozen=True)
class Workshop:
    """What every part's training needs.

    - `config`: The configuration.
    - `trainer`: The device.
    - `seed`: Seed of the training.
    - `directory`: For checkpoints and caches.
    - `narrator`: Shows the progress.
    - `marks`: Names of the data sets' content.
    """

    config: LDMConfig
    trainer: Trainer
    seed: int
    directory: Path | None
    narrator: Narrator
    marks: tuple[str, ...] = ()

    def key(self, part: str) -> str:
        """Name all that the result of a part depends on, in 16 hexadecimal digits: another key, another training."""
        own = self.config.to_json()
        names = AUTOENCODER if part == "autoencoder" else sorted(set(own) - AFTERWARDS)
        return f"{hashed_seed(self.seed, *self.marks, *(f'{name}={own[name]}' for name in names)):016x}"

    def plan(
        self,
        part: str,
        learners: Mapping[str, Learner],
        update: Callable[[int, torch.Generator], dict[str, float]],
        budget: Budget,
        validate: Callable[[], float] | None = None,
        memory: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Train a part in place by `training.run`; parameters as of `Plan`."""
        plan = Plan(part, learners, update, budget, self.seed, validate, self.key(part), memory or {})
        run(plan, self.trainer, directory=self.directory, narrator=self.narrator)

    def budget(self, steps: int, *, batch: int, rate: float) -> Budget:
        """Budget of `steps` steps of `batch` images at a peak learning rate, with about ten validations."""
        return Budget(
            steps=steps,
            batch_size=batch,
            learning_rate=rate,
            validate_every=max(1, math.ceil(steps / 10)),
            patience=self.config.patience,
            checkpoint_minutes=self.config.checkpoint_minutes,
        )

    def learner(self, module: nn.Module, *, rate: float, decay: float = 0.0, weight_decay: float = 0.0) -> Learner:
        """Adam, with weight decay apart from the gradient where there is any; `decay` is of the moving average."""
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=weight_decay)
        return Learner(module, optimizer, decay=decay)


def train_autoencoder(shop: Workshop, model: Autoencoder, train: Dataset, validation: Dataset) -> None:
    """Train the autoencoder and standardise its latent by the training split.

    The loss is `reconstruction_loss + kl_weight * kl_to_normal`.
    """
    config, trainer = shop.config, shop.trainer
    model.to(trainer.device)
    model.start(train.images(slice(0, VALIDATION)).to(trainer.device))
    learner = shop.learner(model, rate=config.ae_rate, decay=config.ema)
    shape = (-1, *config.latent_shape)

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        rows = trainer.rows(len(train), seed=shop.seed, part="autoencoder", step=step, batch_size=config.ae_batch)
        images = train.images(rows).to(trainer.device)
        noise = torch.randn((len(rows), *shape[1:]), generator=random).to(trainer.device)
        output, mean, deviation = learner.runner(images, noise)
        error = reconstruction_loss(output.float(), images, structure=config.structure)
        kl = kl_to_normal(mean.float(), deviation.float())
        trainer.descend(error + config.kl_weight * kl, learner)
        return {"reconstruction": float(error.detach()), "kl": float(kl.detach())}

    def validate() -> float:
        losses = []
        for part in spans(min(len(validation), VALIDATION), config.ae_batch):
            images = validation.images(part).to(trainer.device)
            output = model.render(model.moments(images)[0])
            losses.append(float(reconstruction_loss(output, images, structure=config.structure)))
        return float(np.mean(losses))

    budget = shop.budget(config.ae_steps, batch=config.ae_batch, rate=config.ae_rate)
    shop.plan("autoencoder", {"autoencoder": learner}, update, budget, validate)
    _standardise(model, train, trainer.device)


@torch.no_grad()
def _standardise(model: Autoencoder, train: Dataset, device: torch.device) -> None:
    total, squares, count = torch.zeros(model.latent_channels), torch.zeros(model.latent_channels), 0
    for part in spans(min(len(train), 2048), 64):
        mean = model.moments(train.images(part).to(device))[0].cpu().double()
        total = total + mean.sum(dim=(0, 2, 3))
        squares = squares + (mean**2).sum(dim=(0, 2, 3))
        count += mean[:, 0].numel()
    average = total / count
    deviation = (squares / count - average**2).clamp_min(1e-12).sqrt()
    if float(deviation.max()) < 1e-5:
        raise InputError("All training images encode alike: they are constant, or nearly so; check the image folder.")
    model.standardise(average.float(), deviation.float())


@torch.no_grad()
def latents(shop: Workshop, model: Autoencoder, data: Dataset, *, name: str) -> Rows:
    """Encode a split once.

    Shapes: gives (n, c, h, w).
    """
    device = shop.trainer.device

    def parts() -> Iterator[tuple[slice, Rows]]:
        for rows in spans(len(data), 64):
            yield rows, model.encode(data.images(rows).to(device)).cpu().numpy()

    file = None if shop.directory is None else shop.directory / f"latents-{name}-{shop.key('autoencoder')}.npy"
    return stored(file, (len(data), *shop.config.latent_shape), parts, dtype="float32")


@dataclass(frozen=True)
class Encoded:
    """A split as the denoiser sees it: latents, disentangled latents, codes.

    - `z`, `hidden` (n, c, h, w): The latent, and phi of it (the same array where there is no disentangler).
    - `codes` (n, width): See `Conditions.encode`.
    """

    z: Rows
    hidden: Rows
    codes: Tensor


def train_denoiser(
    shop: Workshop, model: Denoiser, process: Process, conditions: Conditions, train: Encoded, validation: Encoded
) -> None:
    """Train the denoiser on encoded splits.

    The loss is `mean (net(x_t, t, code) - target)^2`, where x_t and the noise are of `Process.noised`, t of
    `Process.times`, the code has lost some variables (`Conditions.drop`), and the target is of `target_of`.
    """
    config, trainer = shop.config, shop.trainer
    model.to(trainer.device)
    learner = shop.learner(model, rate=config.denoiser_rate, decay=config.ema)

    def loss(rows: npt.NDArray[np.int64], data: Encoded, codes: Tensor, eps: Tensor, times: Tensor) -> Tensor:
        z, hidden = (torch.from_numpy(np.asarray(part[rows])).to(trainer.device) for part in (data.z, data.hidden))
        x, noise, alpha = process.noised(z, hidden, eps.to(trainer.device), times)
        runner = learner.runner if model.training else model
        output = runner(x, times.to(trainer.device), codes.to(trainer.device))
        target = target_of(model.prediction, z=z, noise=noise, alpha_bar=alpha)
        error: Tensor = (output.float() - target).square().mean()
        return error

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        rows = trainer.rows(len(train.z), seed=shop.seed, part="denoiser", step=step, batch_size=config.denoiser_batch)
        codes = conditions.drop(train.codes[rows], probability=config.dropout, generator=random)
        eps = torch.randn((len(rows), *config.latent_shape), generator=random)
        value = trainer.descend(loss(rows, train, codes, eps, process.times(len(rows), random)), learner)
        return {"loss": value}

    def validate() -> float:
        losses = []
        for part in spans(min(len(validation.z), VALIDATION), config.denoiser_batch):
            rows = np.arange(part.start, part.stop)
            random = trainer.random(seed=shop.seed, part="denoiser-validation", step=part.start)
            eps = torch.randn((len(rows), *config.latent_shape), generator=random)
            times = process.times(len(rows), random)
            losses.append(float(loss(rows, validation, validation.codes[rows], eps, times)))
        return float(np.mean(losses))

    budget = shop.budget(config.denoiser_steps, batch=config.denoiser_batch, rate=config.denoiser_rate)
    shop.plan("denoiser", {"denoiser": learner}, update, budget, validate)
