"""The classifiers that the whole-pipeline calibration audits: blind ones, biased ones of known strength, shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from torch import nn

from citlr.predictors.adapters.torch import TorchPredictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.randomness import hashed_seed
from citlr.simulators.phantom import PhantomSample, PhantomWorld
from citlr.simulators.phantom.classifiers import (
    BiasedClassifier,
    MaskedNet,
    analytic_blind,
    analytic_indifferent,
    attribute_detector,
    train_blind,
    train_sighted,
)
from citlr.simulators.planted.classifiers import Trainer
from citlr.studies.pipeline.worlds import FINDINGS, PipelineSettings

# Channels of the first layer; 0 is the linear discriminant.
WIDTHS = (8, 4, 16, 0, 12)
WEAKEST, STRONGEST = 0.25, 6.0
# Shares of decisions that biased and indifferent classifiers of semi-real worlds are to turn; the margin is .02.
RATES, BARELY = (0.02, 0.5), 0.008
Kind = Literal["blind", "biased", "shortcut", "indifferent", "hidden"]


@dataclass(frozen=True)
class Candidate:
    """One classifier to audit.

    - `name`: Unique within a world.
    - `kind`: Sees nothing of the attribute; the same with a known dose of it added; trained with all pixels in sight on
      patients in whom attribute and finding go together; sees all pixels, weighed so that what the attribute does
      cancels out; reads a cue that the generator may not draw.
    - `finding`: What it was trained for.
    - `architecture`: "linear", "cnn-<width>", or "features-<width>" for so many frozen random filters.
    - `strength`: Logits added between the levels; 0 unless biased, below 0 where the first level is favoured.
    - `seed`: Of its training patients and its weights.
    - `rate`: In semi-real worlds the share of decisions that the dose is to turn, which the strength is found by.
    """

    name: str
    kind: Kind
    finding: str
    architecture: str
    strength: float
    seed: int
    rate: float = 0.0


def candidates(
    settings: PipelineSettings, *, seed: int, findings: tuple[str, ...] = FINDINGS, planted: bool = False
) -> list[Candidate]:
    """List as many classifiers of one world as the settings ask for.

    A biased one is a blind one with the attribute's detector added: strengths rise in equal ratios from 0.25 to 6
    logits, every third against the other level. Findings and architectures take turns. In worlds with a `planted`
    attribute the shares of decisions that are turned rise in equal ratios, and the strengths follow.
    """

    def build(kind: Kind, number: int, strength: float, part: str) -> Candidate:
        width = WIDTHS[number // len(findings) % len(WIDTHS)]
        if kind == "shortcut" and width == 0:
            width = WIDTHS[0]
        if kind == "indifferent" and not planted:
            width = 0
        network = "features" if planted else "cnn"
        return Candidate(
            name=f"{kind}-{number:02d}",
            kind=kind,
            finding=findings[number % len(findings)],
            architecture=f"{network}-{width}" if width else "linear",
            strength=0.0 if planted else strength,
            seed=hashed_seed("pipeline model", seed, part, number) % 2**31,
            rate=strength if planted else 0.0,
        )

    ends = RATES if planted else (WEAKEST, STRONGEST)
    doses = np.geomspace(*ends, settings.biased) if settings.biased > 1 else np.full(settings.biased, ends[1])
    signed = [round(float(dose) * (-1 if k % 3 == 2 else 1), 3) for k, dose in enumerate(doses)]
    barely = BARELY if planted else 0.0
    return [
        *(build("blind", k, 0.0, "blind") for k in range(settings.blind)),
        *(build("biased", k, dose, "blind") for k, dose in enumerate(signed)),
        *(build("shortcut", k, 0.0, "shortcut") for k in range(settings.shortcuts)),
        *(build("indifferent", k, barely * (-1) ** k, "indifferent") for k in range(settings.indifferent)),
    ]


def build_planted(chosen: list[Candidate], trainer: Trainer) -> Iterator[tuple[Candidate, nn.Module]]:
    """Train the classifiers of a semi-real world one after the other; a biased one shares its blind base.

    An indifferent one reads the attribute, and lets it turn fewer decisions than the margin.
    """
    detector = trainer.detector()
    kept: dict[int, nn.Module] = {}
    for candidate in chosen:
        if candidate.seed not in kept:
            learn = trainer.shortcut if candidate.kind == "shortcut" else trainer.blind
            width = 0 if candidate.architecture == "linear" else int(candidate.architecture.removeprefix("features-"))
            kept[candidate.seed] = learn(candidate.finding, seed=candidate.seed, width=width)
        module = kept[candidate.seed]
        if candidate.rate:
            module = trainer.biased(module, detector, rate=abs(candidate.rate), sign=1 if candidate.rate > 0 else -1)
            candidate = replace(candidate, strength=round(module.strength, 3))
        yield candidate, module.eval()


def build_models(
    chosen: list[Candidate], world: PhantomWorld, *, patients: int, epochs: int
) -> Iterator[tuple[Candidate, nn.Module]]:
    """Train the classifiers one after the other, each on patients of its own; a biased one shares its blind base."""
    detector = attribute_detector(world)
    kept: dict[int, nn.Module] = {}
    for candidate in chosen:
        if candidate.seed not in kept:
            kept[candidate.seed] = _train(candidate, world, patients, epochs)
        module = kept[candidate.seed]
        if candidate.kind == "biased":
            module = BiasedClassifier(module, detector, strength=candidate.strength)
        yield candidate, module.eval()


def _train(candidate: Candidate, world: PhantomWorld, patients: int, epochs: int) -> nn.Module:
    if candidate.kind == "indifferent":
        return analytic_indifferent(world, candidate.finding, seed=candidate.seed)
    if candidate.architecture == "linear":
        return analytic_blind(world, candidate.finding, n_patients=min(patients, 400), seed=candidate.seed)
    sample: PhantomSample = world.sample(patients, seed=candidate.seed)
    learn = train_blind if candidate.kind != "shortcut" else train_sighted
    train: partial[MaskedNet] = partial(learn, seed=candidate.seed, epochs=epochs)
    return train(sample, candidate.finding, width=int(candidate.architecture.removeprefix("cnn-")))


def as_predictor(candidate: Candidate, module: nn.Module, *, size: int) -> TorchPredictor:
    """Wrap a classifier as the audit takes it."""
    predictor = load_predictor(
        module,
        labels=[candidate.finding],
        input=InputSpec(size=size),
        output=OutputSpec("logit"),
        device="cpu",
        name=candidate.name,
    )
    assert isinstance(predictor, TorchPredictor)
    return predictor
