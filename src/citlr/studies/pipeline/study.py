"""What the whole-pipeline calibration is run on: its size, the places of its worlds, and the classifiers to audit."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from citlr.config.kinds import GENERATORS
from citlr.errors import InputError, did_you_mean
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
from citlr.simulators.phantom.world import AnatomyKind
from citlr.simulators.planted.classifiers import Trainer

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


# Channels of the first layer; 0 is the linear discriminant.
WIDTHS = (8, 4, 16, 0, 12)
WEAKEST, STRONGEST = 0.25, 6.0
# Shares of decisions that biased and indifferent classifiers of semi-real worlds are to turn; the margin is .02.
RATES, BARELY = (0.02, 0.5), 0.008
Kind = Literal["blind", "biased", "shortcut", "indifferent", "hidden"]


@dataclass(frozen=True)
class Candidate:
    """One classifier to audit.

    - `kind`: Sees nothing of the attribute; the same with a known dose of it added; trained with all pixels in sight on
      patients in whom attribute and finding go together; sees all pixels, weighed so that what the attribute does
      cancels out; reads a cue that the generator may not draw.
    - `architecture`: "linear", "cnn-<width>", or "features-<width>" for so many frozen random filters.
    - `strength`: Logits added between the levels; 0 unless biased, below 0 where the first level is favoured.
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
