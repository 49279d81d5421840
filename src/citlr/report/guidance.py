"""What published guidance asks of subgroup evidence, and how far a page of this kind answers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

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
