"""What an audit says beside its numbers: plain language for a clinician, and what published guidance asks for."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from citlr.audit.results.result import AuditResult, TestRow
from citlr.checks import failed
from citlr.report import numerals
from citlr.report.numerals import is_number
from citlr.report.wording import attributes, join, weightiest

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
    attribute = join(attributes(result), "or")
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
    margins = join(sorted({numerals.margin(row.margin) for row in rows}))
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
    return f"Patients recorded as {join(dict.fromkeys(level for row in rows for level in row.contrast), 'or')}"


def _labels(rows: list[TestRow]) -> str:
    names = list(dict.fromkeys(row.label for row in rows))
    return join(names) if len(names) <= _SHOWN else f"{len(names)} findings"


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


FDA = "FDA, transparency for ML-enabled devices (2024)"
AI_ACT = "EU AI Act (2024/1689)"
STANDING = "STANDING Together (2024)"
TRIPOD = "TRIPOD+AI (2024)"
CLAIM = "CLAIM (2024 update)"

ITEMS: tuple[Item, ...] = (
    Item(
        FDA,
        "Performance, bias and how it is managed",
        "How the device behaves in the groups it is meant for, and how bias was looked for",
        "in part",
        "effects",
        "dependence on one attribute; accuracy by group was not measured in this audit",
        ("yes", "accuracy", "accuracy by group, beside the dependence on one attribute (effects)"),
    ),
    Item(
        FDA,
        "Limits and gaps in the evidence",
        "Known limits, failure modes and people the data leave out",
        "yes",
        "limits",
        "",
    ),
    Item(
        AI_ACT,
        "Art. 10(2)(f)",
        "Examination for biases that affect health, safety or fundamental rights",
        "in part",
        "effects",
        "of the model’s output, not of the provider’s training data",
    ),
    Item(
        AI_ACT,
        "Art. 10(2)(g)",
        "Measures that detect, prevent and mitigate such biases",
        "in part",
        "verdict",
        "detection only",
    ),
    Item(AI_ACT, "Art. 10(2)(h)", "Gaps and shortcomings of the data", "in part", "cohort", "of the audit’s data only"),
    Item(
        AI_ACT,
        "Art. 10(3)",
        "Data representative of the people the system is for",
        "in part",
        "cohort",
        "counts are given; the intended population is for the provider to set beside them",
    ),
    Item(
        FDA,
        "Intended use and users",
        "What the device is for, for whom, and in which population",
        "in part",
        "question",
        "quoted where report.intended_use declares it; an audit cannot find it out",
    ),
    Item(
        AI_ACT,
        "Art. 15(1) and (3)",
        "Accuracy and robustness, and their metrics declared",
        "no",
        "accuracy",
        "accuracy was not measured in this audit: no recorded findings to compare with",
        ("in part", "accuracy", "accuracy on this cohort, by group; robustness to other changes is not measured"),
    ),
    Item(
        STANDING,
        "Dataset documentation",
        "Who is in the data, who is missing, and where attributes come from",
        "in part",
        "cohort",
        "counts, exclusions and missing values; how attributes were recorded is in the source’s own documentation",
    ),
    Item(
        STANDING,
        "Dataset use",
        "Evaluate across the groups that matter, with uncertainty, and report limits",
        "yes",
        "effects",
        "",
    ),
    Item(
        STANDING,
        "Dataset use",
        "Intersections of attributes",
        "in part",
        "subgroups",
        "recorded level by covariate by age, two at a time; one attribute is redrawn at a time",
    ),
    Item(
        STANDING,
        "Dataset documentation",
        "How attributes were defined, by whom they were recorded, and how values were grouped",
        "in part",
        "attribute",
        "levels, counts and grouping are shown; who recorded them is quoted where the auditor declares it",
    ),
    Item(
        TRIPOD, "Item 8a and 9a", "Definition of outcome and predictors", "no", "question", "see the model’s own report"
    ),
    Item(
        TRIPOD, "Item 10", "Sample size and its justification", "yes", "effects", "smallest detectable effect per label"
    ),
    Item(TRIPOD, "Item 11", "Handling of missing data", "yes", "cohort", ""),
    Item(TRIPOD, "Item 14", "How fairness was addressed, and why so", "yes", "question", ""),
    Item(TRIPOD, "Items 20a and 20b", "Flow and characteristics of participants", "yes", "cohort", ""),
    Item(
        TRIPOD,
        "Item 23a",
        "Performance with intervals, also in key subgroups",
        "in part",
        "subgroups",
        "effects of the attribute per subgroup, with intervals; accuracy was not measured in this audit",
        ("yes", "accuracy", "discrimination, operating point and calibration by group, with intervals by patient"),
    ),
    Item(TRIPOD, "Item 26", "Limitations", "yes", "limits", ""),
    Item(
        CLAIM,
        "Study design and intended use",
        "What the model is for, and the study’s aim",
        "in part",
        "question",
        "the aim of the audit; the intended use is quoted where it is declared",
    ),
    Item(CLAIM, "Data", "Sources, selection, partitions and their level", "yes", "cohort", "split by patient"),
    Item(CLAIM, "Evaluation", "Statistical measures of significance and uncertainty", "yes", "effects", ""),
    Item(
        CLAIM,
        "Evaluation",
        "Robustness or sensitivity analysis",
        "in part",
        "controls",
        "negative and positive controls",
    ),
    Item(CLAIM, "Results", "Analysis of failures", "no", "limits", "single cases are not read"),
    Item(CLAIM, "Other information", "What is needed to reproduce the result", "yes", "provenance", ""),
)


def items(*, accuracy: bool) -> tuple[Item, ...]:
    """Return every request with the answer of an audit in which accuracy by group was measured, or was not."""
    if not accuracy:
        return ITEMS
    return tuple(one if one.of_accuracy is None else replace(one, **_answered(one.of_accuracy)) for one in ITEMS)


def _answered(of_accuracy: tuple[Answer, str, str]) -> dict[str, Any]:
    return dict(zip(("answer", "anchor", "remark"), of_accuracy, strict=True))


def by_section(*, accuracy: bool) -> dict[str, tuple[Item, ...]]:
    """Return, for every section of the page, the items that it answers, wholly or in part."""
    found: dict[str, tuple[Item, ...]] = {}
    for item in items(accuracy=accuracy):
        if item.answer != "no":
            found[item.anchor] = (*found.get(item.anchor, ()), item)
    return found
