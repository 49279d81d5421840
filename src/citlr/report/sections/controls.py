"""What the page says of a planted bias, and of what the generator cannot know."""

from functools import partial

from citlr.audit.results.result import AuditResult
from citlr.report import numerals, tables
from citlr.report.numerals import NARROW, decimal, is_number, percent, points
from citlr.report.tables import Cell, Column, Table


def planted_table(result: AuditResult) -> Table:
    """Tabulate the bias that was planted and whether the audit found it."""
    columns = [
        Column("Label"),
        Column("Strength", "number", "added to the logit"),
        Column("Found", "mark"),
        Column("Power", "number", "samples without any other effect that are called dependent"),
        Column("psi", "number"),
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
            "Not known: this generator does not estimate its own error, so the intervals take the redrawn images as "
            "they are."
        )
    worst = max(known, key=lambda row: row.mean_error or 0.0)
    opening = (
        "The generator learnt from a finite sample of images. What the attribute does was estimated again and again, "
        "with the patients of that sample weighted anew, and redrawn images were changed accordingly."
    )
    if not any(row.mean_error or row.psi_error for row in known):
        return f"{opening} That moves none of the model’s outputs."
    return (
        f"{opening} This changes the mean effect of {worst.label} by a standard error of "
        f"{points(worst.mean_error or 0.0)}, the largest of all labels. The intervals and the equivalence p-values "
        "include it, and an effect within it is not called a dependence."
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
