"""The result of an audit: frozen, JSON in both directions, one schema (`citlr.audit/1`)."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from citlr.errors import InputError

SCHEMA = "citlr.audit/1"
Verdict = Literal["dependence", "equivalent", "inconclusive"]
# From best to worst: an audit of several labels is only as good as its worst label.
SEVERITY: tuple[Verdict, ...] = ("equivalent", "inconclusive", "dependence")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval (95 % unless the test's alpha says otherwise)."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class TestRow:
    """One label under one contrast of one attribute: everything that the verdict rests on.

    `mean_effect` is E[Y(a') - Y(a)], `psi` the excess flip rate E[(g(a',Z) - g(a,Z))^2], `flip_rate` the raw share of
    outputs that differ between the two levels, `within_flip_rate` the share that differ between two draws at the same
    level (generator noise), `eca` the share of factual outputs kept when the level is redrawn uniformly.
    """

    __test__ = False  # pytest: not a test class

    attribute: str
    contrast: tuple[str, str]
    label: str
    outcome: str
    method: str
    n_images: int
    n_patients: int
    draws: int
    statistic: float
    pvalue: float
    pvalue_adjusted: float
    pvalue_screening: float
    log10_pvalue: float
    mean_effect: Estimate
    psi: Estimate
    flip_rate: Estimate
    within_flip_rate: float
    eca: float
    margin: float
    equivalence_pvalue: float
    detectable_effect: float
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class BaselineRow:
    """An association test beside the verdict: never part of it."""

    method: str
    label: str
    contrast: tuple[str, str]
    statistic: float
    pvalue: float
    difference: Estimate | None = None
    note: str = ""


@dataclass(frozen=True)
class Gate:
    """One condition that the generator has to meet before a verdict may rest on its images."""

    name: str
    value: float | None
    threshold: float
    passed: bool
    text: str


@dataclass(frozen=True)
class Quality:
    """How faithful the redrawn images are; numbers that could not be computed are None, with the reason in `notes`."""

    composition: float | None
    effectiveness: dict[str, float]
    reversibility: float | None
    minimality: float | None
    drift: dict[str, float]
    fid: float | None
    fid_extractor: str
    gates: tuple[Gate, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placebo:
    """The audit of a fair coin: a small p-value means that the generator, not the model, is at fault."""

    pvalue: float
    psi: float
    n_images: int


@dataclass(frozen=True)
class PlantedBias:
    """The audit of the model with `strength` times an attribute detector added to its logit."""

    label: str
    strength: float
    detected: bool
    pvalue: float
    psi: float


@dataclass(frozen=True)
class Controls:
    """Negative and positive controls of the whole chain."""

    placebo: Placebo | None
    planted: tuple[PlantedBias, ...]
    detection_limit: dict[str, float | None]


@dataclass(frozen=True)
class CohortSummary:
    """Who was audited: the flow of exclusions and the counts in every cell."""

    flow: tuple[dict[str, Any], ...]
    counts: tuple[dict[str, Any], ...]
    missing: dict[str, int]


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Parameters
    ----------
    verdict : {"dependence", "equivalent", "inconclusive"}
        The worst over labels and contrasts, after correction for multiplicity.
    tests : tuple of TestRow
        One row per label and contrast.
    baselines : tuple of BaselineRow
        Associations (demographic parity, equal opportunity) and the published test, shown beside the verdict.
    quality, controls, cohort
        What the verdict's credibility rests on.
    provenance : dict
        Versions, seeds, configuration, SHA-256 of the inputs, device, seconds and peak memory per stage.
    model, alpha
        Name of the model under audit; error rate of the verdicts.
    """

    verdict: Verdict
    tests: tuple[TestRow, ...]
    baselines: tuple[BaselineRow, ...]
    quality: Quality
    controls: Controls
    cohort: CohortSummary
    provenance: dict[str, Any] = field(default_factory=dict)
    model: str = "model"
    alpha: float = 0.05
