"""The sections of a configuration: their keys, defaults and limits."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from citlr.config.kinds import IMAGES, GeneratorKind
from citlr.errors import did_you_mean
from citlr.values import (
    Count,
    CountOrNone,
    Few,
    File,
    Flag,
    Margin,
    Name,
    Names,
    Number,
    Options,
    Positive,
    Seed,
    Share,
    Text,
    Thresholds,
    Whole,
)

# Text burnt into a radiograph of 2000 pixels or more a side is 2 to 4 pixels high at this size: nobody reads it.
LEGIBLE = 128


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Keys that a file may have besides the fields, and the section that each holds.
    besides: ClassVar[dict[str, Any]] = {}


class CohortConfig(Section):
    """Where the images and their attributes are; paths are relative to the configuration file.

    `columns` maps this package's names (image_id, path, patient_id, split, and any attribute, label or covariate) to
    the table's own. `keep` restricts rows to listed values of a column, `fit` says how rectangles become squares
    ("pad" without it). `bins` cuts a column of numbers at these edges, so that its groups are levels:
    `{age: [40, 60]}`. `combine` makes `attribute` the joint one of several columns, whose levels are the combinations
    in that order, such as "F, black"; `levels` then names the combinations to keep. `uncertain` says what a label of -1
    is: an error, or ignored (not stated), zeros or ones. Without `images`, `table` is a
    cohort that `citlr prepare` wrote, with its cache if it has one; `cache: false` reads the image files all the same.
    """

    table: File
    images: File | None = None
    attribute: Name
    labels: Annotated[Names, Field(min_length=1, max_length=1000)]
    levels: Annotated[Names, Field(min_length=2)] | None = None
    bins: dict[Name, tuple[Number, ...]] = {}
    combine: Names = ()
    covariates: Names = ()
    columns: dict[Name, Name] = {}
    keep: dict[Name, tuple[Text, ...]] = {}
    uncertain: Literal["error", "ignore", "zeros", "ones"] = "error"
    split: Name | None = None
    fractions: tuple[Share, Share, Share] = (0.65, 0.10, 0.25)
    split_seed: Seed = 0
    fit: Literal["pad", "crop", "stretch"] | None = None
    cache: Flag = True
    max_unreadable: Share = 0.01
    min_patients_per_level: Count = 20

    @model_validator(mode="after")
    def _parts_agree(self) -> CohortConfig:
        parts = self.combine or (self.attribute,)
        if self.combine and (len(set(self.combine)) < 2 or self.attribute in self.combine):
            raise ValueError(
                f"combine names {list(self.combine)}: give two columns or more, and `attribute` a name of its own"
            )
        for name in (self.attribute, *self.combine):
            if name in self.labels or name in self.covariates:
                raise ValueError(
                    f"'{name}' is the attribute and also among the labels or covariates: an attribute cannot be "
                    "audited against itself, so name another column there"
                )
        for name in self.bins:
            if name not in parts:
                raise ValueError(
                    f"bins names '{name}', which is no attribute of this audit.{did_you_mean(name, parts)}"
                )
        return self


class GeneratorConfig(Section):
    """Which generator to train and how large; `options` overrides single fields of the preset.

    "dldm" and "cldm" are latent diffusion with and without a disentangler, "edits" changes the original where its
    anatomy is, "vae" is the conditional beta-VAE, and "latent-shift" walks along the gradient of an attribute probe.
    "images" is somebody else's: `table` names its images (image_id, level, draw, path), `size` is their side, and
    nothing is trained. `hold` names covariates and labels that are kept as observed while the attribute is redrawn.
    """

    kind: GeneratorKind = "dldm"
    preset: Name = "laptop"
    size: Annotated[Whole, Field(ge=32, le=256)] = 64
    hold: Names = ()
    table: File | None = None
    options: Options = {}

    @model_validator(mode="after")
    def _own_keys(self) -> GeneratorConfig:
        if self.kind == IMAGES and (self.table is None or self.options):
            missing = "'table' is missing: name the CSV of the redrawn images" if self.table is None else ""
            raise ValueError(missing or "options is of generators that are trained here: leave it out for kind: images")
        if self.kind != IMAGES and self.table is not None:
            raise ValueError(
                f"table is of kind: images, and the kind is {self.kind}: leave table out, or say kind: images"
            )
        for name in ("kind", "preset", "size", "hold"):
            if name in self.options:
                raise ValueError(f"options names '{name}', which is a key of its own: give generator.{name}")
        return self


class GenerateConfig(Section):
    """How the test images are redrawn; a guidance of None is the generator's own calibrated value.

    `shared_seeds`: whether a draw starts from the same noise under every level: levels are compared draw by draw then.
    """

    draws: Annotated[Whole, Field(ge=2, le=1000)] = 4
    guidance: Positive | None = None
    shared_seeds: Flag = True
    shard: Few = 32


class TestConfig(Section):
    """The test: outcome, margin and error rate."""

    __test__ = False  # pytest: not a test class

    outcome: Literal["decision", "probability"] = "decision"
    threshold: Thresholds = 0.5
    margin: Margin = 0.02
    alpha: Annotated[Number, Field(ge=1e-6, lt=0.5)] = 0.05
    randomizations: Annotated[Whole, Field(ge=99, le=10_000_000)] = 4999


class GateConfig(Section):
    """What has to be met before a verdict may rest on the redrawn images.

    `composition` is the largest mean absolute error (grey values in [0, 1]) of the null intervention, `effectiveness`
    the smallest share of the attribute that they carry at the size that the model reads (what a probe reads of them in
    relation to what it reads of real images; its estimate is held against the limit, its lower bound divides what is to
    be called equivalent), `drift` the largest absolute shift of a held label's probability. `probe_steps`: training of
    the probes that read this.

    The model has to answer null interventions as it answers originals: `agreement` is the smallest share of equal
    decisions (0 waives this gate), `agreement_rank` the smallest rank correlation of its outputs, `agreement_auroc` the
    largest change of the AUROC by which they tell the attribute, or the label. `unexplained`: whether a difference of
    outputs between recorded levels beyond the margin, which redrawing does not show, forbids "equivalent".

    In worlds of known truth blind and biased models decided .88 or more alike, at rank correlations of .91 or more and
    AUROCs that changed by .034 at most; those that read a texture which is not drawn .84 or less (docs/pipeline.md).
    """

    composition: Positive = 0.05
    effectiveness: Share = 0.80
    drift: Share = 0.05
    placebo: Flag = True
    agreement: Share = 0.80
    agreement_rank: Share = 0.70
    agreement_auroc: Share = 0.10
    unexplained: Flag = True
    # Shorter probes have not unlearnt the attribute where a label goes with it (benchmarks/probes.py --steps 400 800).
    probe_steps: Count = 800


class QualityConfig(Section):
    """What the redrawn images are measured with, besides the probes.

    `features` names the network of FID and KID: "probe" (the attribute probe of this run), "inception_v3:FILE"
    (torchvision's, weights from a local file), or "torchxrayvision:NAME" (weights from its cache) with ":FILE" for a
    file of yours. `cycles`: null interventions in a row.

    `learning_curve` names parts of the training split, such as [0.25, 0.5]: the generator is trained again on each,
    with the same settings, and what share of the attribute its images carry foretells how many images would do.
    """

    features: Name = "probe"
    cycles: Annotated[Whole, Field(ge=1, le=50)] = 10
    # Costs as many further trainings.
    learning_curve: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Field(max_length=10)] = ()


class ControlsConfig(Section):
    """Negative and positive controls: a coin on a sample of the test images, planted bias (strengths in logits).

    `placebo_images` is the size of the coin's sample; None takes as many as notice, with 80 % power, that the coin
    moves `test.margin` of the outputs. `replicate_images` is the size of the sample that is moved by what the
    generator's training split leaves open; 0 takes the generator as given.
    """

    placebo_images: CountOrNone | None = None
    replicate_images: CountOrNone = 200
    planted: Annotated[tuple[Positive, ...], Field(max_length=100)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    bootstraps: Annotated[Whole, Field(ge=0, le=100_000)] = 40


class ReportConfig(Section):
    """What the page shows; it may be changed after a run without touching its numbers.

    `gallery`: pictures (their number), only where the images may leave the house. `gallery_pixels`: their longest side;
    above 128, where text that is burnt in can be read, only with `no_burnt_in_text`: somebody has looked. `mask_below`:
    cells of fewer patients are masked. `intended_use` and `attribute_definition`: what the model is for, and how the
    attribute was recorded and by whom, as the page quotes it.
    """

    gallery: Annotated[Whole, Field(ge=0, le=48)] = 0
    gallery_pixels: Annotated[Whole, Field(ge=16, le=8192)] = LEGIBLE
    no_burnt_in_text: Flag = False
    mask_below: Count = 5
    intended_use: Text = ""
    attribute_definition: Text = ""

    @model_validator(mode="after")
    def _legible_text_is_looked_for(self) -> ReportConfig:
        if self.gallery and self.gallery_pixels > LEGIBLE and not self.no_burnt_in_text:
            raise ValueError(
                f"pictures of {self.gallery_pixels} pixels can show text that is burnt in (names, dates): look at them "
                f"and say no_burnt_in_text: true, or keep to {LEGIBLE} pixels"
            )
        return self
