"""Accuracy by group beside a verdict: on the images as they came, against what is recorded of the findings."""

from dataclasses import replace
from math import isnan

import pandas as pd

from citlr.audit.results.records import Accuracy
from citlr.audit.results.statistics import recorded_of
from citlr.config import TestConfig
from citlr.invariance.effects.accuracy import AccuracyDifference, Answers, GroupAccuracy, accuracy_by_level
from citlr.invariance.operating_point import thresholds
from citlr.invariance.records import TestRow
from citlr.invariance.responses import Responses


def with_doubt(rows: tuple[TestRow, ...], accuracy: Accuracy) -> tuple[TestRow, ...]:
    """Say beside "equivalent" where the model is not shown to tell the finding: it may not have been given its input.

    A network of another scaling of the pixels answers at random, and depends on nothing.
    """
    told = {one.label: one.measures.get("auroc") for one in accuracy.groups if not one.level}
    found = []
    for row in rows:
        auroc = told.get(row.label)
        if row.verdict == "equivalent" and auroc is not None and not auroc.low > 0.5:
            bounds = "too few patients for an interval" if isnan(auroc.low) else f"{auroc.low:.2f}, {auroc.high:.2f}"
            said = (
                f" Yet the model is not shown to tell '{row.label}' on these images (AUROC {auroc.estimate:.2f} "
                f"[{bounds}]): make sure that its input is prepared as it was in training."
            )
            if auroc.high < 0.5:
                said += " It tells the healthy instead: are these the answers for the other class (1 - p)?"
            row = replace(row, reason=row.reason + said)
        found.append(row)
    return tuple(found)


def measure_accuracy(responses: Responses, cohort: pd.DataFrame, *, settings: TestConfig, remedy: str = "") -> Accuracy:
    """Measure every label whose truth is recorded; of what cannot be measured, `notes` says what is missing.

    - `cohort`: A row per image (image_id), a column of 0, 1 or NaN for every label whose truth is known.
    - `remedy`: How to give a truth that is missing.
    """
    recorded = responses.recorded
    if responses.original is None:
        return Accuracy(
            (), (), ("Accuracy is not known: there are no predictions on the images as they came (draw -1).",)
        )
    if recorded is None:
        return Accuracy((), (), ("Accuracy by group is not known: the level that each image really has is not said.",))
    known = recorded_of(cohort, responses.units)
    present = [level for level in responses.levels if level in set(recorded)]
    groups: list[GroupAccuracy] = []
    differences: list[AccuracyDifference] = []
    notes = []
    for k, label in enumerate(responses.labels):
        truth = pd.to_numeric(known[label], errors="coerce").to_numpy(float) if label in known else None
        if truth is None or pd.isna(truth).all():
            notes.append(f"Accuracy on {label} is not known: the truth of no image is recorded{remedy}.")
            continue
        found = accuracy_by_level(
            Answers(label, responses.original[:, k], truth, recorded, responses.patients),
            levels=present,
            threshold=float(thresholds(settings.threshold, [label])[0]),
            alpha=settings.alpha,
        )
        groups.extend(found[0])
        differences.extend(found[1])
    return Accuracy(tuple(groups), tuple(differences), tuple(notes))
