"""One world of the whole-pipeline calibration: sampled, a generator trained, test images redrawn and measured."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import nn

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.stages import Recipe, redrawn_and_measured
from citlr.console import Narrator
from citlr.generators.quality.measures import effect_map
from citlr.randomness import hashed_seed
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.phantom.cues import CUES, USES, Cue, CueClassifier, CueReader, Images, Use, add_cue
from citlr.simulators.phantom.effects import TrueEffect, true_effect
from citlr.simulators.units import WorldUnits, write_images
from citlr.studies.kit.audits import Redrawn, generator_recipe
from citlr.studies.kit.worlds import changes, true_changes, world_folder
from citlr.studies.pipeline.families import Drawn, Family
from citlr.studies.pipeline.study import FINDINGS, LEVELS, Candidate, PipelineSettings, Place


@dataclass(frozen=True)
class PipelineWorld(Redrawn):
    """What every classifier of a world is audited with.

    - `units`: The test images' units, in the order of the test split: they know the truth.
    - `record`: What was measured of the generator, for the tables.
    - `drawn`: All units.
    """

    units: WorldUnits
    record: dict[str, Any]
    drawn: Drawn


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
    # Cycles are in no table, and no gate rests on them.
    asked = {name: getattr(settings, name) for name in ("draws", "placebo_images", "probe_steps")}
    of = (family.attribute, family.levels)
    return generator_recipe(settings.kind, generator, of, **asked, seed=seed, cycles=1, **quality)


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


# Attribute and findings go together as in the middle one of the other worlds, or less where none has as much.
CORRELATION = 0.4
# A test part as large as that of the other worlds.
FRACTIONS = (0.75, 0.10, 0.15)
# Doses in logits, shares of the images: each use is tried at several.
AMOUNTS: dict[Use, tuple[float, ...]] = {
    "alone": (1.0,),
    "either": (1.0,),
    "shift": (6.0, 4.0, 3.0, 2.0),
    "some": (0.6, 0.4, 0.3, 0.2),
    "swap": (0.9, 0.6, 0.4, 0.3),
    "hard": (1.0,),
}


def hidden_places(settings: PipelineSettings, seed: int) -> list[tuple[Cue, Place]]:
    """List the worlds, one per cue."""
    if not settings.hidden:
        return []
    correlation = min(CORRELATION, max(settings.correlations))
    return [
        (cue, Place(correlation, number, hashed_seed("hidden", seed, cue) % 2**31)) for number, cue in enumerate(CUES)
    ]


def hidden_candidates(
    count: int, seed: int, findings: tuple[str, ...] = FINDINGS
) -> list[tuple[Candidate, Use, float]]:
    """List the classifiers of one world: uses and findings take turns, and every use goes through its amounts."""
    found = []
    for number in range(count):
        use = USES[number % len(USES)]
        turn = number // len(USES)
        amount = AMOUNTS[use][turn % len(AMOUNTS[use])]
        finding = findings[(number + turn) % len(findings)]
        own = hashed_seed("hidden model", seed, number) % 2**31
        found.append((Candidate(f"{use}-{number:02d}", "hidden", finding, "linear", amount, own), use, amount))
    return found


def cued(sample: WorldUnits, cue: Cue, level: str | None = None, *, levels: tuple[str, ...] = LEVELS) -> Images:
    """Render the images of units, with the cue where they have the last level: their own, or one that is set."""
    images = sample.images() if level is None else sample.counterfactual(level)
    index = sample.level if level is None else np.full(len(sample), levels.index(level))
    keys = np.asarray([hashed_seed("cue", name) % 2**31 for name in sample.frame["image_id"]], dtype=np.int64)
    shown = index == len(levels) - 1
    images[shown] = add_cue(images[shown], cue, keys[shown])
    return images


def make_hidden_world(
    family: Family, cue: Cue, place: Place, settings: PipelineSettings, folder: Path, narrator: Narrator
) -> PipelineWorld:
    """Sample a world with a cue, train a generator at half the size, redraw and measure; goes on where it was."""
    size = 2 * settings.hidden_size
    sample = family.draw(place, size=size, patients=settings.hidden_patients)
    stages = Stages(folder, narrator)
    with stages.locked():
        images = world_folder(stages, sample, write=lambda root: write_cued(family, sample, cue, root), cue=cue)
        cohort = family.read(images, place, replace(settings, fractions=FRACTIONS))
        recipe = recipe_of(family, settings, place.seed, size=settings.hidden_size, sizes=[size])
        counterfactuals, found, _ = redrawn_and_measured(stages, recipe, cohort, narrator)
    units = sample.of_images(counterfactuals.cohort.frame["image_id"])
    carried = {
        str(one.size): {name: share.estimate for name, share in one.shares.items()} or one.note for one in found.carried
    }
    record = {"cue": cue, "test_images": len(units), "composition": found.quality.composition, "carried": carried}
    return PipelineWorld(cohort, counterfactuals, found, units, record, Drawn(sample, cohort))


def write_cued(family: Family, sample: WorldUnits, cue: Cue, root: Path) -> None:
    """Write the images of units with their cue, and the table."""
    parts = (sample.take(slice(start, start + 256)) for start in range(0, len(sample), 256))
    images = (image[0] for part in parts for image in cued(part, cue, levels=family.levels))
    write_images(root, sample.frame, images, table=sample.table)


def build_hidden(
    chosen: list[tuple[Candidate, Use, float]], cue: Cue, bases: Mapping[str, nn.Module], images: Images
) -> Iterator[tuple[Candidate, nn.Module]]:
    """Make the classifiers of blind ones by finding, and of images (n, 1, s, s) without the cue to set them by."""
    reader = CueReader(cue, images)
    for candidate, use, amount in chosen:
        module = CueClassifier(bases[candidate.finding], reader, use, amount=amount, images=images)
        yield candidate, module.eval()


def hidden_truth(module: nn.Module, cue: Cue, units: WorldUnits, levels: tuple[str, ...] = LEVELS) -> TrueEffect:
    """Take the effect of setting the attribute, cue included, over the test images."""
    return true_effect(classify(module), _Cued(units, cue, levels), (levels[0], levels[-1]))


@dataclass(frozen=True)
class _Cued:
    """Units whose images carry a cue, as `true_effect` takes them."""

    units: WorldUnits
    cue: Cue
    levels: tuple[str, ...]

    @property
    def frame(self) -> pd.DataFrame:
        return self.units.frame

    def __len__(self) -> int:
        return len(self.units)

    def take(self, rows: slice) -> Self:
        return replace(self, units=self.units.take(rows))

    def counterfactual(self, level: str) -> Images:
        return cued(self.units, self.cue, level, levels=self.levels)
