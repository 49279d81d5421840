"""The sections of a configuration: their keys, defaults and limits."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from citlr.config.kinds import IMAGES, GeneratorKind
from citlr.doses import number_levels
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

    # The line under a field says what it means: the page of settings is made of these (`tools/docsite/settings.py`).
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    # Keys that a file may have besides the fields, and the section that each holds.
    besides: ClassVar[dict[str, Any]] = {}


class CohortConfig(Section):
    """Where the images and their attributes are; paths are relative to the configuration file."""

    table: File
    """One row per image: CSV, TSV, parquet or Excel."""
    images: File | None = None
    """The folder of the images. Without it `table` is a cohort that `citlr prepare` wrote."""
    attribute: Name
    """The column of the sensitive attribute."""
    labels: Annotated[Names, Field(min_length=1, max_length=1000)]
    """The columns of the findings that the model is asked for."""
    levels: Annotated[Names, BeforeValidator(number_levels), Field(min_length=2)] | None = None
    """The levels of the attribute to keep, in this order. Without it all that are recorded. Of a number, such as the
    age, the values that images are redrawn at: `[30, 50, 70]`, or a grid, `{from: 30, to: 80, step: 10}`."""
    bins: dict[Name, tuple[Number, ...]] = {}
    """Cuts a column of numbers at these edges, so that its groups are levels: `{age: [40, 60]}`."""
    combine: Names = ()
    """Columns that together make `attribute`; its levels are their combinations, such as "F, black"."""
    covariates: Names = ()
    """Further columns that can be held, such as the view."""
    columns: dict[Name, Name] = {}
    """Which of your columns is which, `{path: file}`: image_id, path, patient_id, split, attributes and so on."""
    keep: dict[Name, tuple[Text, ...]] = {}
    """Keeps only rows with these values of a column: `{view: [PA]}`."""
    uncertain: Literal["error", "ignore", "zeros", "ones"] = "error"
    """What a label of -1 is: an error, or ignored (not stated), zeros or ones."""
    split: Name | None = None
    """The column that says train, validation or test. Without it a split is drawn by patient."""
    fractions: tuple[Share, Share, Share] = (0.65, 0.10, 0.25)
    """The shares of train, validation and test where the split is drawn."""
    split_seed: Seed = 0
    """The seed of a split that is drawn."""
    fit: Literal["pad", "crop", "stretch"] | None = None
    """How rectangles become squares: black borders, the centre cut out, or stretched. Without it `pad`."""
    channels: Annotated[Literal[1, 3] | None, Field(exclude_if=lambda value: value is None)] = None
    """3 reads images in red, green and blue. Without it colour pictures become grey."""
    cache: Flag = True
    """Whether the decoded images of a prepared cohort are used."""
    max_unreadable: Share = 0.01
    """The share of images that may be unreadable before the run stops."""
    min_patients_per_level: Count = 20
    """The fewest test patients of each level."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
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
    """Which generator to train and how large."""

    kind: GeneratorKind = "dldm"
    """`dldm`, `cldm`: latent diffusion with and without a disentangler; `edits`: changes of the original along its
    anatomy; `vae`, `latent-shift`: rivals to compare with; `images`: your own redrawn images, listed in `table`."""
    preset: Name = "laptop"
    """How large the networks are and how long they train: `tiny`, `laptop`, `workstation`, `published` or `paper`."""
    size: Annotated[Whole, Field(ge=32, le=256)] = 64
    """The side of the redrawn images in pixels."""
    hold: Names = ()
    """Labels and covariates that are kept as observed while the attribute is redrawn."""
    table: File | None = None
    """Only for `images`: the table of the redrawn images (image_id, level, draw, path)."""
    options: Options = {}
    """Settings of the preset that you change one by one, such as `{denoiser_steps: 4000}`."""

    @model_validator(mode="after")
    def _own_keys(self) -> Self:
        if self.kind == IMAGES and (self.table is None or self.options):
            missing = "'table' is missing: name the CSV of the redrawn images" if self.table is None else ""
            raise ValueError(missing or "with kind: images nothing is trained that options could set: leave it out")
        if self.kind != IMAGES and self.table is not None:
            raise ValueError(
                f"table goes with kind: images, and the kind is {self.kind}: leave table out, or say kind: images"
            )
        for name in ("kind", "preset", "size", "hold"):
            if name in self.options:
                raise ValueError(
                    f"options holds '{name}', which stands beside options, not in it: give generator.{name}"
                )
        if "image_channels" in self.options:
            raise ValueError("options names 'image_channels', which is the cohort's: give cohort.channels")
        return self


class GenerateConfig(Section):
    """How the test images are redrawn."""

    draws: Annotated[Whole, Field(ge=2, le=1000)] = 4
    """How often each image is redrawn under each level."""
    guidance: Positive | None = None
    """How strongly an image is led to a level while it is redrawn. Without it the generator's own calibrated value."""
    shared_seeds: Flag = True
    """Whether a draw starts from the same noise under every level: levels are compared draw by draw then."""
    shard: Few = 32
    """Images per file of the redrawn images."""


