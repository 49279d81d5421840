"""A cheap certificate of the default test and its intervals; `citlr calibrate` makes the full one.

Every repetition is a data set of its own; the labels of one array are independent repetitions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from citlr.invariance.effects.clusters import Clusters, clustered_mean, signed_mean
from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.intervals import signed_interval, skew_interval
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.randomization.test import contrast_tests, omnibus_test

REPS = 400


def latent(n: int, *, levels: int = 2, images: int = 1, base: float = 0.0, noise: float = 0.5, shared: float = 0.7):
    """Latent outputs of `REPS` null data sets: patient and image parts, noise correlated between levels."""
    rng = np.random.default_rng([n, levels, images, int(10 * noise), int(-10 * base)])
    own = rng.normal(size=(n, 1, 1, REPS)) + rng.normal(size=(n // images, 1, 1, REPS)).repeat(images, axis=0)
    common, apart = rng.normal(size=(n, 1, 4, REPS)), rng.normal(size=(n, levels, 4, REPS))
    return base + own / np.sqrt(2) + noise * (np.sqrt(shared) * common + np.sqrt(1 - shared) * apart)


def size(values: np.ndarray, test: Callable[..., object], shared_seeds: bool) -> tuple[int, int]:
    p = test(values, shared_seeds=shared_seeds, randomizations=199, seed=1).pvalue.ravel()  # type: ignore[attr-defined]
    return int((p <= 0.05).sum()), len(p)


@pytest.mark.parametrize(
    ("name", "values", "shared_seeds"),
    [
        ("noisy decisions", lambda: latent(100) > 0, True),
        ("rare positives", lambda: latent(400, base=-2.2) > 0, True),
        ("four images per patient", lambda: latent(200, images=4) > 0, True),
        ("independent draws", lambda: latent(100, noise=1.5, shared=0.0) > 0, False),
        ("probabilities", lambda: 1 / (1 + np.exp(-latent(100))), True),
        ("probabilities, independent", lambda: 1 / (1 + np.exp(-latent(60, shared=0.0))), False),
    ],
)
def test_the_default_test_keeps_its_size(name: str, values: Callable[[], np.ndarray], shared_seeds: bool) -> None:
    rejections, reps = size(values().astype(float), contrast_tests, shared_seeds)
    assert rejections <= stats.binom.isf(0.001, reps, 0.05), name


@pytest.mark.parametrize("shared_seeds", [True, False])
def test_the_omnibus_keeps_its_size(shared_seeds: bool) -> None:
    values = latent(100, levels=3, shared=0.7 if shared_seeds else 0.0) > 0
    rejections, reps = size(values.astype(float), omnibus_test, shared_seeds)
    assert rejections <= stats.binom.isf(0.001, reps, 0.05)


def test_the_omnibus_keeps_its_size_where_levels_agree_but_are_not_exchangeable() -> None:
    values = latent(200, levels=3)
    values[:, 1] = values[:, 0]
    rejections, reps = size((values > 0).astype(float), omnibus_test, True)
    assert rejections <= stats.binom.isf(0.001, reps, 0.05)


def test_power_for_a_shift_and_for_effects_that_cancel() -> None:
    """Issue 3: 0.75 for a uniform shift of 0.1, 0.80 for psi = 0.012 of mean zero, where the t-test stays at 5 %."""
    rng = np.random.default_rng(1)
    g = 0.05 + 0.8 * rng.random((500, 1, REPS))
    draws = [rng.random((500, 4, REPS)) for _ in range(2)]
    shifted = np.stack([draws[0] < g, draws[1] < g + 0.1], axis=1).astype(float)
    assert np.mean(contrast_tests(shifted, randomizations=199).pvalue <= 0.05) >= 0.75
    values = latent(500, noise=0.25)
    values[:, 1] += np.where(rng.random((500, 1, REPS)) < 0.5, 0.16, -0.16)
    values = (values > 0).astype(float)
    psi = product_statistic(values, shared_seeds=True).mean()
    assert psi == pytest.approx(0.012, abs=0.001)
    assert np.mean(contrast_tests(values, randomizations=199).pvalue <= 0.05) >= 0.80
    t = stats.ttest_1samp((values[:, 1] - values[:, 0]).mean(axis=1), 0.0)
    assert np.mean(t.pvalue <= 0.05) < stats.binom.isf(0.001, REPS, 0.05) / REPS


@pytest.mark.parametrize("images", [1, 4])
def test_coverage_and_the_size_of_equivalence(images: int) -> None:
    """Shares of 3 % and 7 % of images that flip one way and the other; half of a flip is the patient's."""
    rng = np.random.default_rng(images)
    reps, patients = 1000, 300
    n, owner = patients * images, np.repeat(np.arange(patients), images)
    kind = np.where(rng.random((n, reps)) < 0.5, rng.random((n, reps)), rng.random((patients, reps))[owner])
    d = (kind < 0.07).astype(float) - (kind > 0.97)
    clusters = Clusters.of(owner)
    mean, product = signed_mean(d, clusters), clustered_mean(np.square(d), clusters)
    for interval, truth in ((signed_interval(mean), 0.04), (skew_interval(product, decisions=True), 0.10)):
        covered = np.mean((interval.low <= truth) & (truth <= interval.high))
        assert 0.93 - 0.02 < covered < 0.97 + 0.02  # two percent: Monte-Carlo error at 1000 repetitions
    false = np.mean(equivalence_test(mean, product, margin=0.10).psi_pvalue < 0.05)
    assert false <= stats.binom.isf(0.001, reps, 0.06) / reps
