"""From a table of responses to rows: the default test with its effects, and the associations beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.results.records import BaselineRow
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.invariance.operating_point import reaches, thresholds
from citlr.invariance.parity import ParityResult, demographic_parity, equal_opportunity, predictive_equality
from citlr.invariance.records import Estimate, TestRow
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import Assessment


def recorded_of(frame: pd.DataFrame, units: Iterable[Any]) -> pd.DataFrame:
    """Return what is recorded of some images, in their order."""
    return frame.set_index(frame["image_id"].astype(str)).loc[[str(unit) for unit in units]]


def baselines(responses: Responses, cohort: Cohort, *, settings: TestConfig) -> tuple[BaselineRow, ...]:
    """Return demographic parity, and with the truth the gaps of both error rates, on the images as they came."""
    level, alpha = responses.recorded, settings.alpha
    if responses.original is None or level is None:
        return ()
    known = recorded_of(cohort.frame, responses.units)
    patients = known["patient_id"].to_numpy(str)
    rows: list[BaselineRow] = []
    for k, label in enumerate(responses.labels):
        prediction = outcome_of(responses.original[:, k], label, settings)
        # With those that have no label: where a level has none at all, the test says so, as it does of a few.
        truth = known[label].to_numpy(float)
        for contrast in contrasts([one for one in responses.levels if one in set(level)]):
            parity = demographic_parity(prediction, level, patients, contrast=contrast, alpha=alpha)
            within = (
                test(prediction, level, truth, patients, contrast=contrast, alpha=alpha)
                for test in (equal_opportunity, predictive_equality)
            )
            rows += [parity_row(one, label) for one in (parity, *within)]
    return tuple(rows)


def contrasts(levels: Sequence[str]) -> list[tuple[str, str]]:
    """Return every pair (a, a') in the order of the levels.

    >>> contrasts(["a", "b", "c"])
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    return [(first, second) for k, first in enumerate(levels) for second in levels[k + 1 :]]


def outcome_of(probability: npt.NDArray[np.float64], label: str, settings: TestConfig) -> npt.NDArray[np.float64]:
    """Return decisions (0 or 1), or the probabilities themselves, as the settings ask."""
    if settings.outcome == "probability":
        return probability
    cut = float(thresholds(settings.threshold, [label])[0])
    return reaches(probability, cut).astype(float)


def schema_rows(assessment: Assessment) -> tuple[TestRow, ...]:
    """Cut the rows of the statistics down to those of the schema."""
    names = [one.name for one in fields(TestRow)]
    return tuple(TestRow(**{name: getattr(row, name) for name in names}) for row in assessment.tests)


def parity_row(parity: ParityResult, label: str) -> BaselineRow:
    """Give an association as a row of a result."""
    return BaselineRow(
        method=parity.method,
        label=label,
        contrast=parity.contrast,
        statistic=parity.statistic,
        pvalue=parity.pvalue,
        difference=Estimate(parity.estimate, parity.low, parity.high),
        note=parity.note,
    )
