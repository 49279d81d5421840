"""What `citlr reproduce imaging` is run on, and how much of everything: networks, checkpoints, images, draws."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, did_you_mean, require_known
from citlr.predictors.training.zoo import ARCHITECTURES, PROBE
from citlr.randomness import hashed_seed
from citlr.run.files import read_json, write_json
from citlr.run.stages import Stages
from citlr.simulators.phantom import FINDINGS, PhantomSample, PhantomWorld
from citlr.simulators.phantom.sample import read_phantom
from citlr.studies.generation.study import cohort_study
from citlr.studies.kit.cohorts import Source
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of, world_folder, write_array

# A finding of fewer images teaches a network nothing, and its AUROC has an interval as wide as the scale.
FEWEST_POSITIVES = 50
VALIDATION = 0.075


@dataclass(frozen=True)
class ImagingEffort:
    """How much of everything.

    - `networks`: Names in `citlr.predictors.training.zoo`.
    - `keep`, `rounds`, `batch_size`: Checkpoints per network, and how it is trained (`TrainingSettings`).
    - `round_steps`: Steps per round; a pass through the training split without it.
    - `placebo_images`: Of the coin's sample; None sizes it by the margin.
    - `kind`, `generator`, `options`: Of the generator: its kind (`citlr.config.kinds`), preset, and fields of its
      configuration of your own.
    - `learn`: Numbers of training images on which the generator is trained again, to foretell how many would do.
    - `probe_steps`, `attribute_steps`: Trainings of the gates' probes and of the ResNet-34 of Table 6.
    - `cycles`: Null interventions in a row, for the quality of the generator.
    """

    networks: tuple[str, ...]
    keep: int
    rounds: int
    batch_size: int
    size: int
    findings: tuple[str, ...]
    patients: int
    images: int
    draws: int
    generator: str
    probe_steps: int
    attribute_steps: int
    placebo_images: int | None = None
    round_steps: int | None = None
    schedule: str = "constant"
    cycles: int = 10
    kind: str = "dldm"
    learn: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def shared(self) -> dict[str, Any]:
        """Give what the redrawn images depend on; networks and checkpoints are not among it."""
        own = ("networks", "keep", "rounds", "round_steps", "schedule", "batch_size")
        return {name: value for name, value in asdict(self).items() if name not in own}


PRESETS = {
    "smoke": ImagingEffort(
        networks=("densenet121", "vgg13_bn", "inception_v3"),
        keep=3,
        rounds=5,
        round_steps=24,
        schedule="one-cycle",
        batch_size=32,
        size=64,
        findings=("cardiomegaly", "effusion"),
        patients=4000,
        images=160,
        draws=3,
        generator="tiny",
        probe_steps=200,
        attribute_steps=100,
        placebo_images=40,
        cycles=3,
    ),
    "paper": ImagingEffort(
        networks=ARCHITECTURES,
        keep=10,
        rounds=30,
        batch_size=64,
        size=256,
        findings=FINDINGS,
        patients=20_000,
        images=2000,
        draws=4,
        generator="paper",
        probe_steps=2000,
        attribute_steps=5000,
    ),
}


def changed(effort: ImagingEffort, changes: dict[str, Any]) -> ImagingEffort:
    """Replace fields of an effort; None leaves a field as it is."""
    wanted = {name: value for name, value in changes.items() if value is not None and value != ()}
    for name, value in wanted.items():
        if isinstance(value, int) and value < (0 if name == "placebo_images" else 1):
            raise InputError(f"{name} is {value}; it must be at least 1.")
    if "keep" in wanted:
        wanted.setdefault("rounds", max(effort.rounds, wanted["keep"]))
    new = replace(effort, **wanted)
    for network in new.networks:
        if network not in (*ARCHITECTURES, PROBE):
            raise InputError(f"There is no network '{network}'.{did_you_mean(network, ARCHITECTURES)}")
    return new


@dataclass(frozen=True)
class ImagingStudy:
    """The cohort of a study, and what is asked of it.

    - `levels`, `labels`, `hold`: Its levels, the findings of the networks, and what the generator keeps.
    - `notes`: What a reader has to know of the choice.
    - `sample`: Units of the test images, in their order, where the truth is known.
    """

    name: str
    cohort: Cohort
    attribute: str
    levels: tuple[str, ...]
    labels: tuple[str, ...]
    hold: tuple[str, ...]
    notes: tuple[str, ...] = ()
    sample: PhantomSample | None = None

    def save(self, folder: Path) -> None:
        """Write `cohort.parquet`, `study.json`, and for the phantom the true images under every level."""
        self.cohort.to_parquet(folder / "cohort.parquet")
        if self.sample is not None:
            for level in self.levels:
                write_array(folder / "truth" / f"{level}.npy", self.sample.counterfactual(level))
        content = {key: getattr(self, key) for key in ("name", "attribute", "levels", "labels", "hold", "notes")}
        write_json(folder / "study.json", {**content, "truth": self.sample is not None})


def read_study(folder: Path) -> ImagingStudy:
    """Read what `ImagingStudy.save` wrote; the phantom's units stay behind as pictures."""
    content = read_json(folder / "study.json")
    lists: dict[str, Any] = {name: tuple(content[name]) for name in ("levels", "labels", "hold", "notes")}
    cohort = Cohort.from_parquet(folder / "cohort.parquet")
    return ImagingStudy(content["name"], cohort, content["attribute"], **lists)


