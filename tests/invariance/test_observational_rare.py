"""Levels that few patients have: no traceback, intervals that cover, and no number that rests on rounding."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import citlr
from citlr.invariance.observational.nuisances import Observations, fit_nuisances
from citlr.invariance.observational.tests import gcm
from citlr.invariance.parity import demographic_parity


@pytest.mark.parametrize("patients", [1, 2])
def test_a_third_level_of_a_patient_or_two_is_no_traceback(patients: int) -> None:
    rng = np.random.default_rng(patients)
    z = rng.normal(size=(90, 2))
    level = np.where(rng.random(90) < 0.5, "f", "m").astype(object)
    level[:patients] = "other"
    found = citlr.observe(z, level, 1 / (1 + np.exp(-z[:, 0])), redraws=119)
    assert len(found.assessments) == 3
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize("share", [0.04, 0.1, 0.5])
def test_the_interval_of_the_effect_and_its_p_never_contradict_each_other(share: float) -> None:
    refused = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        z, second = rng.normal(size=(80, 1)), rng.random(80) < share
        second[:2] = [False, True]
        prediction = np.clip(0.5 + 0.1 * rng.normal(size=80) + 0.05 * (seed % 3) * second, 0, 1)
        data = Observations.of(z, np.where(second, "m", "f"), prediction)
        fits = fit_nuisances(data, np.full(80, share))
        for alpha in (0.05, 0.3):
            one = gcm(data, fits, alpha=alpha)
            assert one.low <= one.effect <= one.high
            assert (one.pvalue < alpha) == (not one.low <= 0 <= one.high)
            refused.append(one.pvalue < alpha)
    assert 0 < sum(refused) < len(refused)


def test_an_effect_of_a_level_so_rare_that_any_would_do_still_says_on_which_side_of_zero() -> None:
    """Both signs would do and zero would not: the interval was the whole range, beside a p below alpha."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        second = rng.random(20) < 0.1
        second[:2] = [False, True]
        prediction = 0.41 + rng.uniform(-0.1, 0.1, 20)
        data = Observations.of(rng.normal(size=(20, 1)), np.where(second, "m", "f"), prediction)
        one = gcm(data, fit_nuisances(data, np.full(20, 0.1), outcome={"mean": _Mean()}))
        assert (one.pvalue < 0.05) == (not one.low <= 0 <= one.high)
        assert min(-1, one.effect) <= one.low <= one.effect <= one.high <= max(1, one.effect)
        found.append(one.pvalue < 0.05 and one.high - one.low > 0.9)
    assert any(found)


def test_the_interval_of_a_rare_level_covers() -> None:
    missed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        second = rng.random(60) < 0.05
        second[:2] = [False, True]
        prediction = 0.4 + 0.2 * second + rng.uniform(-0.1, 0.1, 60)
        data = Observations.of(rng.normal(size=(60, 1)), np.where(second, "m", "f"), prediction)
        fits = fit_nuisances(data, np.full(60, 0.05), outcome={"mean": _Mean()})
        one = gcm(data, fits)
        missed += not one.low <= 0.2 <= one.high
    assert missed <= stats.binom.isf(1e-3, 300, 0.05)


class _Mean:
    """A learner that knows the outputs of the first level, and nothing else."""

    def fit(self, z: np.ndarray, y: np.ndarray) -> _Mean:
        return self

    def predict(self, z: np.ndarray) -> np.ndarray:
        return np.full(len(z), 0.4 + 0.2 * 0.05)

    def get_params(self, deep: bool = True) -> dict[str, object]:
        return {}


def test_a_gap_is_the_same_of_what_is_and_of_what_is_not() -> None:
    """Patients of one level who are all alike leave a rounding, which is no correlation with the others."""
    alike, others = 7, 0.4 + 0.1 * np.random.default_rng(58).random(60)
    level = np.array(["f"] * 60 + ["m"] * alike)
    patients = np.r_[np.arange(60) // 2, np.arange(1, 2 * alike, 2)]
    for value in (0.30, 0.5254, 0.8132702392002724, 0.9340435159562497):
        prediction = np.r_[others, np.full(alike, value)]
        one = demographic_parity(prediction, level, patients, contrast=("f", "m"))
        other = demographic_parity(1 - prediction, level, patients, contrast=("f", "m"))
        assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low), abs=1e-9)
        assert one.pvalue == pytest.approx(other.pvalue, rel=1e-6)
