"""What the learner misses of an output without noise is no dependence, and a dependence is still found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from citlr.errors import InputError
from citlr.invariance.observational.nuisances import Observations, fit_nuisances
from citlr.invariance.observational.observe import observe
from citlr.invariance.observational.tests import assess_observational, distilled_crt, gcm, judge


def logistic(score: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-score)))


def hump(seed: int, direct: float, n: int = 250) -> Observations:
    """Output and level both go with a bell of one number and the product of two others; `direct` is the level's own."""
    rng = np.random.default_rng([seed, 50])
    z = rng.normal(size=(n, 5))
    score = 2 * np.exp(-(z[:, 1] ** 2)) - 1.1 + 0.8 * z[:, 3] * z[:, 4]
    level = rng.random(n) < logistic(1.2 * score)
    return Observations.of(z, np.where(level, "m", "f"), logistic(1.5 * score + direct * level))


def test_what_goes_with_z_by_curves_and_products_is_no_dependence() -> None:
    said = [distilled_crt(data := hump(s, 0.0), fit_nuisances(data, seed=s), redraws=99).pvalue for s in range(2)]
    assert max(said) > 0.05  # both are by chance in 1 of 400; with lines and small trees alone both were at the floor


def test_what_could_all_be_misfit_carries_no_verdict() -> None:
    """A residual that goes with the level no more than what was learnt does is significant as fitted only."""
    data = hump(1, 0.0)
    fits = fit_nuisances(data, np.full(250, 0.5))
    left = 0.3 * np.random.default_rng(0).normal(size=250)
    level = (np.random.default_rng(1).random(250) < logistic(3 * left)).astype(float)
    unlearnt = replace(fits, residual=left, assignment=replace(fits.assignment, a=level))
    allowed = replace(unlearnt, slopes=(3.0,))
    assert distilled_crt(data, unlearnt, redraws=99).pvalue <= 0.05
    assert distilled_crt(data, allowed, redraws=99).pvalue > 0.05
    assert distilled_crt(data, allowed, redraws=99).pvalue_fitted <= 0.05
    assert gcm(data, allowed).low < 0 < gcm(data, allowed).high
    assert distilled_crt(data, replace(unlearnt, slopes=(0.3,)), redraws=99).pvalue <= 0.05


def test_the_slopes_are_those_of_what_was_learnt() -> None:
    assert all(0.5 < slope < 20 for slope in fit_nuisances(hump(2, 0.0)).slopes)
    assert len(fit_nuisances(hump(2, 0.0)).slopes) == 2
    rng = np.random.default_rng(6)
    z = rng.normal(size=(250, 3))
    tossed = Observations.of(z, np.where(rng.random(250) < 0.5, "m", "f"), logistic(z[:, 0]))
    assert fit_nuisances(tossed).slopes == ()


def test_a_level_that_others_foretell_is_withheld_with_its_reason() -> None:
    data = hump(2, 0.0)
    fits = fit_nuisances(data, outcome={"line": LinearRegression()}, treatment={"line": LogisticRegression()})
    assert fits.foretold < 0.05
    assert fit_nuisances(data, np.full(250, 0.5)).foretold == 1.0
    found = assess_observational(hump(2, 0.8), redraws=99)
    assert found.verdict == "dependence"
    assert found.tests[2].rms_low > 0
    assert "curves and products" in found.reason
    withheld = judge(replace(found, foretold=fits.foretold), found.pvalue_adjusted, 0.05)
    assert withheld.verdict == "inconclusive"
    assert "still foretell from Z who has the level" in withheld.reason
    assert withheld.tests[2].rms_low == 0
    fitted = replace(found.tests[0], pvalue=0.2, pvalue_fitted=0.01)
    assert "a null would look the same" in judge(replace(found, tests=(fitted, *found.tests[1:])), 0.2, 0.05).reason


def test_few_redraws_and_many_pairs_leave_room_for_a_verdict() -> None:
    rng = np.random.default_rng(3)
    level, z = np.repeat(np.array(["old", "older", "oldest"]), 20), rng.normal(size=(60, 1))
    found = observe(z, level, 0.2 + 0.5 * (level == "oldest") + 0.1 * rng.random(60), redraws=19)
    assert found.verdict == "dependence"
    assert min(one.pvalue_adjusted for one in found.assessments) < 0.05


def test_a_number_of_many_values_is_told_to_be_grouped() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(InputError, match="group the values of a number into a few levels"):
        observe(rng.normal(size=(200, 2)), rng.integers(20, 90, 200), rng.random(200))
