"""The result of an audit: frozen, JSON in both directions, one schema (`citlr.audit/1`)."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from citlr.artifacts import write_json
from citlr.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """How faithful the redrawn images are; numbers that could not be computed are None, with the reason in `notes`.

    `similarity` is the SSIM of the null intervention, `auroc` and `error` are of the attribute probe per level,
    `off_target` is the drift of what was not held, and `cycles` what several null interventions in a row leave:
    {cycles: [mean absolute difference, SSIM]}.
    """

    composition: float | None
    effectiveness: dict[str, float]
    reversibility: float | None
    minimality: float | None
    drift: dict[str, float]
    fid: float | None
    fid_extractor: str
    gates: tuple[Gate, ...]
    notes: tuple[str, ...] = ()
    kid: float | None = None
    similarity: float | None = None
    auroc: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    off_target: dict[str, float | None] = field(default_factory=dict)
    cycles: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Placebo:
    """The audit of a fair coin: a small p-value means that the generator, not the model, is at fault.

    `detectable` is the smallest psi that this sample of images shows with 80 % power.
    """

    pvalue: float
    psi: float
    n_images: int
    detectable: float | None = None


@dataclass(frozen=True)
class Regeneration:
    """The audit of draws against further draws under the same level, where nothing may be found.

    `pvalue` is the smallest over levels and labels, corrected for their number, and `psi` belongs to it; `changed` is
    the share of outputs (the mean absolute change, of probabilities) that redrawing an image under its own level
    changes, in the label where it is largest.
    """

    pvalue: float
    psi: float
    n_images: int
    changed: float | None


@dataclass(frozen=True)
class PlantedBias:
    """The audit of the model with `strength` times an attribute detector added to its logit.

    `power` is the share of patient-level bootstrap samples in which the planted bias is found.
    """

    label: str
    strength: float
    detected: bool
    pvalue: float
    psi: float
    power: float


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

    @property
    def gates_passed(self) -> bool:
        """Whether every generator gate was met."""
        return all(gate.passed for gate in self.quality.gates)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON types; a number that does not exist is None, never NaN."""
        return {"schema": SCHEMA, **_plain(dataclasses.asdict(self))}

    def to_json(self, path: str | Path) -> Path:
        """Write `audit.json` atomically and return its path."""
        write_json(path, self.to_dict())
        return Path(path)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per label and contrast, intervals as `<name>_low`, `<name>` and `<name>_high`."""
        return pd.DataFrame([_flat(row) for row in self.tests])

    def to_html(self, path: str | Path, *, responses: pd.DataFrame | None = None, gallery: Any = None) -> Path:
        """Write the self-contained page; `responses` adds the scatter, `gallery` the pictures."""
        from citlr.audit.report import write_report  # a page needs matplotlib and jinja2; a result does not

        return write_report(path, self, responses=responses, gallery=gallery)

    def plot(self) -> Figure:
        """Return the forest plot of the effects against their margins."""
        from citlr.audit.figures import forest

        return forest(self)

    def __str__(self) -> str:
        """One sentence per label, then the table."""
        sentences = [row.reason for row in self.tests]
        frame = self.to_frame()
        shown = [name for name in _SHOWN if name in frame]
        table = frame[shown].to_string(index=False, float_format=lambda value: f"{value:.4g}")
        return "\n".join([f"{self.model}: {self.verdict}", *sentences, "", table])

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{html.escape(row.reason)}</li>" for row in self.tests)
        table: str = self.to_frame()[list(_SHOWN)].to_html(index=False, escape=True)
        return f"<h3>{html.escape(self.model)}: {self.verdict}</h3><ul>{sentences}</ul>{table}"


_SHOWN = ("label", "contrast", "psi", "psi_low", "psi_high", "mean_effect", "pvalue_adjusted", "margin", "verdict")


def read_result(path: str | Path) -> AuditResult:
    """Read an `audit.json` back.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    AuditResult
        Equal to the one that was written.

    Raises
    ------
    InputError
        If the file is missing or is not of the schema `citlr.audit/1`.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"No audit at '{source}': run `citlr audit` first, or give the path of an audit.json.")
    content = json.loads(source.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"'{source}' has the schema {found!r}, not '{SCHEMA}': give an audit.json of this version.")
    return _from_dict(content)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts.

    Examples
    --------
    >>> worst(["equivalent", "inconclusive"])
    'inconclusive'
    """
    return max(verdicts, key=SEVERITY.index)


def _plain(value: Any) -> Any:
    """Replace tuples by lists and numbers that are not finite by None, so that the JSON is JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flat(row: TestRow) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for spec in dataclasses.fields(row):
        value = getattr(row, spec.name)
        if isinstance(value, Estimate):
            flat |= {spec.name: value.estimate, f"{spec.name}_low": value.low, f"{spec.name}_high": value.high}
        elif spec.name == "contrast":
            flat[spec.name] = f"{value[1]} - {value[0]}"
        elif spec.name != "reason":
            flat[spec.name] = value
    return flat


def _estimate(content: dict[str, Any] | None) -> Estimate | None:
    if content is None:
        return None
    return Estimate(
        *(math.nan if content[name] is None else float(content[name]) for name in ("estimate", "low", "high"))
    )


def _test_row(content: dict[str, Any]) -> TestRow:
    intervals = {name: _estimate(content[name]) for name in ("mean_effect", "psi", "flip_rate")}
    numbers = {name: math.nan for name, value in content.items() if value is None}
    return TestRow(**{**content, **numbers, **intervals, "contrast": tuple(content["contrast"])})


def _baseline_row(content: dict[str, Any]) -> BaselineRow:
    known = {**content, "contrast": tuple(content["contrast"]), "difference": _estimate(content["difference"])}
    return BaselineRow(**known)


def _from_dict(content: dict[str, Any]) -> AuditResult:
    quality, controls, cohort = content["quality"], content["controls"], content["cohort"]
    gates = tuple(Gate(**gate) for gate in quality["gates"])
    placebo = None if controls["placebo"] is None else Placebo(**controls["placebo"])
    planted = tuple(PlantedBias(**row) for row in controls["planted"])
    again = controls.get("regeneration")
    regeneration = None if again is None else Regeneration(**again)
    return AuditResult(
        verdict=content["verdict"],
        tests=tuple(_test_row(row) for row in content["tests"]),
        baselines=tuple(_baseline_row(row) for row in content["baselines"]),
        quality=Quality(**{**quality, "gates": gates, "notes": tuple(quality["notes"])}),
        controls=Controls(placebo, planted, controls["detection_limit"], tuple(controls["notes"]), regeneration),
        cohort=CohortSummary(tuple(cohort["flow"]), tuple(cohort["counts"]), cohort["missing"]),
        provenance=content["provenance"],
        model=content["model"],
        alpha=content["alpha"],
    )
