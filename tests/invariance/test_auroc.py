from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.effects.auroc import clustered_auroc


def test_with_one_image_per_patient_it_is_delongs_interval_on_the_logit_scale() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat([0.0, 1.0], [25, 15])
    score = np.round(rng.normal(truth, 1), 1)  # ties
    cases, controls = score[truth == 1], score[truth == 0]
    kernel = np.array([[(a > b) + 0.5 * (a == b) for b in controls] for a in cases])
    area = kernel.mean()
    variance = kernel.mean(axis=1).var(ddof=1) / 15 + kernel.mean(axis=0).var(ddof=1) / 25
    half = stats.t.ppf(0.975, 14) * sqrt(variance) / (area * (1 - area))
    found = clustered_auroc(score, truth, np.arange(40))
    assert found.estimate == pytest.approx(area)
    middle = log(area / (1 - area))
    bounds = [1 / (1 + exp(-(middle + sign * half))) for sign in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(bounds)
    assert (found.n_images, found.n_patients, found.n_positive) == (40, 40, 15)


def test_copies_of_an_image_add_no_information() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0.0, 1.0], 20)
    score = rng.normal(truth, 1)
    once = clustered_auroc(score, truth, np.arange(40))
    thrice = clustered_auroc(np.repeat(score, 3), np.repeat(truth, 3), np.repeat(np.arange(40), 3))
    assert (thrice.estimate, thrice.low, thrice.high) == pytest.approx((once.estimate, once.low, once.high))
    apart = clustered_auroc(np.repeat(score, 3), np.repeat(truth, 3), np.arange(120))
    assert apart.high - apart.low < 0.7 * (once.high - once.low)


def test_an_area_of_one_has_a_lower_bound() -> None:
    found = clustered_auroc([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1], list("abcdef"))
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 3))
    assert "every pair" in found.note


def test_unknown_outcomes_are_left_out_and_absent_classes_said() -> None:
    found = clustered_auroc([0.1, 0.9, 0.4, 0.6], [0, 1, np.nan, np.nan], list("abcd"))
    assert (found.estimate, found.low, found.n_images) == (1.0, None, 2)
    assert "no interval" in found.note
    for outcome, said in ((0, "with the finding"), (1, "without the finding")):
        assert clustered_auroc([0.1, 0.2], [outcome] * 2, list("ab")).note == f"no images {said}"


def test_the_interval_covers() -> None:
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(60), 2)
        truth = (patient < 24).astype(float)
        score = truth + rng.normal(size=60)[patient] + 0.5 * rng.normal(size=120)
        found = clustered_auroc(score, truth, patient)
        true = stats.norm.cdf(1 / sqrt(2 * 1.25))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= true <= found.high
    # 95 % of 300, within an exact two-sided 1 % bound
    assert stats.binomtest(hits, 300, 0.95).pvalue > 0.01


@pytest.mark.parametrize(
    "arguments", [([0.1], [0, 1], ["a", "b"]), ([0.1, np.nan], [0, 1], ["a", "b"]), ([0.1, 0.2], [0, 2], ["a", "b"])]
)
def test_what_is_no_roc_is_refused(arguments: tuple[list[float], list[float], list[str]]) -> None:
    with pytest.raises(InputError, match="AUROC needs"):
        clustered_auroc(*arguments)
