"""What every model of the imaging study is audited with: generator, redrawn images, their quality, made once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import read_faithfulness
from citlr.audit.measures.retraining import parts_of
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.stages import GENERATOR, PICTURES, QUALITY, redrawn_and_measured
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.diffusion.ldm import LatentDiffusion
from citlr.generators.learnt import LearntGenerator
from citlr.generators.preparation import conditions_of
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.registry import build_generator, load_generator
from citlr.invariance.effects.auroc import clustered_auroc
from citlr.run.files import read_json, write_json
from citlr.run.rows import Row
from citlr.run.stage import SCRATCH, Stage
from citlr.run.stages import Stages
from citlr.studies.imaging.study import ImagingEffort, ImagingStudy, read_study
from citlr.studies.kit.audits import Redrawn, generator_recipe
from citlr.studies.kit.worlds import write_array

# The published test learns from Z by small networks on some hundred images: more dimensions than this only add noise.
COMPONENTS = 32


@dataclass(frozen=True)
class Shared(Redrawn):
    """The shared part of the study, as a worker opens it.

    - `representation` (test images, components + codes of what is held): Principal components of what an image is
      beside its attribute (see `_beside_the_attribute`), then what the generator holds (see `held_codes`).
    - `truth`: The true test images under every level; empty where the truth is not known.
    """

    study: ImagingStudy
    representation: npt.NDArray[np.float32]
    truth: dict[str, npt.NDArray[np.float32]]


def prepare(study: ImagingStudy, effort: ImagingEffort, folder: Path, *, seed: int, narrator: Narrator) -> None:
    """Train the generator, redraw the test images once, and measure them; goes on where it was."""
    stages = Stages(folder, narrator)
    generator = {"size": effort.size, "hold": study.hold, "preset": effort.generator, **effort.options}
    # Refused now rather than by a stage.
    learning_curve = _learning_curve(study.cohort, build_generator(effort.kind, **generator), effort.learn, seed)
    asked = {name: getattr(effort, name) for name in ("draws", "placebo_images", "probe_steps", "cycles")}
    of = (study.attribute, study.levels)
    recipe = generator_recipe(effort.kind, generator, of, **asked, learning_curve=learning_curve, seed=seed)
    with stages.locked():
        kept = stages.do(_study_stage(study))
        counterfactuals, _, _ = redrawn_and_measured(stages, recipe, study.cohort, narrator)
        stages.do(_representation_stage(counterfactuals, seed))
        stages.do(_attribute_stage(study, effort, seed, narrator, after=(kept.key,)))


def _learning_curve(whole: Cohort, generator: LearntGenerator, learn: Sequence[int], seed: int) -> tuple[float, ...]:
    """Give the parts of the training split that hold so many images; refuse one that cannot train the generator."""
    train = whole.part("train")
    for number in learn:
        asked = f"A training on {number} images is asked for"
        if number >= len(train):
            raise InputError(f"{asked}, and the training split has {len(train)}: ask for fewer.")
        conditions = conditions_of(generator.config, train, whole.part("validation"), seed)
        parts_of(train, conditions, [number / len(train)], seed, asked=asked)
    return tuple(number / len(train) for number in learn)


def audited_after(folder: Path) -> tuple[str, ...]:
    """Return the keys of all that the audit of one model rests on."""
    stages = Stages(folder)
    return tuple(
        stages.require(name, "run the study again to go on").key for name in ("study", "quality", "representation")
    )


def open_shared(folder: Path) -> Shared:
    """Open what `prepare` wrote."""
    study = read_study(folder)
    counterfactuals = Counterfactuals.open(
        folder / PICTURES, study.cohort.part("test"), load_generator(folder / GENERATOR)
    )
    truth = {
        level: np.load(folder / "truth" / f"{level}.npy", mmap_mode="r")
        for level in study.levels
        if read_json(folder / "study.json")["truth"]
    }
    representation = np.load(folder / "representation.npy")
    faithfulness = read_faithfulness(folder / QUALITY)
    return Shared(study.cohort, counterfactuals, faithfulness, study, representation, truth)


def _study_stage(study: ImagingStudy) -> Stage:
    facts = {key: list(getattr(study, key)) for key in ("levels", "labels", "hold", "notes")}
    inputs = {"name": study.name, "attribute": study.attribute, **facts, "cohort": study.cohort.fingerprint()}
    return Stage("study", inputs, study.save, ("cohort.parquet", "study.json", "truth"))


def _representation_stage(counterfactuals: Counterfactuals, seed: int) -> Stage:
    def work(folder: Path) -> None:
        write_array(folder / "representation.npy", _represent(counterfactuals, seed))

    inputs = {"components": COMPONENTS, "seed": seed}
    return Stage("representation", inputs, work, ("representation.npy",), (counterfactuals.key,))


def _attribute_stage(
    study: ImagingStudy, effort: ImagingEffort, seed: int, narrator: Narrator, *, after: tuple[str, ...]
) -> Stage:
    def work(folder: Path) -> None:
        write_json(folder / "attribute.json", _attribute_rows(study, effort, folder / SCRATCH, seed, narrator))

    inputs = {"size": effort.size, "steps": effort.attribute_steps, "seed": seed}
    return Stage("attribute", inputs, work, ("attribute.json",), after)


def _represent(counterfactuals: Counterfactuals, seed: int) -> npt.NDArray[np.float32]:
    generator = counterfactuals.generator
    assert isinstance(generator, LearntGenerator)
    z = _beside_the_attribute(generator, counterfactuals)
    few = min(COMPONENTS, len(z) - 1, z.shape[1])
    components = PCA(few, random_state=seed % 2**32).fit_transform(z)
    held = generator.held_codes(counterfactuals.cohort.frame)
    return np.concatenate([components, held], axis=1, dtype=np.float32)


def _beside_the_attribute(generator: LearntGenerator, counterfactuals: Counterfactuals) -> npt.NDArray[np.float32]:
    """Give the Z of the published test, (test images, d): what an image shows whatever its level is.

    The disentangled latent of a generator that has one; of another the mean of an image's redrawings over the levels.
    """
    test, size = counterfactuals.cohort, counterfactuals.main.plan.size
    if isinstance(generator, LatentDiffusion):
        parts = (test.take(rows) for rows in np.split(np.arange(len(test)), range(256, len(test), 256)))
        return np.concatenate([generator.represent(part.pixels(size=size), part.frame) for part in parts])
    drawn = Pictures(counterfactuals.main, test, size)
    shards = range(counterfactuals.main.plan.n_shards)
    means = np.concatenate([drawn.read(shard, draws=1)[:, :, 0].mean(axis=1) for shard in shards])
    return means.reshape(len(means), -1)


def _attribute_rows(
    study: ImagingStudy, effort: ImagingEffort, folder: Path, seed: int, narrator: Narrator
) -> list[Row]:
    """Train the ResNet-34 and read the attribute off the original test images: Table 6."""
    probes = fit_probes(
        study.cohort.part("train"),
        study.cohort.part("validation"),
        ProbeSettings(
            (study.attribute,), effort.size, steps=effort.attribute_steps, batch_size=32, architecture="resnet34"
        ),
        seed=seed,
        directory=folder,
        narrator=narrator,
    )
    test = study.cohort.part("test")
    parts = np.split(np.arange(len(test)), range(256, len(test), 256))
    read = np.concatenate([probes.read(test.pixels(rows, size=effort.size))[study.attribute] for rows in parts])
    level = test.frame[study.attribute].to_numpy(str)
    order = probes.target(study.attribute).levels
    found = []
    for name in study.levels:
        own = level == name
        area = clustered_auroc(read[:, order.index(name)], own.astype(float), test.frame["patient_id"].to_numpy(str))
        right = float((read[own].argmax(axis=1) == order.index(name)).mean()) if own.any() else None
        found.append({"level": name, "accuracy": right, **vars(area)})
    return found
