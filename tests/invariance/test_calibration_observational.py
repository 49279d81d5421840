"""Sizes by simulation, everything redrawn and refitted, judged by the exact binomial bound of 99.9 %."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression

from citlr.invariance.observational.nuisances import Observations, fit_nuisances
from citlr.invariance.observational.tests import distilled_crt, gcm, rms_lower_bound
from citlr.simulators.families import NULLS
from citlr.simulators.observed import ObservedFamily

SIMPLE = {"least squares": LinearRegression()}


def compatible(rejections: int, reps: int, alpha: float = 0.05) -> bool:
    return bool(stats.binom.sf(rejections - 1, reps, alpha) > 0.001)


@pytest.mark.parametrize("confounded", [False, True])
@pytest.mark.parametrize("images", [1, 4])
def test_the_distilled_test_is_exact_when_the_propensity_is_known(confounded: bool, images: int) -> None:
    family, rng = ObservedFamily(confounded, images_per_patient=images), np.random.default_rng(images)
    rejected = 0
    for i in range(200):
        s = family.sample(rng, 160)
        data = Observations.of(s.z, s.level, s.y, patients=s.patients)
        fits = fit_nuisances(data, s.propensity, outcome=SIMPLE, seed=i)
        rejected += distilled_crt(data, fits, redraws=99, seed=i).pvalue <= 0.05
    assert compatible(rejected, 200)


def test_the_distilled_test_is_exact_with_a_useless_learner() -> None:
    family, rng = ObservedFamily(confounded=True), np.random.default_rng(7)
    rejected = 0
    for i in range(400):
        s = family.sample(rng, 100)
        data = Observations.of(s.z, s.level, s.y)
        fits = fit_nuisances(data, s.propensity, outcome={"none": DummyRegressor()}, seed=i)
        rejected += distilled_crt(data, fits, redraws=99, seed=i).pvalue <= 0.05
    assert compatible(rejected, 400)


def test_gcm_and_the_bound_hold_their_size_and_the_bound_its_coverage() -> None:
    rng = np.random.default_rng(8)
    rejected, above = np.zeros(2, dtype=int), 0
    for i in range(100):
        s = ObservedFamily(confounded=True).sample(rng, 150)
        data = Observations.of(s.z, s.level, s.y)
        rejected += [
            gcm(data, fit_nuisances(data, s.propensity, outcome=SIMPLE, seed=i)).pvalue <= 0.05,
            rms_lower_bound(data, s.propensity, outcome=SIMPLE, seed=i).pvalue <= 0.05,
        ]
        s = ObservedFamily(effect=0.25, shape="uniform").sample(rng, 300)
        data = Observations.of(s.z, s.level, s.y)
        above += rms_lower_bound(data, s.propensity, outcome=SIMPLE, seed=i).rms_low > 0.25
    assert compatible(int(rejected[0]), 100)
    assert compatible(int(rejected[1]), 100)
    assert compatible(above, 100)


def test_the_distilled_test_has_power_for_a_uniform_shift() -> None:
    rng = np.random.default_rng(9)
    found = 0
    for i in range(120):
        s = ObservedFamily(effect=0.2, shape="uniform").sample(rng, 400)
        data = Observations.of(s.z, s.level, s.y)
        fits = fit_nuisances(data, s.propensity, outcome=SIMPLE, seed=i)
        found += distilled_crt(data, fits, redraws=99, seed=i).pvalue <= 0.05
    assert found / 120 > 0.8


@pytest.mark.parametrize("name", sorted(NULLS))
def test_every_null_family_is_a_null(name: str) -> None:
    """Means of all levels agree within five standard errors, and there is more than one patient per draw of noise."""
    family = NULLS[name]
    values, patients = family.sample(np.random.default_rng(0), 400, draws=4, repetitions=25)
    assert values.min() >= 0
    assert values.max() <= 1
    per_patient = np.array([values[patients == p].mean(axis=(0, 2)) for p in np.unique(patients)])
    change = (per_patient[:, 1:] - per_patient[:, :1]).reshape(-1)
    assert abs(change.mean()) <= 5 * change.std() / np.sqrt(change.size) + 1e-12
