"""Accuracy by group on the page and the card: discrimination, operating point, calibration; small groups masked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from citlr.audit.results.records import Accuracy
from citlr.audit.results.result import AuditResult
from citlr.invariance.effects.accuracy import AccuracyDifference, GroupAccuracy
from citlr.report import numerals, tables
from citlr.report.numerals import count, is_number
from citlr.report.tables import Cell, Column, Table
from citlr.report.wording import level_percent

# Name of a measure, what it is, and whether it is written as a share.
MEASURES: dict[str, tuple[str, str, bool]] = {
    "prevalence": ("Prevalence", "have the finding", True),
    "auroc": ("AUROC", "1 is perfect, 0.5 chance", False),
    "sensitivity": ("Sensitivity", "of those who have it", True),
    "specificity": ("Specificity", "of those who do not", True),
    "in_the_large": ("Predicted − observed", "0 is calibrated", True),
    "intercept": ("Intercept", "0 is calibrated", False),
    "slope": ("Slope", "1 is calibrated", False),
}
MISSING = "This audit is of before accuracy was measured: test it again with `citlr audit`, which keeps what is done."


def masked(result: AuditResult, *, below: int) -> Accuracy | None:
    """Return the accuracies without the numbers of groups so small that they point at a person.

    A group is small where fewer than `below` patients have the finding, have it not, or are not known to: the last are
    what the level's own number of images leaves. Where the row of all images would tell a small group by subtraction,
    it goes as well.
    """
    if result.accuracy is None:
        return None
    hidden: set[tuple[str, str]] = set()
    images = _images(result)
    for label in dict.fromkeys(row.label for row in result.accuracy.groups):
        own = [row for row in result.accuracy.groups if row.label == label]
        parts = {row.level: _parts(row, images) for row in own}
        few = {level for level, sizes in parts.items() if any(size is None or 0 < size < below for size in sizes)}
        hidden |= {(label, level) for level in few}
        small = [parts[level] for level in few if level]
        together = [sum(below if size is None else size for size in column) for column in zip(*small, strict=True)]
        if len(small) == 1 or any(0 < size < below for size in together):
            hidden.add((label, ""))
    why = (
        f"masked: fewer than {below} patients have the finding, have it not or are not known to, here or where "
        "subtraction tells"
    )
    notes = dict.fromkeys(MEASURES, why)
    groups = [
        GroupAccuracy(row.label, row.level, row.threshold, None, None, None, None, {}, notes)
        if (row.label, row.level) in hidden
        else row
        for row in result.accuracy.groups
    ]
    differences = [
        AccuracyDifference(row.label, row.contrast, {}, notes)
        if {(row.label, level) for level in row.contrast} & hidden
        else row
        for row in result.accuracy.differences
    ]
    return Accuracy(tuple(groups), tuple(differences), result.accuracy.notes)


def _images(result: AuditResult) -> Counter[str]:
    """Count the test images of every level, and ("") of all levels; a level whose number was masked has none."""
    found: Counter[str] = Counter()
    attributes = {row.attribute for row in result.tests}
    for cell in result.cohort.counts:
        whole = cell.get("split") == "test" and cell.get("value") == "all" and not cell.get("label")
        if whole and cell.get("attribute") in attributes:
            for level in (str(cell.get("level")), ""):
                found[level] += int(cell.get("images") or 0)
    return found


def _parts(row: GroupAccuracy, images: Counter[str]) -> tuple[int | None, int | None, int | None]:
    """Count who have the finding, have it not, and are not known to; None where it was masked, before it was shared."""
    unknown = None if row.n_images is None else max(images[row.level] - row.n_images, 0)
    return row.n_with, row.n_without, unknown


def groups_table(result: AuditResult, accuracy: Accuracy) -> Table | None:
    """Tabulate the accuracies of every label, for all images and for every group."""
    columns = [Column("Label"), Column("Recorded as"), Column("Images (patients)", "number"), *_columns()]
    rows = [
        [tables.text(row.label), tables.text(row.level or "all"), _people(row), *_cells(row)] for row in accuracy.groups
    ]
    cuts = sorted({row.threshold for row in accuracy.groups})
    where = " to ".join(f"{cut:g}" for cut in dict.fromkeys((*cuts[:1], *cuts[-1:])))
    caption = (
        f"Accuracy by label and group, with {level_percent(result.alpha)} intervals; sensitivity and specificity at "
        f"the operating point of {where}"
    )
    return tables.build(caption, columns, rows) if rows else None


def differences_table(result: AuditResult, accuracy: Accuracy) -> Table | None:
    """Tabulate by how much groups differ."""
    columns = [Column("Label"), Column("Compared"), *(Column(column.name, "number") for column in _columns())]
    rows = [
        [tables.text(row.label), tables.text(f"{row.contrast[1]} − {row.contrast[0]}"), *_cells(row, signed=True)]
        for row in accuracy.differences
    ]
    caption = f"Differences of accuracy between groups, with {level_percent(result.alpha)} intervals"
    return tables.build(caption, columns, rows) if rows else None


def without_interval(accuracy: Accuracy) -> tuple[str, ...]:
    """Say, in sentences, which estimates stand without an interval, or with one of its own kind, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in accuracy.groups:
        for name, why in row.notes.items():
            if name in row.measures:
                found.setdefault((f"{row.label}, {row.level or 'all'}", why), []).append(MEASURES[name][0])
    return tuple(f"{who} ({', '.join(names)}): {why}." for (who, why), names in found.items())


def card_rows(accuracy: Accuracy) -> list[list[str]]:
    """List the cells of the model card's table: a head, then a row per label and group."""
    names = ("auroc", "sensitivity", "specificity", "in_the_large", "slope")
    rows = [["label", "recorded as", "images", *(MEASURES[name][0].lower() for name in names)]]
    for row in accuracy.groups:
        cells = [_cell(row, name, signed=name == "in_the_large") for name in names]
        shown = ["n/a" if cell.absent else f"{cell.text} ({cell.detail})" for cell in cells]
        people = "masked" if row.n_images is None else count(row.n_images)
        rows.append([row.label, row.level or "all", people, *shown])
    return rows


def _columns() -> list[Column]:
    return [Column(name, "number", hint) for name, hint, _ in MEASURES.values()]


def _people(row: GroupAccuracy) -> Cell:
    if row.n_images is None or row.n_patients is None:
        return tables.absent(row.notes.get("prevalence", "masked"))
    return Cell(f"{count(row.n_images)} ({count(row.n_patients)})", str(row.n_images), kind="number")


def _cells(row: GroupAccuracy | AccuracyDifference, *, signed: bool = False) -> list[Cell]:
    return [_cell(row, name, signed=signed or name in ("in_the_large", "intercept")) for name in MEASURES]


def _cell(row: GroupAccuracy | AccuracyDifference, name: str, *, signed: bool) -> Cell:
    value = row.measures.get(name)
    reason = row.notes.get(name, "it was not measured")
    if value is None:
        return tables.absent(reason)
    share = MEASURES[name][2]
    show: Callable[..., str] = numerals.percent if share else partial(numerals.decimal, digits=2)
    cell = tables.number(value.estimate, partial(show, signed=signed), reason)
    if cell.absent:
        return cell
    bounded = is_number(value.low) and is_number(value.high)
    return replace(cell, detail=f"{show(value.low)} to {show(value.high)}" if bounded else "no interval")
