"""From arrays over labels to rows, one frozen record per label and contrast, with its verdict and the reason."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

from citlr.errors import InputError
from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.equivalence import Equivalence
from citlr.invariance.effects.estimates import Effects, Outcome
from citlr.invariance.generator_error import GeneratorError, widened_pvalue
from citlr.invariance.randomization.test import RandomizationResult
from citlr.invariance.records import DEPENDS, METHODS, ContrastTest, OmnibusRow, Verdict
from citlr.invariance.responses import Responses
from citlr.text import beside


@dataclass(frozen=True, eq=False)
class Adjusted:
    """P-values adjusted within one family, in the shape they came in.

    - `holm`: Controls the chance of any false verdict, under every dependence of the tests.
    - `benjamini_hochberg`: Controls the expected share of false discoveries; shown, never decided on.
    """

    holm: Floats
    benjamini_hochberg: Floats


def adjust(pvalues: ArrayLike) -> Adjusted:
    """Adjust p-values of any shape as one family."""
    p = np.asarray(pvalues, dtype=np.float64)
    if p.size == 0 or not bool(np.all((p >= 0) & (p <= 1))):
        raise InputError(f"Adjusting needs at least one p-value, all in [0, 1]; found {p.size} with {p.ravel()[:3]}.")
    screened = np.asarray(multipletests(p.ravel(), method="fdr_bh")[1]).reshape(p.shape)
    return Adjusted(holm=_holm(p.ravel()).reshape(p.shape), benjamini_hochberg=screened)


def _holm(p: Floats) -> Floats:
    """Holm (1979): the k-th smallest p times the number of those not smaller, made monotone.

    statsmodels' own runs a full garbage collection in every call, a third of a second where torch is loaded; the tests
    hold this one against it.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


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


def decide(test: ContrastTest, alpha: float) -> tuple[Verdict, str]:
    """Say what follows from one row, and why."""
    what = f"{test.label}, {test.contrast[0]} against {test.contrast[1]}"
    significant = test.pvalue_adjusted < alpha
    sizes = (
        f"mean effect {test.mean_effect.estimate:+.4f} [{test.mean_effect.low:+.4f}, {test.mean_effect.high:+.4f}], "
        f"psi {test.psi.estimate:.4f} [{test.psi.low:.4f}, {test.psi.high:.4f}]"
    )
    adjusted = beside(test.pvalue_adjusted, alpha, 2, "g")
    p = adjusted + _tail(test)
    divided = ""
    if test.carried is not None:
        share = f"at least {test.carried:.1%}"
        divided = f" after division by the share of the attribute that the redrawn images carry, {share}"
    if test.equivalence_pvalue < alpha and test.room < test.margin:
        return "inconclusive", f"{what}: {_no_room(test)}"
    if test.equivalence_pvalue < alpha:
        also = " The dependence is significant, but shown to be negligible." if significant else ""
        return "equivalent", (
            f"{what}: the mean effect and {'' if test.outcome == 'decision' else 'the root of '}psi are both below the "
            f"margin of {test.margin:g}{divided} "
            f"(p = {beside(test.equivalence_pvalue, alpha, 2, 'g')}; {sizes}).{also}"
        )
    # Without the noise of the draws, errors of the generator in single images add up to a psi that no draw shows.
    if significant and test.drawn_pvalue < alpha:
        where = " at the originals" if test.drawn_psi != test.psi else ""
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {p}), by less than "
            f"the margin of {test.margin:g} as measured{' there' if where else ''}, yet it is not shown to be less"
            f"{where}{divided} ({sizes})."
        )
    # Without noise of draws the test finds whatever turns a few decisions. A generator is a little wrong about every
    # image, beyond what its training sample leaves open: by that 11 of 20 blind classifiers were called dependent.
    if significant and test.noiseless and not test.beyond(test.psi, test.mean_effect):
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {p}), yet it is not "
            f"shown to do so by more than the margin of {test.margin:g} ({sizes}); no noise of draws hides the errors "
            "of this generator, and a smaller effect may be one of them: more test images would tell."
        )
    if significant and not exceeds_error(test, alpha):
        reach = float(stats.t.isf(alpha / 2, test.replicates)) * (test.mean_error or 0.0)
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {p}), yet by no more "
            f"than the generator's own training sample leaves open (a mean effect of up to {reach:.4f}; {sizes}): more "
            "training images would tell."
        )
    if significant:
        which = "the mean shift" if test.component == "mean" else "changes of single images"
        return "dependence", f"{what}: {DEPENDS}adjusted p = {p}, by {which}; {sizes})."
    return "inconclusive", (
        f"{what}: no dependence was found (adjusted p = {adjusted}), yet effects up to the margin of "
        f"{test.margin:g} are not ruled out{divided} ({sizes}); a psi of {test.detectable_effect:.3g} would have been "
        "found in 80 of 100 such audits."
    )


def _no_room(test: ContrastTest) -> str:
    """Say why equivalence would say nothing, and what to do."""
    if test.outcome == "decision":
        return (
            f"only {beside(100 * test.room, 100 * test.margin, 2)}% of the decisions are the rarer one, fewer than the "
            f"margin of {test.margin:g}: at this threshold hardly any model could exceed it, and the probabilities are "
            "not shown to stay within it, or within so much of what they span. Give the model's operating point "
            "(threshold), or test the probabilities (outcome: probability)."
        )
    return (
        f"all probabilities lie within {beside(test.room, test.margin, 2, 'g')}, closer than the margin of "
        f"{test.margin:g}: no model could exceed it; give a smaller margin."
    )


def exceeds_error(test: ContrastTest, alpha: float) -> bool:
    """Say whether an effect that the test found is beyond what the generator's training sample leaves open.

    The mean effect is where its interval, which holds that error, excludes zero, or where it decided the test and stays
    significant with its variance increased by the generator's. So is psi as the draws show it, unless it is shown to be
    below the margin: a generator is a little wrong about every single image, which makes some psi in any model that
    looks there, and more of it at the originals, where no noise hides it.
    """
    mean_error, psi_error = test.mean_error or 0.0, test.drawn_error or 0.0
    if not (mean_error or psi_error):
        return True
    if test.mean_effect.low > 0 or test.mean_effect.high < 0:
        return True
    # Beyond the smallest p-value that randomisations can give, its asymptotic tail says how sure the test is.
    pvalue = min(test.pvalue_adjusted, 10**test.log10_pvalue * test.pvalue_adjusted / test.pvalue)
    if test.component == "mean":
        return _stays(pvalue, abs(test.mean_effect.estimate), mean_error, alpha, test.replicates)
    if test.drawn_psi.high < test.psi_margin:
        return False
    return test.drawn_psi.low > 0 or _stays(pvalue, test.drawn_psi.estimate, psi_error, alpha, test.replicates)


def _stays(pvalue: float, size: float, error: float, alpha: float, replicates: int) -> bool:
    """Say whether a two-sided p-value of an effect of this size is below alpha with the generator's error."""
    if size <= 0:
        return False
    half = [np.array([one]) for one in (pvalue / 2, size, error)]
    return 2 * float(widened_pvalue(*half, alpha=alpha / 2, replicates=replicates)[0]) < alpha


def _tail(test: ContrastTest) -> str:
    """Say how small p is beyond the smallest that randomisations can give."""
    if test.log10_pvalue < np.log10(test.pvalue) - 1:
        return f", about 1e{test.log10_pvalue:.0f} before adjustment"
    return ""
