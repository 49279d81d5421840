"""The configuration of an audit: one YAML file, validated whole before anything expensive starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from citlr.errors import InputError, did_you_mean

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# Text burnt into a radiograph of 2000 pixels or more a side is 2 to 4 pixels high at this size: nobody reads it.
LEGIBLE = 128


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortConfig(Section):
    """Where the images and their attributes are; paths are relative to the configuration file.

    `columns` maps this package's names (image_id, path, patient_id, split, and any attribute, label or covariate) to
    the table's own. `keep` restricts rows to listed values of a column, `fit` says how rectangles become squares
    ("pad" without it). `bins` cuts a column of numbers at these edges, so that its groups are levels:
    `{age: [40, 60]}`. `combine` makes `attribute` the joint one of several columns, whose levels are the combinations
    in that order, such as "F, black"; `levels` then names the combinations to keep. Without `images`, `table` is a
    cohort that `citlr prepare` wrote, with its cache if it has one; `cache: false` reads the image files all the same.
    """

    table: Path
    images: Path | None = None
    attribute: str
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    levels: tuple[str, ...] | None = None
    bins: dict[str, tuple[float, ...]] = {}
    combine: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    keep: dict[str, tuple[str, ...]] = {}
    split: str | None = None
    fractions: tuple[Share, Share, Share] = (0.65, 0.10, 0.25)
    split_seed: int = 0
    fit: Literal["pad", "crop", "stretch"] | None = None
    cache: bool = True
    max_unreadable: Share = 0.01
    min_patients_per_level: Count = 20

    @model_validator(mode="after")
    def _parts_agree(self) -> CohortConfig:
        parts = self.combine or (self.attribute,)
        if self.combine and (len(set(self.combine)) < 2 or self.attribute in self.combine):
            raise ValueError(
                f"combine names {list(self.combine)}: give two columns or more, and `attribute` a name of its own"
            )
        for name in self.bins:
            if name not in parts:
                raise ValueError(
                    f"bins names '{name}', which is no attribute of this audit.{did_you_mean(name, parts)}"
                )
        return self


class GeneratorConfig(Section):
    """Which generator to train and how large; `options` overrides single fields of the preset.

    "dldm" and "cldm" are latent diffusion with and without a disentangler, "vae" is the conditional beta-VAE, and
    "latent-shift" walks along the gradient of an attribute probe.
    """

    kind: Literal["dldm", "cldm", "vae", "latent-shift"] = "dldm"
    preset: str = "small"
    size: Count = 64
    hold: tuple[str, ...] = ()
    options: dict[str, Any] = {}


class GenerateConfig(Section):
    """How the test images are redrawn; None leaves the generator's own calibrated value."""

    draws: Annotated[int, Field(ge=2)] = 4
    guidance: Positive | None = None
    shard: Count = 32


