"""One world of the whole-pipeline calibration: sampled, a generator trained, test images redrawn and measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from citlr.audit.generation import CohortRequest, Counterfactuals, coin_sample
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.stages import Recipe, redrawn_and_measured
from citlr.console import Narrator
from citlr.generators.quality.measures import effect_map
from citlr.run.stages import Stages
from citlr.simulators.phantom import PhantomSample, PhantomWorld
from citlr.simulators.phantom.sample import read_phantom
from citlr.studies.kit.audits import Redrawn, dldm_recipe
from citlr.studies.kit.worlds import world_folder
from citlr.studies.pipeline.models import FINDINGS

ATTRIBUTE, LEVELS = "sex", ("female", "male")


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
    - `preset`: Of the generator.
    - `options`: Its fields that are not the preset's.
    - `hidden`: Classifiers in each of the worlds whose attribute shows in a cue that the generator may not draw (see
      `citlr.studies.pipeline.hidden`), one world per cue; 0 for none of these worlds.
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
        """Name of its folder.

        Examples
        --------
        >>> Place(0.4, 1, 1).name
        'correlation-0.4-generator-1'
        """
        return f"correlation-{self.correlation:g}-generator-{self.number}"

    def world(self, size: int) -> PhantomWorld:
        """Build the phantom: half of the patients have each finding, as a correlation of .8 needs."""
        return PhantomWorld(
            size=size, correlation=dict.fromkeys(FINDINGS, self.correlation), prevalence=dict.fromkeys(FINDINGS, 0.5)
        )


@dataclass(frozen=True)
class PipelineWorld(Redrawn):
    """What every classifier of a world is audited with.

    - `units`: The test images' units, in the order of the test split: they know the truth.
    - `record`: What was measured of the generator, for the tables.
    """

    units: PhantomSample
    record: dict[str, Any]


def make_world(place: Place, settings: PipelineSettings, folder: Path, narrator: Narrator) -> PipelineWorld:
    """Sample a world, train a generator in it, redraw the test images and measure them; goes on where it was."""
    sample = place.world(settings.size).sample(settings.patients, seed=place.seed, images_per_patient=1)
    stages = Stages(folder, narrator)
    with stages.locked():
        images = world_folder(stages, sample)
        cohort = read_phantom(
            images, attribute=ATTRIBUTE, labels=FINDINGS, fractions=settings.fractions, seed=place.seed
        )
        recipe = recipe_of(settings, place.seed, size=settings.size)
        counterfactuals, found, fit = redrawn_and_measured(stages, recipe, cohort, narrator)
    spent = {"fit_core_seconds": fit.facts["core_seconds"], "training": fit.facts["report"]}
    units = sample.of_images(counterfactuals.cohort.frame["image_id"])
    return PipelineWorld(cohort, counterfactuals, found, units, {**_measured(counterfactuals, units, found), **spent})


def recipe_of(settings: PipelineSettings, seed: int, *, size: int, **quality: Any) -> Recipe:
    """Say how a world's generator is trained, its test images redrawn and measured."""
    generator = {"size": size, "hold": ("view", *FINDINGS), "preset": settings.preset, **settings.options}
    request = CohortRequest(
        attribute=ATTRIBUTE,
        levels=LEVELS,
        draws=settings.draws,
        placebo_images=coin_sample(settings.placebo_images),
        seed=seed,
    )
    return dldm_recipe(generator, request, probe_steps=settings.probe_steps, **quality)


def _measured(counterfactuals: Counterfactuals, units: PhantomSample, found: Faithfulness) -> dict[str, Any]:
    """Compare the first draw's change with the true one, beside what the gates see."""
    changes = np.concatenate([shard.images[:, 1, 0] - shard.images[:, 0, 0] for shard in counterfactuals.main.shards()])
    true = units.counterfactual(LEVELS[1]) - units.counterfactual(LEVELS[0])
    effect = effect_map(changes, true)
    return {
        "test_images": len(units),
        "effect": {part.name: getattr(effect, part.name) for part in fields(effect)},
        "composition": found.quality.composition,
        "effectiveness": found.quality.effectiveness,
        "drift": found.quality.drift,
        "minimality": found.quality.minimality,
    }
