"""From an image and a level to redrawn images: residualise, encode, sample, decode, restore.

The mean and covariance that an attribute gives an image are taken off (residualise), what is left is encoded, noised
and sampled again under every level, decoded, and given what the level gives (restore).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from citlr.console import Ticker, silent
from citlr.generators.base import BATCH, Images, Level, batches, check_images
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.networks import Autoencoder, Denoiser
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.schedule import NoiseModel, ddim_invert, ddim_sample, noise_of
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.recentring import Recentring
from citlr.generators.effects.support import Support
from citlr.generators.effects.uncertainty import Uncertainty
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.request import Batches, Request, redraw_in_batches
from citlr.randomness import hashed_seed

# Null interventions whose mean stands for what the generator keeps of an image (detail "average").
NULL_DRAWS = 4


@dataclass(frozen=True)
class Sampler:
    """The trained parts, and how they make counterfactuals together.

    - `config`, `conditions`, `process`: What they were built from; see `LatentDiffusion.build`.
    - `alignment`, `latent_alignment`: Of images, which are restored, and of latents, which are not.
    - `autoencoder`, `disentangler`, `denoiser`: The networks; there is a disentangler in the publication's game only.
    - `support`, `uncertainty`, `recentring`: What the training split shows of the attributes.
    - `guidance`: Weight of the condition where a request gives none; see `calibrate`.
    """

    config: LDMConfig
    conditions: Conditions
    process: Process
    alignment: Alignment | None
    autoencoder: Autoencoder
    latent_alignment: Alignment | None
    disentangler: Disentangler | None
    denoiser: Denoiser
    support: Support
    uncertainty: Uncertainty
    recentring: Recentring | None
    guidance: float
    device: torch.device

    def modules(self) -> dict[str, nn.Module]:
        """Name the parts that there are: file stem to module."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    def to(self, device: torch.device) -> Self:
        """Move the networks."""
        for module in self.modules().values():
            module.to(device)
        return self

    def residualise(self, images: Tensor, codes: Tensor) -> Tensor:
        """Take off images (n, c, s, s) what their factual codes (n, width) give them in mean and covariance."""
        if self.alignment is None:
            return images
        residual: Tensor = self.alignment(images, codes)
        return residual

    def restore(self, residual: Tensor, codes: Tensor) -> Tensor:
        """Give residualised images (n, draws, c, s, s) what the levels of `codes` (n, width) give them."""
        if self.alignment is None:
            return residual
        flat = self.alignment.undo(residual.flatten(0, 1), codes.repeat_interleave(residual.shape[1], dim=0))
        return flat.reshape(residual.shape)

    def encode(self, images: Tensor, codes: Tensor) -> Tensor:
        """Residualise and encode: images (n, c, s, s) and factual codes (n, width) to latents (n, c, h, w)."""
        return self.autoencoder.encode(self.residualise(images, codes))

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (n, draws, c, h, w) to (n, draws, c, s, s); the values are not clipped."""
        decoded = self.autoencoder.decode_unclipped(z.flatten(0, 1))
        return decoded.reshape(*z.shape[:2], *decoded.shape[1:])

    def residualise_latent(self, z: Tensor, codes: Tensor) -> Tensor:
        """Take off what the factual levels give latents (n, c, h, w) in mean and covariance; nothing restores it."""
        if self.latent_alignment is None:
            return z
        residual: Tensor = self.latent_alignment(z, codes)
        return residual

    def disentangle(self, z: Tensor, codes: Tensor) -> Tensor:
        """Take all off latents (n, c, h, w) that tells the attribute; `codes` (n, width) are the factual ones."""
        residual = self.residualise_latent(z, codes)
        if self.disentangler is None:
            return residual
        recorded = self.conditions.columns(self.conditions.recorded)
        hidden: Tensor = self.disentangler(residual, codes[:, recorded].to(z.device))
        return hidden

    @torch.no_grad()
    def represent(self, images: Images, frame: pd.DataFrame) -> Images:
        """Give the disentangled latents, one row per image: float32, (n, c * h * w)."""
        check_images(images, self.config.size, self.config.image_channels)
        codes = self.conditions.encode(frame)
        out = np.empty((len(images), math.prod(self.config.latent_shape)), dtype=np.float32)
        for part, rows, filled in batches(images):
            z = self.encode(torch.from_numpy(filled).to(self.device), codes[rows])
            out[part] = self.disentangle(z, codes[rows]).flatten(1).cpu().numpy()[: part.stop - part.start]
        return out

    def redraw(self, images: Images, frame: pd.DataFrame, request: Request, tick: Ticker = silent) -> Images:
        """Answer a whole request, see `LearntGenerator.redraw`."""
        per_batch, on_processor = max(1, BATCH // request.draws), self.device.type == "cpu"
        own = Batches(self.redraw_batch, self.conditions, per_batch, on_processor)
        return redraw_in_batches(images, frame, request, own, tick)

    @torch.no_grad()
    def redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Redraw: `restore(decode(base + sample(level) - sample(factual)) + residual, level)`, see `detail`."""
        requested = request.requested(self.conditions, codes)
        null, changed = self.redraw_residuals(images, codes, ids, request)
        if self.recentring is not None:
            # The error was measured at the generator's own guidance, in proportion to which a change grows.
            share = request.weight / self.guidance if self.guidance else 1.0
            pairs = zip(changed, requested, strict=True)
            changed = [one - share * self.recentring(codes, level) for one, level in pairs]
        redrawn = torch.stack([self.restore(one, level) for one, level in zip(changed, requested, strict=True)], dim=1)
        if self.config.sampling.support == "shown":
            factual = self.restore(null, codes)[:, None]
            redrawn = factual + self.support.of(request.names) * (redrawn - factual)
        return redrawn.clamp(0.0, 1.0)

    @torch.no_grad()
    def redraw_residuals(
        self, images: Tensor, codes: Tensor, ids: list[str], request: Request
    ) -> tuple[Tensor, list[Tensor]]:
        """Redraw images before they are restored: under their own level, and under each that is requested."""
        aligned, sampling = self.residualise(images.to(self.device), codes), self.config.sampling
        z = self.autoencoder.encode(aligned)
        samples = [self._sample(z, codes, ids, level, request) for level in request.levels]
        null = self._null(samples, z, codes, ids, request)
        base = null
        if sampling.detail == "average":
            base = z[:, None] + sampling.spread * (null - self._null_mean(z, codes, ids, request)[:, None])
        elif sampling.detail == "draw":
            base = z[:, None].expand_as(null)
        residual = 0.0 if sampling.detail == "none" else aligned[:, None] - self.decode(z[:, None])
        return self.decode(base) + residual, [self.decode(base + one - null) + residual for one in samples]

    @torch.no_grad()
    def changes(
        self, images: Tensor, codes: Tensor, ids: list[str], requests: Sequence[Request]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Give what each level that images do not have changes of them, residualised, around the image itself.

        One draw of each request. Gives, level by level, rows (k,), their requested codes (k, width), and the changes
        (k, c * s, s): `decode(z + sample(level) - sample(factual)) - decode(z)`. What is the same in several of them is
        computed once, and nothing of levels that an image has already.
        """
        z = self.encode(images.to(self.device), codes)
        plain, null = self.decode(z[:, None])[:, 0].flatten(1, 2), None
        for request in requests:
            if null is None or request.weight != 1.0:  # guided away from the null of the request's own attribute
                null = self._sample(z, codes, ids, None, request)
            for level, requested in zip(request.levels, request.requested(self.conditions, codes), strict=True):
                rows = (requested != codes).any(dim=1).nonzero()[:, 0]
                if not len(rows):
                    continue
                own = rows.to(self.device)
                sampled = self._sample(z[own], codes[rows], [ids[row] for row in rows.tolist()], level, request)
                changed = self.decode(z[own, None] + sampled - null[own])[:, 0].flatten(1, 2)
                yield rows, requested[rows], changed - plain[own]

    def _sample(self, z: Tensor, codes: Tensor, ids: list[str], level: Level | None, request: Request) -> Tensor:
        """Sample latents anew under one level, None being the factual one: (n, draws, c, h, w)."""
        if request.inverts:
            start = self.invert(z, codes, request).repeat_interleave(request.draws, dim=0)
        else:
            start = self._noised(z, codes, ids, level, request)
        sampled = ddim_sample(
            start,
            self.noise_model(codes.repeat_interleave(request.draws, dim=0), request, level, request.weight),
            grid=self.process.grid,
            table=self.process.table,
            eta=self.config.sampling.eta,
            fresh=lambda k: self._noise(ids, level, request, f"step{k}"),
        )
        return sampled.reshape(len(z), request.draws, *z.shape[1:])

    def _null(self, samples: list[Tensor], z: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Pick each image's null intervention (n, draws, c, h, w); sample it where its level was not requested."""
        same = (torch.stack(request.requested(self.conditions, codes)) == codes).all(dim=2).T
        if not bool(same.any(dim=1).all()):
            return self._sample(z, codes, ids, None, request)
        chosen = same.int().argmax(dim=1).to(z.device)
        return torch.stack(samples)[chosen, torch.arange(len(codes), device=z.device)]

    def _null_mean(self, z: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Give the mean of null interventions with noise of their own, (n, c, h, w).

        Their noise is none of the draws': the levels of a draw then differ from the image by the same kind of error,
        and a model that sees no effect has no side on which more noise lies.
        """
        null = dataclasses.replace(
            request,
            draws=1 if request.inverts and self.config.sampling.eta == 0 else NULL_DRAWS,
            seed=hashed_seed("anchor", request.seed),
            shared_seeds=True,
        )
        size = max(1, BATCH // null.draws)
        parts = []
        for begin in range(0, len(z), size):
            rows = [min(row, len(z) - 1) for row in range(begin, begin + size)]
            sampled = self._sample(z[rows], codes[rows], [ids[row] for row in rows], None, null)
            parts.append(sampled.mean(dim=1)[: len(z) - begin])
        return torch.cat(parts)

    def invert(self, z: Tensor, codes: Tensor, request: Request) -> Tensor:
        """Find the noise that leads back to latents (n, c, h, w) under their factual condition."""
        # A restoring denoiser ends at the latent itself, the published one at the disentangled latent.
        clean = z if self.process.restoring else self.disentangle(z, codes)
        model = self.noise_model(codes, request, None, 1.0)
        return ddim_invert(clean, model, grid=self.process.grid, table=self.process.table)

    def _noised(self, z: Tensor, codes: Tensor, ids: list[str], level: Level | None, request: Request) -> Tensor:
        hidden = self.disentangle(z, codes).repeat_interleave(request.draws, dim=0)
        return self.process.start(hidden, self._noise(ids, level, request, "start"))

    def _noise(self, ids: list[str], level: Level | None, request: Request, purpose: str) -> Tensor:
        return request.noise(ids, purpose, level, self.config.latent_shape).to(self.device)

    def noise_model(self, codes: Tensor, request: Request, level: Level | None, weight: float) -> NoiseModel:
        """Predict noise under `level`, guided away from the intervened attribute's null; None is the factual condition.

        `eps(null, held) + w (eps(level, held) - eps(null, held))`: what is held, and attributes not intervened on, are
        the same on both sides, so that guidance strengthens the intervention alone.
        """
        chosen = codes if level is None else self.conditions.intervene(codes, request.names, level)
        null = self.conditions.intervene(codes, request.names, None)
        conditioned, free = chosen.to(self.device), null.to(self.device)

        def predict(x: Tensor, time: int) -> Tensor:
            times = torch.full((len(x),), time, device=x.device)
            alpha = float(self.process.table[time])
            with_level = noise_of(self.denoiser.prediction, self.denoiser(x, times, conditioned), x=x, alpha_bar=alpha)
            if weight == 1.0:
                return with_level
            without = noise_of(self.denoiser.prediction, self.denoiser(x, times, free), x=x, alpha_bar=alpha)
            return without + weight * (with_level - without)

        return predict
