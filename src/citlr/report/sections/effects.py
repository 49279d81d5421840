"""The page's tables of the tests: effects and verdicts, further numbers, all levels at once, associations."""

from functools import partial

from citlr.audit.results.result import AuditResult, TestRow
from citlr.report import numerals, tables
from citlr.report.charts.geometry import contrast_text
from citlr.report.charts.scatters import what_changes
from citlr.report.numerals import NARROW, count, decimal, percent
from citlr.report.tables import Cell, Column, Table
from citlr.report.wording import attributes, level_percent
from citlr.text import listed

BASELINES = {
    "demographic_parity": "Demographic parity",
    "equal_opportunity": "Equality of opportunity (those with the finding)",
    "predictive_equality": "Predictive equality (those without the finding)",
    "equalised_odds": "Equalised odds",
    "auroc_gap": "AUROC gap",
    "published_cit_lr": "CIT-LR as published",
}
METHODS = {
    "randomization_sign_flip": "Randomisation, signs flipped (draws may share their noise)",
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
        return (
            "exchanging the levels within each draw, which is right whether or not a draw's levels share their noise,"
        )
    return "reshuffling them"


def across(result: AuditResult) -> str:
    """Say how the share of changes across the levels in the table differs from the one that psi is made of."""
    if not any(row.method == "randomization_sign_flip" for row in result.tests):
        return ""
    return (
        "The share across the levels in the table of further numbers compares the same draw at both levels, as if "
        "these shared their noise; so psi need not be the difference of the two shares there."
    )


def _head(result: AuditResult, row: TestRow) -> list[Cell]:
    """Give the cells that say which test a row is; the attribute only where there are several."""
    cells = [tables.text(row.label), tables.text(contrast_text(row.contrast))]
    return [cells[0], tables.text(row.attribute), cells[1]] if len(attributes(result)) > 1 else cells


def _head_columns(result: AuditResult) -> list[Column]:
    several = [Column("Attribute")] if len(attributes(result)) > 1 else []
    return [Column("Label"), *several, Column("Redrawn as")]


def effects_table(result: AuditResult) -> Table:
    """Tabulate what the verdicts rest on."""
    confidence = level_percent(result.alpha)
    squared = any(row.outcome == "probability" for row in result.tests)
    columns = [
        *_head_columns(result),
        Column("Verdict", "verdict"),
        Column("psi", "number", f"{'mean square, ' if squared else ''}with {confidence} interval"),
        Column("Mean effect", "number", f"with {confidence} interval"),
        Column("Adjusted p", "number", "Holm, all tests"),
        Column("Equivalence p", "number", "inside the margin"),
        Column("Margin", "number", "of the effect and the root of psi" if squared else "set beforehand"),
        Column("Detectable", "number", f"with 80{NARROW}% power"),
    ]
    rows = []
    for row in result.tests:
        reason = row.reason or "the test gave no number and recorded no reason"
        rows.append(
            [
                *_head(result, row),
                tables.verdict(row.verdict),
                tables.estimate(row.psi, reason),
                tables.estimate(row.mean_effect, reason, signed=True),
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
                tables.estimate(row.flip_rate, raw),
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
    return tables.build(f"All levels at once: {listed(result.omnibus[0].levels)}", columns, rows)


def dose_table(result: AuditResult) -> Table | None:
    """Tabulate the curves over a number that was intervened on; None of an attribute with levels."""
    if not len(result.dose_response):
        return None
    confidence = level_percent(result.alpha)
    columns = [
        Column("Label"),
        Column("Redrawn at"),
        Column("Outcome"),
        Column("Mean", "number"),
        Column("Change", "number", f"from the lowest value, with {confidence} band for all values at once"),
    ]
    reason = "it could not be computed"
    rows = [
        [
            tables.text(curve.label),
            tables.Cell(one.level, f"{one.dose:020.6f}"),
            tables.text(what_changes(curve.outcome)),
            tables.number(one.output, percent, reason),
            tables.estimate(one.change, reason, signed=True),
        ]
        for curve in result.dose_response
        for one in curve.points
    ]
    return tables.build("Dose-response: the output at every value", columns, rows)


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
        difference = tables.estimate(row.difference, reason, signed=True) if row.difference else tables.absent(none)
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