def phantom_fractions(effort: ImagingEffort) -> tuple[float, float, float]:
    """Give the phantom's shares of training, validation and test: a tenth to a quarter for a test of enough patients.

    >>> phantom_fractions(PRESETS["smoke"]), phantom_fractions(changed(PRESETS["smoke"], {"patients": 300}))
    ((0.825, 0.075, 0.1), (0.675, 0.075, 0.25))
    """
    # a quarter more than are redrawn, and 100 where those are few: every level needs 20 patients
    tests = min(0.25, max(0.1, max(1.25 * effort.images, 100) / effort.patients))
    return round(1 - VALIDATION - tests, 6), VALIDATION, tests


def phantom_imaging(source: Source, effort: ImagingEffort, stages: Stages) -> ImagingStudy:
    """Draw a phantom cohort in which sex goes with every studied finding; half of the patients have each."""
    findings, seed = effort.findings, source.seed
    world = PhantomWorld(
        size=effort.size,
        correlation=dict.fromkeys(findings, source.correlation),
        prevalence=dict.fromkeys(findings, 0.5),
        anatomy=anatomy_of(DEFAULT_WORLD),
    )
    sample = world.sample(effort.patients, seed=seed, images_per_patient=1)
    whole = read_phantom(
        world_folder(stages, sample),
        attribute=world.attribute,
        labels=findings,
        fractions=phantom_fractions(effort),
        seed=seed,
    )
    cohort = _fewer_tests(whole, effort.images, seed)
    return ImagingStudy(
        name=f"phantom, {effort.size} x {effort.size}, sex and findings correlated by {source.correlation:g}",
        cohort=cohort,
        attribute=world.attribute,
        levels=world.levels,
        labels=findings,
        hold=(*findings, "view"),
        sample=sample.of_images(cohort.part("test").frame["image_id"]),
    )


def read_imaging(source: Source, effort: ImagingEffort, narrator: Narrator) -> ImagingStudy:
    """Read the cohort of an audit's YAML, or a `cohort.parquet` of `citlr prepare`."""
    wanted = tuple(dict.fromkeys(source.labels))
    base = cohort_study(source, narrator)
    # The splits read their pixels by name from one source.
    frames = [part.frame for part in (base.train, base.validation, base.test)]
    whole = replace(base.train, frame=pd.concat(frames, ignore_index=True))
    chosen, notes = _labels(whole, wanted)
    views = set(whole.frame["view"].dropna()) if "view" in whole.frame else set()
    usual = (*chosen, "view") if len(views) > 1 else chosen
    # a finding that nobody holds would be redrawn with the attribute that it goes with
    more = tuple(dict.fromkeys((*base.hold, *wanted))) if base.hold else usual
    held = more if source.hold is None else base.hold
    cohort = _fewer_tests(replace(whole, labels=chosen), effort.images, source.seed)
    return ImagingStudy(base.name, cohort, base.attribute, base.levels, chosen, held, notes)


def _labels(cohort: Cohort, wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the findings, and say which are left out."""
    for name in wanted:
        require_known(name, cohort.labels, f"The cohort has no label '{name}'")
    if wanted:
        return tuple(dict.fromkeys(wanted)), ()
    positives = {name: int((cohort.frame[name] == 1).sum()) for name in cohort.labels}
    chosen = tuple(name for name, count in positives.items() if count >= FEWEST_POSITIVES)
    if not chosen:
        most = max(positives, key=lambda name: positives[name])
        raise InputError(
            f"No label of the cohort has {FEWEST_POSITIVES} positive images (the most: {most}, {positives[most]}): "
            "name those to study with --label all the same."
        )
    few = [f"{name} ({positives[name]})" for name in cohort.labels if name not in chosen]
    note = f"Left out for fewer than {FEWEST_POSITIVES} positive images: {', '.join(few)}."
    return chosen, (note,) if few else ()


def _fewer_tests(cohort: Cohort, most: int, seed: int) -> Cohort:
    """Keep at most so many test images, by a keyed order of whole patients, and all of the other splits."""
    tests = np.flatnonzero(cohort.frame["split"] == "test")
    if len(tests) <= most:
        return cohort
    patients = cohort.frame["patient_id"].iloc[tests]
    order = patients.map(lambda name: hashed_seed("imaging test", seed, name)).to_numpy()
    kept = np.ones(len(cohort), dtype=bool)
    kept[tests] = False
    kept[tests[np.argsort(order, kind="stable")[:most]]] = True
    return cohort.take(np.flatnonzero(kept))
