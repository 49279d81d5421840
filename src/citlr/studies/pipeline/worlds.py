"""How large the whole-pipeline calibration is, and the places of its worlds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from citlr.config.kinds import GENERATORS
from citlr.errors import InputError, did_you_mean
from citlr.simulators.phantom import PhantomWorld
from citlr.simulators.phantom.world import AnatomyKind

ATTRIBUTE, LEVELS = "sex", ("female", "male")
# The findings that lie outside of the attribute's support, so that a model that sees nothing of it can see them.
FINDINGS = ("cardiomegaly", "effusion")


@dataclass(frozen=True)
class PipelineSettings:
    """How large the calibration is; `FULL` is the one to go by, `QUICK` shows in a minute that all works.

    - `correlations`: Of sex with each of the audited findings, one world each.
    - `generators`: Worlds (patients, generator, classifiers) per correlation.
    - `blind`, `biased`, `shortcuts`, `indifferent`: Classifiers per world.
    - `size`, `patients`: Side of the images; patients of a world, one image each.
    - `fractions`: Shares of patients for training, validation and audit.
    - `model_patients`, `epochs`: What the classifiers are trained with.
    - `draws`, `placebo_images`: Draws per level; size of the coin's sample, None for as many as it takes (see
      `placebo_size`).
    - `probe_steps`: Training of the probes that the gates rest on.
    - `kind`: Of the generator, see `citlr.config.kinds`.
    - `preset`: Of the generator.
    - `options`: Its fields that are not the preset's.
    - `hidden`: Classifiers in each of the worlds whose attribute shows in a cue that the generator may not draw (see
      `citlr.studies.pipeline.making`), one world per cue; 0 for none of these worlds.
    - `hidden_size`, `hidden_patients`: Side of the images that the generator of these worlds draws, which is half of
      what the classifiers read; patients, as `patients`.
    """

    correlations: tuple[float, ...] = (0.0, 0.4, 0.8)
    generators: int = 1
    blind: int = 20
    biased: int = 16
    shortcuts: int = 4
    indifferent: int = 6
    size: int = 64
    patients: int = 6000
    fractions: tuple[float, float, float] = (0.85, 0.075, 0.075)
    model_patients: int = 500
    epochs: int = 15
    draws: int = 4
    placebo_images: int | None = None
    probe_steps: int = 800
    kind: str = "dldm"
    preset: str = "tiny"
    options: dict[str, Any] = field(default_factory=dict)
    hidden: int = 24
    hidden_size: int = 32
    hidden_patients: int = 3000

    def to_json(self) -> dict[str, Any]:
        """Give all that the rows depend on; how many worlds there are is not part of it."""
        content = asdict(self)
        del content["correlations"], content["generators"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}


FULL = PipelineSettings(
    options={"latent_channels": 16, "ae_steps": 300, "unet_channels": [64, 64], "denoiser_steps": 1100}
)
QUICK = PipelineSettings(
    correlations=(0.0, 0.8),
    blind=3,
    biased=3,
    shortcuts=1,
    indifferent=1,
    size=32,
    patients=400,
    fractions=(0.75, 0.10, 0.15),
    model_patients=120,
    epochs=6,
    draws=2,
    placebo_images=20,
    probe_steps=60,
    hidden=6,
    hidden_patients=300,
    options={"ae_steps": 30, "denoiser_steps": 40, "phi_steps": 10, "information_steps": 10},
)


@dataclass(frozen=True)
class Place:
    """Which world: correlation and number of the generator; `seed` is that of everything in it."""

    correlation: float
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"correlation-{self.correlation:g}-generator-{self.number}"

    def world(self, size: int, anatomy: AnatomyKind = "fixed") -> PhantomWorld:
        """Build the phantom: half of the patients have each finding, as a correlation of .8 needs."""
        return PhantomWorld(
            size=size,
            anatomy=anatomy,
            correlation=dict.fromkeys(FINDINGS, self.correlation),
            prevalence=dict.fromkeys(FINDINGS, 0.5),
        )


def with_generator(settings: PipelineSettings, kind: str | None, preset: str | None) -> PipelineSettings:
    """Take another generator, or another preset of it; what was chosen for the old one's is left behind."""
    if kind is None and preset is None:
        return settings
    if kind is not None and kind not in GENERATORS:
        raise InputError(f"There is no generator of the kind '{kind}'.{did_you_mean(kind, GENERATORS)}")
    return replace(settings, kind=kind or settings.kind, preset=preset or "laptop", options={})
