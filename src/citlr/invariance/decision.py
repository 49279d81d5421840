"""From the numbers of one row to its verdict and the sentence that gives the reason."""

from __future__ import annotations

import numpy as np
from scipy import stats

from citlr.invariance.generator_error import widened_pvalue
from citlr.invariance.records import DEPENDS, ContrastTest, Verdict


def decide(test: ContrastTest, alpha: float) -> tuple[Verdict, str]:
    """Say what follows from one row, and why."""
    what = f"{test.label}, {test.contrast[0]} against {test.contrast[1]}"
    significant = test.pvalue_adjusted < alpha
    sizes = (
        f"mean effect {test.mean_effect.estimate:+.4f} [{test.mean_effect.low:+.4f}, {test.mean_effect.high:+.4f}], "
        f"psi {test.psi.estimate:.4f} [{test.psi.low:.4f}, {test.psi.high:.4f}]"
    )
    divided = "" if test.carried is None else _divided(test.carried)
    if test.equivalence_pvalue < alpha and test.room < test.margin:
        return "inconclusive", f"{what}: {_no_room(test)}"
    if test.equivalence_pvalue < alpha:
        also = " The dependence is significant, but shown to be negligible." if significant else ""
        return "equivalent", (
            f"{what}: the mean effect and {'' if test.outcome == 'decision' else 'the root of '}psi are both below the "
            f"margin of {test.margin:g}{divided} "
            f"(p = {test.equivalence_pvalue:.2g}; {sizes}).{also}"
        )
    # Without the noise of the draws, errors of the generator in single images add up to a psi that no draw shows.
    if significant and test.drawn_pvalue < alpha:
        where = " at the originals" if test.drawn_psi != test.psi else ""
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {_p(test)}), by less than "
            f"the margin of {test.margin:g} as measured{' there' if where else ''}, yet it is not shown to be less"
            f"{where}{divided} ({sizes})."
        )
    # Without noise of draws the test finds whatever turns a few decisions. A generator is a little wrong about every
    # image, beyond what its training sample leaves open: by that 11 of 20 blind classifiers were called dependent.
    if significant and test.noiseless and not test.beyond(test.psi, test.mean_effect):
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {_p(test)}), yet it is not "
            f"shown to do so by more than the margin of {test.margin:g} ({sizes}); no noise of draws hides the errors "
            "of this generator, and a smaller effect may be one of them: more test images would tell."
        )
    if significant and not exceeds_error(test, alpha):
        reach = float(stats.t.isf(alpha / 2, test.replicates)) * (test.mean_error or 0.0)
        return "inconclusive", (
            f"{what}: the output depends on the level in the redrawn images (adjusted p = {_p(test)}), yet by no more "
            f"than the generator's own training sample leaves open (a mean effect of up to {reach:.4f}; {sizes}): more "
            "training images would tell."
        )
    if significant:
        which = "the mean shift" if test.component == "mean" else "changes of single images"
        return "dependence", f"{what}: {DEPENDS}adjusted p = {_p(test)}, by {which}; {sizes})."
    return "inconclusive", (
        f"{what}: no dependence was found (adjusted p = {test.pvalue_adjusted:.2g}), yet effects up to the margin of "
        f"{test.margin:g} are not ruled out{divided} ({sizes}); a psi of {test.detectable_effect:.3g} would have been "
        "found in 80 of 100 such audits."
    )


def _no_room(test: ContrastTest) -> str:
    """Say why equivalence would say nothing, and what to do."""
    if test.outcome == "decision":
        return (
            f"only {test.room:.2%} of the decisions are the rarer one, fewer than the margin of {test.margin:g}: at "
            "this threshold hardly any model could exceed it, and the probabilities are not shown to stay within it. "
            "Give the model's operating point (threshold), or test the probabilities (outcome: probability)."
        )
    return (
        f"all probabilities lie within {test.room:.2g}, closer than the margin of {test.margin:g}: no model could "
        "exceed it; give a smaller margin."
    )


def _divided(share: float) -> str:
    """Say what bounds were divided by before they were held against the margin."""
    return f" after division by the share of the attribute that the redrawn images carry, at least {share:.1%}"


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


def _p(test: ContrastTest) -> str:
    if test.log10_pvalue < np.log10(test.pvalue) - 1:
        return f"{test.pvalue_adjusted:.2g}, about 1e{test.log10_pvalue:.0f} before adjustment"
    return f"{test.pvalue_adjusted:.2g}"
