"""The page's tables: effects, gates, controls and baselines, each number with its reason where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from citlr.audit.results.result import AuditResult, Estimate, TestRow
from citlr.report import checks, numerals, tables
from citlr.report.charts.geometry import contrast_text
from citlr.report.numerals import NARROW, count, decimal, is_number, percent, points
from citlr.report.tables import Cell, Column, Table
from citlr.report.wording import attributes, level_percent

BASELINES = {
    "demographic_parity": "Demographic parity",
    "equal_opportunity": "Equality of opportunity",
    "equalised_odds": "Equalised odds",
    "auroc_gap": "AUROC gap",
    "published_cit_lr": "CIT-LR as published",
}
METHODS = {
    "randomization_sign_flip": "Randomisation, signs flipped (draws share their noise)",
    "randomization_permutation": "Randomisation, draws permuted (noise drawn afresh)",
    "dcrt": "Distilled conditional randomisation",
    "gcm": "Generalised covariance measure",
    "published": "CIT-LR as published",
}


def method_name(method: str) -> str:
    """Name a method for people; a name that is not known is shown as it is."""
    return METHODS.get(method, BASELINES.get(method, method.replace("_", " ")))


def reshuffle(result: AuditResult) -> str:
    """Say what is reshuffled within an image, which depends on whether the levels of a draw share their noise."""
    methods = {row.method for row in result.tests}
    if methods == {"randomization_permutation"}:
        return "permuting them within each image"
    if methods == {"randomization_sign_flip"}:
        return "exchanging the levels within each pair of draws that share their noise"
    return "reshuffling them"


def _head(result: AuditResult, row: TestRow) -> list[Cell]:
    """Give the cells that say which test a row is; the attribute only where there are several."""
    cells = [tables.text(row.label), tables.text(contrast_text(row.contrast))]
    return [cells[0], tables.text(row.attribute), cells[1]] if len(attributes(result)) > 1 else cells


def _head_columns(result: AuditResult) -> list[Column]:
    several = [Column("Attribute")] if len(attributes(result)) > 1 else []
    return [Column("Label"), *several, Column("Redrawn as")]


def estimate_cell(estimate: Estimate, reason: str, *, signed: bool = False) -> Cell:
    """Write an estimate with its interval, or say why there is none."""
    cell = tables.number(estimate.estimate, partial(percent, signed=signed), reason)
    if cell.absent:
        return cell
    bounded = is_number(estimate.low) and is_number(estimate.high)
    detail = f"{percent(estimate.low)} to {percent(estimate.high)}" if bounded else "no interval"
    return Cell(cell.text, cell.key, kind="number", detail=detail)


def effects_table(result: AuditResult) -> Table:
    """Tabulate what the verdicts rest on."""
    confidence = level_percent(result.alpha)
    columns = [
        *_head_columns(result),
        Column("Verdict", "verdict"),
        Column("Excess change ψ", "number", f"with {confidence} interval"),
        Column("Average shift", "number", f"with {confidence} interval"),
        Column("Adjusted p", "number", "Holm, all tests"),
        Column("Equivalence p", "number", "inside the margin"),
        Column("Margin", "number", "set beforehand"),
        Column("Detectable", "number", f"with 80{NARROW}% power"),
    ]
    rows = []
    for row in result.tests:
        reason = row.reason or "the test gave no number and recorded no reason"
        rows.append(
            [
                *_head(result, row),
                tables.verdict(row.verdict),
                estimate_cell(row.psi, reason),
                estimate_cell(row.mean_effect, reason, signed=True),
                tables.number(row.pvalue_adjusted, numerals.pvalue, reason),
                tables.number(row.equivalence_pvalue, numerals.pvalue, f"no equivalence test: {reason}"),
                tables.number(row.margin, numerals.margin, "no margin was set"),
                tables.number(row.detectable_effect, percent, "the smallest detectable effect was not computed"),
            ]
        )
    return tables.build("Effects and verdicts, one row per label and contrast", columns, rows)


def details_table(result: AuditResult) -> Table:
    """Tabulate the further numbers of every test."""
    columns = [
        *_head_columns(result),
        Column("Images", "number"),
        Column("Patients", "number"),
        Column("Draws", "number", "per level"),
        Column("Statistic", "number"),
        Column("p", "number", "not adjusted"),
        Column("Screening p", "number", "Benjamini-Hochberg"),
        Column("Changed across levels", "number", "raw share, noise included"),
        Column("Changed within a level", "number", "generator noise alone"),
        Column("Kept (ECA)", "number", "expected counterfactual accuracy"),
        Column("Method"),
        Column("Reason for the verdict"),
    ]
    rows = []
    for row in result.tests:
        reason = row.reason or "the test gave no number and recorded no reason"
        raw = "outputs are compared as probabilities" if row.outcome == "probability" else reason
        rows.append(
            [
                *_head(result, row),
                tables.number(row.n_images, count, reason),
                tables.number(row.n_patients, count, reason),
                tables.number(row.draws, count, reason),
                tables.number(row.statistic, partial(decimal, digits=2), reason),
                tables.number(row.pvalue, partial(numerals.pvalue, log10=row.log10_pvalue), reason),
                tables.number(row.pvalue_screening, numerals.pvalue, reason),
                estimate_cell(row.flip_rate, raw),
                tables.number(row.within_flip_rate, percent, raw),
                tables.number(row.eca, percent, raw),
                tables.text(method_name(row.method)),
                tables.text(row.reason or "none recorded"),
            ]
        )
    return tables.build("Further numbers of every test", columns, rows)


def omnibus_table(result: AuditResult) -> Table | None:
    """Tabulate the test of all levels at once; None where there are only two."""
    if not result.omnibus:
        return None
    columns = [
        Column("Label"),
        Column("p", "number", "adjusted over the labels"),
        Column("p", "number", "not adjusted"),
        Column("Statistic", "number"),
        Column("Decided by"),
    ]
    reason = "it could not be computed"
    rows = [
        [
            tables.text(row.label),
            tables.number(row.pvalue_adjusted, numerals.pvalue, reason),
            tables.number(row.pvalue, numerals.pvalue, reason),
            tables.number(row.statistic, partial(decimal, digits=2), reason),
            tables.text("the mean shift" if row.component == "mean" else "changes of single images"),
        ]
        for row in result.omnibus
    ]
    return tables.build(f"All levels at once: {', '.join(result.omnibus[0].levels)}", columns, rows)


def gates_table(result: AuditResult) -> Table:
    """Tabulate the gates: what was measured, what was asked for, and whether it passed."""
    undecided = "decided by the verdict of the coin’s own audit, not by a number"
    return checks.table("Gates", result.quality.gates, kind="Gate", undecided=undecided)


@dataclass(frozen=True)
class _Measure:
    """One number of the generator's quality."""

    name: str
    value: float | None
    show: Callable[[float], str]
    meaning: str


