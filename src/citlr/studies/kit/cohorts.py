"""The cohort that a study is run on, an audit's YAML or a `cohort.parquet`, and attributes that are planted into it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from citlr.audit.intake import audited_cohort
from citlr.config import CohortConfig, read_config
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, require_known
from citlr.simulators.planted.effects import check_kinds
from citlr.simulators.planted.world import SemiRealSample, SemiRealWorld, semireal

PHANTOM = "phantom"


@dataclass(frozen=True)
class Source:
    """Which images a study is of.

    - `cohort`: "phantom", an audit's YAML, or a `cohort.parquet`.
    - `attribute`, `labels`, `hold`: What is intervened on, the findings, and what the generator keeps; without them
      what the cohort says.
    - `correlation`: Of the attribute with the findings, in the phantom.
    """

    cohort: str = PHANTOM
    attribute: str | None = None
    labels: tuple[str, ...] = ()
    hold: tuple[str, ...] | None = None
    correlation: float = 0.8
    seed: int = 0


YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Taken:
    """A cohort as it was taken in: named after its file or folder, `held` what its configuration holds."""

    cohort: Cohort
    name: str
    attribute: str
    levels: tuple[str, ...]
    held: tuple[str, ...]


def take_source(source: Source, narrator: Narrator) -> Taken:
    """Read the cohort of an audit's YAML, or a `cohort.parquet` that `citlr prepare` or an audit wrote."""
    file = Path(source.cohort)
    if file.suffix in YAML:
        config = read_config(file)
        settings, held = config.cohort, config.generator.hold
        if source.labels:
            labels = tuple(dict.fromkeys((*source.labels, *settings.labels)))
            settings = settings.model_copy(update={"labels": labels})
    else:
        whole = Cohort.from_parquet(file)
        attribute = source.attribute or next(iter(whole.attributes), None)
        settings = CohortConfig(
            table=file,
            attribute=attribute or _refuse(f"The cohort at '{file}' names no attribute."),
            labels=whole.labels or _refuse(f"The cohort at '{file}' has no labels; prepare it with some."),
            covariates=whole.covariates,
        )
        held = ()
    if source.attribute is not None:
        settings = settings.model_copy(update={"attribute": source.attribute})
    cohort = audited_cohort(settings, narrator=narrator)
    name = file.stem if file.stem != "cohort" else file.parent.name
    levels = tuple(settings.levels or cohort.levels(settings.attribute))
    return Taken(cohort, name, settings.attribute, levels, tuple(held))


def evenly(cohort: Cohort, most: int) -> Cohort:
    """Take so many images at most, evenly over the rows."""
    return cohort.take(np.unique(np.linspace(0, len(cohort) - 1, min(most, len(cohort))).astype(int)))


def require_columns(cohort: Cohort, names: Sequence[str]) -> None:
    """Refuse to hold what the cohort does not record."""
    for name in names:
        require_known(name, cohort.frame.columns, f"The cohort has no column '{name}' to hold")


@dataclass(frozen=True)
class Planting:
    """An attribute to plant into a cohort, see `citlr.simulators.planted.world`."""

    effects: tuple[str, ...] = ("shadow", "contrast", "shape")
    strength: float = 1.0
    levels: tuple[str, ...] = ("less", "more")

    @property
    def null(self) -> bool:
        """Whether no image shows the attribute."""
        return not self.effects or self.strength == 0

    @property
    def title(self) -> str:
        """What is planted, in a few words.

        >>> Planting(("tone", "line")).title, Planting(()).title, Planting(("tone",), 0.5).title
        ('tone + line', 'null', 'tone x 0.5')
        """
        if self.null:
            return "null"
        return " + ".join(self.effects) + ("" if self.strength == 1 else f" x {self.strength:g}")

    def sample(
        self, cohort: Cohort, *, size: int, correlation: Mapping[str, float], seed: int, strength: float | None = None
    ) -> SemiRealSample:
        """Plant it; `strength` other than its own gives the same patients the same levels."""
        world = SemiRealWorld(
            effects=self.effects,
            strength=self.strength if strength is None else strength,
            levels=self.levels,
            correlation={label: value for label, value in correlation.items() if value},
            size=size,
        )
        return semireal(cohort, world, seed=seed)


def planting_of(effects: Sequence[str] | None, strength: float, levels: Sequence[str] | None) -> Planting:
    """Take what a command line says; "null" is a world without an effect."""
    usual = Planting()
    chosen = usual.effects if effects is None else () if tuple(effects) == ("null",) else tuple(effects)
    check_kinds(chosen)
    return Planting(chosen, strength, usual.levels if levels is None else tuple(levels))


@dataclass(frozen=True)
class PlantedCohort:
    """A cohort of real images into which attributes are planted.

    - `cohort`, `name`: The images, with what they record.
    - `labels`: What classifiers are of; a planted attribute goes with the first.
    - `hold`: What the generator keeps: the labels and covariates that go with the attribute, directly or through each
      other, unless something else was asked for.
    """

    cohort: Cohort
    name: str
    labels: tuple[str, ...]
    hold: tuple[str, ...]
    planting: Planting = field(default_factory=Planting)

    @classmethod
    def read(cls, source: Source, planting: Planting, narrator: Narrator) -> Self:
        """Read the images; the attribute that they record is left aside."""
        taken = take_source(source, narrator)
        labels = source.labels or taken.cohort.labels
        for label in labels:
            require_known(label, taken.cohort.labels, f"The cohort has no label '{label}'")
        usual = [name for name in (*labels, *taken.held, *taken.cohort.covariates) if name in taken.cohort.frame]
        hold = tuple(dict.fromkeys(usual)) if source.hold is None else source.hold
        known = (*taken.cohort.labels, *taken.cohort.covariates)
        for name in hold:
            require_known(name, known, f"'{name}' is no label or covariate of the cohort, so that nothing can hold it")
        return cls(taken.cohort, taken.name, tuple(labels), hold, planting)

    def describe(self) -> dict[str, Any]:
        """Give all that rows depend on, as JSON."""
        return {
            "cohort": self.name,
            "images": len(self.cohort),
            "patients": int(self.cohort.frame["patient_id"].nunique()),
            "fingerprint": self.cohort.fingerprint(),
            "effects": list(self.planting.effects),
            "strength": self.planting.strength,
            "levels": list(self.planting.levels),
            "labels": list(self.labels),
            "hold": list(self.hold),
        }


def _refuse(sentence: str) -> Any:
    raise InputError(sentence)
