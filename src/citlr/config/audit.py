"""A whole configuration: the sections together, and what they have to agree on."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from citlr.config.kinds import IMAGES
from citlr.config.model import MODEL_FILES, ModelConfig
from citlr.config.sections import (
    CohortConfig,
    ControlsConfig,
    GateConfig,
    GenerateConfig,
    GeneratorConfig,
    QualityConfig,
    ReportConfig,
    Section,
    TestConfig,
)
from citlr.errors import did_you_mean
from citlr.text import shortened
from citlr.values import Seed

# Of any script; a folder of this name is made in the run.
_FOLDER = re.compile(r"[^\W][\w.-]{0,99}|_[\w.-]{0,99}")


class AuditConfig(Section):
    """Everything an audit needs to know.

    >>> config = AuditConfig.model_validate({
    ...     "cohort": {"table": "a.csv", "images": ".", "attribute": "sex", "labels": ["pneumonia"]},
    ...     "model": {"source": "model.onnx"},
    ... })
    >>> config.test.margin, config.generate.draws, list(config.models)
    (0.02, 4, ['model'])
    """

    besides: ClassVar[dict[str, Any]] = {"model": ModelConfig}

    cohort: CohortConfig
    """Where the images and their attributes are."""
    models: Annotated[dict[str, ModelConfig], Field(min_length=1, max_length=1000)]
    """Models under audit by name; `model:` stands for a single one."""
    generator: GeneratorConfig = GeneratorConfig()
    """What redraws the images."""
    generate: GenerateConfig = GenerateConfig()
    """How many times each test image is redrawn, and from which noise."""
    test: TestConfig = TestConfig()
    """What is tested, at which margin and error rate."""
    gates: GateConfig = GateConfig()
    """The limits that a verdict has to pass (gates)."""
    quality: QualityConfig = QualityConfig()
    """How redrawn images are measured."""
    controls: ControlsConfig = ControlsConfig()
    """Negative and positive controls."""
    report: ReportConfig = ReportConfig()
    """What the page shows."""
    seed: Seed = 0
    """Seed of everything random but the split: the same seed gives the same numbers."""

    @model_validator(mode="before")
    @classmethod
    def _one_model(cls, content: Any) -> Any:
        """Accept `model:` for one model; the name is its own, or "model"."""
        if not isinstance(content, dict) or "model" not in content:
            return content
        if "models" in content:
            raise ValueError("give either 'model' (one) or 'models' (several by name), not both")
        rest = {key: value for key, value in content.items() if key != "model"}
        single = content["model"]
        name = single.get("name") if isinstance(single, dict) else getattr(single, "name", None)
        return {**rest, "models": {name if name and isinstance(name, str) else "model": single}}

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        cohort = self.cohort
        known = {*cohort.labels, *cohort.covariates}
        for name in self.generator.hold:
            if name in (cohort.attribute, *cohort.combine):
                raise ValueError(
                    f"generator.hold names '{name}', the attribute itself: hold labels and covariates only"
                )
            if name not in known:
                near = did_you_mean(name, known)
                raise ValueError(f"generator.hold names '{name}', neither a label nor a covariate of the cohort.{near}")
        if self.generator.kind == IMAGES and self.quality.learning_curve:
            raise ValueError(
                "quality.learning_curve trains the generator again, and of generator.kind images nothing is trained: "
                "leave it out"
            )
        options = self.generator.options
        if options.get("abduction") == "inversion" and not options.get("eta"):
            raise ValueError(
                "generator.options.abduction is inversion, which gives one image per level, and generate.draws asks "
                f"for {self.generate.draws}: set options.eta above 0 (kinds dldm and cldm), or leave abduction at noise"
            )
        if isinstance(self.test.threshold, dict) and set(self.test.threshold) != set(cohort.labels):
            raise ValueError(
                f"test.threshold names {sorted(self.test.threshold)} and the labels are {sorted(cohort.labels)}: name "
                "each label once, or give one number"
            )
        for name, model in self.models.items():
            if not _FOLDER.fullmatch(name):
                raise ValueError(
                    f"the model name '{shortened(name)}' cannot name a folder: use at most 100 letters, digits, '-', "
                    "'_' and '.', the first no '.'"
                )
            unknown = [label for label in model.labels or () if label not in cohort.labels]
            if model.labels is not None and len(unknown) == len(model.labels):
                raise ValueError(
                    f"model '{name}' gives {list(model.labels)}, none of the cohort's labels {list(cohort.labels)}"
                )
        return self

    def resolved(self, folder: Path) -> Self:
        """Return the same configuration with every path made absolute against `folder`."""
        images = None if self.cohort.images is None else _absolute(self.cohort.images, folder)
        cohort = self.cohort.model_copy(update={"table": _absolute(self.cohort.table, folder), "images": images})
        models = {
            name: model.model_copy(
                update={
                    "source": None if model.source is None else _absolute_source(model.source, folder),
                    "weights": None if model.weights is None else _absolute(model.weights, folder),
                }
            )
            for name, model in self.models.items()
        }
        quality = self.quality.model_copy(update={"features": _absolute_features(self.quality.features, folder)})
        redrawn = None if self.generator.table is None else _absolute(self.generator.table, folder)
        generator = self.generator.model_copy(update={"table": redrawn})
        return self.model_copy(update={"cohort": cohort, "models": models, "quality": quality, "generator": generator})

    def fingerprint(self) -> str:
        """Return a SHA-256 over the canonical JSON: equal for equal settings, whatever the order of the keys."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _absolute(path: Path, folder: Path) -> Path:
    return path if path.is_absolute() else (folder / path).resolve()


def _absolute_source(source: str, folder: Path) -> str:
    """Make a file path absolute; leave an import path such as `package.module:name` alone."""
    file, colon, name = source.partition(":")
    candidate = _absolute(Path(file), folder)
    endings = {".py", *(ending for one in MODEL_FILES.values() for ending in one)}
    looks_like_file = "/" in file or candidate.exists() or Path(file).suffix in endings
    return f"{candidate}{colon}{name}" if looks_like_file else source


def _absolute_features(features: str, folder: Path) -> str:
    """Make the weights that `quality.features` names absolute."""
    kind, *rest = features.split(":", 2 if features.startswith("torchxrayvision") else 1)
    names_file = len(rest) == (2 if kind == "torchxrayvision" else 1) and bool(rest[-1])
    return ":".join([kind, *rest[:-1], str(_absolute(Path(rest[-1]), folder))]) if names_file else features
