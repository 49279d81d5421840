"""Worlds whose attribute shows where the generator may not see it, and classifiers that read just that.

Their images are twice the size of what the generator draws, and carry a cue with the attribute's last level (see
`citlr.simulators.phantom_cues`). Every classifier depends on the cue, so that none of them is to be called equivalent;
whether an audit finds the dependence, because the generator learnt the cue, or says that it cannot tell, is both right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from citlr.audit.faithfulness import assess_faithfulness, read_faithfulness
from citlr.audit.generation import generate
from citlr.console import Narrator
from citlr.data.cohort import Cohort, read_cohort
from citlr.data.images import encode_png
from citlr.experiments.pipeline_models import FINDINGS, Candidate
from citlr.experiments.pipeline_worlds import ATTRIBUTE, LEVELS, PipelineSettings, Place, Stage
from citlr.generators.base import hashed_seed, load_generator
from citlr.generators.diffusion.ldm import DLDM
from citlr.run.files import atomic_write
from citlr.simulators.phantom import PhantomSample
from citlr.simulators.phantom_classifiers import analytic_blind
from citlr.simulators.phantom_cues import CUES, USES, Cue, CueClassifier, CueReader, Images, Use, add_cue
from citlr.simulators.phantom_effects import TrueEffect, true_effect

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


def set_hidden_stage(cue: Cue, place: Place, settings: PipelineSettings, folder: Path, voice: Narrator) -> Stage:
    """Sample a world with a cue, train a generator at half the size, redraw and measure; goes on where it was."""
    size = 2 * settings.hidden_size
    sample = place.world(size).sample(settings.hidden_patients, seed=place.seed, images_per_patient=1)
    cohort = cued_cohort(sample, cue, folder / "world", seed=place.seed)
    train, validation, test = (cohort.part(split) for split in ("train", "validation", "test"))
    if not (folder / "generator" / "config.json").is_file():
        model = DLDM(size=settings.hidden_size, hold=("view", *FINDINGS), preset=settings.preset, **settings.options)
        directory = folder / "generator" / "training"
        model.fit(train, validation, seed=place.seed, directory=directory, narrator=voice)
        model.save(folder / "generator")
    generator = load_generator(folder / "generator")
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
            sizes=(size,),
            probe_steps=settings.probe_steps,
            cycles=2,
            seed=place.seed,
            narrator=voice,
        ).save(quality)
    found = read_faithfulness(quality)
    position = {name: row for row, name in enumerate(sample.frame["image_id"])}
    units = sample.take(np.array([position[name] for name in test.frame["image_id"]]))
    carried = {
        str(one.size): {name: share.estimate for name, share in one.shares.items()} or one.note for one in found.carried
    }
    record = {"cue": cue, "test_images": len(test), "composition": found.composition, "carried": carried}
    return Stage(cohort, twins, found, units, record)


def cued_cohort(
    sample: PhantomSample, cue: Cue, root: Path, *, seed: int, fractions: tuple[float, float, float] = FRACTIONS
) -> Cohort:
    """Write the images of units with their cue and the table, and read them as a cohort."""
    if not (root / "phantom.csv").is_file():
        (root / "images").mkdir(parents=True, exist_ok=True)
        frame = sample.frame
        for start in range(0, len(sample), 256):
            part = slice(start, start + 256)
            for name, image in zip(frame["path"].iloc[part], cued(sample.take(part), cue), strict=True):
                (root / name).write_bytes(encode_png(image[0]))
        # Last and whole, as `PhantomSample.write` does it.
        with atomic_write(root / "phantom.csv") as temporary:
            frame.to_csv(temporary, index=False)
    return read_cohort(
        root / "phantom.csv",
        images=root,
        attribute=ATTRIBUTE,
        labels=list(FINDINGS),
        covariates=("view",),
        fractions=fractions,
        seed=seed,
    )


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
