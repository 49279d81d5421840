"""Closed forms and brute force for the tests without a generator."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from citlr.invariance.observational.distilled import distil
from citlr.invariance.observational.nuisances import Assignment
from citlr.invariance.observational.tests import product_statistic


def test_gcm_on_gaussian_data_has_its_closed_form() -> None:
    """Partial correlation rho: E[R] = rho, Var(R) = 1 + rho^2, so that T / sqrt(n) -> rho / sqrt(1 + rho^2)."""
    rng = np.random.default_rng(0)
    n, reps = 2000, 300
    for rho in (0.0, 0.1, 0.4):
        e = rng.normal(size=(reps, n))
        s = rho * e + np.sqrt(1 - rho**2) * rng.normal(size=(reps, n))
        t = np.array([product_statistic(row)[0] for row in e * s])
        expected = np.sqrt(n) * rho / np.sqrt(1 + rho**2)
        assert abs(t.mean() - expected) < 4 * t.std(ddof=1) / np.sqrt(reps) + 0.02 * expected


def test_the_statistic_is_the_one_sample_t() -> None:
    products = np.random.default_rng(1).normal(0.2, 1.0, 50)
    other = stats.ttest_1samp(products, 0.0)
    t, p = product_statistic(products)
    assert t == pytest.approx(other.statistic)
    assert p == pytest.approx(other.pvalue)


@pytest.mark.parametrize("kernel", ["constant", "linear", "rbf"])
def test_the_statistic_is_the_double_sum_over_pairs(kernel: str) -> None:
    rng = np.random.default_rng(2)
    n = 9
    z, e, p = rng.normal(size=(n, 3)), rng.normal(size=n), rng.uniform(0.2, 0.8, n)
    a = (rng.random(n) < p).astype(float)
    unit = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
    first = np.unique(unit, return_index=True)[1]
    a, p = a[first], p[first]
    scaled = (z - z.mean(0)) / z.std(0)
    distance = ((scaled[:, None] - scaled) ** 2).sum(-1)
    gram = {
        "constant": np.ones((n, n)),
        "linear": scaled @ scaled.T,
        "rbf": np.exp(-distance / (2 * np.median(distance[np.triu_indices(n, 1)]))),
    }[kernel]
    total = variance = 0.0
    for c, d in product(range(6), repeat=2):
        if c != d:
            k = sum(e[i] * e[j] * gram[i, j] for i in np.flatnonzero(unit == c) for j in np.flatnonzero(unit == d))
            total += (a[c] - p[c]) * (a[d] - p[d]) * k
            variance += 2 * p[c] * (1 - p[c]) * p[d] * (1 - p[d]) * k**2
    assignment = Assignment(unit, a, p, "known", "given")
    draw = distil(z, e, assignment, kernels=(kernel,), combine="sum", redraws=19, rng=rng)
    assert draw.statistic == pytest.approx(total / np.sqrt(variance))


@pytest.mark.parametrize("combine", ["max", "sum"])
def test_the_p_value_is_that_of_all_assignments(combine: str) -> None:
    """Enumerate the 2^8 assignments with their probabilities, by plain loops."""
    rng = np.random.default_rng(3)
    n = 8
    z, e, p = rng.normal(size=(n, 2)), rng.normal(size=n), rng.uniform(0.3, 0.7, n)
    a = (rng.random(n) < p).astype(float)

    def statistic(assigned: np.ndarray) -> float:
        assignment = Assignment(np.arange(n), assigned, p, "known", "given")
        one = np.random.default_rng(0)
        return distil(z, e, assignment, kernels=("constant", "linear"), combine=combine, redraws=19, rng=one).statistic

    observed, exact = statistic(a), 0.0
    for assigned in product((0.0, 1.0), repeat=n):
        chance = float(np.prod(np.where(np.array(assigned) == 1, p, 1 - p)))
        exact += chance * (statistic(np.array(assigned)) >= observed - 1e-9)
    assignment = Assignment(np.arange(n), a, p, "known", "given")
    draw = distil(z, e, assignment, kernels=("constant", "linear"), combine=combine, redraws=40_000, rng=rng)
    assert abs(draw.pvalue - exact) < 5 * np.sqrt(exact * (1 - exact) / 40_000) + 1e-4


def test_each_kernel_has_mean_zero_and_variance_one_under_the_null() -> None:
    rng = np.random.default_rng(4)
    n = 60
    z, e, p = rng.normal(size=(n, 4)), rng.normal(size=n), rng.uniform(0.1, 0.9, n)
    assignment = Assignment(np.arange(n), (rng.random(n) < p).astype(float), p, "known", "given")
    for kernel in ("constant", "linear", "rbf"):
        null = distil(z, e, assignment, kernels=(kernel,), combine="sum", redraws=40_000, rng=rng).null
        assert abs(null.mean()) < 0.03
        assert abs(null.std() - 1) < 0.05
