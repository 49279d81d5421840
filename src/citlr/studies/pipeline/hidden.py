"""Worlds whose attribute shows where the generator may not see it, and classifiers that read just that.

Their images are twice the size of what the generator draws, and carry a cue with the attribute's last level (see
`citlr.simulators.phantom.cues`). Every classifier depends on the cue, so that none of them is to be called equivalent;
whether an audit finds the dependence, because the generator learnt the cue, or says that it cannot tell, is both right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from citlr.audit.stages import redrawn_and_measured
from citlr.console import Narrator
from citlr.randomness import hashed_seed
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.cues import CUES, USES, Cue, CueClassifier, CueReader, Images, Use, add_cue
from citlr.simulators.phantom.effects import TrueEffect, true_effect
from citlr.simulators.phantom.sample import PhantomSample, read_phantom, write_phantom
from citlr.studies.kit.worlds import world_folder
from citlr.studies.pipeline.models import FINDINGS, Candidate
from citlr.studies.pipeline.worlds import ATTRIBUTE, LEVELS, PipelineSettings, PipelineWorld, Place, recipe_of

# Sex and the findings go together as in the middle one of the other worlds.
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
    return [
        (cue, Place(CORRELATION, number, hashed_seed("hidden", seed, cue) % 2**31)) for number, cue in enumerate(CUES)
    ]


def hidden_candidates(count: int, seed: int) -> list[tuple[Candidate, Use, float]]:
    """List the classifiers of one world: uses and findings take turns, and every use goes through its amounts."""
    found = []
    for number in range(count):
        use = USES[number % len(USES)]
        turn = number // len(USES)
        amount = AMOUNTS[use][turn % len(AMOUNTS[use])]
        finding = FINDINGS[(number + turn) % len(FINDINGS)]
        own = hashed_seed("hidden model", seed, number) % 2**31
        found.append((Candidate(f"{use}-{number:02d}", "hidden", finding, "linear", amount, own), use, amount))
    return found


def cued(sample: PhantomSample, cue: Cue, level: str | None = None) -> Images:
    """Render the images of units, with the cue where they have the last level: their own, or one that is set."""
    images = sample.images() if level is None else sample.counterfactual(level)
    index = sample.level if level is None else np.full(len(sample), LEVELS.index(level))
    keys = np.asarray([hashed_seed("cue", name) % 2**31 for name in sample.frame["image_id"]], dtype=np.int64)
    shown = index == len(LEVELS) - 1
    images[shown] = add_cue(images[shown], cue, keys[shown])
    return images


def make_hidden_world(
    cue: Cue, place: Place, settings: PipelineSettings, folder: Path, narrator: Narrator
) -> PipelineWorld:
    """Sample a world with a cue, train a generator at half the size, redraw and measure; goes on where it was."""
    size = 2 * settings.hidden_size
    sample = place.world(size).sample(settings.hidden_patients, seed=place.seed, images_per_patient=1)
    stages = Stages(folder, narrator)
    with stages.locked():
        images = world_folder(stages, sample, write=lambda root: write_cued(sample, cue, root), cue=cue)
        cohort = read_phantom(images, attribute=ATTRIBUTE, labels=FINDINGS, fractions=FRACTIONS, seed=place.seed)
        recipe = recipe_of(settings, place.seed, size=settings.hidden_size, sizes=[size], cycles=2)
        counterfactuals, found, _ = redrawn_and_measured(stages, recipe, cohort, narrator)
    units = sample.of_images(counterfactuals.cohort.frame["image_id"])
    carried = {
        str(one.size): {name: share.estimate for name, share in one.shares.items()} or one.note for one in found.carried
    }
    record = {"cue": cue, "test_images": len(units), "composition": found.quality.composition, "carried": carried}
    return PipelineWorld(cohort, counterfactuals, found, units, record)


def write_cued(sample: PhantomSample, cue: Cue, root: Path) -> None:
    """Write the images of units with their cue, and the table."""
    parts = (sample.take(slice(start, start + 256)) for start in range(0, len(sample), 256))
    write_phantom(root, sample.frame, (image[0] for part in parts for image in cued(part, cue)))


def build_hidden(
    chosen: list[tuple[Candidate, Use, float]], cue: Cue, place: Place, settings: PipelineSettings
) -> Iterator[tuple[Candidate, nn.Module]]:
    """Make the classifiers, from units of their own."""
    world = place.world(2 * settings.hidden_size)
    patients = min(settings.model_patients, 400)
    own = world.sample(patients, seed=place.seed + 1, images_per_patient=1)
    images = own.counterfactual(LEVELS[0])
    reader = CueReader(cue, images)
    bases = {
        name: analytic_blind(world, name, n_patients=patients, seed=place.seed)
        for name in dict.fromkeys(candidate.finding for candidate, _, _ in chosen)
    }
    for candidate, use, amount in chosen:
        module = CueClassifier(bases[candidate.finding], reader, use, amount=amount, images=images)
        yield candidate, module.eval()


def hidden_truth(module: nn.Module, cue: Cue, units: PhantomSample) -> TrueEffect:
    """Take the effect of setting the attribute, cue included, over the test images."""
    decisions = []
    for level in LEVELS:
        with torch.no_grad():
            decisions.append((module(torch.from_numpy(cued(units, cue, level)))[:, 0] >= 0).numpy().astype(np.float64))
    change = decisions[1] - decisions[0]
    still = true_effect(lambda images: np.zeros(len(images)), units.take(slice(0, 1)), LEVELS)
    return replace(
        still,
        psi=float(np.mean(change**2)),
        flip_rate=float(np.mean(change != 0)),
        mean_effect=float(np.mean(change)),
        n_images=len(units),
    )
