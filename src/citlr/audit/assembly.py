"""From a configuration to the generator and the models that it asks for, and from a run to where it came from."""

from __future__ import annotations

from typing import Any

from citlr.artifacts import Run, versions
from citlr.config import ModelConfig
from citlr.generators.direct import DirectGenerator
from citlr.generators.ldm import LatentDiffusion
from citlr.generators.registry import build_generator
from citlr.predictors.base import Predictor
from citlr.predictors.loading import load_predictor


def generator_of(run: Run) -> LatentDiffusion | DirectGenerator:
    """Build the generator that the configuration asks for, not trained yet."""
    settings = run.config.generator
    return build_generator(
        settings.kind,
        size=settings.size,
        hold=settings.hold,
        preset=settings.preset,
        **_tuples(settings.options),
    )


def build_predictor(name: str, model: ModelConfig) -> Predictor:
    """Load the model under audit as the configuration declares it."""
    return load_predictor(
        model.source,
        labels=model.labels,
        kind=model.kind,
        weights=model.weights,
        input=model.input or None,
        output=model.output,
        batch_size=model.batch_size,
        name=name,
        trust=model.trust,
    )


def provenance(run: Run, model: str) -> dict[str, Any]:
    """Return where an audit came from: versions, seed, settings, hashes, and time and memory per stage."""
    mine = [record for record in run.records() if "." not in record.name or record.name.endswith(f".{model}")]
    facts = {record.name.removesuffix(f".{model}"): record for record in mine}
    return {
        "versions": versions(),
        "seed": run.config.seed,
        "config_sha256": run.config.fingerprint(),
        "config": run.config.model_dump(mode="json"),
        "inputs": {
            "table_sha256": facts["cohort"].facts["table_sha256"],
            "generator_sha256": facts["fit"].facts["sha256"],
            "model_sha256": facts["predict"].facts.get("model_sha256"),
            "answers_sha256": facts["predict"].facts.get("answers_sha256"),
        },
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
    }


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Return YAML's lists as the tuples that frozen settings hold."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
