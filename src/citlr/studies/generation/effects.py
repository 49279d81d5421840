"""Effect maps: what generators of any kind change in worlds whose truth is known, against what they should change."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score
from torch import nn

from citlr.audit.measures.covariates import coded
from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.probes.linear import describe
from citlr.generators.quality.left import design_between, put_in, what_is_left
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.records import Left
from citlr.generators.registry import build_generator, load_generator
from citlr.randomness import hashed_seed
from citlr.run.engines import Engine
from citlr.run.files import read_json, write_json
from citlr.run.rows import Row
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.planted.classifiers import Trainer, shows
from citlr.simulators.units import WorldUnits
from citlr.studies.generation.effect_page import picks, write_effects
from citlr.studies.generation.worlds import Asked, EffectWorld, open_worlds
from citlr.studies.kit.audits import training_stage
from citlr.studies.kit.cohorts import evenly
from citlr.studies.kit.worlds import changes, true_changes

# Training images that a reader of what is held learns from, at most: a phantom has as many as one likes.
LEARN = 1500


@dataclass(frozen=True)
class Fitting:
    """What is trained in every world.

    - `kinds`, `preset`: Of the generators, see `citlr.config.kinds`; options follow a colon: `edits:guidance=0.5`.
    - `sizes`: Training images of each; None is all.
    - `images`: Test images that are redrawn, at most.
    """

    kinds: tuple[str, ...] = ("dldm",)
    preset: str = "laptop"
    sizes: tuple[int | None, ...] = (None,)
    images: int = 300

    def rows(self) -> list[tuple[str, int | None]]:
        """List the kinds and numbers of training images of all rows, in order."""
        return [(kind, number) for kind in self.kinds for number in self.sizes]

    def trainings(self) -> list[list[tuple[str, int | None]]]:
        """Group them: rows that differ by the guidance alone share a training, and no two processes do it."""
        groups: dict[str, list[tuple[str, int | None]]] = {}
        for kind, number in self.rows():
            groups.setdefault(_training_name(kind, number), []).append((kind, number))
        return list(groups.values())


def _training_name(kind: str, number: int | None) -> str:
    """Name a training: how strongly is said once a generator is trained, and is no part of it."""
    given, options = kind_of(kind)
    return _slug(
        "-".join([given, *(f"{name}-{value}" for name, value in options.items() if name != "guidance")]), number
    )


def kind_of(given: str) -> tuple[str, dict[str, Any]]:
    """Take a generator's kind and its options apart.

    >>> kind_of("edits:guidance=0.5,images=300")
    ('edits', {'guidance': 0.5, 'images': 300})
    """
    kind, _, options = given.partition(":")
    pairs = [option.partition("=") for option in options.split(",") if option]
    return kind, {name: yaml.safe_load(value) for name, _, value in pairs}


def run_effects(
    asked: Asked,
    fitting: Fitting,
    *,
    out: str | Path,
    seed: int = 0,
    engine: Engine | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Train every kind in every world and compare its changes with the true ones; goes on where it was."""
    narrator, folder = narrator or QUIET, Path(out)
    for kind, options in map(kind_of, fitting.kinds):  # refused now rather than after the images
        own = {name: value for name, value in options.items() if name != "guidance"}
        build_generator(kind, size=asked.size, preset=fitting.preset, **own)
    rows: list[Row] = []
    for world in open_worlds(asked, folder.absolute(), narrator):
        stages = Stages(folder.absolute() / world.name, narrator)
        with stages.locked():
            made, asked_rows = Comparison(world, asked, fitting, stages, seed), fitting.rows()
            found: dict[tuple[str, int | None], Row] = {}
            for _, some in (engine or Engine()).each(_rows, made, fitting.trainings(), narrator=narrator):
                found |= some
                _publish([*rows, *(found[one] for one in asked_rows if one in found)], asked, fitting, folder, seed)
            rows += [found[one] for one in asked_rows]
    return _publish(rows, asked, fitting, folder, seed)


def _rows(made: Comparison, some: list[tuple[str, int | None]]) -> dict[tuple[str, int | None], Row]:
    """Make the rows of one training."""
    return {one: made.row(*one) for one in some}


@dataclass(frozen=True)
class Comparison:
    """What generators are trained and compared with in one world."""

    world: EffectWorld
    asked: Asked
    fitting: Fitting
    stages: Stages
    seed: int

    def row(self, kind: str, number: int | None) -> Row:
        """Train a generator on so many images, redraw the test images and compare: two stages."""
        given, options = kind_of(kind)
        guidance, trained = options.pop("guidance", None), _training_name(kind, number)
        name, test = _slug(kind, number), evenly(self.world.cohort.part("test"), self.fitting.images)
        fit = self.stages.do(self._training(given, options, number, trained))

        def work(folder: Path) -> None:
            generator = load_generator(self.stages.path("models", trained))
            row: Row = {"world": self.world.name, "kind": kind, "fit_seconds": fit.facts["core_seconds"]}
            row["train_images"] = len(self.world.cohort.part("train").fewer(number, seed=self.seed))
            row |= compare(self.world, test, generator, self.readers, self.seed, guidance)
            write_json(folder / "rows" / f"{name}.json", row)

        inputs = {
            "test": test.fingerprint(),
            "guidance": guidance,
            "seed": self.seed,
            "hold": list(self.world.hold),
            "units": self.world.units.fingerprint(),
        }
        self.stages.do(Stage(f"row.{name}", inputs, work, (f"rows/{name}.json",), (fit.key,)))
        found: Row = read_json(self.stages.path("rows", f"{name}.json"))
        return found

    @cached_property
    def readers(self) -> dict[str, nn.Module]:
        """What reads held labels and covariates: blind classifiers, so that any drift is the generator's.

        What has more than two values, or one, has no reader.
        """
        world = self.world
        units = world.shown or world.units
        ids = units.frame["image_id"]
        train, test = (
            np.flatnonzero(ids.isin(world.cohort.part(part).frame["image_id"]).to_numpy(bool))
            for part in ("train", "test")
        )
        units = units.take(np.concatenate([train[:LEARN], test]))
        learns = np.arange(len(units)) < min(LEARN, len(train))
        trainer = Trainer.of(units, learns, world.levels)
        found: dict[str, nn.Module] = {}
        for name in world.hold:
            if units.frame[name].nunique() == 2 and 0 < shows(units.frame[name])[learns].mean() < 1:
                found[name] = trainer.blind(name, seed=self.seed, width=8)
        return found

    def _training(self, kind: str, options: Mapping[str, Any], number: int | None, name: str) -> Stage:
        world, settings = self.world, {"preset": self.fitting.preset, **options}
        settings |= {"size": self.asked.size, "hold": world.hold, "attributes": (world.attribute,)}
        splits = (world.cohort.part("train").fewer(number, seed=self.seed), world.cohort.part("validation"))
        return training_stage(self.stages, kind, settings, splits, seed=self.seed, name=name)