def quality_table(result: AuditResult) -> Table:
    """Tabulate the generator's quality, overall, per level and per held label."""
    quality = result.quality
    fine = partial(decimal, digits=4)
    measures = [
        _Measure("Composition", quality.composition, fine, "L1 change under the null intervention; 0 is best"),
        *_optional("Composition, SSIM", quality.similarity, fine, "structural similarity with it; 1 is best"),
        *(
            _Measure(
                f"Composition, {count} cycles", values[0], fine, "L1 change by as many null interventions in a row"
            )
            for count, values in quality.cycles.items()
            if count == max(quality.cycles, key=int)
        ),
        *(
            _Measure(f"Effectiveness, {level}", value, percent, f"images redrawn as {level} that read as {level}")
            for level, value in quality.effectiveness.items()
        ),
        *(
            _Measure(f"AUROC, {level}", value, fine, f"a probe's, of {level} against the other levels")
            for level, value in quality.auroc.items()
        ),
        *(
            _Measure(f"Error at {level}", value, partial(decimal, digits=1), "of a probe's reading of the attribute")
            for level, value in quality.error.items()
        ),
        *(
            _Measure(
                f"Drift, {label}", value, partial(percent, signed=True), "shift of a probe of what must stay; 0 is best"
            )
            for label, value in quality.drift.items()
        ),
        *(
            _Measure(f"Drift, {label} (not held)", value, partial(percent, signed=True), "shift of a probe of the rest")
            for label, value in quality.off_target.items()
        ),
        _Measure("Reversibility", quality.reversibility, fine, "L1 change after there and back again; 0 is best"),
        _Measure(
            "Minimality",
            quality.minimality,
            fine,
            "L1 change from the null intervention to another level; small, as long as effectiveness is high",
        ),
        _Measure("FID", quality.fid, partial(decimal, digits=2), f"distance to real images ({_extractor(result)})"),
        *_optional("KID", quality.kid, fine, f"the same without bias in small samples ({_extractor(result)})"),
    ]
    why = "; ".join(quality.notes) or "not measured in this audit"
    rows = [
        [tables.text(one.name), tables.number(one.value, one.show, why), tables.text(one.meaning)] for one in measures
    ]
    return tables.build(
        "Quality of the redrawn images", [Column("Measure"), Column("Value", "number"), Column("Meaning")], rows
    )


