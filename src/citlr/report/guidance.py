"""What an audit says beside its numbers: plain language for a clinician, and what published guidance asks for."""

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from citlr.audit.results.result import AuditResult, TestRow
from citlr.checks import failed
from citlr.report import numerals
from citlr.report.numerals import is_number
from citlr.report.wording import attributes, weightiest
from citlr.text import joined

_SHOWN = 3  # labels that a sentence names before it counts them
# Share of images below which "in 100 images" says nothing.
_COUNTED = 0.005
_BEYOND = "beyond what redrawing alone changes"


@dataclass(frozen=True)
class Plain:
    """Short sentences, none of which needs statistics to be read.

    - `found`: The one sentence of what was found; `rest` is about the labels that it is not about, and may be empty.
    - `beware`: What not to conclude.
    """

    asked: str
    found: str
    rest: str
    matters: str
    beware: str


def plain_words(result: AuditResult) -> Plain | None:
    """Say it in plain language; None where nothing was tested."""
    rows = weightiest(result)
    if not rows:
        return None
    attribute = joined(attributes(result), "or")
    asked = f"Does {result.model} answer differently when only the {attribute} that an image shows is changed?"
    people = f"{numerals.count(max(row.n_patients for row in rows))} patients"
    of = {verdict: [row for row in rows if row.verdict == verdict] for verdict in ("dependence", "equivalent")}
    unsettled = [row for row in rows if row.verdict == "inconclusive"]
    settled = f"No difference that matters for {_labels(of['equivalent'])}." if of["equivalent"] else ""
    if of["dependence"]:
        return Plain(
            asked,
            _changes([row for row in result.tests if row.verdict == "dependence"]),
            " ".join(filter(None, [f"No answer yet for {_labels(unsettled)}." if unsettled else "", settled])),
            f"{_recorded(of['dependence'])}, where the answer on {_labels(of['dependence'])} is used. {people} were "
            "tested.",
            f"Which answer is right, or that care is unfair: {attribute} may carry real information. “Accuracy” below "
            "tells how often the model is right in each group.",
        )
    if unsettled:
        checks = [gate for gate in failed(result.quality.gates) if any(gate.concerns(row) for row in unsettled)]
        shown = any(is_number(row.pvalue_adjusted) and row.pvalue_adjusted < result.alpha for row in unsettled)
        why = "the images neither show a difference nor rule one out"
        if shown:
            why = "the images show a difference, which carries no verdict"
        if checks:
            why = "a check of the audit itself failed"
        return Plain(
            asked,
            f"No answer yet for {_labels(unsettled)}: {why}.",
            settled,
            f"If you use the answer on {_labels(unsettled)}, treat the question as open.",
            f"That {attribute} makes no difference, or that it makes one.",
        )
    margins = joined(sorted({numerals.margin(row.margin) for row in rows}))
    return Plain(
        asked,
        f"No: for {_labels(rows)}, changing {attribute} makes no difference above {margins}, {_BEYOND}.",
        "",
        f"Patients like the {people} who were tested; for others it has to be tested again.",
        "That the model is right, in any group: see “Accuracy” below.",
    )


def _changes(dependent: list[TestRow]) -> str:
    """Tell the largest change, in images of a hundred where decisions were compared."""
    several = len(dependent) > 1
    lead, most = f"Yes, for {_labels(dependent)}", "up to " if several else ""
    known = [row for row in dependent if is_number(row.psi.estimate)]
    if not known:
        return f"{lead}."
    row = max(known, key=lambda one: one.psi.estimate)
    where = f" on {row.label}" if several else ""
    redrawn = f"redrawn as {row.contrast[1]} instead of {row.contrast[0]}, {_BEYOND}"
    if row.outcome != "decision":
        size = numerals.points(max(row.psi.estimate, 0.0) ** 0.5)
        return f"{lead}: the probability{where} moves by {most}{size} when an image is {redrawn}."
    if row.psi.estimate >= _COUNTED:
        count = round(100 * row.psi.estimate)
        return f"{lead}: {most}about {count} in 100 images get another decision{where} when {redrawn}."
    shift = numerals.points(row.mean_effect.estimate) if is_number(row.mean_effect.estimate) else "little"
    return f"{lead}: the share of positive decisions{where} moves by {shift} when images are {redrawn}."


def _recorded(rows: list[TestRow]) -> str:
    return f"Patients recorded as {joined(dict.fromkeys(level for row in rows for level in row.contrast), 'or')}"


def _labels(rows: list[TestRow]) -> str:
    names = list(dict.fromkeys(row.label for row in rows))
    return joined(names) if len(names) <= _SHOWN else f"{len(names)} findings"


Answer = Literal["yes", "in part", "no"]


@dataclass(frozen=True)
class Item:
    """One request of one document; `anchor` is the section of the page that answers, if any.

    - `of_accuracy`: What the answer is, where, and the remark, when accuracy by group was measured.
    """

    source: str
    item: str
    asks: str
    answer: Answer
    anchor: str
    remark: str
    of_accuracy: tuple[Answer, str, str] | None = None


@cache
def _requests() -> tuple[Item, ...]:
    """Read what is asked for, and what is answered: a line each of `requests.csv`."""
    with (Path(__file__).parent / "templates" / "requests.csv").open(encoding="utf-8", newline="") as table:
        _, *rows = csv.reader(table)
    return tuple(Item(*cast(Any, (*row[:6], tuple(row[6:]) if row[6] else None))) for row in rows)


def items(*, accuracy: bool) -> tuple[Item, ...]:
    """Return every request with the answer of an audit in which accuracy by group was measured, or was not."""
    found = []
    for one in _requests():
        answer, anchor, remark = (accuracy and one.of_accuracy) or (one.answer, one.anchor, one.remark)
        found.append(replace(one, answer=answer, anchor=anchor, remark=remark))
    return tuple(found)


def by_section(*, accuracy: bool) -> dict[str, tuple[Item, ...]]:
    """Return, for every section of the page, the items that it answers, wholly or in part."""
    found: dict[str, tuple[Item, ...]] = {}
    for item in items(accuracy=accuracy):
        if item.answer != "no":
            found[item.anchor] = (*found.get(item.anchor, ()), item)
    return found
