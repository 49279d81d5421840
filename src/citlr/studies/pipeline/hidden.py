"""Worlds whose attribute shows where the generator may not see it, and classifiers that read just that.

Their images are twice the size of what the generator draws, and carry a cue with the attribute's last level (see
`citlr.simulators.phantom.cues`). Every classifier depends on the cue, so that none of them is to be called equivalent;
whether an audit finds the dependence, because the generator learnt the cue, or says that it cannot tell, is both right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from citlr.audit.stages import redrawn_and_measured
from citlr.console import Narrator
from citlr.randomness import hashed_seed
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.phantom.cues import CUES, USES, Cue, CueClassifier, CueReader, Images, Use, add_cue
from citlr.simulators.phantom.effects import TrueEffect, true_effect
from citlr.simulators.units import WorldUnits
from citlr.studies.kit.worlds import world_folder
from citlr.studies.pipeline.families import Drawn, Family
from citlr.studies.pipeline.making import PipelineWorld, recipe_of
from citlr.studies.pipeline.models import Candidate
from citlr.studies.pipeline.worlds import FINDINGS, LEVELS, PipelineSettings, Place

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
        recipe = recipe_of(family, settings, place.seed, size=settings.hidden_size, sizes=[size], cycles=2)
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
    family.write(root, sample, (image[0] for part in parts for image in cued(part, cue, levels=family.levels)))


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

    def take(self, rows: slice) -> _Cued:
        return replace(self, units=self.units.take(rows))

    def counterfactual(self, level: str) -> Images:
        return cued(self.units, self.cue, level, levels=self.levels)
