"""The configuration of a latent diffusion generator: frozen, checked whole, rebuilt from its own JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field

from citlr.errors import InputError, did_you_mean
from citlr.generators.diffusion.denoiser import PREDICTIONS
from citlr.generators.diffusion.schedule import SCHEDULES, even_grid, noise_table
from citlr.text import shortened
from citlr.values import (
    Accelerator,
    Batch,
    Blocks,
    Count,
    CountOrNone,
    Few,
    Flag,
    Name,
    Names,
    NotNegative,
    Positive,
    Precision,
    Share,
    Side,
    Whole,
    Widths,
    check_fields,
    check_value,
    require_fields,
)

OBJECTIVES = ("published", "restoring")
ABDUCTIONS = ("noise", "inversion")
DETAILS = ("none", "autoencoder", "average", "draw")
SUPPORTS = ("everywhere", "shown")
ALIGNMENTS = ("none", "gaussian")
CHOICES = {
    "objective": OBJECTIVES,
    "detail": DETAILS,
    "support": SUPPORTS,
    "alignment": ALIGNMENTS,
    "latent_alignment": ALIGNMENTS,
    "abduction": ABDUCTIONS,
    "prediction": PREDICTIONS,
    "schedule": SCHEDULES,
}


@dataclass(frozen=True)
class LDMConfig:
    """Everything that a latent diffusion generator is built from and trained with.

    Parameters
    ----------
    size : int
        Side of the images, 32 to 256, a multiple of the autoencoder's factor.
    hold : tuple of str
        Covariates kept at their observed values.
    attributes : tuple of str, optional
        What can be intervened on; the cohort's attributes without it. The coin is always added.
    disentangle : bool
        Whether there is a disentangler (DLDM) or none (CLDM).
    preset : str
        Where the values came from, for the record.
    patch, ae_channels, ae_blocks, latent_channels, local, shortcut, groups
        Autoencoder, see `Autoencoder`; `groups` also of the U-Net.
    kl_weight, structure, ae_steps, ae_batch, ae_rate
        Its loss and budget.
    unet_channels, unet_attention, unet_blocks, head, context, planes, prediction
        Denoiser, see `Denoiser`.
    timesteps, beta_start, beta_end, schedule
        Noise table, see `noise_table`.
    depth : float
        How far into the noise a counterfactual starts, as a share of the table.
    sampling_steps : int
        DDIM steps back from there.
    eta : float
        Fresh noise per DDIM step (0: none).
    abduction : {"noise", "inversion"}
        Whether a walk starts from fresh noise (a draw) or from the noise that leads back to the image.
    objective : {"published", "restoring"}
        "published": denoise the noised latent, at all noise levels. "restoring": start from the noised *disentangled*
        latent and lead back to the latent itself, at the noise levels that generation uses; all that the disentangler
        hides can then come from the condition only, so that the effect has its whole size at guidance 1.
    dropout : float
        Share of attribute codes replaced by the null code (classifier-free guidance).
    guidance : float, optional
        Weight of the condition; None chooses it on the validation split so that the generated mean effect has the size
        of the observed one (see `calibration`).
    detail : {"none", "autoencoder", "average", "draw"}
        What of the original image is given back to the redrawn ones, alike under all levels: what the autoencoder loses
        of it, or all that the null intervention loses of it: on average over draws of their own, or in the same draw.
        Both are abduction with an additive noise term, as in deep structural causal models:
        `x_a = x + G(a, noise) - G(factual, noise')`. With "draw" (noise' = noise) the null intervention has no
        generator noise and the counterfactual all of it, so that decisions near the threshold change in one direction
        and an innocent model is accused; with "average" all levels have the same noise around the image.
    spread : float
        With "average": how much of a draw's own noise is kept, in [0, 1]. The image being known, the null intervention
        is not uncertain at all; the noise is the yardstick of the test, and need not be as wide as the generator's.
    support : {"everywhere", "shown"}
        Where an intervention may change pixels: anywhere, or only where the training split shows, given the held
        covariates, that the attribute acts (see `find_support`).
    alignment : {"none", "gaussian"}
        Whether the mean and the covariance that an attribute gives the images are taken off before they are encoded,
        and given back exactly afterwards (see `Alignment`).
    recentre : int
        Training images that are redrawn to measure by how much interventions are off on average, which is taken off
        again (see `Recentring`); 0 for none, and none without `alignment`, which says what the mean has to be.
    components : int
        Principal components of the images within which covariances are aligned, at most: one for every 20 images.
    denoiser_steps, denoiser_batch, denoiser_rate, ema
        Budget of the denoiser and decay of its moving average.
    phi_channels, critic_channels, critic_grid, strength, thrift, critic_steps, phi_steps, phi_batch, phi_rate,
    information_steps
        Disentangler, see `Disentangler`; `critic_steps` per step, `information_steps` for the estimates of the
        information before and after, `thrift` the price (in nats) of a mean square change of 1.
        `strength` 0 plays no game: what `latent_alignment` leaves is less than a game of minutes adds. None is chosen
        on the validation split by the trade between leakage and composition.
    informed : bool
        Whether the disentangler is told the factual level; `at_most`: whether its strength is a bound.
    latent_alignment : {"none", "gaussian"}
        Whether the mean and the covariance that an attribute, and what is held, give the latent are taken off before
        the disentangler sees it (see `Alignment`, hidden). Nothing gives them back: the denoiser is told both as its
        condition, and the image keeps them (see `detail`).
    latent_components : int
        Principal components of the latents within which covariances are aligned, at most.
    given_held : bool
        Whether the information that the critic measures is that beyond the held covariates, instead of all of it: a
        game without `latent_alignment` then leaves a disease in the latent that the attribute predicts.
    at_depth : bool
        Whether the critic sees latents noised as the denoiser sees them.
    patience : int
        Validations without progress before a part stops.
    checkpoint_minutes : float
        Time between checkpoints.
    accelerator, precision, devices
        See `Trainer`.

    Examples
    --------
    >>> config = LDMConfig.preset_of("tiny", size=32, hold=("view",))
    >>> LDMConfig.from_json(config.to_json()) == config
    True
    """

    size: Annotated[Whole, Field(ge=32, le=256)] = 64
    hold: Names = ()
    attributes: Names | None = None
    disentangle: Flag = True
    preset: Name = "small"
    patch: Annotated[Whole, Field(ge=1, le=64)] = 4
    ae_channels: Widths = (32,)
    ae_blocks: Blocks = 1
    latent_channels: Side = 8
    local: Flag = True
    shortcut: Flag = True
    groups: Few = 8
    kl_weight: NotNegative = 1e-6
    structure: NotNegative = 0.1
    ae_steps: Count = 300
    ae_batch: Batch = 32
    ae_rate: NotNegative = 2e-3
    unet_channels: Widths = (32, 32)
    unet_attention: Annotated[tuple[Flag, ...], Field(min_length=1, max_length=16)] = (False, True)
    unet_blocks: Blocks = 1
    head: Few = 16
    context: Few = 32
    planes: Flag = True
    prediction: Name = "velocity"
    timesteps: Annotated[Whole, Field(ge=1, le=100_000)] = 1000
    beta_start: Share = 0.002
    beta_end: Share = 0.02
    schedule: Name = "scaled_linear"
    depth: Share = 0.2
    sampling_steps: Annotated[Whole, Field(ge=1, le=100_000)] = 2
    eta: Share = 0.0
    abduction: Name = "noise"
    objective: Name = "restoring"
    dropout: Share = 0.1
    guidance: Positive | None = None
    detail: Name = "average"
    spread: Share = 0.5
    support: Name = "shown"
    alignment: Name = "gaussian"
    recentre: CountOrNone = 1000
    components: Count = 400
    denoiser_steps: Count = 2000
    denoiser_batch: Batch = 16
    denoiser_rate: NotNegative = 2e-3
    ema: Share = 0.99
    phi_channels: Widths = (8, 16, 32)
    critic_channels: Widths = (16, 32)
    critic_grid: Few = 4
    strength: NotNegative | None = 0.0
    thrift: NotNegative = 0.3
    critic_steps: Count = 3
    phi_steps: Count = 150
    phi_batch: Batch = 32
    phi_rate: NotNegative = 2e-3
    information_steps: Count = 100
    informed: Flag = True
    at_most: Flag = True
    latent_alignment: Name = "gaussian"
    latent_components: Count = 800
    given_held: Flag = True
    at_depth: Flag = True
    patience: Count = 1_000_000
    checkpoint_minutes: NotNegative = 2.0
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"
    devices: Few = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.size % self.factor:
            raise InputError(
                f"size={self.size} does not fit: give a multiple of {self.factor} (the autoencoder's factor) from 32 "
                "to 256."
            )
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name}='{value}' is not known.{did_you_mean(str(value), known)}")
        if len(self.unet_channels) != len(self.unet_attention) or not any(self.unet_attention):
            raise InputError(
                "unet_attention needs one entry per entry of unet_channels, and attention at one resolution at least: "
                "without it the condition cannot enter."
            )
        deepest = max(len(self.unet_channels), len(self.phi_channels) if self.disentangle else 1) - 1
        if self.latent_size % 2**deepest:
            raise InputError(
                f"A latent of {self.latent_size} x {self.latent_size} cannot be halved {deepest} times; give fewer "
                "resolutions or another size."
            )
        for name, widths in (("ae_channels", self.ae_channels), ("unet_channels", self.unet_channels)):
            if any(width % self.groups for width in widths):
                raise InputError(f"{name}={widths}: every width has to be a multiple of groups={self.groups}.")
        if self.depth == 0:
            raise InputError(f"depth={self.depth} is not a share of the noise table; give a number in (0, 1].")
        if self.guidance is None and self.dropout == 0:
            raise InputError("dropout=0 trains no null condition, so guidance cannot be chosen; set guidance=1.")
        noise_table(self.timesteps, beta_start=self.beta_start, beta_end=self.beta_end, kind=self.schedule)
        even_grid(self.timesteps, depth=self.depth, steps=self.sampling_steps)

    @property
    def factor(self) -> int:
        """Pixels per latent position, along a side."""
        return int(self.patch * 2 ** (len(self.ae_channels) - 1))

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.size // self.factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one latent."""
        return (self.latent_channels, self.latent_size, self.latent_size)

    @classmethod
    def preset_of(cls, preset: str, **overrides: Any) -> Self:
        """Take a preset, with single fields overridden.

        Raises
        ------
        InputError
            If the preset or a field is not known, or a value does not fit.
        """
        preset = check_value("preset", preset, Name)
        if preset not in PRESETS:
            raise InputError(f"The preset '{shortened(preset)}' is not known.{did_you_mean(preset, PRESETS)}")
        require_fields(cls, overrides)
        return cls(**{"preset": preset, **PRESETS[preset], **overrides})

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON: tuples become lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`."""
        return cls(**content)


# What the publication describes, at any size.
PUBLISHED: dict[str, Any] = {
    "objective": "published",
    "strength": 0.5,
    "prediction": "epsilon",
    "planes": False,
    "local": False,
    "shortcut": False,
    "detail": "none",
    "support": "everywhere",
    "alignment": "none",
    "informed": False,
    "at_most": False,
    "latent_alignment": "none",
    "thrift": 0.0,
    "at_depth": False,
    "critic_grid": 1,
    "critic_steps": 5,
    "given_held": False,
    "guidance": 1.0,
    "sampling_steps": 10,
}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "ae_steps": 150,
        "denoiser_steps": 1000,
        "phi_steps": 100,
        "information_steps": 60,
    },
    "small": {},
    # The publication's objective and sampling around the autoencoder and the budget of "tiny": for comparison.
    "published": {
        **PUBLISHED,
        "local": True,
        "shortcut": True,
        "ae_steps": 150,
        "denoiser_steps": 1000,
        "phi_steps": 100,
        "information_steps": 60,
    },
    "paper": {
        **PUBLISHED,
        "size": 256,
        "patch": 1,
        "ae_channels": (64, 128, 256, 512),
        "ae_blocks": 2,
        "latent_channels": 8,
        "groups": 32,
        "ae_steps": 100_000,
        "ae_batch": 16,
        "ae_rate": 1e-4,
        "unet_channels": (128, 256, 512),
        "unet_attention": (False, True, True),
        "unet_blocks": 2,
        "head": 64,
        "context": 512,
        "sampling_steps": 50,
        "denoiser_steps": 200_000,
        "denoiser_batch": 64,
        "denoiser_rate": 1e-4,
        "ema": 0.9999,
        "phi_channels": (8, 16, 32, 64),
        "critic_channels": (64, 128, 256, 512),
        "phi_steps": 20_000,
        "phi_batch": 64,
        "phi_rate": 1e-4,
        "information_steps": 5_000,
        "patience": 50,
        "checkpoint_minutes": 15.0,
    },
}