def _slug(kind: str, number: int | None) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", kind if number is None else f"{kind}-{number}")


def compare(
    world: EffectWorld,
    test: Cohort,
    generator: CounterfactualGenerator,
    readers: Mapping[str, nn.Module],
    seed: int,
    guidance: float | None = None,
) -> Row:
    """Redraw test images once under every level, and set the changes from the own level beside the exact ones."""
    units = world.units.of_images(test.frame["image_id"].astype(str))
    images, began = units.images(), time.process_time()
    asked: dict[str, Any] = {"attribute": world.attribute, "levels": world.levels, "guidance": guidance}
    redrawn = generator.generate(images, test.frame, **asked, seed=seed)[:, :, 0]
    pace = 1000 * (time.process_time() - began) / (len(test) * len(world.levels))
    true, made = true_changes(units, world.levels), changes(redrawn, units.level)
    reference = true
    if world.shown is not None:
        reference = true_changes(world.shown.of_images(test.frame["image_id"].astype(str)), world.levels)
    null = redrawn[np.arange(len(test)), units.level] - images
    return {
        "test_images": len(test),
        "effect": asdict(effect_map(made, true)) if true.any() else None,
        "fixed_map": fixed_map_share(reference, units.level),
        "rms": float(np.sqrt((made.astype(np.float64) ** 2).mean())),
        "true_rms": float(np.sqrt((reference.astype(np.float64) ** 2).mean())),
        "null_change": float(np.abs(null).mean()),
        "left": asdict(_left(put_in(images, redrawn, units.level), units.level, test.frame, world, seed)),
        "drift": {name: _drift(reader, redrawn, units, world.levels) for name, reader in readers.items()},
        "readers": {name: _area(reader, images, test.frame[name]) for name, reader in readers.items()},
        "ms_per_image": pace,
    }


def _left(redrawn: Images, own: npt.NDArray[np.intp], frame: pd.DataFrame, world: EffectWorld, seed: int) -> Left:
    """Measure without the truth what redrawing (n, levels, 1, s, s) leaves of the difference between levels."""
    described = {level: describe(redrawn[:, k]) for k, level in enumerate(world.levels)}
    real = np.stack(list(described.values()), axis=1)[np.arange(len(own)), own]
    design = design_between(own, len(world.levels), coded(frame, world.hold), frame["patient_id"])
    return what_is_left(real, described, design, np.random.default_rng(hashed_seed("left", seed)))


def fixed_map_share(true: Images, own: npt.NDArray[np.intp]) -> float | None:
    """Give the share of an effect between two levels that the best map of pixels explains; None of more levels.

    ``1 - sum |t - m|^2 / sum |t|^2`` with t the change of an image from the first level to the second and m their mean:
    1 where it is the same in every image, near 0 where it lies somewhere else in each.
    """
    if len(true) != len(own):
        return None
    signed = np.where(own == 0, 1, -1)[:, None, None, None] * true.astype(np.float64)
    return float(len(signed) * (signed.mean(axis=0) ** 2).sum() / (signed**2).sum())


def _drift(reader: nn.Module, redrawn: Images, units: WorldUnits, levels: tuple[str, ...]) -> float:
    """Give the largest mean shift of a reading between levels, less what exact counterfactuals show of it."""
    read = classify(reader)
    means = [
        read(np.ascontiguousarray(redrawn[:, k])).mean() - read(units.counterfactual(level)).mean()
        for k, level in enumerate(levels)
    ]
    shifts = [after - before for before, after in itertools.combinations(means, 2)]
    return float(max(shifts, key=abs))


def _area(reader: nn.Module, images: Images, column: pd.Series) -> float | None:
    there = shows(column)
    return float(roc_auc_score(there, classify(reader)(images))) if 0 < there.mean() < 1 else None


def _publish(rows: Sequence[Row], asked: Asked, fitting: Fitting, folder: Path, seed: int) -> dict[str, Any]:
    """Write what is there so far."""
    picked = picks(rows)
    content = {
        "seed": seed,
        "cohort": asked.source.cohort,
        "labels": list(asked.source.labels),
        "correlation": asked.correlation,
        "strength": asked.strength,
        "size": asked.size,
        "fitting": asdict(fitting),
        "rows": list(rows),
        "picks": picked,
    }
    write_json(folder / "effects.json", content)
    write_effects(folder, content)
    return content
