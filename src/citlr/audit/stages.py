"""The stages of an audit: one function each, called by the run folder, by Python and by every study."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from citlr.audit.generation import Counterfactuals, generate_stage
from citlr.audit.intake import audited_cohort
from citlr.audit.measures.faithfulness import Faithfulness, QualitySettings, assess_faithfulness, read_faithfulness
from citlr.audit.prediction import BATCH, check_on_cohort, kind_of_answers, predict_sets, write_responses
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.config import CohortConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.base import CounterfactualGenerator
from citlr.generators.quality.features import features_fingerprint
from citlr.generators.registry import load_generator
from citlr.learning.checkpoints import seconds_spent
from citlr.predictors.base import Predictor
from citlr.run.engines import Engine
from citlr.run.files import digest_or_missing, fingerprint
from citlr.run.stage import SCRATCH, Stage, StageRecord
from citlr.run.stages import Stages

# What every stage leaves, in the folder of an audit.
COHORT, GENERATOR, PICTURES, QUALITY = "cohort.parquet", "generator", "counterfactuals", "quality"
RESPONSES, RESULT, PAGE = "responses.parquet", "audit.json", "audit.html"
# What `citlr report --format` writes beside them, by form.
HANDED_ON = {"pdf": "audit.pdf", "json": "audit.shared.json", "md": "model-card.md", "csv": "effects.csv"}


def cohort_stage(settings: CohortConfig, narrator: Narrator) -> Stage:
    """Return the stage that reads a cohort: done again when its settings, its table or one of its images differ."""
    dumped = settings.model_dump(mode="json", exclude={"table", "images"})
    inputs = {
        "cohort": dumped,
        "table": digest_or_missing(settings.table),
        "image_folder": fingerprint(str(settings.images)),
    }

    def work(folder: Path) -> dict[str, Any]:
        whole = audited_cohort(settings, narrator=narrator)
        whole.to_parquet(folder / COHORT)
        return {"images": len(whole), "table_sha256": inputs["table"]}

    return Stage("cohort", inputs, work, (COHORT,), discovered=images_fingerprint)


def images_fingerprint(folder: Path) -> str:
    """Fingerprint the images of the cohort in a folder, and those that were left out because they cannot be read."""
    cohort = Cohort.from_parquet(folder / COHORT)
    lost = [name for step in cohort.flow if step.step == "readable" for name in step.names]
    return fingerprint([cohort.fingerprint(), [[name, digest_or_missing(cohort.root / name)] for name in lost]])


def fit_stage(
    build: Callable[[], CounterfactualGenerator],
    settings: Mapping[str, Any],
    splits: tuple[Cohort, Cohort],
    *,
    seed: int,
    narrator: Narrator,
    name: str = "fit",
    place: str = GENERATOR,
) -> Stage:
    """Return the stage that trains a generator on (train, validation); `settings` are all that `build` depends on.

    A folder with several generators has a name and a place for each.
    """
    train, validation = splits
    inputs = {
        "generator": dict(settings),
        "seed": seed,
        "train": train.fingerprint(),
        "validation": validation.fingerprint(),
    }

    def work(folder: Path) -> dict[str, Any]:
        generator, training = build(), folder / SCRATCH / "training"
        earlier, began = seconds_spent(training), time.process_time()
        generator.fit(train, validation, seed=seed, directory=training, narrator=narrator)
        spent = earlier + time.process_time() - began
        generator.save(folder / place)
        for history in training.glob("*.csv"):
            (folder / place / "training").mkdir(exist_ok=True)
            shutil.copy(history, folder / place / "training" / history.name)
        return {"report": dict(getattr(generator, "report", {})), "core_seconds": round(spent, 1)}

    return Stage(name, inputs, work, (place,))


def quality_stage(
    counterfactuals: Callable[[], Counterfactuals],
    splits: tuple[Cohort, Cohort],
    settings: QualitySettings,
    *,
    after: tuple[str, ...],
    narrator: Narrator,
    engine: Engine | None = None,
) -> Stage:
    """Return the stage that measures redrawn images."""
    train, validation = splits
    inputs = {
        **asdict(settings),
        "features": features_fingerprint(settings.features),
        "train": train.fingerprint(),
        "validation": validation.fingerprint(),
    }

    def work(folder: Path) -> None:
        found = assess_faithfulness(
            counterfactuals(), train, validation, settings, directory=folder / SCRATCH, narrator=narrator, engine=engine
        )
        found.save(folder / QUALITY)

    return Stage("quality", inputs, work, (QUALITY,), after)


@dataclass(frozen=True)
class Recipe:
    """What a study trains, redraws and measures with: one generator, any number of models after it.

    `build` makes the generator, untrained, from nothing but `generator`, its settings; `request` says how test images
    are redrawn, `quality` how they are measured; `seed` is that of the training.
    """

    build: Callable[[], CounterfactualGenerator]
    generator: Mapping[str, Any]
    request: CohortRequest
    quality: QualitySettings
    seed: int


def redrawn_and_measured(
    stages: Stages, recipe: Recipe, cohort: Cohort, narrator: Narrator
) -> tuple[Counterfactuals, Faithfulness, StageRecord]:
    """Train, redraw the test part and measure it, stage by stage; also the record of the training."""
    splits, test = (cohort.part("train"), cohort.part("validation")), cohort.part("test")
    fit = stages.do(fit_stage(recipe.build, recipe.generator, splits, seed=recipe.seed, narrator=narrator))

    def load() -> CounterfactualGenerator:
        return load_generator(stages.path(GENERATOR))

    drawn = stages.do(generate_stage(load, test, recipe.request, after=(fit.key,), narrator=narrator, where=PICTURES))
    counterfactuals = Counterfactuals.open(stages.path(PICTURES), test, load(), key=drawn.key)
    stages.do(quality_stage(lambda: counterfactuals, splits, recipe.quality, after=(drawn.key,), narrator=narrator))
    return counterfactuals, read_faithfulness(stages.path(QUALITY)), fit


@dataclass(frozen=True)
class Asked:
    """How a model is asked: its `name`, the `place` of its answers, and the `settings` that they depend on."""

    name: str
    place: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def predict_stage(
    predictor: Predictor,
    counterfactuals: Callable[[], Counterfactuals],
    asked: Asked,
    *,
    after: tuple[str, ...],
    narrator: Narrator,
    engine: Engine | None = None,
) -> Stage:
    """Return the stage that runs a model on the originals and on all redrawn images."""
    inputs = {"model": predictor.fingerprint(), "reads": predictor.input.size, "settings": dict(asked.settings)}

    def work(folder: Path) -> dict[str, Any]:
        drawn = counterfactuals()
        remarks = check_on_cohort(predictor, drawn.cohort, size=drawn.main.plan.size, images=BATCH)
        with narrator.progress(f"predict {asked.name}", len(drawn.main)) as tick:
            frame = predict_sets(predictor, drawn.sets, drawn.cohort, folder=folder / SCRATCH, tick=tick, engine=engine)
        write_responses(folder / asked.place, frame)
        return {"model_sha256": inputs["model"], "answers": kind_of_answers(frame), "remarks": list(remarks)}

    return Stage(f"predict.{asked.name}", inputs, work, (asked.place,), after)
