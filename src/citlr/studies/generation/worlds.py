"""Worlds for effect maps: phantoms of either anatomy, and real images with planted attributes, several in one run."""

from dataclasses import dataclass, replace
from pathlib import Path

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.run.stages import Stages
from citlr.simulators.phantom import PhantomWorld
from citlr.simulators.phantom.sample import read_phantom
from citlr.simulators.planted.world import read_semireal
from citlr.simulators.units import WorldUnits
from citlr.studies.kit.cohorts import PHANTOM, PlantedCohort, Planting, Source, planting_of
from citlr.studies.kit.worlds import anatomy_of, world_folder

# The phantom's findings that sex goes with, each present in half of the patients.
FINDINGS = ("cardiomegaly", "effusion")
# Shares of patients for training, validation and test: of a cohort, and of the phantom, which has as many as one likes.
FRACTIONS, PHANTOM_FRACTIONS = (0.75, 0.05, 0.20), (0.85, 0.075, 0.075)
# How strongly attribute and label go together where nobody says.
CORRELATION = 0.4


@dataclass(frozen=True)
class EffectWorld:
    """A world in which effect maps are measured.

    - `name`: In tables, and of its folder.
    - `units`, `cohort`: All units, which know the truth, and their images with splits.
    - `shown`: The same units with an effect, where the world has none: what its changes are compared with.
    """

    name: str
    units: WorldUnits
    cohort: Cohort
    attribute: str
    levels: tuple[str, ...]
    hold: tuple[str, ...]
    shown: WorldUnits | None = None


@dataclass(frozen=True)
class Asked:
    """What a run of several worlds is asked for.

    - `worlds`: "phantom", "varying", "null", or effects joined by "+".
    - `source`: The real images, and the label that goes with the attribute; "phantom" where there are none.
    - `correlation`, `strength`, `levels`: Of the attribute, see `Planting`.
    """

    worlds: tuple[str, ...]
    source: Source
    correlation: float = CORRELATION
    strength: float = 1.0
    levels: tuple[str, ...] | None = None
    size: int = 64
    patients: int = 6000

    def plantings(self) -> dict[str, Planting | None]:
        """Read the names of the worlds; None is a phantom. Refuses what there is not before anything is read."""
        found: dict[str, Planting | None] = {}
        for name in self.worlds:
            if name in found:
                raise InputError(f"The world '{name}' is named twice: name each once.")
            if name in (PHANTOM, "varying"):
                found[name] = None
            elif name == "null":
                found[name] = planting_of(None, 0.0, self.levels)
            else:
                effects = None if name == "semireal" else name.split("+")
                found[name] = planting_of(effects, self.strength, self.levels)
        if any(found.values()) and self.source.cohort == PHANTOM:
            real = next(name for name, planting in found.items() if planting)
            raise InputError(f"The world '{real}' is planted into real images: say which with --cohort.")
        return found


def open_worlds(asked: Asked, folder: Path, narrator: Narrator) -> list[EffectWorld]:
    """Draw the worlds and write their images; those of real images are refused together, before any is written."""
    plantings = asked.plantings()
    real = [planting for planting in plantings.values() if planting is not None]
    planted = PlantedCohort.read(asked.source, real[0], narrator) if real else None
    worlds = []
    for name, planting in plantings.items():
        stages = Stages(folder / name, narrator)
        with stages.locked():
            if planting is None:
                worlds.append(_phantom(name, asked, stages))
            else:
                assert planted is not None
                worlds.append(_semireal(name, replace(planted, planting=planting), asked, stages))
    return worlds


def _phantom(name: str, asked: Asked, stages: Stages) -> EffectWorld:
    world = PhantomWorld(
        size=asked.size,
        correlation=dict.fromkeys(FINDINGS, asked.correlation),
        prevalence=dict.fromkeys(FINDINGS, 0.5),
        anatomy=anatomy_of(name),
    )
    units = world.sample(asked.patients, seed=asked.source.seed, images_per_patient=1)
    cohort = read_phantom(
        world_folder(stages, units),
        attribute=world.attribute,
        labels=FINDINGS,
        fractions=PHANTOM_FRACTIONS,
        seed=asked.source.seed,
        min_patients_per_level=1,
    )
    return EffectWorld(name, units, cohort, world.attribute, world.levels, ("view", *FINDINGS))


def _semireal(name: str, planted: PlantedCohort, asked: Asked, stages: Stages) -> EffectWorld:
    base, planting, seed = planted.cohort, planted.planting, asked.source.seed
    correlation = {planted.labels[0]: asked.correlation}
    units = planting.sample(base, size=asked.size, correlation=correlation, seed=seed)
    shown = None
    if planting.null:
        shown = planting.sample(base, size=asked.size, correlation=correlation, seed=seed, strength=1.0)
    cohort = read_semireal(
        world_folder(stages, units),
        attribute=units.world.attribute,
        labels=base.labels,
        covariates=base.covariates,
        fractions=FRACTIONS,
        seed=seed,
        min_patients_per_level=1,
    )
    return EffectWorld(name, units, cohort, units.world.attribute, units.world.levels, planted.hold, shown)
