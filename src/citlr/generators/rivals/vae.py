"""Conditional beta-VAE: the comparison of the publication, a generator of one latent vector per image.

Higgins et al. (2017) with the condition given to encoder and decoder, used for counterfactuals as in Pawlowski et al.
(2020): abduct `u ~ q(u | x, a, h)`, set `a'`, decode `p(x | u, a', h)`. Where nothing tells the latent not to carry the
attribute, only the weight beta of information makes the decoder take it from the condition instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.networks import kl_to_normal
from citlr.generators.diffusion.presets import DAYS, HOURS, workstation
from citlr.generators.preparation import Prepared
from citlr.generators.probes.parts import Residual
from citlr.generators.rivals.direct import DirectConfig, DirectGenerator
from citlr.learning.loop import VALIDATION, seeded
from citlr.values import Batch, Count, Few, Positive, Share, Widths

# The three of the comparison: the plain VAE, and two that pay more for what the latent carries.
BETAS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class VAEConfig(DirectConfig):
    """Everything that a conditional beta-VAE is built from; further fields as of `DirectConfig`.

    - `beta`: Price of the information in the latent; 1 is the variational bound itself.
    - `noise`: Deviation of the pixels around the decoder's mean, in grey values: what a beta of 1 is measured by.
    - `channels`: Widths; the first at a quarter of the resolution, each further one at half of the one before.
    - `dropout`: Share of attribute codes replaced by the null code, for guidance.
    """

    beta: Positive = 1.0
    noise: Positive = 0.05
    latent: Few = 64
    channels: Widths = (32, 64)
    dropout: Share = 0.1
    steps: Count = 4000
    batch: Batch = 32
    rate: Positive = 1e-3

    @classmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """Name the presets."""
        return PRESETS

    @classmethod
    def following(cls, size: int, images: int, memory_gb: float | None) -> Mapping[str, Any]:
        """Give what follows in "workstation": the budget of a denoiser at a quarter of the side."""
        found = workstation(min(size, 128), images, memory_gb)
        return {"steps": found["denoiser_steps"], "batch": found["denoiser_batch"]}

    def check(self) -> None:
        """Refuse values that do not go together."""
        super().check()
        if self.size % self.factor:
            raise InputError(f"size={self.size} does not fit: give a multiple of {self.factor}.")

    @property
    def factor(self) -> int:
        """Pixels per position of the smallest feature map, along a side: `4 * 2 ** (len(channels) - 1)`."""
        return int(4 * 2 ** (len(self.channels) - 1))


PRESETS: dict[str, dict[str, Any]] = {
    # About the processor time of a DLDM of the same preset.
    "tiny": {"steps": 2000},
    "laptop": {},
    "workstation": {**HOURS, "latent": 256, "channels": (64, 128, 256), "rate": 5e-4, "follow": ("steps", "batch")},
    "published": {},
    "paper": {
        **DAYS,
        "size": 256,
        "latent": 512,
        "channels": (64, 128, 256, 512),
        "steps": 200_000,
        "batch": 64,
        "rate": 1e-4,
    },
}


class VAENet(nn.Module):
    """Encoder and decoder, both told the condition as planes.

    >>> net = VAENet(VAEConfig(size=32, latent=8), width=3)
    >>> images, mean, deviation = net(torch.zeros(2, 1, 32, 32), torch.zeros(2, 3), torch.zeros(2, 8))
    >>> images.shape, mean.shape, bool((deviation > 0).all())
    (torch.Size([2, 1, 32, 32]), torch.Size([2, 8]), True)
    """

    def __init__(self, config: VAEConfig, width: int) -> None:
        super().__init__()
        first, *rest = config.channels
        last, self.side = config.channels[-1], config.size // config.factor
        self.stem = nn.Conv2d(16 * config.image_channels + width, first, 3, padding=1)
        steps = list(zip((first, *config.channels), (first, *rest), strict=False))
        self.down = nn.ModuleList(Residual(a, b, stride=1 if k == 0 else 2) for k, (a, b) in enumerate(steps))
        self.posterior = nn.Linear(last * self.side**2, 2 * config.latent)
        self.open = nn.Linear(config.latent + width, last * self.side**2)
        self.tell = nn.ModuleList(nn.Conv2d(b + width, b, 1) for _, b in reversed(steps))
        self.up = nn.ModuleList(Residual(b, a, stride=1) for a, b in reversed(steps))
        self.out = nn.Conv2d(first, 16 * config.image_channels, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def moments(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Give the posterior's mean and deviation (n, latent) of images (n, 1, s, s) in [0, 1], codes (n, width)."""
        squares = functional.pixel_unshuffle(images * 2 - 1, 4)
        x = self.stem(_with_planes(squares, codes).contiguous(memory_format=torch.channels_last))
        for block in self.down:
            x = block(x)
        mean, log_variance = self.posterior(functional.silu(x).flatten(1)).chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-12, 6))

    def render(self, latent: Tensor, codes: Tensor) -> Tensor:
        """Decode latents (n, latent) under codes (n, width) to images (n, 1, s, s), not clipped."""
        x = self.open(torch.cat([latent, codes], dim=1)).reshape(len(latent), -1, self.side, self.side)
        for k, (tell, block) in enumerate(zip(self.tell, self.up, strict=True)):
            if k:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(tell(_with_planes(x, codes)))
        return functional.pixel_shuffle(self.out(functional.silu(x)), 4) + 0.5

    def forward(self, images: Tensor, codes: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw with noise (n, latent), decode: (images, mean, deviation), for training."""
        mean, deviation = self.moments(images, codes)
        return self.render(mean + deviation * noise, codes), mean, deviation


def _with_planes(x: Tensor, codes: Tensor) -> Tensor:
    return torch.cat([x, codes[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class ConditionalVAE(DirectGenerator):
    """Conditional beta-VAE; `**overrides` are fields of `VAEConfig`, `beta` among them."""

    settings = VAEConfig
    config: VAEConfig
    kind = "vae"

    def build(self, conditions: Conditions, *, seed: int) -> None:
        """Build encoder and decoder."""
        with seeded(seed, "vae"):
            self.net = VAENet(self.config, conditions.width).to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """Name the network."""
        return {"vae": self.net}

    def learn(self, prepared: Prepared) -> None:
        """Train encoder and decoder by the variational bound."""
        config, net, (data, held_out), codes = self.config, self.net, prepared.sets, prepared.codes
        session = self.keyed(prepared)
        learner = session.learner(net, rate=config.rate)

        def bound(images: Tensor, given: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Negative bound per pixel, absolute error, and information in nats per image."""
            runner = learner.runner if net.training else net
            output, mean, deviation = runner(*(session.trainer.put(part) for part in (images, given, noise)))
            error, kl = output.float() - images.to(self.device), kl_to_normal(mean.float(), deviation.float())
            likelihood = error.square().mean() / (2 * config.noise**2)
            return likelihood + config.beta * kl / config.size**2, error.abs().mean(), kl

        def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
            rows, own = session.whole(len(data), part="vae", step=step, batch=config.batch)
            given = prepared.conditions.drop(codes[0][rows], probability=config.dropout, generator=random)
            noise = torch.randn((len(rows), config.latent), generator=random)
            mine, given, noise = rows[own], given[own], noise[own]

            def losses(part: slice) -> tuple[Tensor, ...]:
                return bound(data.images(mine[part]), given[part], noise[part])

            _, error, kl = session.trainer.descend_by_halves(losses, len(mine), learner)
            return {"reconstruction": error, "kl": kl}

        def validation_loss(part: slice) -> float:
            images = held_out.images(part)
            return float(bound(images, codes[1][part], torch.zeros(len(images), config.latent))[0])

        validate = session.mean_of(validation_loss, len(held_out), config.batch)
        budget = session.budget(config.steps, batch=config.batch, rate=config.rate)
        session.train("vae", {"vae": learner}, update, budget, validate)
        self.report["beta"] = config.beta
        with torch.no_grad():
            images = held_out.images(slice(0, VALIDATION)).to(self.device)
            mean, deviation = net.moments(images, codes[1][:VALIDATION].to(self.device))
            self.report["information_in_latent"] = float(kl_to_normal(mean, deviation))

    def posterior(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images."""
        return self.net.moments(images, codes)

    def render(self, latent: Tensor, factual: Tensor, requested: Tensor, free: Tensor, guidance: float) -> Tensor:
        """Decode latents under the requested codes, guided away from `free`."""
        decoded = self.net.render(latent, requested)
        if guidance == 1.0:
            return decoded
        without = self.net.render(latent, free)
        return without + guidance * (decoded - without)
