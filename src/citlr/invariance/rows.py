"""The rows of an assessment: arrays over labels become one frozen record per label and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.equivalence import Equivalence
from citlr.invariance.effects.estimates import Effects, Outcome
from citlr.invariance.effects.intervals import Interval
from citlr.invariance.generator_error import GeneratorError
from citlr.invariance.multiplicity import adjust
from citlr.invariance.randomization.test import RandomizationResult
from citlr.invariance.responses import Responses

Verdict = Literal["dependence", "equivalent", "inconclusive"]
METHODS = {True: "randomization_sign_flip", False: "randomization_permutation"}


@dataclass(frozen=True)
class Bounds:
    """A number with its 1 - alpha interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ContrastTest:
    """One label at one contrast; the fields are explained in `citlr.invariance.effects.estimates` and `.randomization`.

    - `method`: "randomization_sign_flip" (shared seeds) or "randomization_permutation" (independent draws).
    - `statistic`: The standardised statistic that decided, named by `component`.
    - `component`
    - `pvalue`, `pvalue_adjusted`, `pvalue_screening`, `log10_pvalue`: Of the default test; Holm and Benjamini-Hochberg
      over labels and contrasts; log10 with its asymptotic tail.
    - `equivalence_pvalue`: The larger of the p-values of the mean effect and of psi against the margin.
    - `mean_error`, `psi_error`: Standard errors of the two effects that come from the generator's training sample,
      which the intervals and the equivalence p-value hold (see `citlr.invariance.generator_error`); None where the
      generator does not know them.
    - `detectable_effect`: Smallest psi that the test finds with 80 % power in these data, at alpha, before adjustment.
    - `carried`: Share of the attribute that the counterfactuals carry at least: the equivalence p-value is of the mean
      effect divided by it, and of psi divided by its square; None where it was not taken into account.
    - `undivided_pvalue`: The equivalence p-value of the effects as they were measured, without that division.
    - `reason`: Why the verdict is what it is.
    """

    contrast: tuple[str, str]
    label: str
    outcome: str
    method: str
    n_images: int
    n_patients: int
    draws: int
    statistic: float
    component: str
    pvalue: float
    pvalue_adjusted: float
    pvalue_screening: float
    log10_pvalue: float
    mean_effect: Bounds
    psi: Bounds
    rms_effect: Bounds
    flip_rate: Bounds
    within_flip_rate: float
    eca: float
    eca_corrected: float
    margin: float
    equivalence_pvalue: float
    detectable_effect: float
    verdict: Verdict
    reason: str
    mean_error: float | None = None
    psi_error: float | None = None
    replicates: int = 0
    carried: float | None = None
    undivided_pvalue: float = 1.0


@dataclass(frozen=True)
class OmnibusTest:
    """One label over all levels at once; only made with three levels or more. Holm and BH are over the labels."""

    levels: tuple[str, ...]
    label: str
    statistic: float
    component: str
    pvalue: float
    pvalue_adjusted: float
    pvalue_screening: float
    log10_pvalue: float


def contrast_rows(
    responses: Responses,
    effects: Effects,
    equivalence: Equivalence,
    tests: RandomizationResult,
    row: int,
    smallest: Floats,
    outcome: Outcome,
    shared_seeds: bool,
    error: GeneratorError | None = None,
) -> list[ContrastTest]:
    """Return one undecided row per label; `row` is the contrast's row in `tests`, `smallest` its detectable psi."""
    n_patients = responses.n_patients
    return [
        ContrastTest(
            contrast=effects.contrast,
            label=label,
            outcome=outcome,
            method=METHODS[shared_seeds],
            n_images=responses.n_units,
            n_patients=n_patients,
            draws=responses.n_draws,
            statistic=float(tests.statistic[row, k]),
            component=str(tests.component[row, k]),
            pvalue=float(tests.pvalue[row, k]),
            pvalue_adjusted=float(tests.pvalue[row, k]),
            pvalue_screening=float(tests.pvalue[row, k]),
            log10_pvalue=float(tests.log10_pvalue[row, k]),
            mean_effect=bounds_of(effects.mean_effect, k),
            psi=bounds_of(effects.psi, k),
            rms_effect=bounds_of(effects.rms_effect, k),
            flip_rate=bounds_of(effects.flip_rate, k),
            within_flip_rate=float(effects.within_flip_rate[k]),
            eca=float(effects.eca[k]),
            eca_corrected=float(effects.eca_corrected[k]),
            margin=equivalence.margin,
            equivalence_pvalue=float(equivalence.pvalue[k]),
            detectable_effect=float(smallest[k]),
            verdict="inconclusive",
            reason="",
            mean_error=None if error is None else float(error.mean[k]),
            psi_error=None if error is None else float(error.psi[k]),
            replicates=0 if error is None else error.replicates,
        )
        for k, label in enumerate(effects.labels)
    ]


def bounds_of(interval: Interval, k: int) -> Bounds:
    """Return entry k of an interval of arrays."""
    return Bounds(float(interval.estimate[k]), float(interval.low[k]), float(interval.high[k]))


def omnibus_rows(responses: Responses, result: RandomizationResult) -> tuple[OmnibusTest, ...]:
    """Return one row per label, adjusted over the labels."""
    adjusted = adjust(result.pvalue)
    return tuple(
        OmnibusTest(
            levels=responses.levels,
            label=label,
            statistic=float(result.statistic[k]),
            component=str(result.component[k]),
            pvalue=float(result.pvalue[k]),
            pvalue_adjusted=float(adjusted.holm[k]),
            pvalue_screening=float(adjusted.benjamini_hochberg[k]),
            log10_pvalue=float(result.log10_pvalue[k]),
        )
        for k, label in enumerate(responses.labels)
    )
