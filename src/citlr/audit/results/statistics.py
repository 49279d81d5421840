"""From a table of responses to rows: the default test with its effects, and the associations beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.prediction import ORIGINAL
from citlr.audit.results.result import BaselineRow, Estimate, TestRow
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.invariance.generator_error import Replicates
from citlr.invariance.parity import ParityResult, demographic_parity, equal_opportunity
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import Assessment, Bounds, ContrastTest, assess


def responses_of(frame: pd.DataFrame, *, attribute: str, levels: Sequence[str]) -> Responses:
    """Return the responses under one attribute as a validated array, images in the order of their names."""
    return Responses.from_frame(frame[frame["attribute"] == attribute], attribute=attribute, levels=tuple(levels))


def assess_responses(
    responses: Responses,
    *,
    settings: TestConfig,
    shared_seeds: bool,
    seed: int,
    replicates: Replicates | None = None,
    carried: Mapping[str, float] | None = None,
) -> Assessment:
    """Run the default test with the settings of the configuration."""
    return assess(
        responses,
        margin=settings.margin,
        alpha=settings.alpha,
        outcome=settings.outcome,
        threshold={label: threshold_of(label, settings) for label in responses.labels},
        randomizations=settings.randomizations,
        shared_seeds=shared_seeds,
        seed=seed,
        replicates=replicates,
        carried=carried,
    )


def baselines(
    frame: pd.DataFrame, cohort: Cohort, *, attribute: str, levels: Sequence[str], settings: TestConfig
) -> tuple[BaselineRow, ...]:
    """Return demographic parity and equality of opportunity on the images as they came."""
    originals = frame[(frame["draw"] == ORIGINAL) & (frame["attribute"] == attribute)]
    known = cohort.frame.set_index("image_id")
    rows: list[BaselineRow] = []
    for label, part in originals.groupby("label", sort=False):
        of_image = known.loc[part["image_id"]]
        prediction = outcome_of(part["probability"].to_numpy(float), str(label), settings)
        level = of_image[attribute].to_numpy(str)
        patients = of_image["patient_id"].to_numpy(str)
        truth = of_image[str(label)].to_numpy(float)
        for contrast in contrasts(levels):
            alpha, has = settings.alpha, ~np.isnan(truth)
            parity = demographic_parity(prediction, level, patients, contrast=contrast, alpha=alpha)
            opportunity = equal_opportunity(
                prediction[has], level[has], truth[has], patients[has], contrast=contrast, alpha=alpha
            )
            rows += [_baseline(parity, str(label)), _baseline(opportunity, str(label))]
    return tuple(rows)


def contrasts(levels: Sequence[str]) -> list[tuple[str, str]]:
    """Return every pair (a, a') in the order of the levels.

    Examples
    --------
    >>> contrasts(["a", "b", "c"])
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    return [(first, second) for k, first in enumerate(levels) for second in levels[k + 1 :]]


def outcome_of(probability: npt.NDArray[np.float64], label: str, settings: TestConfig) -> npt.NDArray[np.float64]:
    """Return decisions (0 or 1), or the probabilities themselves, as the settings ask."""
    if settings.outcome == "probability":
        return probability
    return (probability >= threshold_of(label, settings)).astype(float)


def threshold_of(label: str, settings: TestConfig) -> float:
    """Return the threshold of a label."""
    threshold = settings.threshold
    if not isinstance(threshold, Mapping):
        return threshold
    if label not in threshold:
        raise InputError(f"test.threshold names no threshold for '{label}': name every label, or give one number.")
    return threshold[label]


def schema_rows(assessment: Assessment, attribute: str) -> tuple[TestRow, ...]:
    """Turn the rows of the statistics into those of the schema."""
    return tuple(_schema_row(row, attribute) for row in assessment.tests)


def _schema_row(row: ContrastTest, attribute: str) -> TestRow:
    return TestRow(
        attribute=attribute,
        contrast=row.contrast,
        label=row.label,
        outcome=row.outcome,
        method=row.method,
        n_images=row.n_images,
        n_patients=row.n_patients,
        draws=row.draws,
        statistic=row.statistic,
        pvalue=row.pvalue,
        pvalue_adjusted=row.pvalue_adjusted,
        pvalue_screening=row.pvalue_screening,
        log10_pvalue=row.log10_pvalue,
        mean_effect=_interval(row.mean_effect),
        psi=_interval(row.psi),
        flip_rate=_interval(row.flip_rate),
        within_flip_rate=row.within_flip_rate,
        eca=row.eca,
        margin=row.margin,
        equivalence_pvalue=row.equivalence_pvalue,
        detectable_effect=row.detectable_effect,
        verdict=row.verdict,
        reason=row.reason,
        mean_error=row.mean_error,
        psi_error=row.psi_error,
        carried=row.carried,
    )


def _interval(bounds: Bounds) -> Estimate:
    return Estimate(bounds.estimate, bounds.low, bounds.high)


def _baseline(parity: ParityResult, label: str) -> BaselineRow:
    return BaselineRow(
        method=parity.method,
        label=label,
        contrast=parity.contrast,
        statistic=parity.statistic,
        pvalue=parity.pvalue,
        difference=Estimate(parity.estimate, parity.low, parity.high),
        note=parity.note,
    )
