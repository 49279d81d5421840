"""Subgroups and intersections on the page: effects in parts of the test set, the small ones masked."""

from citlr.audit import privacy
from citlr.audit.results.result import AuditResult, SubgroupRow
from citlr.report import numerals, tables
from citlr.report.charts.geometry import contrast_text
from citlr.report.numerals import count
from citlr.report.tables import Cell, Column, Table
from citlr.report.wording import level_percent

Part = tuple[tuple[str, str], ...]


def masked_parts(result: AuditResult, *, below: int) -> set[Part]:
    """Return the parts of the test set that must not be shown."""
    return privacy.mask_parts({row.subgroup: row.n_patients for row in result.subgroups}, below=below)


def parts_tables(result: AuditResult, *, below: int) -> tuple[Table, ...]:
    """Tabulate the effects in subgroups, then in intersections."""
    hidden = masked_parts(result, below=below)
    captions = {1: "Subgroups of the test set", 2: "Intersections: where two variables meet"}
    found = []
    for depth, caption in captions.items():
        rows = [row for row in result.subgroups if len(row.subgroup) == depth]
        if rows:
            shown = [_row(row) for row in rows if row.subgroup not in hidden]
            masked = dict.fromkeys(row.subgroup for row in rows if row.subgroup in hidden)
            found.append(tables.build(caption, _columns(result), [*shown, *(_masked(part, below) for part in masked)]))
    return tuple(found)


def part_name(part: Part) -> str:
    """Name a part of the test set.

    >>> part_name((("sex", "female"), ("view", "AP")))
    'sex: female, view: AP'
    """
    return ", ".join(f"{variable}: {value}" for variable, value in part)


def _columns(result: AuditResult) -> list[Column]:
    confidence = f"with {level_percent(result.alpha)} interval, not adjusted"
    return [
        Column("Part"),
        Column("Label"),
        Column("Redrawn as"),
        Column("Images (patients)", "number"),
        Column("psi", "number", confidence),
        Column("Mean effect", "number", confidence),
        Column("Changed across levels", "number", "raw share, noise included"),
    ]


def _masked(part: Part, below: int) -> list[Cell]:
    why = f"masked: the part, or one that could be found by subtracting it, has fewer than {below} patients"
    return [tables.text(part_name(part)), tables.text("all"), tables.text("–"), *([tables.absent(why)] * 4)]


def _row(row: SubgroupRow) -> list[Cell]:
    reason = row.note or "the effect could not be computed in this part"
    people = f"{count(row.n_images)} ({count(row.n_patients)})"
    return [
        tables.text(part_name(row.subgroup)),
        tables.text(row.label),
        tables.text(contrast_text(row.contrast)),
        Cell(people, str(row.n_images), kind="number"),
        tables.estimate(row.psi, reason),
        tables.estimate(row.mean_effect, reason, signed=True),
        tables.number(row.flip_rate.estimate, numerals.percent, reason),
    ]