class TestConfig(Section):
    """The test: outcome, margin and error rate."""

    __test__ = False  # pytest: not a test class

    outcome: Literal["decision", "probability"] = "decision"
    """What is tested: the decision at the threshold, or the probability itself."""
    threshold: Thresholds = 0.5
    """The model's operating point: one number, or one for every label."""
    margin: Margin = 0.02
    """The largest change that does not matter, for psi and for the mean effect."""
    alpha: Annotated[Number, Field(ge=1e-6, lt=0.5)] = 0.05
    """The error rate of "dependence" over all findings and contrasts together, and of each "equivalent" by itself."""
    randomizations: Annotated[Whole, Field(ge=99, le=10_000_000)] = 4999
    """How often the levels are reshuffled: more give a finer p-value."""


class GateConfig(Section):
    """What has to be met before a verdict may rest on the redrawn images.

    In worlds of known truth blind and biased models decided .88 or more alike, at rank correlations of .91 or more and
    AUROCs that changed by .034 at most; those that read a texture which is not drawn .84 or less (docs/pipeline.md).
    """

    composition: Positive = 0.05
    """The largest mean absolute change (grey values in [0, 1]) by redrawing an image as what it already is."""
    effectiveness: Share = 0.80
    """The smallest share of the attribute that redrawn images carry at the size that the model reads."""
    # Half of an effect is a quarter of its square.
    difference_left: Positive = 0.25
    """What redrawing may leave of the squared difference between recorded levels in "equivalent"; above 1 waives it."""
    drift: Share = 0.05
    """The largest shift of a held label's probability, also where it goes up in some images and down in others."""
    placebo: Flag = True
    """Whether the placebo, a fair coin redrawn like the attribute, must show nothing."""
    agreement: Share = 0.80
    """The smallest share of equal decisions on images redrawn as they are and on originals; 0 waives it."""
    agreement_rank: Share = 0.70
    """The smallest rank correlation of the model's outputs on images redrawn as they are and on originals."""
    agreement_auroc: Share = 0.10
    """The largest change, between the two, of the AUROC with which the outputs tell the label, or the attribute."""
    unexplained: Flag = True
    """Whether recorded levels that differ more than redrawing shows forbid "equivalent", and less "dependence"."""
    put_back: Flag = True
    """Whether "dependence" needs more than moving an image and putting it back does to the answers (edits only)."""
    draws: Flag = True
    """Whether draws that share noise, over all images or a patient's, or repeat each other, forbid a verdict."""
    # Shorter probes have not unlearnt the attribute where a label goes with it (benchmarks/probes.py --steps 400 800).
    probe_steps: Count = 800
    """Training steps of the probes that read the attribute, the labels and the covariates."""


class QualityConfig(Section):
    """What the redrawn images are measured with, besides the probes."""

    features: Name = "probe"
    """The network of FID and KID: `probe`, `inception_v3:FILE`, or `torchxrayvision:NAME` (with `:FILE` for a file)."""
    cycles: Annotated[Whole, Field(ge=1, le=50)] = 10
    """How many times in a row an image is redrawn as what it is, to measure what adds up."""
    # Costs as many further trainings.
    learning_curve: Annotated[tuple[Annotated[Number, Field(gt=0, lt=1)], ...], Field(max_length=10)] = ()
    """Shares of the training split, `[0.25, 0.5]`: trained again on each, it foretells how many images would do."""


class ControlsConfig(Section):
    """Negative and positive controls: a coin on a sample of the test images, planted bias."""

    placebo_images: CountOrNone | None = None
    """Test images redrawn under the coin. Without it as many as show an effect of `test.margin` with 80 % power."""
    replicate_images: CountOrNone = 200
    """Test images that measure the error a finite training split leaves; 0 takes the generator as given."""
    planted: Annotated[tuple[Positive, ...], Field(max_length=100)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Strengths of the bias that is planted into the model, in logits."""
    bootstraps: Annotated[Whole, Field(ge=0, le=100_000)] = 40
    """How often patients are drawn anew, to count how surely a planted bias is found."""


class ReportConfig(Section):
    """What the page shows; it may be changed after a run without touching its numbers."""

    gallery: Annotated[Whole, Field(ge=0, le=48)] = 0
    """How many pictures the page shows: only where the images may leave your hospital."""
    gallery_pixels: Annotated[Whole, Field(ge=16, le=8192)] = LEGIBLE
    """A picture's longest side in pixels; above 128, where burnt-in text can be read, only with `no_burnt_in_text`."""
    no_burnt_in_text: Flag = False
    """Says that somebody has looked and no text is burnt into the images."""
    mask_below: Count = 5
    """Cells of fewer patients are masked."""
    intended_use: Text = ""
    """What the model is for, as the page quotes it."""
    attribute_definition: Text = ""
    """How the attribute was recorded and by whom, as the page quotes it."""

    @model_validator(mode="after")
    def _legible_text_is_looked_for(self) -> Self:
        if self.gallery and self.gallery_pixels > LEGIBLE and not self.no_burnt_in_text:
            raise ValueError(
                f"pictures of {self.gallery_pixels} pixels can show text that is burnt in (names, dates): look at them "
                f"and say no_burnt_in_text: true, or keep to {LEGIBLE} pixels"
            )
        return self
