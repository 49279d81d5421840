"""The configuration of a latent diffusion generator: frozen, checked whole, rebuilt from its own JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from citlr.errors import InputError, did_you_mean
from citlr.generators.diffusion.schedule import SCHEDULES
from citlr.generators.networks.denoiser import PREDICTIONS

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

    size: int = 64
    hold: tuple[str, ...] = ()
    attributes: tuple[str, ...] | None = None
    disentangle: bool = True
    preset: str = "small"
    patch: int = 4
    ae_channels: tuple[int, ...] = (32,)
    ae_blocks: int = 1
    latent_channels: int = 8
    local: bool = True
    shortcut: bool = True
    groups: int = 8
    kl_weight: float = 1e-6
    structure: float = 0.1
    ae_steps: int = 300
    ae_batch: int = 32
    ae_rate: float = 2e-3
    unet_channels: tuple[int, ...] = (32, 32)
    unet_attention: tuple[bool, ...] = (False, True)
    unet_blocks: int = 1
    head: int = 16
    context: int = 32
    planes: bool = True
    prediction: str = "velocity"
    timesteps: int = 1000
    beta_start: float = 0.002
    beta_end: float = 0.02
    schedule: str = "scaled_linear"
    depth: float = 0.2
    sampling_steps: int = 2
    eta: float = 0.0
    abduction: str = "noise"
    objective: str = "restoring"
    dropout: float = 0.1
    guidance: float | None = None
    detail: str = "average"
    spread: float = 0.5
    support: str = "shown"
    alignment: str = "gaussian"
    recentre: int = 1000
    components: int = 400
    denoiser_steps: int = 2000
    denoiser_batch: int = 16
    denoiser_rate: float = 2e-3
    ema: float = 0.99
    phi_channels: tuple[int, ...] = (8, 16, 32)
    critic_channels: tuple[int, ...] = (16, 32)
    critic_grid: int = 4
    strength: float | None = 0.0
    thrift: float = 0.3
    critic_steps: int = 3
    phi_steps: int = 150
    phi_batch: int = 32
    phi_rate: float = 2e-3
    information_steps: int = 100
    informed: bool = True
    at_most: bool = True
    latent_alignment: str = "gaussian"
    latent_components: int = 800
    given_held: bool = True
    at_depth: bool = True
    patience: int = 1_000_000
    checkpoint_minutes: float = 2.0
    accelerator: str = "auto"
    precision: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 256 or self.size % self.factor:
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
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name, least in (("components", 1), ("latent_components", 1), ("recentre", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} is not a number of {least} or more.")
        if self.strength is not None and not self.strength >= 0:
            raise InputError(f"strength={self.strength} is not a number of 0 or more, or None (chosen on validation).")
        for name in ("depth", "kl_weight", "ae_rate", "denoiser_rate", "phi_rate", "checkpoint_minutes"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} is not a number of 0 or more.")
        if not 0 < self.depth <= 1:
            raise InputError(f"depth={self.depth} is not a share of the noise table; give a number in (0, 1].")
        for name in ("dropout", "ema", "eta", "spread"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} is not in [0, 1].")
        if self.guidance is None and self.dropout == 0:
            raise InputError("dropout=0 trains no null condition, so guidance cannot be chosen; set guidance=1.")

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
        if preset not in PRESETS:
            raise InputError(f"The preset '{preset}' is not known.{did_you_mean(preset, PRESETS)}")
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(overrides) - names)
        if unknown:
            raise InputError(f"'{unknown[0]}' is not a field of LDMConfig.{did_you_mean(unknown[0], names)}")
        return cls(**_tuples({"preset": preset, **PRESETS[preset], **overrides}))

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON: tuples become lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`."""
        return cls(**_tuples(content))


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


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
