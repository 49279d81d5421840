"""From an image and a level to redrawn images: abduction, intervention, the walk back, decoding."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from citlr.console import Ticker, silent
from citlr.errors import InputError, did_you_mean
from citlr.generators.base import Images, Level
from citlr.generators.batches import BATCH, batches, check_images
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.autoencoder import Autoencoder
from citlr.generators.diffusion.denoiser import Denoiser, noise_of
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.schedule import NoiseModel, walk_down, walk_up
from citlr.generators.diffusion.settings import ABDUCTIONS, LDMConfig
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.recentring import Recentring
from citlr.generators.effects.support import Support
from citlr.generators.effects.uncertainty import Uncertainty
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.hiding import Secret
from citlr.randomness import hashed_seed, keyed_noise

# Null interventions whose mean stands for what the generator keeps of an image (detail "average").
ANCHORS = 4


@dataclass(frozen=True)
class Request:
    """One call of `redraw`, checked: fields as of its parameters, `names` being the attributes together."""

    names: tuple[str, ...]
    levels: tuple[Level, ...]
    draws: int
    seed: int
    guidance: float
    shared_seeds: bool
    invert: bool


@dataclass(frozen=True)
class Sampler:
    """The trained parts, and how they make counterfactuals together.

    - `config`, `conditions`, `secret`, `process`: What they were built from; see `assemble`.
    - `alignment`, `latent_alignment`: Of images, which are led back, and of latents, which are not.
    - `autoencoder`, `disentangler`, `denoiser`: The networks; a CLDM has no disentangler.
    - `support`, `uncertainty`, `recentring`: What the training split shows of the attributes.
    - `guidance`: Weight of the condition where a call gives none; see `calibrate`.
    - `device`: Where images are redrawn.
    """

    config: LDMConfig
    conditions: Conditions
    secret: Secret
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
        """Name the networks that there are: file stem to module."""
        found: dict[str, nn.Module] = {
            "autoencoder": self.autoencoder,
            "denoiser": self.denoiser,
            "support": self.support,
            "uncertainty": self.uncertainty,
        }
        if self.disentangler is not None:
            found["disentangler"] = self.disentangler
        if self.alignment is not None:
            found["alignment"] = self.alignment
        if self.latent_alignment is not None:
            found["latent_alignment"] = self.latent_alignment
        if self.recentring is not None:
            found["recentring"] = self.recentring
        return found

    def to(self, device: torch.device) -> Self:
        """Move the networks."""
        for module in self.modules().values():
            module.to(device)
        return self

    def align(self, images: Tensor, codes: Tensor) -> Tensor:
        """Take off images (n, 1, s, s) what their factual codes (n, width) give them in mean and covariance."""
        if self.alignment is None:
            return images
        aligned: Tensor = self.alignment(images, codes)
        return aligned

    def lead(self, aligned: Tensor, codes: Tensor) -> Tensor:
        """Give aligned images (n, draws, 1, s, s) what the levels of `codes` (n, width) give them."""
        if self.alignment is None:
            return aligned
        flat = self.alignment.undo(aligned.flatten(0, 1), codes.repeat_interleave(aligned.shape[1], dim=0))
        return flat.reshape(aligned.shape)

    def encode(self, images: Tensor, codes: Tensor) -> Tensor:
        """Align and encode: images (n, 1, s, s) and factual codes (n, width) to latents (n, c, h, w)."""
        z: Tensor = self.autoencoder.encode(self.align(images, codes))
        return z

    def paint(self, z: Tensor) -> Tensor:
        """Decode latents (n, draws, c, h, w) to (n, draws, 1, s, s); the grey values are not clipped."""
        painted = self.autoencoder.paint(z.flatten(0, 1))
        return painted.reshape(*z.shape[:2], *painted.shape[1:])

    def settle(self, z: Tensor, codes: Tensor) -> Tensor:
        """Take off what the factual levels give latents (n, c, h, w) in mean and covariance; no way leads back."""
        if self.latent_alignment is None:
            return z
        settled: Tensor = self.latent_alignment(z, codes)
        return settled

    def hide(self, z: Tensor, codes: Tensor) -> Tensor:
        """Give phi of latents (n, c, h, w); `codes` (n, width) are the factual ones."""
        if self.disentangler is None:
            return z
        hidden: Tensor = self.disentangler(self.settle(z, codes), codes[:, self.secret.columns].to(z.device))
        return hidden

    @torch.no_grad()
    def reconstruct(self, images: Images) -> Images:
        """Encode and decode images (n, 1, s, s) in [0, 1], without alignment; errors as of `check_images`."""
        check_images(images, self.config.size)
        out = np.empty_like(images)
        for part, filled in batches(images, BATCH):
            x = torch.from_numpy(filled).to(self.device)
            out[part] = self.autoencoder.decode(self.autoencoder.encode(x)).cpu().numpy()[: part.stop - part.start]
        return out

    @torch.no_grad()
    def represent(self, images: Images, frame: pd.DataFrame) -> Images:
        """Give the disentangled latents, one row per image: float32, (n, c * h * w)."""
        check_images(images, self.config.size)
        codes = self.conditions.encode(frame)
        out = np.empty((len(images), math.prod(self.config.latent_shape)), dtype=np.float32)
        for part, filled in batches(images, BATCH):
            rows = [min(row, part.stop - 1) for row in range(part.start, part.start + len(filled))]
            z = self.hide(self.encode(torch.from_numpy(filled).to(self.device), codes[rows]), codes[rows])
            out[part] = z.flatten(1).cpu().numpy()[: part.stop - part.start]
        return out

    def redraw(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: str | Sequence[str],
        levels: Sequence[Level],
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        abduction: str | None = None,
        tick: Ticker = silent,
    ) -> Images:
        """Redraw images under each level; see `LatentDiffusion.generate`."""
        request = self.request(attribute, levels, draws, seed, guidance, shared_seeds, abduction)
        check_images(images, self.config.size)
        if len(frame) != len(images):
            raise InputError(f"{len(images)} images came with {len(frame)} rows; every image needs its row.")
        codes = self.conditions.encode(frame)
        ids = frame["image_id"].astype(str).tolist()
        size = self.config.size
        out = np.empty((len(images), len(levels), draws, 1, size, size), dtype=np.float32)
        per_batch = max(1, BATCH // draws)
        for part, filled in batches(images, per_batch):
            rows = [min(row, part.stop - 1) for row in range(part.start, part.start + per_batch)]
            redrawn = self._redraw_batch(torch.from_numpy(filled), codes[rows], [ids[row] for row in rows], request)
            out[part] = redrawn[: part.stop - part.start]
            tick(part.stop)
        return out

    def request(
        self,
        attribute: str | Sequence[str],
        levels: Sequence[Level],
        draws: int,
        seed: int,
        guidance: float | None,
        shared_seeds: bool,
        abduction: str | None,
    ) -> Request:
        """Check the arguments of `redraw`, and keep them."""
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        chosen = abduction or self.config.abduction
        if chosen not in ABDUCTIONS:
            raise InputError(f"abduction='{chosen}' is not known.{did_you_mean(chosen, ABDUCTIONS)}")
        if not levels or draws < 1:
            raise InputError(f"{len(levels)} levels and {draws} draws were asked for; at least one of each is needed.")
        invert = chosen == "inversion"
        if invert and self.config.eta == 0 and draws != 1:
            raise InputError(
                f"Inversion without added noise (eta=0) gives one image per level, but {draws} draws were asked for; "
                "set draws=1, eta above 0, or abduction='noise'."
            )
        for level in levels:  # Unknown names and levels are found before anything is computed.
            self.conditions.intervene(torch.zeros(1, self.conditions.width), names, level)
        weight = self.guidance if guidance is None else float(guidance)
        return Request(names, tuple(levels), draws, seed, weight, shared_seeds, invert)

    @torch.no_grad()
    def _redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Images:
        """Redraw: `lead(paint(base + walk(level) - walk(factual)) + lost, level)`, see `LDMConfig.detail`."""
        asked = self._asked(codes, request)
        own, changed = self.redraw_aligned(images, codes, ids, request)
        if self.recentring is not None:
            # The error was measured at the generator's own guidance, in proportion to which a change grows.
            share = request.guidance / self.guidance if self.guidance else 1.0
            changed = [one - share * self.recentring(codes, level) for one, level in zip(changed, asked, strict=True)]
        redrawn = torch.stack([self.lead(one, level) for one, level in zip(changed, asked, strict=True)], dim=1)
        if self.config.support == "shown":
            factual = self.lead(own, codes)[:, None]
            redrawn = factual + self.support.of(request.names) * (redrawn - factual)
        return redrawn.clamp(0.0, 1.0).cpu().numpy()

    @torch.no_grad()
    def redraw_aligned(
        self, images: Tensor, codes: Tensor, ids: list[str], request: Request
    ) -> tuple[Tensor, list[Tensor]]:
        """Redraw images as they are before they are led to a level: under their own, and under each asked for."""
        x, config = images.to(self.device), self.config
        aligned = self.align(x, codes)
        z = self.autoencoder.encode(aligned)
        walks = [self._walk(z, codes, ids, level, request) for level in request.levels]
        null = self._null(walks, self._asked(codes, request), z, codes, ids, request)
        base = null
        if config.detail == "average":
            base = z[:, None] + config.spread * (null - self._anchor(z, codes, ids, request)[:, None])
        elif config.detail == "draw":
            base = z[:, None].expand_as(null)
        lost = 0.0 if config.detail == "none" else aligned[:, None] - self.paint(z[:, None])
        return self.paint(base) + lost, [self.paint(base + walk - null) + lost for walk in walks]

    def _asked(self, codes: Tensor, request: Request) -> list[Tensor]:
        return [self.conditions.intervene(codes, request.names, level) for level in request.levels]

    def _walk(self, z: Tensor, codes: Tensor, ids: list[str], level: Level | None, request: Request) -> Tensor:
        """Redraw latents under one level, None being the factual one: (n, draws, c, h, w)."""
        start = self._abduct(z, codes, request)
        down = walk_down(
            start if start is not None else self._noised(z, codes, ids, level, request),
            self._model(codes.repeat_interleave(request.draws, dim=0), request, level, request.guidance),
            grid=self.process.grid,
            table=self.process.table,
            eta=self.config.eta,
            fresh=lambda k: self._noise(ids, level, request, f"step{k}"),
        )
        return down.reshape(len(z), request.draws, *z.shape[1:])

    def _null(
        self, walks: list[Tensor], asked: list[Tensor], z: Tensor, codes: Tensor, ids: list[str], request: Request
    ) -> Tensor:
        """Pick each image's null intervention (n, draws, c, h, w); walk it where its level was not asked for."""
        same = (torch.stack(asked) == codes).all(dim=2).T
        if not bool(same.any(dim=1).all()):
            return self._walk(z, codes, ids, None, request)
        chosen = same.int().argmax(dim=1).to(z.device)
        return torch.stack(walks)[chosen, torch.arange(len(codes), device=z.device)]

    def _anchor(self, z: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Give the mean of null interventions with noise of their own, (n, c, h, w).

        Their noise is none of the draws': the levels of a draw then differ from the image by the same kind of error,
        and a model that sees no effect has no side on which more noise lies.
        """
        wanted = dataclasses.replace(
            request,
            draws=1 if request.invert and self.config.eta == 0 else ANCHORS,
            seed=hashed_seed("anchor", request.seed),
            shared_seeds=True,
        )
        size = max(1, BATCH // wanted.draws)
        parts = []
        for begin in range(0, len(z), size):
            rows = [min(row, len(z) - 1) for row in range(begin, begin + size)]
            walked = self._walk(z[rows], codes[rows], [ids[row] for row in rows], None, wanted)
            parts.append(walked.mean(dim=1)[: len(z) - begin])
        return torch.cat(parts)

    def _abduct(self, z: Tensor, codes: Tensor, request: Request) -> Tensor | None:
        """Find the noise that leads back to the image under its factual condition, when inversion is asked for."""
        if not request.invert:
            return None
        # A restoring walk ends at the latent itself, the published one at the disentangled latent.
        clean = z if self.process.restoring else self.hide(z, codes)
        noisy = walk_up(clean, self._model(codes, request, None, 1.0), grid=self.process.grid, table=self.process.table)
        return noisy.repeat_interleave(request.draws, dim=0)

    def _noised(self, z: Tensor, codes: Tensor, ids: list[str], level: Level | None, request: Request) -> Tensor:
        hidden = self.hide(z, codes).repeat_interleave(request.draws, dim=0)
        return self.process.start(hidden, self._noise(ids, level, request, "start"))

    def _noise(self, ids: list[str], level: Level | None, request: Request, purpose: str) -> Tensor:
        own = () if request.shared_seeds else (level,)
        keys = [(request.seed, name, draw, purpose, *own) for name in ids for draw in range(request.draws)]
        return keyed_noise(keys, self.config.latent_shape).to(self.device)

    def _model(self, codes: Tensor, request: Request, level: Level | None, weight: float) -> NoiseModel:
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
