"""One world of the whole-pipeline calibration: sampled, a generator trained, test images redrawn and measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.redrawing.coin import coin_sample
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.audit.stages import Recipe, redrawn_and_measured
from citlr.console import Narrator
from citlr.generators.quality.measures import effect_map
from citlr.run.stages import Stages
from citlr.simulators.units import WorldUnits
from citlr.studies.kit.audits import Redrawn, generator_recipe
from citlr.studies.kit.worlds import changes, true_changes, world_folder
from citlr.studies.pipeline.families import Drawn, Family
from citlr.studies.pipeline.worlds import PipelineSettings, Place


@dataclass(frozen=True)
class PipelineWorld(Redrawn):
    """What every classifier of a world is audited with.

    - `units`: The test images' units, in the order of the test split: they know the truth.
    - `record`: What was measured of the generator, for the tables.
    - `drawn`: All units.
    """

    units: WorldUnits
    record: dict[str, Any]
    drawn: Drawn | None = None


def make_world(
    family: Family, place: Place, settings: PipelineSettings, folder: Path, narrator: Narrator
) -> PipelineWorld:
    """Sample a world, train a generator in it, redraw the test images and measure them; goes on where it was."""
    sample = family.draw(place, size=settings.size, patients=settings.patients)
    stages = Stages(folder, narrator)
    with stages.locked():
        cohort = family.read(world_folder(stages, sample), place, settings)
        recipe = recipe_of(family, settings, place.seed, size=settings.size)
        counterfactuals, found, fit = redrawn_and_measured(stages, recipe, cohort, narrator)
    spent = {"fit_core_seconds": fit.facts["core_seconds"], "training": fit.facts["report"]}
    units = sample.of_images(counterfactuals.cohort.frame["image_id"])
    record = {**_measured(counterfactuals, units, found), **spent}
    return PipelineWorld(cohort, counterfactuals, found, units, record, Drawn(sample, cohort))


def recipe_of(family: Family, settings: PipelineSettings, seed: int, *, size: int, **quality: Any) -> Recipe:
    """Say how a world's generator is trained, its test images redrawn and measured."""
    generator = {"size": size, "hold": family.hold, "preset": settings.preset, **settings.options}
    request = CohortRequest(
        attribute=family.attribute,
        levels=family.levels,
        draws=settings.draws,
        placebo_images=coin_sample(settings.placebo_images),
        seed=seed,
    )
    return generator_recipe(settings.kind, generator, request, probe_steps=settings.probe_steps, **quality)


def _measured(counterfactuals: Counterfactuals, units: WorldUnits, found: Faithfulness) -> dict[str, Any]:
    """Compare the first draw's change with the true one, beside what the gates see."""
    drawn = np.concatenate([images[:, :, 0] for _, images in counterfactuals.pictures()])
    effect = effect_map(changes(drawn, units.level), true_changes(units, counterfactuals.levels))
    return {
        "test_images": len(units),
        "effect": asdict(effect),
        "composition": found.quality.composition,
        "effectiveness": found.quality.effectiveness,
        "drift": found.quality.drift,
        "minimality": found.quality.minimality,
    }
