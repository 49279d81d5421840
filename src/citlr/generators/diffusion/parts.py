"""Training of the parts of a latent diffusion generator: autoencoder and denoiser, and the latents between them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.networks import Autoencoder, Denoiser, kl_to_normal, reconstruction_loss
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.schedule import target_of
from citlr.generators.diffusion.settings import AutoencoderSettings, DenoiserSettings
from citlr.learning.beside import AT_A_TIME
from citlr.learning.loop import VALIDATION
from citlr.learning.session import Session
from citlr.learning.store import Dataset, Rows, Stream, spans, stored


def train_autoencoder(
    session: Session, settings: AutoencoderSettings, model: Autoencoder, train: Dataset, validation: Dataset
) -> None:
    """Train the autoencoder by `reconstruction_loss + kl_weight * kl_to_normal`, and standardise its latent."""
    device = session.device
    # The moving average begins with these weights.
    model.to(device).start(train.images(slice(0, VALIDATION)).to(device))
    learner = session.learner(model, rate=settings.ae_rate)
    with torch.no_grad():
        shape = model.moments(train.images(slice(0, 1)).to(device))[0].shape[1:]

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows, own = session.whole(len(train), part="autoencoder", step=step, batch=settings.ae_batch)
        noise = torch.randn((len(rows), *shape), generator=random)[own]
        mine = rows[own]

        def losses(part: slice) -> tuple[Tensor, ...]:
            images = session.trainer.put(train.images(mine[part]))
            output, mean, deviation = learner.runner(images, session.trainer.put(noise[part]))
            error = reconstruction_loss(output.float(), images)
            kl = kl_to_normal(mean.float(), deviation.float())
            return error + settings.kl_weight * kl, error, kl

        _, error, kl = session.trainer.descend_by_halves(losses, len(mine), learner)
        return {"reconstruction": error, "kl": kl}

    def validation_loss(part: slice) -> float:
        images = validation.images(part).to(device)
        return float(reconstruction_loss(model.render(model.moments(images)[0]), images))

    validate = session.mean_of(validation_loss, len(validation), settings.ae_batch)
    budget = session.budget(settings.ae_steps, batch=settings.ae_batch, rate=settings.ae_rate)
    session.train("autoencoder", {"autoencoder": learner}, update, budget, validate)
    _standardise(model, train, device)


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
def latents(session: Session, model: Autoencoder, data: Dataset, *, name: str) -> Rows:
    """Encode a split once, (n, c, h, w), in half precision: what that rounds off is small beside a step's noise."""

    def encode(rows: slice) -> Rows:
        return model.encode(data.images(rows).to(session.device)).cpu().numpy()

    def parts() -> Iterator[tuple[slice, Rows]]:
        # Some batches at a time, for memory's sake.
        every = list(spans(len(data), 64))
        for some in spans(len(every), AT_A_TIME):
            yield from zip(every[some], session.trainer.each(encode, every[some]), strict=True)

    shape = (len(data), *encode(slice(0, 1)).shape[1:])
    return stored(session.file(f"latents-{name}"), shape, parts, dtype="float16")


@dataclass(frozen=True)
class Encoded:
    """A split as the denoiser sees it: latents and disentangled latents (n, c, h, w), and codes (n, width)."""

    z: Stream
    hidden: Stream
    codes: Tensor


def train_denoiser(
    session: Session,
    settings: DenoiserSettings,
    model: Denoiser,
    process: Process,
    conditions: Conditions,
    splits: tuple[Encoded, Encoded],
) -> None:
    """Train the denoiser on encoded splits, the training split first.

    The loss is `mean (net(x_t, t, code) - target)^2`, where x_t and the noise are of `Process.noised`, t of
    `Process.times`, the code has lost some variables (`Conditions.drop`), and the target is of `target_of`.
    """
    train, validation = splits
    learner, shape = session.learner(model, rate=settings.denoiser_rate), train.z.rows.shape[1:]

    def loss(rows: npt.NDArray[np.int64], data: Encoded, codes: Tensor, eps: Tensor, times: Tensor) -> Tensor:
        put = session.trainer.put
        z, hidden = (put(part[rows]) for part in (data.z, data.hidden))
        x, noise, alpha = process.noised(z, hidden, put(eps), times)
        runner = learner.runner if model.training else model
        output = runner(x, put(times), put(codes))
        target = target_of(model.prediction, z=z, noise=noise, alpha_bar=alpha)
        error: Tensor = (output.float() - target).square().mean()
        return error

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows, own = session.whole(len(train.z), part="denoiser", step=step, batch=settings.denoiser_batch)
        codes = conditions.drop(train.codes[rows], probability=settings.dropout, generator=random)
        eps = torch.randn((len(rows), *shape), generator=random)
        times = process.times(len(rows), random)
        mine, given = rows[own], (codes[own], eps[own], times[own])

        def losses(part: slice) -> tuple[Tensor]:
            return (loss(mine[part], train, *(one[part] for one in given)),)

        return {"loss": session.trainer.descend_by_halves(losses, len(mine), learner)[0]}

    def validation_loss(part: slice) -> float:
        rows = np.arange(part.start, part.stop)
        random = session.random("denoiser-validation", part.start)
        eps = torch.randn((len(rows), *shape), generator=random)
        times = process.times(len(rows), random)
        return float(loss(rows, validation, validation.codes[rows], eps, times))

    validate = session.mean_of(validation_loss, len(validation.z), settings.denoiser_batch)
    budget = session.budget(settings.denoiser_steps, batch=settings.denoiser_batch, rate=settings.denoiser_rate)
    session.train("denoiser", {"denoiser": learner}, update, budget, validate)
