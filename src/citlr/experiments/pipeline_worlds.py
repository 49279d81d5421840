"""One world of the whole-pipeline calibration: sampled, a generator trained, test images redrawn and measured."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from citlr.audit.faithfulness import Faithfulness, assess_faithfulness, read_faithfulness
from citlr.audit.generation import Twins, generate
from citlr.console import Narrator
from citlr.data.cohort import Cohort, read_cohort
from citlr.experiments.pipeline_models import FINDINGS
from citlr.generators.base import load_generator
from citlr.generators.diffusion.ldm import DLDM, LatentDiffusion
from citlr.generators.learning.resume import seconds_spent
from citlr.generators.quality import effect_map
from citlr.run.files import read_json, write_json
from citlr.simulators.phantom import PhantomSample, PhantomWorld

ATTRIBUTE, LEVELS = "sex", ("female", "male")


@dataclass(frozen=True)
class PipelineSettings:
    """How large the calibration is; `FULL` is the one to go by, `QUICK` shows in a minute that all works.

    Parameters
    ----------
    correlations : tuple of float
        Of sex with each of the audited findings, one world each.
    generators : int
        Worlds (patients, generator, classifiers) per correlation.
    blind, biased, shortcuts, indifferent : int
        Classifiers per world.
    size, patients : int
        Side of the images; patients of a world, one image each.
    fractions : tuple of float
        Shares of patients for training, validation and audit.
    model_patients, epochs : int
        What the classifiers are trained with.
    draws, placebo_images : int
        Draws per level; size of the coin's sample, None for as many as it takes (see `placebo_size`).
    probe_steps : int
        Training of the probes that the gates rest on.
    preset : str
        Of the generator.
    options : dict
        Its fields that are not the preset's.
    hidden : int
        Classifiers in each of the worlds whose attribute shows in a cue that the generator may not draw (see
        `citlr.experiments.pipeline_hidden`), one world per cue; 0 for none of these worlds.
    hidden_size, hidden_patients : int
        Side of the images that the generator of these worlds draws, which is half of what the classifiers read;
        patients, as `patients`.
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
            size=size,
            correlation=dict.fromkeys(FINDINGS, self.correlation),
            prevalence=dict.fromkeys(FINDINGS, 0.5),
        )


@dataclass(frozen=True)
class Stage:
    """What every classifier of a world is audited with.

    Parameters
    ----------
    whole : Cohort
        All splits.
    twins : Twins
        The test images, redrawn.
    faithfulness : Faithfulness
        What the gates rest on.
    units : PhantomSample
        The test images' units, in the order of the test split: they know the truth.
    record : dict
        What was measured of the generator, for the tables.
    """

    whole: Cohort
    twins: Twins
    faithfulness: Faithfulness
    units: PhantomSample
    record: dict[str, Any]


def set_stage(place: Place, settings: PipelineSettings, folder: Path, voice: Narrator) -> Stage:
    """Sample a world, train a generator in it, redraw the test images and measure them; goes on where it was.

    Parameters
    ----------
    place : Place
        Which world.
    settings : PipelineSettings
        How large.
    folder : Path
        Keeps images, generator, redrawn images and measurements.
    voice : Narrator
        Says what goes on.

    Returns
    -------
    Stage
        Ready for any number of classifiers.
    """
    sample = place.world(settings.size).sample(settings.patients, seed=place.seed, images_per_patient=1)
    cohort = _cohort(sample, place, settings, folder)
    train, validation, test = (cohort.part(split) for split in ("train", "validation", "test"))
    generator = _generator(place, settings, train, validation, folder / "generator", voice)
    twins = generate(
        generator,
        test,
        attribute=ATTRIBUTE,
        levels=LEVELS,
        draws=settings.draws,
        placebo_images=settings.placebo_images,
        seed=place.seed,
        out=folder / "counterfactuals",
        narrator=voice,
    )
    quality = folder / "quality"
    if not (quality / "quality.json").is_file():
        assess_faithfulness(
            twins,
            train,
            validation,
            hold=generator.hold,
            probe_steps=settings.probe_steps,
            seed=place.seed,
            narrator=voice,
        ).save(quality)
    found = read_faithfulness(quality)
    position = {name: row for row, name in enumerate(sample.frame["image_id"])}
    units = sample.take(np.array([position[name] for name in test.frame["image_id"]]))
    record = {**_measured(twins, units, found), **read_json(folder / "generator" / "fit.json")}
    return Stage(cohort, twins, found, units, record)


def _cohort(sample: PhantomSample, place: Place, settings: PipelineSettings, folder: Path) -> Cohort:
    images = folder / "world"
    if not (images / "phantom.csv").is_file():
        sample.write(images, seed=place.seed)
    return read_cohort(
        images / "phantom.csv",
        images=images,
        attribute=ATTRIBUTE,
        labels=list(FINDINGS),
        covariates=("view",),
        fractions=settings.fractions,
        seed=place.seed,
    )


def _generator(
    place: Place, settings: PipelineSettings, train: Cohort, validation: Cohort, folder: Path, voice: Narrator
) -> LatentDiffusion:
    """Read the trained generator, or train it; seconds and report are kept beside it."""
    if not (folder / "fit.json").is_file():
        model = DLDM(size=settings.size, hold=("view", *FINDINGS), preset=settings.preset, **settings.options)
        earlier, began = seconds_spent(folder / "training"), time.process_time()
        model.fit(train, validation, seed=place.seed, directory=folder / "training", narrator=voice)
        spent = {"fit_core_seconds": earlier + time.process_time() - began}
        model.save(folder)
        write_json(folder / "fit.json", {**spent, "training": dict(model.report)})
    loaded = load_generator(folder)
    assert isinstance(loaded, LatentDiffusion)
    return loaded


def _measured(twins: Twins, units: PhantomSample, found: Faithfulness) -> dict[str, Any]:
    """Compare the first draw's change with the true one, beside what the gates see."""
    changes = np.concatenate([shard.images[:, 1, 0] - shard.images[:, 0, 0] for shard in twins.main.shards()])
    true = units.counterfactual(LEVELS[1]) - units.counterfactual(LEVELS[0])
    effect = effect_map(changes, true)
    return {
        "test_images": len(units),
        "effect": {part.name: getattr(effect, part.name) for part in fields(effect)},
        "composition": found.composition,
        "effectiveness": found.effectiveness,
        "drift": found.drift,
        "minimality": found.minimality,
    }
