"""The result of an audit: frozen, JSON in both directions, one schema (`citlr.audit/1`)."""

from __future__ import annotations

import dataclasses
import html
import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError

from citlr.audit.results.curves import DoseCurves, largest_change
from citlr.audit.results.records import (
    WITHHELD,
    Accuracy,
    BaselineRow,
    Carried,
    CohortSummary,
    Controls,
    Gate,
    Placebo,
    PlantedBias,
    Quality,
)
from citlr.checks import failed
from citlr.errors import InputError
from citlr.invariance.records import (
    DEPENDS,
    METHODS,
    SEVERITY,
    Estimate,
    OmnibusRow,
    SubgroupRow,
    TestRow,
    Verdict,
    count_verdicts,
    worst,
)
from citlr.run.files import write_json
from citlr.text import beside, listed, shortened, shown, visible
from citlr.values import File, check_value, plain, said

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "citlr.audit/1"
_BESIDE = ("schema", "masked_below", "masked_subgroups")
__all__ = [
    "SCHEMA",
    "SEVERITY",
    "Accuracy",
    "AuditResult",
    "BaselineRow",
    "Carried",
    "CohortSummary",
    "Controls",
    "DoseCurves",
    "Estimate",
    "Gate",
    "OmnibusRow",
    "Placebo",
    "PlantedBias",
    "Quality",
    "SubgroupRow",
    "TestRow",
    "Verdict",
    "read_result",
    "worst",
]


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
        Associations (demographic parity, equal opportunity, predictive equality) and the published test, shown beside
        the verdict.
    quality, controls, cohort
        What the verdict's credibility rests on.
    provenance : dict
        Versions, seeds, configuration, SHA-256 of the inputs, device, seconds and peak memory per stage.
    model, alpha
        Name of the model under audit; error rate of the verdicts.
    subgroups : tuple of SubgroupRow
        Effects in parts of the test set and where two of them meet; a description beside the verdict.
    omnibus : tuple of OmnibusRow
        The test of all levels at once, a row per label; empty with two levels.
    condition : str
        What the verdict is conditional on, where nothing was measured of the counterfactuals; else empty.
    dose_response : DoseCurves
        Of an attribute that is a number: how the output changes with the value that images are redrawn at, per label
        and outcome (shares of decisions, mean probabilities), with bands that hold for all values at once, and the
        largest change between any two. Empty of one with levels. `dose_response.to_frame()`, `dose_response.plot()`.
    accuracy : Accuracy or None
        How accurate the model is on the images as they came, by recorded level and label, beside the verdict; None in
        an audit of before it was measured. `accuracy.to_frame()` gives it as a table.
    """

    # Read back strictly: nothing is taken for what it is not, and a key that is not known is another version's.
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    verdict: Verdict
    tests: tuple[TestRow, ...]
    baselines: tuple[BaselineRow, ...]
    quality: Quality
    controls: Controls
    cohort: CohortSummary
    provenance: dict[str, Any] = field(default_factory=dict)
    model: str = "model"
    alpha: float = 0.05
    subgroups: tuple[SubgroupRow, ...] = ()
    omnibus: tuple[OmnibusRow, ...] = ()
    condition: str = ""
    accuracy: Accuracy | None = None
    dose_response: DoseCurves = field(default_factory=DoseCurves)

    @property
    def gates_passed(self) -> bool:
        """Whether every gate was passed, and none was waived."""
        return all(gate.passed for gate in self.quality.gates)

    @property
    def waived(self) -> tuple[str, ...]:
        """The names of the gates that were waived."""
        return tuple(gate.name for gate in self.quality.gates if gate.passed is None)

    def threshold(self, label: str) -> float | None:
        """Return the operating point of a label's decisions, where it is recorded."""
        config = self.provenance.get("config")
        test = config.get("test") if isinstance(config, dict) else None
        found = test.get("threshold") if isinstance(test, dict) else None
        found = found.get(label) if isinstance(found, dict) else found
        if found is None and self.accuracy is not None:
            found = next((group.threshold for group in self.accuracy.groups if group.label == label), None)
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON types; a number that does not exist is None, never NaN."""
        return {"schema": SCHEMA, **plain(_as_result().dump_python(self, by_alias=True, warnings=False))}

    def __eq__(self, other: object) -> bool:
        """Say whether another audit says the same, one that was read back or pickled too: no NaN is another's equal."""
        return self.to_dict() == other.to_dict() if isinstance(other, AuditResult) else NotImplemented

    def to_json(self, path: str | Path) -> Path:
        """Write `audit.json` atomically and return its path."""
        write_json(path, self.to_dict())
        return Path(path)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per label and contrast, intervals as `<name>_low`, `<name>` and `<name>_high`."""
        return pd.DataFrame([_flat(row) for row in self.tests])

    def to_html(self, path: str | Path, *, responses: pd.DataFrame | None = None, gallery: Any = None) -> Path:
        """Write the self-contained page; `responses` adds the scatter, `gallery` the pictures."""
        # The one door upwards, opened by name: a result does not know its page, which needs matplotlib and jinja2.
        page = importlib.import_module("citlr.report.page")
        return Path(page.write_report(path, self, responses=responses, gallery=gallery))

    def plot(self) -> Figure:
        """Return the forest plot of the effects against their margins."""
        figures = importlib.import_module("citlr.report.charts.figures")
        return cast("Figure", figures.forest(self))

    def __repr__(self) -> str:
        """Say the verdicts, in a few lines; `print` says why, and `to_frame()` has the numbers."""
        gates, waived = len(failed(self.quality.gates)), len(self.waived)
        lines = [
            f"AuditResult of {self.model}: {self.verdict}",
            f"  {count_verdicts(self.tests)}",
            *(f"  {row.label}, {row.contrast[1]} - {row.contrast[0]}: {row.verdict}" for row in self.tests[:_MOST]),
            *([f"  and {len(self.tests) - _MOST} more"] if len(self.tests) > _MOST else []),
            f"  gates: {len(self.quality.gates) - gates - waived} passed, {gates} failed"
            + (f", {waived} waived" if waived else ""),
        ]
        return visible("\n".join(lines))

    def __str__(self) -> str:
        """Say of the labels what there is to say, alike ones together, then the table."""
        sentences = _said(self.tests)
        sentences += [
            f"{row.label}, all of {listed(row.levels)} at once: adjusted p = "
            f"{beside(row.pvalue_adjusted, self.alpha, 2, 'g')}."
            for row in self.omnibus
        ]
        frame = self.to_frame()
        shown = [name for name in _SHOWN if name in frame]
        sentences += [largest_change(curve) for curve in self.dose_response if curve.outcome == self.tests[0].outcome]
        table = frame[shown].to_string(index=False, float_format=lambda value: f"{value:.4g}")
        sentences += [f"Gates that were waived: {', '.join(self.waived)}."] if self.waived else []
        sentences += self._beside(sentences)
        return visible("\n".join([f"{self.model}: {self.verdict}", *sentences, "", table]))

    def _beside(self, said: Sequence[str]) -> list[str]:
        """Give what holds for all verdicts, and no sentence has said yet."""
        every = (self.quality.left_alone, self.condition)
        return [one for one in every if one and not any(one in sentence for sentence in said)]

    def _repr_html_(self) -> str:
        more = len(self.tests) - _MOST
        said = _said(self.tests[:_MOST])
        said += self._beside(said)
        said += [f"And {more} tests more: to_frame() has all of them."] if more > 0 else []
        sentences = "".join(f"<li>{html.escape(one)}</li>" for one in said)
        table: str = self.to_frame()[list(_SHOWN)].head(_MOST).to_html(index=False, escape=True)
        return visible(f"<h3>{html.escape(self.model)}: {self.verdict}</h3><ul>{sentences}</ul>{table}")


def _said(tests: Sequence[TestRow]) -> list[str]:
    """Say of labels what is said of each; where that is the same, once for all of them."""
    several = len({row.contrast for row in tests}) > 1
    said: dict[str, list[str]] = {}
    for row in tests:
        whole = f"{row.label}, {row.contrast[0]} against {row.contrast[1]}"
        named = several or row.reason.startswith(f"{whole}: ")
        reason = row.reason.removeprefix(f"{whole}: ").removeprefix(f"{row.label}: ")
        said.setdefault(reason, []).append(whole if named else row.label)
    return [f"{('; ' if several else ', ').join(dict.fromkeys(names))}: {reason}" for reason, names in said.items()]


_MOST = 8  # tests that a notebook is shown
_SHOWN = ("label", "contrast", "psi", "psi_low", "psi_high", "mean_effect", "pvalue_adjusted", "margin", "verdict")


def _as_of_now(fields: dict[str, Any]) -> dict[str, Any]:
    """Say in the words of now what an audit of before says.

    Gates of one label were about the model; and what was called equality of opportunity was equalised odds, the larger
    gap of both outcomes, which its note names.
    """
    associations = fields.get("baselines")
    for row in associations if isinstance(associations, list) else ():
        if isinstance(row, dict) and row.get("method") == "equal_opportunity" and "y = " in str(row.get("note")):
            row["method"] = "equalised_odds"
    quality = fields.get("quality")
    gates = quality.get("gates") if isinstance(quality, dict) else None
    for gate in gates if isinstance(gates, list) else ():
        if isinstance(gate, dict):
            gate.setdefault("about", "generator" if gate.get("label") is None else "model")
    return fields


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
        If the file is missing, is not of the schema `citlr.audit/1`, or has a verdict that its numbers do not give.
    """
    source = Path(check_value("path", path, File))
    if source.is_dir():
        raise InputError(f"'{source}' is a folder: give the path of the audit.json in it.")
    if not source.is_file():
        raise InputError(f"No audit at '{source}': run `citlr audit` first, or give the path of an audit.json.")
    try:
        content = json.loads(source.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"'{source}' is no JSON, or was cut short ({shortened(str(error))}): give a whole audit.json."
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = shown(content.get("schema")) if isinstance(content, dict) else f"of a {type(content).__name__}"
        raise InputError(f"'{source}' has the schema {found}, not '{SCHEMA}': give an audit.json of this version.")
    # What an audit that was handed on says of itself, beside the result.
    fields = {name: value for name, value in content.items() if name not in _BESIDE}
    try:
        result = _as_result().validate_json(json.dumps(_as_of_now(fields)))
    except ValidationError as error:
        problem = error.errors()[0]
        key = shortened(".".join(map(str, problem["loc"])))
        what = f"{shown(problem['input'])}: {said(problem)}" if problem["type"] != "missing" else "missing"
        raise InputError(
            f"'{source}' is damaged, or of another version ('{key}' is {what}): give an audit.json of this version."
        ) from error
    if wrong := _contradiction(result):
        raise InputError(f"'{source}' contradicts itself ({wrong}): give the audit.json as citlr wrote it.")
    return result


def _contradiction(result: AuditResult) -> str:
    """Say where a verdict is not what the numbers, gates and sentences beside it give; empty where all agree."""
    rows = [(row.attribute, row.label, frozenset(row.contrast)) for row in result.tests]
    if len(set(rows)) < len(rows):
        return "it has a test twice"
    for row in result.tests:
        what = f"'{shortened(row.label)}' is '{row.verdict}'"
        failing = [gate.name for gate in failed(result.quality.gates) if gate.concerns(row)]
        if failing and row.verdict != "inconclusive":
            return f"{what}, and the gate '{shortened(failing[0])}' failed"
        withheld, depends = WITHHELD in row.reason, DEPENDS in row.reason
        if (withheld and not failing) or (depends and row.verdict != "dependence"):
            gate = "" if depends else " and no gate failed"
            return f"{what}{gate}, and its reason is another: {shortened(row.reason)}"
        # Written so that a number that is none fails.
        small = abs(row.mean_effect.estimate) < row.margin and row.psi.estimate < row.psi_margin
        if row.verdict == "equivalent" and not (row.equivalence_pvalue < result.alpha and small):
            return f"{what}, and its effects are not shown to lie below the margin of {row.margin:g}"
        if row.verdict == "equivalent" and row.beyond(row.psi, row.mean_effect):
            return f"{what}, and an interval lies beyond the margin of {row.margin:g}"
        # The p-value of a test that is none of ours, or that is missing, may be held against something else.
        if row.verdict == "dependence" and row.method in METHODS.values() and row.pvalue_adjusted >= result.alpha:
            return f"{what}, and its adjusted p-value of {row.pvalue_adjusted:.3g} is not below {result.alpha:g}"
    given = worst(row.verdict for row in result.tests) if result.tests else result.verdict
    return "" if result.verdict == given else f"its verdict is '{result.verdict}', and that of its tests '{given}'"


@cache
def _as_result() -> TypeAdapter[AuditResult]:
    return TypeAdapter(AuditResult)


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