def _optional(name: str, value: float | None, show: Callable[[float], str], meaning: str) -> list[_Measure]:
    """Give a measure that audits of earlier versions do not have, or nothing."""
    return [] if value is None else [_Measure(name, value, show, meaning)]


def _extractor(result: AuditResult) -> str:
    return f"features: {result.quality.fid_extractor}" if result.quality.fid_extractor else "no feature extractor"


def planted_table(result: AuditResult) -> Table:
    """Tabulate the bias that was planted and whether the audit found it."""
    columns = [
        Column("Label"),
        Column("Strength", "number", "added to the logit"),
        Column("Found", "mark"),
        Column("Power", "number", "share of bootstrap samples in which it is found"),
        Column("Excess change ψ", "number"),
        Column("p", "number"),
    ]
    rows = [
        [
            tables.text(dose.label),
            tables.number(dose.strength, partial(decimal, digits=2), "no strength was recorded"),
            Cell("found" if dose.detected else "missed", str(int(dose.detected)), kind="mark"),
            tables.number(dose.power, partial(percent, digits=0), "the power was not computed"),
            tables.number(dose.psi, percent, "the planted audit gave no effect"),
            tables.number(dose.pvalue, numerals.pvalue, "the planted audit gave no p-value"),
        ]
        for dose in result.controls.planted
    ]
    return tables.build("Planted bias, strength by strength", columns, rows)


def generator_error(result: AuditResult) -> str:
    """Say how far the effects may be off because the generator learnt from a finite sample."""
    known = [row for row in result.tests if row.mean_error is not None and row.psi_error is not None]
    if not known:
        return (
            "Not known: this generator does not say how surely its training images show what the attribute does, so "
            "the intervals take the redrawn images as they are."
        )
    worst = max(known, key=lambda row: row.mean_error or 0.0)
    opening = (
        "The generator learnt from a finite sample of images. Redrawn images were moved by replicates of what that "
        "sample shows, with its patients weighted anew."
    )
    if not any(row.mean_error or row.psi_error for row in known):
        return f"{opening} That moves none of the model’s outputs."
    return (
        f"{opening} That moves the average shift of {worst.label} by a standard error of "
        f"{points(worst.mean_error or 0.0)}, the largest of all labels. The intervals and the equivalence p-values "
        "hold it, and an effect within it is not called a dependence."
    )


def limit_of_detection(result: AuditResult) -> str:
    """Say what the smallest planted bias is that the audit finds, or why there is no such number."""
    controls = result.controls
    if controls.detection_limit is not None and is_number(controls.detection_limit):
        return (
            f"The limit of detection is {controls.detection_limit:.2g} on the logit scale: the smallest planted "
            f"strength found with at least 80{NARROW}% power in every label."
        )
    if controls.planted:
        strongest = max(dose.strength for dose in controls.planted)
        return (
            f"The limit of detection was not reached: even strength {strongest:g} is not found with 80{NARROW}% power "
            f"in every label, so weaker dependence than that may go unseen."
        )
    return "The limit of detection is not known: no bias was planted."


def baselines_table(result: AuditResult) -> Table:
    """Tabulate the associations that stand beside the verdict."""
    columns = [
        Column("Label"),
        Column("Measure"),
        Column("Compared"),
        Column("Difference", "number", f"with {level_percent(result.alpha)} interval"),
        Column("Statistic", "number"),
        Column("p", "number", "not adjusted"),
    ]
    noted = any(row.note for row in result.baselines)
    rows = []
    for row in result.baselines:
        reason = row.note or f"{BASELINES.get(row.method, row.method)} could not be computed and recorded no reason"
        none = f"{BASELINES.get(row.method, row.method)} has no difference on this scale"
        difference = estimate_cell(row.difference, reason, signed=True) if row.difference else tables.absent(none)
        rows.append(
            [
                tables.text(row.label),
                tables.text(BASELINES.get(row.method, row.method.replace("_", " "))),
                tables.text(f"{row.contrast[1]} − {row.contrast[0]}"),
                difference,
                tables.number(row.statistic, partial(decimal, digits=2), reason),
                tables.number(row.pvalue, numerals.pvalue, reason),
                *([tables.text(row.note or "–")] if noted else []),
            ]
        )
    remark = [Column("Remark")] if noted else []
    return tables.build("Associations between output and attribute", [*columns, *remark], rows)
