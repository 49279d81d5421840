"""From a configuration to the generator and the models that it asks for, and from a run to where it came from."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from citlr.audit.measures.faithfulness import QualitySettings
from citlr.audit.privacy import scrub
from citlr.audit.redrawing.coin import coin_sample
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.config import AuditConfig, GateConfig, GeneratorConfig, ModelConfig, QualityConfig
from citlr.data.associations.measures import unheld
from citlr.data.cohort import Cohort
from citlr.data.redrawn import read_redrawn
from citlr.generators.learnt import LearntGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.generators.registry import build_generator
from citlr.run.folder import Run
from citlr.run.machine import versions

# The kind of a model that is run elsewhere: its responses come in through `citlr ingest`.
CLOSED = "closed"


def held(run: Run, cohort: Cohort) -> tuple[str, ...]:
    """Give what the generator holds; of what has one value in the training split there is nothing to hold."""
    train = cohort.part("train").frame
    known = (*cohort.labels, *cohort.covariates)
    return tuple(name for name in run.config.generator.hold if name in known and len(train[name].dropna().unique()) > 1)


def unheld_of(config: AuditConfig, cohort: Cohort) -> tuple[str, ...]:
    """Say what goes with the attribute in the training split and is not held, before anything is trained."""
    if config.generator.table is not None:  # of somebody else's images nothing is learnt here
        return ()
    return unheld(cohort.part("train"), config.cohort.attribute, config.generator.hold)


def generator_of(run: Run, cohort: Cohort) -> LearntGenerator | ImagesOnDisk:
    """Build the generator that the configuration asks for, not trained yet; somebody else's is what is on the disk."""
    settings = run.config.generator
    if settings.table is not None:
        attribute, hold = run.config.cohort.attribute, held(run, cohort)
        index = read_redrawn(settings.table, cohort.part("test"), attribute=attribute, size=settings.size)
        read_as = {"channels": cohort.channels, "white": cohort.white}
        return ImagesOnDisk(index, attribute=attribute, size=settings.size, hold=hold, **read_as)
    return generator_from(settings.model_copy(update={"hold": held(run, cohort)})).for_channels(cohort.channels)


def generator_from(settings: GeneratorConfig) -> LearntGenerator:
    """Build the generator that a section describes, not trained yet."""
    return build_generator(
        settings.kind, size=settings.size, hold=settings.hold, preset=settings.preset, **settings.options
    )


def request_of(config: AuditConfig) -> CohortRequest:
    """Give what is asked of the generator."""
    return CohortRequest(
        attribute=config.cohort.attribute,
        levels=config.cohort.levels,
        placebo_images=coin_sample(config.controls.placebo_images, config.test.margin),
        replicate_images=config.controls.replicate_images,
        seed=config.seed,
        **config.generate.model_dump(),
    )


def quality_settings_of(
    gates: GateConfig, quality: QualityConfig, hold: Sequence[str], sizes: Iterable[int], seed: int
) -> QualitySettings:
    """Give how redrawn images are measured, for models that read at these sizes."""
    return QualitySettings(
        hold=tuple(hold),
        sizes=sorted({*sizes}),
        probe_steps=gates.probe_steps,
        features=quality.features,
        cycles=quality.cycles,
        learning_curve=quality.learning_curve,
        seed=seed,
    )


def provenance(run: Run, model: str) -> dict[str, Any]:
    """Return where an audit came from: versions, seed, settings, hashes, and time and memory per stage."""
    names = ("cohort", "fit", "generate", "quality", f"predict.{model}", f"test.{model}")
    mine = [record for name in names if (record := run.record(name)) is not None]
    facts = {record.name.removesuffix(f".{model}"): record for record in mine}
    weights = {Path(name).name: digest for name, digest in facts["fit"].files.items() if name.endswith(".safetensors")}
    return {
        "versions": versions(),
        "seed": run.config.seed,
        "config_sha256": run.config.fingerprint(),
        # The whole configuration, with its folders, is in the run's config.json; an audit is made to be handed on.
        "config": _shareable(run, model),
        "inputs": {
            "table_sha256": facts["cohort"].facts["table_sha256"],
            "generator_sha256": weights,
            "model_sha256": facts["predict"].facts.get("model_sha256"),
            "answers_sha256": facts["predict"].facts.get("answers_sha256"),
        },
        "model_run": _model_run(run.config.models[model], facts["predict"].facts),
        "generator_report": facts["fit"].facts["report"],
        "stages": [
            {
                "stage": name,
                "seconds": record.seconds,
                "peak_memory_mb": record.peak_memory_mb,
                "attempts": record.attempts,
            }
            for name, record in facts.items()
        ],
        "history": run.history.changes(),
    }


def whole_provenance(run: Run) -> dict[str, Any]:
    """Return all that is known of a run for its own folder: with paths, device and dates, which no audit hands on."""
    from citlr.learning.trainer import Trainer

    return {
        "schema": "citlr.provenance/1",
        "versions": versions(),
        "device": str(Trainer().device),
        "seed": run.config.seed,
        "config_sha256": run.config.fingerprint(),
        "config": run.config.model_dump(mode="json"),
        "stages": [asdict(record) for record in run.records()],
        "history": run.history.changes(),
    }


def _model_run(model: ModelConfig, facts: dict[str, Any]) -> dict[str, str]:
    """Say where the model was run and what it gave back."""
    return {
        "where": "by its owner" if model.kind == CLOSED else "here",
        "answers": str(facts.get("answers", "probabilities")),
    }


def _shareable(run: Run, model: str) -> dict[str, Any]:
    """Return the settings of one model's audit without folders and without the other models."""
    dumped = run.config.model_dump(mode="json")
    settings: dict[str, Any] = scrub({**dumped, "models": {model: dumped["models"][model]}})
    return settings
