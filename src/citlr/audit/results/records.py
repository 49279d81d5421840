"""The parts of a result besides its tests: one frozen record per association, gate, control and measurement."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, Field

from citlr.checks import Check
from citlr.data.edits import NOT_PLACED
from citlr.generators.quality.records import Left
from citlr.invariance.effects.accuracy import AccuracyDifference, GroupAccuracy
from citlr.invariance.records import Estimate, TestRow
from citlr.text import shown
from citlr.values import Real


def _row(texts: tuple[str, ...], counts: tuple[str, ...]) -> Any:
    """Return the kind of a row of the cohort's tables: texts, and counts of which a masked one is None."""

    def check(row: dict[str, Any]) -> dict[str, Any]:
        for name in (*texts, *counts):
            if name not in row:
                raise ValueError(f"'{name}' is missing")
            value = row[name]
            whole = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
            if not (isinstance(value, str) if name in texts else whole):
                raise ValueError(f"'{name}' is {shown(value)}")
        return row

    return AfterValidator(check)


Step = Annotated[
    dict[str, Any], _row(("step", "reason"), ("excluded_images", "excluded_patients", "n_images", "n_patients"))
]
Cell = Annotated[dict[str, Any], _row(("split", "attribute", "level", "label"), ("images", "patients"))]
Recorded = Annotated[dict[str, Any], _row(("attribute", "raw"), ("images_before", "images_after"))]


@dataclass(frozen=True)
class BaselineRow:
    """An association test beside the verdict: never part of it."""

    method: str
    label: str
    contrast: tuple[str, str]
    statistic: Real
    pvalue: Real
    difference: Estimate | None = None
    note: str = ""


# What the reason of every verdict says that a failed gate withholds.
WITHHELD = "inconclusive, because"
About = Literal["generator", "model", "cohort"]


@dataclass(frozen=True)
class Gate(Check):
    """A check that has to be passed before a verdict may be given.

    `about` says whose shortcoming a failure is: the images of the generator, what the model makes of them, or who is in
    the cohort. `label` and `contrast` say which rows it is for; without them it is for all. `passed` is None where
    the gate was waived.
    """

    # As audit.json has it.
    limit: Annotated[float | None, Field(alias="threshold")]
    about: About
    label: str | None = None
    contrast: tuple[str, str] | None = None

    def concerns(self, row: TestRow) -> bool:
        """Whether a row's verdict rests on it."""
        return self.label in (None, row.label) and self.contrast in (None, row.contrast)


@dataclass(frozen=True)
class Carried:
    """What share of the attribute the redrawn images carry for a probe that reads them at `size` pixels, by level.

    `shares` is empty where it is not known, and `note` says why. `slope`: of a number, by which share of the difference
    that was asked for what is read moves; it is one for all values.
    """

    size: int
    shares: dict[str, Estimate]
    note: str = ""
    slope: bool = False


@dataclass(frozen=True)
class CurvePoint:
    """What share of the attribute the generator's images carry, by level, had it learnt from so many `images`."""

    images: int
    shares: dict[str, Estimate]


@dataclass(frozen=True)
class Agreement:
    """What the model answers on null interventions beside what it answers on the images as they came, for one label.

    `decisions` is the share of equal decisions, `rank` the rank correlation (Spearman) of the outputs: 1 where both
    sides are the same everywhere, 0 where only one is. The AUROCs are read off the outputs, on the originals and on the
    null interventions: of the attribute (per level, against the others) and of the label itself; None where one outcome
    is absent. `note` says what is not known, and which side is the same everywhere.
    """

    label: str
    n_images: int
    n_patients: int
    decisions: Estimate | None
    rank: float | None
    attribute_auroc: dict[str, tuple[float, float]] = field(default_factory=dict)
    label_auroc: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Unexplained:
    """The difference of outputs between recorded levels, and what of it redrawing does not explain.

    `difference` is E[Y | a', Z] - E[Y | a, Z] on the images as they came, given what is held and recorded (`given`),
    `rest` is that less the mean effect of redrawing, `lost` what null interventions take away from the difference of
    the probabilities, and `finer` what images without detail finer than the generator's pixels do. `beyond` says that
    the difference, overall or where the label has one value, or one of the two, is beyond the margin (`where`).
    """

    label: str
    contrast: tuple[str, str]
    difference: Estimate | None
    rest: Estimate | None
    beyond: bool
    given: tuple[str, ...] = ()
    where: str = ""
    note: str = ""
    lost: Estimate | None = None
    finer: Estimate | None = None


