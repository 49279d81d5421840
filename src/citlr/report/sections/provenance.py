"""Where the numbers come from: settings, versions, hashes, seeds, and what every stage took."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from citlr.audit import privacy
from citlr.audit.results.result import AuditResult
from citlr.report import numerals, tables
from citlr.report.numerals import is_number
from citlr.report.tables import Cell, Column, Table

_DATES = ("finished", "created", "date", "time")


@dataclass(frozen=True)
class Block:
    """One group of settings as names and values."""

    title: str
    rows: tuple[tuple[str, str], ...]


def date(result: AuditResult) -> str:
    """Give the day of the audit as the provenance has it; the page itself never looks at the clock."""
    for key in _DATES:
        value = result.provenance.get(key)
        if isinstance(value, str) and value:
            return value[:10]
    return ""


def stages(result: AuditResult) -> Table | None:
    """Tabulate seconds and peak memory of every stage; None where nothing was recorded."""
    recorded = result.provenance.get("stages")
    if isinstance(recorded, Mapping):
        recorded = [{"name": name, **(entry if isinstance(entry, Mapping) else {})} for name, entry in recorded.items()]
    if not isinstance(recorded, (list, tuple)) or not recorded:
        return None
    columns = [
        Column("Stage"),
        Column("Wall time", "number"),
        Column("Peak memory", "number"),
        Column("Attempts", "number"),
    ]
    rows = [
        [
            tables.text(entry.get("stage", entry.get("name", "unnamed"))),
            tables.number(entry.get("seconds"), numerals.seconds, "the stage recorded no time"),
            _memory(entry),
            tables.number(entry.get("attempts"), numerals.count, "the stage recorded no attempts"),
        ]
        for entry in recorded
        if isinstance(entry, Mapping)
    ]
    return tables.build("What each stage took", columns, rows)


def changes(result: AuditResult) -> tuple[tuple[str, str, str], ...]:
    """List what was changed after a first verdict was there: when, in which stage, and what, paths shortened."""
    found = []
    for entry in result.provenance.get("history") or ():
        if isinstance(entry, Mapping):
            said = privacy.without_paths("; ".join(str(one) for one in entry.get("changes", ())))
            found.append((str(entry.get("when", "")), str(entry.get("stage", "")).partition(".")[0], said))
    return tuple(found)


def _memory(entry: Mapping[str, Any]) -> Cell:
    for key, unit in (("peak_memory_mb", 1e6), ("peak_memory_bytes", 1), ("peak_memory", 1)):
        if is_number(entry.get(key)):
            return tables.number(float(entry[key]) * unit, numerals.megabytes, "")
    return tables.absent("the stage recorded no memory")


def blocks(result: AuditResult) -> tuple[Block, ...]:
    """List everything else that the provenance holds, paths shortened, one block per top-level entry."""
    plain: list[tuple[str, str]] = []
    grouped: list[Block] = []
    for key, value in result.provenance.items():
        if key in ("stages", "history"):
            continue
        if isinstance(value, Mapping):
            rows = privacy.flatten(value)
            if rows:
                grouped.append(Block(str(key).replace("_", " "), tuple(rows)))
        else:
            plain += privacy.flatten({key: value})
    return (*((Block("run", tuple(plain)),) if plain else ()), *grouped)


def model_run(result: AuditResult) -> str:
    """Say who ran the model under audit, and what it gave back."""
    run = result.provenance.get("model_run")
    where = run.get("where") if isinstance(run, Mapping) else None
    decisions = isinstance(run, Mapping) and run.get("answers") == "decisions"
    if where == "by its owner":
        text = (
            "The model was not run here. Its owner was given the redrawn images and the originals under opaque names, "
            "without levels, and sent its answers back as a table; the table’s SHA-256 is in the provenance below. "
            "Only the owner can vouch that the answers are the model’s, and of the version named."
        )
    elif where == "here":
        text = "The model was run here, on the redrawn images as they are; its SHA-256 is in the provenance below."
    elif where == "elsewhere":
        text = (
            "The model was not run here, and the images were not seen: its predictions came as a table, whose SHA-256 "
            "is in the provenance below."
        )
    else:
        text = "The audit did not record who ran the model."
    if decisions:
        text += (
            " The answers are decisions (0 or 1), not probabilities: the operating point is the owner’s, and no bias "
            "could be planted on the logit of an answer that has none."
        )
    return text
