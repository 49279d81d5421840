"""What the page shows of the gates, of the share of the attribute carried, and of the model's own answers."""

from functools import partial

from citlr.audit.results.result import AuditResult, Gate
from citlr.report import tables
from citlr.report.numerals import count, decimal, percent
from citlr.report.tables import Cell, Column, Table
from citlr.report.wording import level_percent
from citlr.text import as_set, beside


def gates_table(result: AuditResult) -> Table:
    """Tabulate the gates: what each is about, what was measured, what was asked for, and whether it passed."""
    columns = [
        Column("Gate"),
        Column("About"),
        Column("Passed", "mark"),
        Column("Measured", "number"),
        Column("Limit", "number"),
        Column("What was found"),
    ]
    undecided = "decided by the verdict of the coin’s own audit, not by a number"
    rows = [
        [
            tables.text(gate.name),
            tables.text(gate.about),
            tables.mark(gate.passed),
            tables.number(gate.value, partial(_measured, limit=gate.limit), _why(gate, f"not measured: {gate.text}")),
            tables.number(gate.limit, _limit, _why(gate, undecided)),
            tables.text(gate.text),
        ]
        for gate in result.quality.gates
    ]
    return tables.build("Gates", columns, rows)


def _measured(value: float, limit: float | None) -> str:
    """Write what was measured so that it is seen on which side of its limit it lies."""
    return decimal(value, _decimals(f"{value:.3f}" if limit is None else beside(abs(value), limit, 3)))


def _limit(value: float) -> str:
    return decimal(value, _decimals(as_set(value, 3)))


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _why(gate: Gate, why: str) -> str:
    """Say why a gate has no number: of a waived one, its text."""
    return gate.text if gate.passed is None else why


def attenuation(result: AuditResult) -> str:
    """Say what the bounds were divided by before anything was called equivalent."""
    shares = sorted({row.carried for row in result.tests if row.carried is not None})
    if not shares:
        return (
            "What share of the attribute the redrawn images carry was not taken into account: effects are held against "
            "the margin as they were measured."
        )
    least = percent(shares[0])
    return (
        f"Redrawn images carry at least {least} of the attribute, as a probe reads it at the model’s own size. "
        "Before anything is called equivalent, the upper bound of the mean effect is divided by that share, and that "
        "of psi by its square, since images that carry too little show too small a dependence. No dependence is "
        "made larger by it."
    )


def carried_table(result: AuditResult) -> Table:
    """Tabulate the share carried of every level."""
    carried = result.quality.carried
    columns = [
        Column("Level"),
        Column("Share carried", "number", f"with {level_percent(0.05)} interval"),
        Column("Meaning"),
    ]
    rows: list[list[Cell]] = []
    if carried is not None:
        meaning = "1 where images redrawn under it are read as real ones of it are, 0 where nothing was changed"
        rows = [
            [tables.text(level), tables.estimate(share, carried.note), tables.text(meaning)]
            for level, share in carried.shares.items()
        ]
    size = "" if carried is None else f", read at {carried.size} pixels"
    return tables.build(f"Share of the attribute that the redrawn images carry{size}", columns, rows)


def curve_table(result: AuditResult) -> Table:
    """Tabulate the share carried of every level by the number of training images."""
    points = result.quality.curve
    levels = dict.fromkeys(level for one in points for level in one.shares)
    interval = f"share carried, with {level_percent(0.05)} interval"
    columns = [Column("Training images"), *(Column(level, "number", interval) for level in levels)]
    rows = [
        [
            tables.number(one.images, count, ""),
            *(tables.estimate(one.shares.get(level), "not known at this number of images") for level in levels),
        ]
        for one in points
    ]
    return tables.build("Share carried, by the number of images that the generator learnt from", columns, rows)


def agreement_table(result: AuditResult) -> Table:
    """Tabulate what the model answers on null interventions beside what it answers on originals."""
    columns = [
        Column("Label"),
        Column("Equal decisions", "number", f"with {level_percent(result.alpha)} interval"),
        Column("Rank correlation", "number", "Spearman"),
        Column("AUROC of the level", "number", "originals → null interventions"),
        Column("AUROC of the label", "number", "originals → null interventions"),
    ]
    show = partial(decimal, digits=2)
    rows = []
    for one in result.quality.agreement:
        unknown = one.note or "not known"
        level = max(one.attribute_auroc.items(), key=lambda item: abs(item[1][1] - item[1][0]), default=None)
        rows.append(
            [
                tables.text(one.label),
                tables.estimate(one.decisions, unknown),
                tables.number(one.rank, show, unknown),
                _pair(None if level is None else level[1], "one level only", "" if level is None else level[0]),
                _pair(one.label_auroc, "the label has one value only, or is not recorded", ""),
            ]
        )
    return tables.build("Does the model answer null interventions as it answers originals?", columns, rows)


def unexplained_table(result: AuditResult) -> Table:
    """Tabulate the difference between recorded levels, the effect of redrawing, and what that leaves."""
    interval = f"with {level_percent(result.alpha)} interval"
    columns = [
        Column("Label"),
        Column("Recorded as"),
        Column("Difference of outputs", "number", interval),
        Column("Effect of redrawing", "number", interval),
        Column("Left unexplained", "number", interval),
        Column("Given"),
    ]
    effects = {(row.label, row.contrast): row.mean_effect for row in result.tests}
    rows = []
    for one in result.quality.unexplained:
        reason, effect = one.note or "not known", effects.get((one.label, one.contrast))
        rows.append(
            [
                tables.text(one.label),
                tables.text(f"{one.contrast[1]} − {one.contrast[0]}"),
                tables.estimate(one.difference, reason, signed=True),
                tables.estimate(effect, "not tested", signed=True),
                tables.estimate(one.rest, reason, signed=True),
                tables.text(", ".join(one.given) or "nothing"),
            ]
        )
    return tables.build("Differences between recorded levels that redrawing does not explain", columns, rows)


def _pair(pair: tuple[float, float] | None, reason: str, detail: str) -> Cell:
    if pair is None:
        return tables.absent(reason)
    before, after = (decimal(value, digits=2) for value in pair)
    return Cell(f"{before} → {after}", repr(pair[1] - pair[0]), kind="number", detail=detail)