@dataclass(frozen=True)
class Quality:
    """How faithful the redrawn images are; numbers that could not be computed are None, with the reason in `notes`.

    `similarity` is the SSIM of the null intervention, `auroc` and `error` are of the attribute probe per level,
    `off_target` is the drift of what was not held, and `cycles` what several null interventions in a row leave:
    {cycles: [mean absolute difference, SSIM]}. `carried` is the share of the attribute that they carry at the size that
    the model reads, `agreement` what the model makes of null interventions, and `unexplained` the difference between
    recorded levels that redrawing does not explain. `left` is what recorded levels still differ by, in the images, once
    all are redrawn under one of them. `curve` is what is carried after training on parts of the training split, and
    last on all of it; empty where that was not asked for. `not_placed` counts test images that the generator left as
    they are, as it cannot place them; None of one that places none. `misfiled` counts images that somebody else has
    redrawn as another patient's (`find_strangers`); None where nobody looked.
    """

    composition: float | None
    effectiveness: dict[str, Real]
    reversibility: float | None
    minimality: float | None
    drift: dict[str, Real | None]
    fid: float | None
    fid_extractor: str
    gates: tuple[Gate, ...]
    notes: tuple[str, ...] = ()
    kid: float | None = None
    similarity: float | None = None
    auroc: dict[str, Real] = field(default_factory=dict)
    error: dict[str, Real] = field(default_factory=dict)
    off_target: dict[str, float | None] = field(default_factory=dict)
    cycles: dict[str, list[Real]] = field(default_factory=dict)
    carried: Carried | None = None
    agreement: tuple[Agreement, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()
    left: Left | None = None
    curve: tuple[CurvePoint, ...] = ()
    not_placed: int | None = None
    misfiled: int | None = None

    @property
    def left_alone(self) -> str:
        """Say what became of test images that could not be placed; empty where there are none."""
        if not self.not_placed:
            return ""
        return (
            f"Test images that {NOT_PLACED} and are left as they are: {self.not_placed}. In psi, mean effect and share "
            "carried they count as images that nothing changes."
        )


@dataclass(frozen=True)
class Placebo:
    """The audit of a fair coin: a small p-value means that the generator, not the model, is at fault.

    `detectable` is the smallest psi that this sample of images shows with 80 % power.
    """

    pvalue: Real
    psi: Real
    n_images: int
    detectable: float | None = None


@dataclass(frozen=True)
class Regeneration:
    """The audit of draws against further draws under the same level, where nothing may be found.

    `pvalue` is the smallest over levels and labels, corrected for their number, and `psi` belongs to it; `changed` is
    the share of outputs (the mean absolute change, of probabilities) that redrawing an image under its own level
    changes, in the label where it is largest.
    """

    pvalue: Real
    psi: Real
    n_images: int
    changed: float | None


@dataclass(frozen=True)
class PlantedBias:
    """The audit of the model with `strength` times an attribute detector added to its logit.

    `detected`: Whether the verdict on the model with it is "dependence", before any gate. `power` is the share of
    patient-level bootstrap samples in which the test finds it, where the model depends on nothing but the planted bias.
    """

    label: str
    strength: Real
    detected: bool
    pvalue: Real
    psi: Real
    power: Real


@dataclass(frozen=True)
class Controls:
    """Negative and positive controls of the whole chain.

    `detection_limit` is the smallest planted strength (logits) found with at least 80 % power in every label; None when
    even the strongest rung is not, or when no control was run. `notes` says why a control is absent.
    """

    placebo: Placebo | None
    planted: tuple[PlantedBias, ...]
    detection_limit: float | None
    notes: tuple[str, ...] = ()
    regeneration: Regeneration | None = None


@dataclass(frozen=True)
class CohortSummary:
    """Who was audited: the flow of exclusions, the counts in every cell, and how recorded values became levels.

    `raw` holds `attribute, raw, level, images_before, images_after` for every recorded value that is not rare. A count
    in `missing` is None where it is masked.
    """

    flow: tuple[Step, ...]
    counts: tuple[Cell, ...]
    missing: Mapping[str, int | None]
    raw: tuple[Recorded, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """How accurate the model is on the images as they came, by recorded level and label; never part of a verdict.

    `groups` holds a row per label for all images (`level` empty) and one per level, `differences` one per label and
    pair of levels, and `notes` what could not be measured.
    """

    groups: tuple[GroupAccuracy, ...]
    differences: tuple[AccuracyDifference, ...]
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return a row per label, group and measure, and per label, pair of levels and measure.

        The columns are `label, group, measure, estimate, low, high, n_images, n_patients, note`; the group of a
        difference is "a' - a".
        """
        every: list[tuple[str, str, dict[str, Estimate], dict[str, str], int | None, int | None]] = [
            (one.label, one.level or "all", one.measures, one.notes, one.n_images, one.n_patients)
            for one in self.groups
        ]
        every += [
            (one.label, f"{one.contrast[1]} - {one.contrast[0]}", one.measures, one.notes, None, None)
            for one in self.differences
        ]
        none = Estimate(math.nan, math.nan, math.nan)
        rows = [
            (label, group, name, value.estimate, value.low, value.high, *people, notes.get(name, ""))
            for label, group, measures, notes, *people in every
            for name in dict.fromkeys((*measures, *notes))
            for value in [measures.get(name, none)]
        ]
        names = ["label", "group", "measure", "estimate", "low", "high", "n_images", "n_patients", "note"]
        frame = pd.DataFrame(rows, columns=names)
        return frame.astype({"n_images": "Int64", "n_patients": "Int64"})
