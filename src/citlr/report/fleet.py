"""One page for several models audited on the same redrawn images: ranked, each with its full report behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from citlr.audit.results.result import SEVERITY, AuditResult, TestRow
from citlr.report import numerals, tables, wording
from citlr.report.page import fill, stylesheet
from citlr.run.files import write_text
from citlr.version import __version__


def rank(results: Mapping[str, AuditResult]) -> list[str]:
    """Return the models, the gravest verdict first and the largest psi first among equals."""

    def weight(name: str) -> tuple[int, float, str]:
        result = results[name]
        largest = max((row.psi.estimate for row in result.tests), default=0.0)
        return (-SEVERITY.index(result.verdict), -largest, name)

    return sorted(results, key=weight)


def heaviest(result: AuditResult) -> TestRow | None:
    """Return the row that decides a model's verdict: gravest, then smallest adjusted p, then largest."""
    return min(result.tests, key=lambda row: (*wording.weight(row), row.label), default=None)


def render_fleet(results: Mapping[str, AuditResult], links: Mapping[str, str]) -> str:
    """Return the page."""
    names = rank(results)
    columns = (
        tables.Column("Model"),
        tables.Column("Verdict", "verdict"),
        tables.Column("Label that decides"),
        tables.Column("psi", "number"),
        tables.Column("Mean effect", "number"),
        tables.Column("p", "number", "adjusted"),
    )
    rows = tuple(_row(name, results[name]) for name in names)
    table = tables.Table("Models, the gravest verdict first", columns, rows)
    entries = [
        {"name": name, "link": links[name], "verdict": results[name].verdict, "says": wording.headline(results[name])}
        for name in names
    ]
    attributes = dict.fromkeys(name for result in results.values() for name in wording.attributes(result))
    return fill(
        "fleet.html.j2",
        version=__version__,
        style=stylesheet(),
        attribute=wording.join(attributes, "or") or "the attribute",
        entries=entries,
        table=table,
    )


def write_fleet(path: Path, results: Mapping[str, AuditResult], links: Mapping[str, str]) -> Path:
    """Render the page, write it atomically, and return its path."""
    write_text(path, render_fleet(results, links))
    return path


def _row(name: str, result: AuditResult) -> tuple[tables.Cell, ...]:
    row = heaviest(result)
    if row is None:
        none = tables.absent("no test was run")
        return (tables.text(name), tables.verdict(result.verdict), none, none, none, none)
    return (
        tables.text(name),
        tables.verdict(result.verdict),
        tables.text(row.label),
        tables.number(row.psi.estimate, numerals.percent, "it could not be computed"),
        tables.number(row.mean_effect.estimate, numerals.percent, "it could not be computed"),
        tables.number(row.pvalue_adjusted, numerals.pvalue, "it could not be computed"),
    )
