"""Kinds of worlds that the whole-pipeline calibration is run on, and how each makes its images and classifiers.

A world is a place (correlation, number, seed) of a family: phantoms of one anatomy, or a cohort of real images into
which an attribute is planted. All that depends on the family is here; the rest of the study knows none of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.cues import Images
from citlr.simulators.phantom.sample import read_phantom
from citlr.simulators.phantom.world import AnatomyKind
from citlr.simulators.planted.classifiers import Trainer
from citlr.simulators.planted.world import SemiRealSample, read_semireal
from citlr.simulators.units import WorldUnits
from citlr.studies.kit.cohorts import PlantedCohort, Source, planting_of
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of, check_world
from citlr.studies.pipeline.study import (
    ATTRIBUTE,
    FINDINGS,
    LEVELS,
    Candidate,
    PipelineSettings,
    Place,
    build_models,
    build_planted,
    candidates,
)

# Of a cohort of real images there are no more than there are: a fifth is audited.
FRACTIONS = (0.70, 0.10, 0.20)


@dataclass(frozen=True)
class Drawn:
    """Units of a world, which know the truth, and the cohort of their images on disk, with splits."""

    units: WorldUnits
    cohort: Cohort


class Family(Protocol):
    """A kind of worlds."""

    @property
    def attribute(self) -> str:
        """What is intervened on."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Its levels, in order; classifiers are judged by the last against the first."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What classifiers are of."""

    @property
    def hold(self) -> tuple[str, ...]:
        """What the generator keeps."""

    def describe(self) -> dict[str, Any]:
        """Give all that rows depend on beside the settings, as JSON, and what the page says of it."""

    def draw(self, place: Place, *, size: int, patients: int) -> WorldUnits:
        """Draw the units of a place; nothing is rendered yet."""

    def read(self, root: Path, place: Place, settings: PipelineSettings) -> Cohort:
        """Read what was written, split by patient."""

    def candidates(self, settings: PipelineSettings, place: Place) -> list[Candidate]:
        """List the classifiers of a place."""

    def build(
        self, chosen: list[Candidate], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> Iterator[tuple[Candidate, nn.Module]]:
        """Train them, one after the other."""

    def bases(
        self, findings: list[str], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> tuple[dict[str, nn.Module], Images]:
        """Train blind classifiers at the size of the drawn images; also images of the first level to set others by."""


def choose_family(
    world: str | None, cohort: str | None, planted: Mapping[str, Any], *, seed: int, narrator: Narrator
) -> Family:
    """Choose the kind of worlds by its name; `planted` is what the command line asks of semi-real ones."""
    world = world or ("semireal" if cohort is not None else DEFAULT_WORLD)
    check_world(world)
    given = [name for name in ("effect", "level", "label", "hold") if planted[name]]
    if world != "semireal":
        if cohort is not None or given or planted["strength"] != 1:
            option = "cohort" if cohort is not None else given[0] if given else "strength"
            raise InputError(f"--{option} goes with --world semireal: a phantom has its own.")
        return PhantomFamily(anatomy_of(world))
    if cohort is None:
        raise InputError("--world semireal plants into real images: say which with --cohort.")
    planting = planting_of(planted["effect"], planted["strength"], planted["level"])
    if planting.null:
        raise InputError("Nobody is biased by an attribute that no image shows: plant an effect of some strength.")
    hold = None if planted["hold"] is None else tuple(planted["hold"])
    source = Source(cohort, labels=tuple(planted["label"] or ()), hold=hold, seed=seed)
    return PlantedFamily(PlantedCohort.read(source, planting, narrator))


@dataclass(frozen=True)
class PhantomFamily:
    """Chest phantoms of one anatomy, see `PhantomWorld`; sex goes with each of the findings."""

    anatomy: AnatomyKind = "fixed"
    attribute: str = ATTRIBUTE
    levels: tuple[str, ...] = LEVELS
    findings: tuple[str, ...] = FINDINGS
    hold: tuple[str, ...] = ("view", *FINDINGS)

    def describe(self) -> dict[str, Any]:
        """Name the anatomy."""
        return {"world": "phantom", "anatomy": self.anatomy}

    def draw(self, place: Place, *, size: int, patients: int) -> WorldUnits:
        """Draw patients, one image each."""
        return place.world(size, self.anatomy).sample(patients, seed=place.seed, images_per_patient=1)

    def read(self, root: Path, place: Place, settings: PipelineSettings) -> Cohort:
        """Read them as a phantom's."""
        return read_phantom(
            root, attribute=self.attribute, labels=self.findings, fractions=settings.fractions, seed=place.seed
        )

    def candidates(self, settings: PipelineSettings, place: Place) -> list[Candidate]:
        """List linear ones and small networks."""
        return candidates(settings, seed=place.seed)

    def build(
        self, chosen: list[Candidate], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> Iterator[tuple[Candidate, nn.Module]]:
        """Train each on patients of its own."""
        world = place.world(settings.size, self.anatomy)
        return build_models(chosen, world, patients=settings.model_patients, epochs=settings.epochs)

    def bases(
        self, findings: list[str], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> tuple[dict[str, nn.Module], Images]:
        """Take linear ones, and patients of their own."""
        world = place.world(2 * settings.hidden_size, self.anatomy)
        patients = min(settings.model_patients, 400)
        own = world.sample(patients, seed=place.seed + 1, images_per_patient=1)
        models: dict[str, nn.Module] = {
            name: analytic_blind(world, name, n_patients=patients, seed=place.seed) for name in findings
        }
        return models, own.counterfactual(self.levels[0])


@dataclass(frozen=True)
class PlantedFamily:
    """A cohort of real images with a planted attribute, which goes with the first of its labels."""

    planted: PlantedCohort

    @property
    def attribute(self) -> str:
        """The planted one."""
        return "planted"

    @property
    def levels(self) -> tuple[str, ...]:
        """As they are planted."""
        return self.planted.planting.levels

    @property
    def findings(self) -> tuple[str, ...]:
        """The cohort's labels, or those that were asked for."""
        return self.planted.labels

    @property
    def hold(self) -> tuple[str, ...]:
        """What goes with the attribute, directly or not."""
        return self.planted.hold

    def describe(self) -> dict[str, Any]:
        """Say which images, and what is planted."""
        return {"world": "semireal", **self.planted.describe()}

    def draw(self, place: Place, *, size: int, patients: int) -> WorldUnits:
        """Plant the attribute into all images of the cohort, however many were asked for."""
        return self._sample(place, size)

    def read(self, root: Path, place: Place, settings: PipelineSettings) -> Cohort:
        """Read them as a semi-real world's."""
        base = self.planted.cohort
        return read_semireal(
            root,
            attribute=self.attribute,
            labels=base.labels,
            covariates=base.covariates,
            fractions=FRACTIONS,
            seed=place.seed,
        )

    def candidates(self, settings: PipelineSettings, place: Place) -> list[Candidate]:
        """List classifiers on frozen features."""
        return candidates(settings, seed=place.seed, findings=self.findings, planted=True)

    def build(
        self, chosen: list[Candidate], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> Iterator[tuple[Candidate, nn.Module]]:
        """Train each on a share of the training patients."""
        yield from build_planted(chosen, self._trainer(place, settings.size, drawn.cohort))

    def bases(
        self, findings: list[str], place: Place, settings: PipelineSettings, drawn: Drawn
    ) -> tuple[dict[str, nn.Module], Images]:
        """Take blind ones, and the images that they learnt from."""
        trainer = self._trainer(place, 2 * settings.hidden_size, drawn.cohort)
        models: dict[str, nn.Module] = {name: trainer.blind(name, seed=place.seed) for name in findings}
        return models, trainer.levels[0][trainer.learns]

    def _sample(self, place: Place, size: int) -> SemiRealSample:
        correlation = {self.findings[0]: place.correlation}
        return self.planted.planting.sample(self.planted.cohort, size=size, correlation=correlation, seed=place.seed)

    def _trainer(self, place: Place, size: int, cohort: Cohort) -> Trainer:
        units = self._sample(place, size)
        learns = units.frame["image_id"].isin(cohort.part("train").frame["image_id"]).to_numpy()
        return Trainer.of(units, np.asarray(learns, dtype=np.bool_), self.levels)
