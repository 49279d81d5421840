"""From arrays over labels to rows: one frozen record per label and contrast."""

from __future__ import annotations

from dataclasses import dataclass

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.equivalence import Equivalence
from citlr.invariance.effects.estimates import Effects, Outcome
from citlr.invariance.generator_error import GeneratorError
from citlr.invariance.multiplicity import adjust
from citlr.invariance.randomization.test import RandomizationResult
from citlr.invariance.records import ContrastTest, OmnibusRow
from citlr.invariance.responses import Responses

METHODS = {True: "randomization_sign_flip", False: "randomization_permutation"}


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was measured at one contrast; arrays have one entry per label.

    - `effects`, `detectable`: The effects, and the smallest psi that would have been found.
    - `tests`: The randomisation test of all contrasts, in which this one is `row`.
    - `equivalence`, `drawn`: After division by the share `carried`; and as the draws show the effects, undivided.
    - `error`: Of the generator; None where it is not known.
    - `room`: What the outputs leave room for.
    """

    effects: Effects
    detectable: Floats
    tests: RandomizationResult
    row: int
    equivalence: Equivalence
    drawn: Equivalence
    carried: float | None
    error: GeneratorError | None
    room: Floats


def contrast_rows(responses: Responses, found: Measured, *, outcome: Outcome, shared_seeds: bool) -> list[ContrastTest]:
    """Return one undecided row per label."""
    effects, tests, error = found.effects, found.tests, found.error
    n_patients = responses.n_patients
    noiseless = error is not None and bool((responses.values == responses.values[:, :, :1]).all())
    return [
        ContrastTest(
            attribute=responses.attribute,
            contrast=effects.contrast,
            label=label,
            outcome=outcome,
            method=METHODS[shared_seeds],
            n_images=responses.n_units,
            n_patients=n_patients,
            draws=responses.n_draws,
            statistic=float(tests.statistic[found.row, k]),
            component=str(tests.component[found.row, k]),
            pvalue=float(tests.pvalue[found.row, k]),
            pvalue_adjusted=float(tests.pvalue[found.row, k]),
            pvalue_screening=float(tests.pvalue[found.row, k]),
            log10_pvalue=float(tests.log10_pvalue[found.row, k]),
            mean_effect=effects.mean_effect.at(k),
            psi=effects.psi.at(k),
            rms_effect=effects.rms_effect.at(k),
            flip_rate=effects.flip_rate.at(k),
            within_flip_rate=float(effects.within_flip_rate[k]),
            eca=float(effects.eca[k]),
            eca_corrected=float(effects.eca_corrected[k]),
            margin=found.equivalence.margin,
            equivalence_pvalue=float(found.equivalence.pvalue[k]),
            drawn_pvalue=float(found.drawn.pvalue[k]),
            drawn_psi=effects.drawn_psi.at(k),
            drawn_error=None if error is None else float(error.drawn_psi[k]),
            carried=found.carried,
            detectable_effect=float(found.detectable[k]),
            verdict="inconclusive",
            reason="",
            mean_error=None if error is None else float(error.mean[k]),
            psi_error=None if error is None else float(error.psi[k]),
            replicates=0 if error is None else error.replicates,
            noiseless=noiseless,
            room=float(found.room[k]),
        )
        for k, label in enumerate(effects.labels)
    ]


def omnibus_rows(responses: Responses, result: RandomizationResult) -> tuple[OmnibusRow, ...]:
    """Return one row per label, adjusted over the labels."""
    adjusted = adjust(result.pvalue)
    return tuple(
        OmnibusRow(
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
