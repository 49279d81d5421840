"""What every model of the imaging study is audited with: generator, redrawn images, their quality, made once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from citlr.audit.faithfulness import Faithfulness, assess_faithfulness, read_faithfulness
from citlr.audit.generation import Twins, generate
from citlr.console import Narrator
from citlr.experiments.imaging_study import ImagingEffort, ImagingStudy, read_study
from citlr.generators.base import load_generator
from citlr.generators.diffusion.ldm import DLDM, LatentDiffusion
from citlr.generators.probes.probe_training import fit_probes
from citlr.invariance.auroc import clustered_auroc
from citlr.run.files import atomic_write, read_json, write_json

Row = dict[str, Any]
# The published test learns from Z by small networks on some hundred images: more dimensions than this only add noise.
COMPONENTS = 32


@dataclass(frozen=True)
class ImagingStage:
    """The shared part of the study, as a worker opens it.

    Parameters
    ----------
    study : ImagingStudy
    twins : Twins
        The test images, redrawn.
    faithfulness : Faithfulness
        What the gates rest on.
    representation : ndarray, shape (test images, components + codes of what is held)
        Principal components of the generator's disentangled latents, then what it holds (see `held_codes`).
    truth : dict of str to ndarray
        The true test images under every level; empty where the truth is not known.
    """

    study: ImagingStudy
    twins: Twins
    faithfulness: Faithfulness
    representation: npt.NDArray[np.float32]
    truth: dict[str, npt.NDArray[np.float32]]


def set_stage(study: ImagingStudy, effort: ImagingEffort, folder: Path, *, seed: int, voice: Narrator) -> None:
    """Train the generator, redraw the test images once, and measure them; goes on where it was.

    Parameters
    ----------
    study, effort
        What is studied, and how much of everything.
    folder : Path
        Keeps all of it; `open_stage` reads it.
    seed : int
        Of everything.
    voice : Narrator
        Says what goes on.
    """
    if not (folder / "study.json").is_file():
        study.save(folder)
    train, validation, test = (study.cohort.part(split) for split in ("train", "validation", "test"))
    generator = _generator(study, effort, folder / "generator", seed, voice)
    start = time.perf_counter()
    twins = generate(
        generator,
        test,
        attribute=study.attribute,
        levels=study.levels,
        draws=effort.draws,
        placebo_images=effort.placebo_images,
        seed=seed,
        out=folder / "counterfactuals",
        narrator=voice,
    )
    if not (folder / "generate.json").is_file():
        write_json(folder / "generate.json", {"seconds": time.perf_counter() - start})
    if not (folder / "quality" / "quality.json").is_file():
        assess_faithfulness(
            twins,
            train,
            validation,
            hold=generator.hold,
            probe_steps=effort.probe_steps,
            cycles=effort.cycles,
            seed=seed,
            directory=folder / "quality",
            narrator=voice,
        ).save(folder / "quality")
    if not (folder / "representation.npy").is_file():
        with (
            atomic_write(folder / "representation.npy") as temporary,
            temporary.open("wb") as stream,
        ):
            np.save(stream, _represent(generator, twins, seed))
    if not (folder / "attribute.json").is_file():
        write_json(folder / "attribute.json", _attribute_rows(study, effort, folder / "attribute", seed, voice))


def open_stage(folder: Path) -> ImagingStage:
    """Open what `set_stage` wrote."""
    study = read_study(folder)
    twins = Twins.open(folder / "counterfactuals", study.cohort.part("test"), load_generator(folder / "generator"))
    truth = {
        level: np.load(folder / "truth" / f"{level}.npy", mmap_mode="r")
        for level in study.levels
        if read_json(folder / "study.json")["truth"]
    }
    representation = np.load(folder / "representation.npy")
    return ImagingStage(study, twins, read_faithfulness(folder / "quality"), representation, truth)


def _generator(study: ImagingStudy, effort: ImagingEffort, folder: Path, seed: int, voice: Narrator) -> LatentDiffusion:
    if not (folder / "fit.json").is_file():
        model = DLDM(size=effort.size, hold=study.hold, preset=effort.generator, **effort.options)
        start = time.perf_counter()
        parts = (study.cohort.part("train"), study.cohort.part("validation"))
        model.fit(*parts, seed=seed, directory=folder / "training", narrator=voice)
        model.save(folder)
        write_json(folder / "fit.json", {"seconds": time.perf_counter() - start, "report": dict(model.report)})
    loaded = load_generator(folder)
    assert isinstance(loaded, LatentDiffusion)
    return loaded


def _represent(generator: LatentDiffusion, twins: Twins, seed: int) -> npt.NDArray[np.float32]:
    test, step = twins.cohort, 256
    pieces = []
    for start in range(0, len(test), step):
        rows = np.arange(start, min(start + step, len(test)))
        part = test.take(rows)
        pieces.append(generator.represent(part.pixels(size=twins.main.plan.size), part.frame))
    z = np.concatenate(pieces)
    few = min(COMPONENTS, len(z) - 1, z.shape[1])
    components = PCA(few, random_state=seed % 2**32).fit_transform(z)
    return np.concatenate([components, generator.held_codes(test.frame)], axis=1, dtype=np.float32)


def _attribute_rows(study: ImagingStudy, effort: ImagingEffort, folder: Path, seed: int, voice: Narrator) -> list[Row]:
    """Train the ResNet-34 and read the attribute off the original test images: Table 6."""
    probes = fit_probes(
        study.cohort.part("train"),
        study.cohort.part("validation"),
        attributes=(study.attribute,),
        size=effort.size,
        steps=effort.attribute_steps,
        batch_size=32,
        seed=seed,
        architecture="resnet34",
        directory=folder,
        narrator=voice,
    )
    test = study.cohort.part("test")
    readings = []
    for start in range(0, len(test), 256):
        rows = np.arange(start, min(start + 256, len(test)))
        readings.append(probes.read(test.pixels(rows, size=effort.size))[study.attribute])
    read, level = np.concatenate(readings), test.frame[study.attribute].to_numpy(str)
    order = probes.target(study.attribute).levels
    found = []
    for name in study.levels:
        own = level == name
        area = clustered_auroc(read[:, order.index(name)], own.astype(float), test.frame["patient_id"].to_numpy(str))
        right = float((read[own].argmax(axis=1) == order.index(name)).mean()) if own.any() else None
        found.append({"level": name, "accuracy": right, **vars(area)})
    return found