class ModelConfig(Section):
    """The model under audit, and what it declares of its inputs and outputs.

    `output` is "logit", "probability", or a mapping (kind, activation, columns, name); None is what the file says of
    itself, else "probability".
    """

    source: str
    kind: str | None = None
    name: str | None = None
    labels: tuple[str, ...] | None = None
    weights: Path | None = None
    input: dict[str, Any] = {}
    output: str | dict[str, Any] | None = None
    batch_size: Count = 64
    trust: bool = False

    @field_validator("output")
    @classmethod
    def _known_output(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        known = ("logit", "probability")
        if isinstance(value, str) and value not in known:
            raise ValueError(f"a model gives logit or probability.{did_you_mean(value, known)}")
        return value


class TestConfig(Section):
    """The test: outcome, margin and error rate."""

    __test__ = False  # pytest: not a test class

    outcome: Literal["decision", "probability"] = "decision"
    threshold: Share | dict[str, Share] = 0.5
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    randomizations: Annotated[int, Field(ge=99)] = 4999


class GateConfig(Section):
    """What the generator has to meet before a verdict may rest on its images.

    `composition` is the largest mean absolute error (grey values in [0, 1]) of the null intervention, `effectiveness`
    the smallest share of redrawn images that an attribute probe reads as the level they were redrawn under, `drift` the
    largest absolute shift of a held label's probability. `probe_steps`: training of the probes that read this.
    """

    composition: Positive = 0.05
    effectiveness: Share = 0.80
    drift: Share = 0.05
    placebo: bool = True
    probe_steps: Count = 400


class QualityConfig(Section):
    """What the redrawn images are measured with, besides the probes.

    `features` names the network of FID and KID: "probe" (the attribute probe of this run), "inception_v3:FILE"
    (torchvision's, weights from a local file), or "torchxrayvision:NAME" (weights from its cache) with ":FILE" for a
    file of yours. `cycles`: null interventions in a row.
    """

    features: str = "probe"
    cycles: Annotated[int, Field(ge=1, le=50)] = 10


class ControlsConfig(Section):
    """Negative and positive controls: a coin on a sample of the test images, planted bias (strengths in logits).

    `placebo_images` is the size of the coin's sample; None takes as many as notice, with 80 % power, that the coin
    moves `test.margin` of the outputs. `replicate_images` is the size of the sample that is moved by what the
    generator's training split leaves open; 0 takes the generator as given.
    """

    placebo_images: Annotated[int, Field(ge=0)] | None = None
    replicate_images: Annotated[int, Field(ge=0)] = 200
    planted: tuple[Positive, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    bootstraps: Annotated[int, Field(ge=0)] = 40


class ReportConfig(Section):
    """What the page shows; it may be changed after a run without touching its numbers.

    `gallery`: pictures (their number), only where the images may leave the house. `gallery_pixels`: their longest side;
    above 128, where text that is burnt in can be read, only with `no_burnt_in_text`: somebody has looked. `mask_below`:
    cells of fewer patients are masked. `intended_use` and `attribute_definition`: what the model is for, and how the
    attribute was recorded and by whom, as the page quotes it.
    """

    gallery: Annotated[int, Field(ge=0, le=48)] = 0
    gallery_pixels: Annotated[int, Field(ge=16)] = LEGIBLE
    no_burnt_in_text: bool = False
    mask_below: Count = 5
    intended_use: str = ""
    attribute_definition: str = ""

    @model_validator(mode="after")
    def _legible_text_is_looked_for(self) -> ReportConfig:
        if self.gallery and self.gallery_pixels > LEGIBLE and not self.no_burnt_in_text:
            raise ValueError(
                f"pictures of {self.gallery_pixels} pixels can show text that is burnt in (names, dates): look at them "
                f"and say no_burnt_in_text: true, or keep to {LEGIBLE} pixels"
            )
        return self


class AuditConfig(Section):
    """Everything an audit needs to know.

    Examples
    --------
    >>> config = AuditConfig.model_validate({
    ...     "cohort": {"table": "a.csv", "images": ".", "attribute": "sex", "labels": ["pneumonia"]},
    ...     "model": {"source": "model.onnx"},
    ... })
    >>> config.test.margin, config.generate.draws, list(config.models)
    (0.02, 4, ['model'])
    """

    cohort: CohortConfig
    models: Annotated[dict[str, ModelConfig], Field(min_length=1)]
    generator: GeneratorConfig = GeneratorConfig()
    generate: GenerateConfig = GenerateConfig()
    test: TestConfig = TestConfig()
    gates: GateConfig = GateConfig()
    quality: QualityConfig = QualityConfig()
    controls: ControlsConfig = ControlsConfig()
    report: ReportConfig = ReportConfig()
    seed: int = 0

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
        return {**rest, "models": {name or "model": single}}

    @model_validator(mode="after")
    def _names_agree(self) -> AuditConfig:
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
        if isinstance(self.test.threshold, dict) and set(self.test.threshold) != set(cohort.labels):
            raise ValueError(
                f"test.threshold names {sorted(self.test.threshold)} and the labels are {sorted(cohort.labels)}: name "
                "each label once, or give one number"
            )
        for name, model in self.models.items():
            if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
                raise ValueError(f"the model name '{name}' cannot name a folder: use letters, digits, '-', '_' and '.'")
            unknown = [label for label in model.labels or () if label not in cohort.labels]
            if model.labels is not None and len(unknown) == len(model.labels):
                raise ValueError(
                    f"model '{name}' gives {list(model.labels)}, none of the cohort's labels {list(cohort.labels)}"
                )
        return self

    def resolved(self, folder: Path) -> AuditConfig:
        """Return the same configuration with every path made absolute against `folder`."""
        images = None if self.cohort.images is None else _absolute(self.cohort.images, folder)
        cohort = self.cohort.model_copy(update={"table": _absolute(self.cohort.table, folder), "images": images})
        models = {
            name: model.model_copy(
                update={
                    "source": _absolute_source(model.source, folder),
                    "weights": None if model.weights is None else _absolute(model.weights, folder),
                }
            )
            for name, model in self.models.items()
        }
        quality = self.quality.model_copy(update={"features": _absolute_features(self.quality.features, folder)})
        return self.model_copy(update={"cohort": cohort, "models": models, "quality": quality})

    def fingerprint(self) -> str:
        """Return a SHA-256 over the canonical JSON: equal for equal settings, whatever the order of the keys."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_config(path: str | Path) -> AuditConfig:
    """Read and validate a YAML configuration; paths in it become absolute.

    Parameters
    ----------
    path : path-like
        The YAML file.

    Returns
    -------
    AuditConfig
        The settings.

    Raises
    ------
    InputError
        If the file is missing, is not YAML, or has a key or value that cannot be used; every message names the key and
        what would do.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(
            f"No configuration at '{source}': give the path of a YAML file (examples/nih_sex.yaml is one)."
        )
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"'{source}' is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"'{source}' holds {type(content).__name__}, not a mapping: see examples/nih_sex.yaml.")
    return parse_config(content, str(source)).resolved(source.resolve().parent)


def parse_config(content: dict[str, Any], where: str) -> AuditConfig:
    """Validate plain settings; `where` is named in the error."""
    try:
        return AuditConfig.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_sentence(problem) for problem in error.errors())
        raise InputError(f"In '{where}': {problems.rstrip('.')}.") from error


def parse_report(content: dict[str, Any]) -> ReportConfig:
    """Validate what a report shall show, as given on a command line.

    Raises
    ------
    InputError
        If a value cannot be used.
    """
    try:
        return ReportConfig.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"The report cannot be made: {'; '.join(_sentence(one) for one in error.errors())}."
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return "key: old -> new" for every setting that differs between two dumped configurations.

    Examples
    --------
    >>> differences({"test": {"margin": 0.02}}, {"test": {"margin": 0.05}})
    ['test.margin: 0.02 -> 0.05']
    """
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _absolute(path: Path, folder: Path) -> Path:
    return path if path.is_absolute() else (folder / path).resolve()


def _absolute_source(source: str, folder: Path) -> str:
    """Make a file path absolute; leave an import path such as `package.module:name` alone."""
    file, colon, name = source.partition(":")
    candidate = _absolute(Path(file), folder)
    looks_like_file = "/" in file or candidate.exists() or Path(file).suffix in {".py", ".pt", ".ts", ".onnx"}
    return f"{candidate}{colon}{name}" if looks_like_file else source


def _absolute_features(features: str, folder: Path) -> str:
    """Make the weights that `quality.features` names absolute."""
    kind, *rest = features.split(":", 2 if features.startswith("torchxrayvision") else 1)
    names_file = len(rest) == (2 if kind == "torchxrayvision" else 1) and bool(rest[-1])
    return ":".join([kind, *rest[:-1], str(_absolute(Path(rest[-1]), folder))]) if names_file else features


def _sentence(problem: Any) -> str:
    """Turn one pydantic problem into words: the key, what was found, what would do."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location).replace("models.model.", "model.")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{did_you_mean(location[-1], _keys(location[:-1]))}".rstrip(".")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"'{key}' is {problem['input']!r}: {message}" if key else message


def _keys(location: Iterable[str]) -> list[str]:
    """Return the field names of the section at `location`."""
    section: type[BaseModel] = AuditConfig
    for part in location:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if part == "models":
            section = ModelConfig
        elif isinstance(annotation, type) and issubclass(annotation, Section):
            section = annotation
    names = list(section.model_fields)
    return [*names, "model"] if section is AuditConfig else names
