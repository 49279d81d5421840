"""The page of a comparison: verdicts and effects side by side, differences with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from citlr.exchange.comparison import Comparison, Difference
from citlr.report import numerals, tables
from citlr.report.charts.geometry import contrast_text
from citlr.report.page import fill, script_hash, stylesheet, table_script
from citlr.report.wording import level_percent
from citlr.run.files import write_text
from citlr.text import listed_few
from citlr.text import markdown as escaped
from citlr.version import __version__


def render_comparison(found: Sequence[Comparison]) -> str:
    """Return the page."""
    rows = [row for one in found for row in one.rows]
    firsts = dict.fromkeys(row.first for row in rows)
    return fill(
        "comparison.html.j2",
        version=__version__,
        style=stylesheet(),
        script=table_script(),
        script_hash=script_hash(),
        title=f"{listed_few(firsts)} and what is compared with {'it' if len(firsts) == 1 else 'each'}",
        table=_table(rows),
        notes=tuple(dict.fromkeys(row.note for row in rows)),
        changed=tuple(row for row in rows if row.first_verdict != row.other_verdict),
        contrast_text=contrast_text,
        confidence=_levels({row.first: row.first_alpha for row in rows}),
    )


def write_comparison(path: Path, found: Sequence[Comparison]) -> Path:
    """Render the page, write it atomically, and return its path."""
    write_text(path, render_comparison(found))
    return path


def markdown(found: Sequence[Comparison]) -> str:
    """Return the comparison as a GitHub-flavoured Markdown table."""
    head = ["label", "redrawn as", "first", "other", "verdict of the first", "verdict of the other"]
    lines = [
        "## citlr: audits compared",
        "",
        f"| {' | '.join([*head, 'difference of psi', 'difference of the mean effect'])} |",
        "|" + "---|" * (len(head) + 2),
    ]
    for row in (row for one in found for row in one.rows):
        cells = [
            *(row.label, contrast_text(row.contrast), row.first, row.other, row.first_verdict, row.other_verdict),
            _interval(row, "psi"),
            _interval(row, "mean"),
        ]
        lines.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
    notes = dict.fromkeys(row.note for one in found for row in one.rows)
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in notes)]) + "\n"


def _interval(row: Difference, which: str) -> str:
    estimate = getattr(row, which)
    if not numerals.is_number(estimate.estimate):
        return "n/a"
    if not numerals.is_number(estimate.low):
        return f"{numerals.percent(estimate.estimate, signed=True)} (no interval)"
    bounds = f"{numerals.percent(estimate.low, signed=True)} to {numerals.percent(estimate.high, signed=True)}"
    return f"{numerals.percent(estimate.estimate, signed=True)} ({bounds})"


def _levels(alphas: Mapping[str, float]) -> str:
    """Write the confidence of intervals: one number, or whose it is where audits have different ones."""
    if len(set(alphas.values())) == 1:
        return level_percent(next(iter(alphas.values())))
    return ", ".join(f"{level_percent(alpha)} ({name})" for name, alpha in alphas.items())


def _table(rows: Sequence[Difference]) -> tables.Table:
    first = f"interval of {_levels({row.first: row.first_alpha for row in rows})}"
    other = f"interval of {_levels({row.other: row.other_alpha for row in rows})}"
    columns = [
        tables.Column("Label"),
        tables.Column("Redrawn as"),
        tables.Column("First"),
        tables.Column("Other"),
        tables.Column("Verdict of the first", "verdict"),
        tables.Column("Verdict of the other", "verdict"),
        tables.Column("psi of the first", "number", first),
        tables.Column("psi of the other", "number", other),
        tables.Column("Difference of psi", "number", first),
        tables.Column("Difference of the mean effect", "number", first),
    ]
    cells = [
        [
            *(tables.text(value) for value in (row.label, contrast_text(row.contrast), row.first, row.other)),
            tables.verdict(row.first_verdict),
            tables.verdict(row.other_verdict),
            tables.estimate(row.first_psi, "the first audit has no number"),
            tables.estimate(row.other_psi, "the other audit has no number"),
            tables.estimate(row.psi, row.note, signed=True),
            tables.estimate(row.mean, row.note, signed=True),
        ]
        for row in rows
    ]
    return tables.build("Effects side by side; differences are the other audit’s minus the first one’s", columns, cells)
