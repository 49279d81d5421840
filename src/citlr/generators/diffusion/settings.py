"""The configuration of a latent diffusion generator: a section for each part, read from flat names too."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from citlr.errors import InputError
from citlr.generators.diffusion.presets import PRESETS, workstation
from citlr.generators.diffusion.schedule import PREDICTIONS, even_grid
from citlr.generators.published.disentangle import PublishedSettings
from citlr.generators.settings import ABDUCTIONS, GeneratorSettings, require_known_value
from citlr.values import (
    Batch,
    Blocks,
    Count,
    CountOrNone,
    Few,
    Flag,
    Name,
    NotNegative,
    Positive,
    Share,
    Side,
    Whole,
    Widths,
    check_fields,
    check_value,
    require_fields,
)

OBJECTIVES = ("published", "restoring")
DETAILS = ("none", "autoencoder", "average", "draw")
SUPPORTS = ("everywhere", "shown")
ALIGNMENTS = ("none", "gaussian")
# Steps of the noise table.
TIMESTEPS = 1000
# Fields that there were in saved generators, and that nobody set.
RETIRED = frozenset({"structure", "timesteps", "beta_start", "beta_end", "schedule"})


@dataclass(frozen=True)
class AutoencoderSettings:
    """The autoencoder, and its loss and budget.

    - `patch`, `ae_channels`, `ae_blocks`, `latent_channels`, `local`, `shortcut`, `groups`: See `Autoencoder`; `groups`
      also of the U-Net.
    """

    patch: Annotated[Whole, Field(ge=1, le=64)] = 4
    ae_channels: Widths = (32,)
    ae_blocks: Blocks = 1
    latent_channels: Side = 8
    local: Flag = True
    shortcut: Flag = True
    groups: Few = 8
    kl_weight: NotNegative = 1e-6
    ae_steps: Count = 300
    ae_batch: Batch = 32
    ae_rate: NotNegative = 2e-3

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DenoiserSettings:
    """The denoiser, what it learns, and its budget.

    - `unet_channels`, `unet_attention`, `unet_blocks`, `head`, `context`, `planes`, `prediction`: See `Denoiser`.
    - `objective`: "published" denoises the noised latent, at all noise levels. "restoring" starts from the noised
      *disentangled* latent and leads back to the latent itself, at the noise levels that sampling uses; all that was
      taken off can then come from the condition only, so that the effect has its whole size at guidance 1.
    - `depth`: How far into the noise a counterfactual starts, as a share of the table.
    - `sampling_steps`: DDIM steps back from there.
    - `dropout`: Share of attribute codes replaced by the null code (classifier-free guidance).
    """

    unet_channels: Widths = (32, 32)
    unet_attention: Annotated[tuple[Flag, ...], Field(min_length=1, max_length=16)] = (False, True)
    unet_blocks: Blocks = 1
    head: Few = 16
    context: Few = 32
    planes: Flag = True
    prediction: Name = "velocity"
    objective: Name = "restoring"
    depth: Share = 0.2
    sampling_steps: Annotated[Whole, Field(ge=1, le=100_000)] = 2
    dropout: Share = 0.1
    denoiser_steps: Count = 2000
    denoiser_batch: Batch = 16
    denoiser_rate: NotNegative = 2e-3

    def __post_init__(self) -> None:
        check_fields(self)
        require_known_value("objective", self.objective, OBJECTIVES)
        require_known_value("prediction", self.prediction, PREDICTIONS)
        if len(self.unet_channels) != len(self.unet_attention) or not any(self.unet_attention):
            raise InputError(
                "unet_attention needs one entry per entry of unet_channels, and attention at one resolution at least: "
                "without it the condition cannot enter."
            )
        if self.depth == 0:
            raise InputError(f"depth={self.depth} is not a share of the noise table; give a number in (0, 1].")
        even_grid(TIMESTEPS, depth=self.depth, steps=self.sampling_steps)


@dataclass(frozen=True)
class SamplingSettings:
    """How the trained networks are used; no weights depend on it.

    - `eta`: Fresh noise per DDIM step (0: none).
    - `abduction`: Whether sampling starts from fresh noise ("noise", a draw) or from the noise that leads back to the
      image ("inversion").
    - `guidance`: Weight of the condition; None chooses it on the validation split so that the generated mean effect has
      the size of the observed one (see `calibrate`).
    - `detail`: What of the original image is given back to the redrawn ones, alike under all levels: nothing ("none"),
      what the autoencoder loses of it ("autoencoder"), or all that the null intervention loses of it, on average over
      draws of their own ("average") or in the same draw ("draw"). The last two are abduction with an additive noise
      term, as in deep structural causal models: `x_a = x + G(a, noise) - G(factual, noise')`. With "draw" (noise' =
      noise) the null intervention has no generator noise and the counterfactual all of it, so that decisions near the
      threshold change in one direction and an innocent model is accused; with "average" all levels have the same noise
      around the image.
    - `spread`: With "average": how much of a draw's own noise is kept, in [0, 1]. The image being known, the null
      intervention is not uncertain at all; the noise is the yardstick of the test, and need not be as wide as the
      generator's.
    - `support`: Whether an intervention may change pixels everywhere, or only where the training split shows, given the
      held covariates, that the attribute acts ("shown", see `find_support`).
    """

    eta: Share = 0.0
    abduction: Name = "noise"
    guidance: Positive | None = None
    detail: Name = "average"
    spread: Share = 0.5
    support: Name = "shown"

    def __post_init__(self) -> None:
        check_fields(self)
        require_known_value("detail", self.detail, DETAILS)
        require_known_value("support", self.support, SUPPORTS)
        require_known_value("abduction", self.abduction, ABDUCTIONS)


@dataclass(frozen=True)
class EffectSettings:
    """What the training split itself shows of an attribute, and what is made of it.

    - `alignment`: "gaussian" takes the mean and the covariance that an attribute gives the images off before they are
      encoded, and gives them back exactly afterwards (see `Alignment`); or "none".
    - `components`: Principal components of the images within which covariances are aligned, at most: one for every 20
      patients.
    - `latent_alignment`: "gaussian" takes the mean and the covariance that an attribute, and what is held, give the
      latent off (see `Alignment`, hidden). Nothing gives them back: the denoiser is told both as its condition, and the
      image keeps them (see `detail`).
    - `latent_components`: Principal components of the latents within which covariances are aligned, at most.
    - `recentre`: Training images that are redrawn, at most, to measure by how much interventions are off on average,
      which is taken off again (see `Recentring`); fewer where they are enough (see `MeanChanges`), 0 for none, and none
      without `alignment`, which says what the mean has to be.
    """

    alignment: Name = "gaussian"
    components: Count = 400
    latent_alignment: Name = "gaussian"
    latent_components: Count = 800
    recentre: CountOrNone = 1000

    def __post_init__(self) -> None:
        check_fields(self)
        require_known_value("alignment", self.alignment, ALIGNMENTS)
        require_known_value("latent_alignment", self.latent_alignment, ALIGNMENTS)


SECTIONS: dict[str, Any] = {
    "autoencoder": AutoencoderSettings,
    "denoiser": DenoiserSettings,
    "sampling": SamplingSettings,
    "effects": EffectSettings,
    "published": PublishedSettings,
}
# Every field has a name of its own, so that a flat name finds its section.
HOME = {field.name: name for name, section in SECTIONS.items() for field in dataclasses.fields(section)}


@dataclass(frozen=True, init=False)
class LDMConfig(GeneratorSettings):
    """Everything that a latent diffusion generator is built from and trained with; further fields as of its base.

    - `disentangle`: Whether its latent is disentangled (DLDM) or not (CLDM).
    - `autoencoder`, `denoiser`, `sampling`, `effects`, `published`: The sections, see each. A field of them may be
      given by its flat name too.
    """

    disentangle: Flag = True
    autoencoder: AutoencoderSettings = dataclasses.field(default_factory=AutoencoderSettings)
    denoiser: DenoiserSettings = dataclasses.field(default_factory=DenoiserSettings)
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    effects: EffectSettings = dataclasses.field(default_factory=EffectSettings)
    published: PublishedSettings = dataclasses.field(default_factory=PublishedSettings)

    afterwards: ClassVar[frozenset[str]] = GeneratorSettings.afterwards | {
        field.name for field in dataclasses.fields(SamplingSettings)
    }

    def __init__(self, **options: Any) -> None:
        self.require_known(options)
        flat = _flattened(options)
        for field in dataclasses.fields(self):
            if field.name in SECTIONS:
                value = SECTIONS[field.name](**{name: flat[name] for name in flat if HOME.get(name) == field.name})
            else:
                value = flat.get(field.name, field.default)
            object.__setattr__(self, field.name, value)
        self.__post_init__()

    @classmethod
    def preset_of(cls, preset: str, **overrides: Any) -> Self:
        """Take a preset, with single fields overridden; InputError for a name that is not known."""
        return super().preset_of(preset, **_flattened(overrides))

    @classmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """Name the presets."""
        return PRESETS

    @classmethod
    def following(cls, size: int, images: int, memory_gb: float | None) -> Mapping[str, Any]:
        """Give what follows in "workstation"."""
        return workstation(size, images, memory_gb)

    @classmethod
    def require_known(cls, options: Mapping[str, Any]) -> None:
        """Refuse a name that is no field, of a section or of the whole."""
        require_fields(cls, options, HOME)

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON by flat names: tuples become lists."""
        whole = super().to_json()
        for name in SECTIONS:
            whole |= {key: list(one) if isinstance(one, tuple) else one for key, one in whole.pop(name).items()}
        return whole

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`, also one of an earlier version."""
        return cls(**{name: value for name, value in content.items() if name not in RETIRED})

    def check(self) -> None:
        """Refuse values that do not go together."""
        if self.size % self.factor:
            raise InputError(
                f"size={self.size} does not fit: give a multiple of {self.factor} (the autoencoder's factor) from 32 "
                "to 256."
            )
        game = len(self.published.phi_channels) if self.has_disentangler else 1
        deepest = max(len(self.denoiser.unet_channels), game) - 1
        if self.latent_size % 2**deepest:
            raise InputError(
                f"A latent of {self.latent_size} x {self.latent_size} cannot be halved {deepest} times; give fewer "
                "resolutions or another size."
            )
        groups = self.autoencoder.groups
        widths = {"ae_channels": self.autoencoder.ae_channels, "unet_channels": self.denoiser.unet_channels}
        for name, given in widths.items():
            if any(width % groups for width in given):
                raise InputError(f"{name}={given}: every width has to be a multiple of groups={groups}.")
        if self.sampling.guidance is None and self.denoiser.dropout == 0:
            raise InputError("dropout=0 trains no null condition, so guidance cannot be chosen; set guidance=1.")

    @property
    def factor(self) -> int:
        """Pixels per latent position, along a side."""
        return int(self.autoencoder.patch * 2 ** (len(self.autoencoder.ae_channels) - 1))

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.size // self.factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one latent."""
        return (self.autoencoder.latent_channels, self.latent_size, self.latent_size)

    @property
    def has_disentangler(self) -> bool:
        """Whether the publication's game is played."""
        return self.disentangle and self.published.played

    def autoencoder_depends_on(self) -> list[str]:
        """Name and value of every setting that the autoencoder's weights depend on."""
        own = {"size": self.size, "ema": self.ema, "patience": self.patience, "autoencoder": self.autoencoder}
        own |= {} if self.image_channels == 1 else {"image_channels": self.image_channels}
        return [f"{name}={value}" for name, value in own.items()]


def _flattened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give options by flat names alone; what is given by a flat name counts more than what its section says."""
    found: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        value = options.get(name, {})
        given = vars(value) if isinstance(value, kind) else check_value(name, value, dict[str, Any])
        require_fields(kind, given)
        found |= given
    return found | {name: value for name, value in options.items() if name not in SECTIONS}
