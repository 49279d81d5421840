"""The statistics against enumeration, scipy, statsmodels, exact limits and arithmetic done by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

from citlr.invariance.effects.clusters import ClusteredMean, Clusters, clustered_mean, signed_mean
from citlr.invariance.effects.intervals import signed_interval, skew_interval, upper_pvalue, wilson_interval
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.randomization.test import contrast_tests, omnibus_test
from citlr.invariance.rows import adjust

RANDOMIZATIONS = 20_000


def reshuffles(y: np.ndarray, shared_seeds: bool) -> list[np.ndarray]:
    """Every reshuffle of one image's outputs (levels, draws), written out."""
    levels, draws = y.shape
    if shared_seeds:
        permutations = list(itertools.permutations(range(levels)))
        return [
            np.stack([y[list(p), r] for r, p in enumerate(choice)], axis=1)
            for choice in itertools.product(permutations, repeat=draws)
        ]
    return [y.reshape(-1)[list(p)].reshape(levels, draws) for p in itertools.permutations(range(levels * draws))]


def min_p(statistics: np.ndarray) -> float:
    """Exact p-value of row 0 among all rows (count, 2), ties of the smaller p broken by the larger z-score."""
    rounded = np.round(statistics, 7)
    count = len(rounded)
    reached = [count - np.searchsorted(np.sort(column), column, side="left") for column in rounded.T]
    share = np.minimum(*reached) / count
    z = np.stack(
        [
            rounded[:, 0] / np.sqrt(np.square(rounded[:, 0]).mean()),
            (rounded[:, 1] - rounded[:, 1].mean()) / rounded[:, 1].std(),
        ],
        axis=1,
    ).max(axis=1)
    better = (share < share[0] - 1e-12) | ((np.abs(share - share[0]) < 1e-12) & (z >= z[0] - 1e-7))
    return float(better.mean())


def enumerate_two_levels(values: np.ndarray, shared_seeds: bool) -> float:
    options = [reshuffles(y, shared_seeds) for y in values[..., 0]]
    tables = []
    for choices in options:
        stacked = np.stack(choices)[..., None]
        d = (stacked[:, 1] - stacked[:, 0]).sum(axis=(1, 2))
        tables.append(np.stack([d, product_statistic(stacked, shared_seeds=shared_seeds)[:, 0]], axis=1))
    total = tables[0]
    for table in tables[1:]:
        total = (total[:, None] + table[None]).reshape(-1, 2)
    total[:, 0] = np.abs(total[:, 0])
    return min_p(total)


@pytest.mark.parametrize("kind", ["decisions", "probabilities"])
@pytest.mark.parametrize("seed", range(4))
def test_sign_flips_against_all_of_them(kind: str, seed: int) -> None:
    """All 2^(n r) flips, n = 5 images of r = 3 draws."""
    rng = np.random.default_rng(seed)
    values = rng.random((5, 2, 3, 1)) + np.array([0.0, 0.25]).reshape(1, 2, 1, 1)
    values = (values > 0.7).astype(float) if kind == "decisions" else values / 1.25
    d = values[:, 1] - values[:, 0]
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=15))).reshape(-1, 5, 3)
    flipped = signs * d[None, ..., 0]
    sums = flipped.sum(axis=2)
    products = ((np.square(sums) - np.square(flipped).sum(axis=2)) / 6).sum(axis=1)
    exact = min_p(np.stack([np.abs(sums.sum(axis=1)), products], axis=1))
    found = contrast_tests(values, randomizations=RANDOMIZATIONS, seed=seed).pvalue[0, 0]
    assert found == pytest.approx(exact, abs=4.5 * math.sqrt(exact * (1 - exact) / RANDOMIZATIONS) + 2e-3)


@pytest.mark.parametrize("kind", ["decisions", "probabilities"])
@pytest.mark.parametrize("seed", range(3))
def test_permutations_within_the_image_against_all_of_them(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((3, 2, 2, 1)) + np.array([0.0, 0.3]).reshape(1, 2, 1, 1)
    values = (values > 0.6).astype(float) if kind == "decisions" else values / 1.3
    exact = enumerate_two_levels(values, shared_seeds=False)
    found = contrast_tests(values, shared_seeds=False, randomizations=RANDOMIZATIONS, seed=seed).pvalue[0, 0]
    assert found == pytest.approx(exact, abs=4.5 * math.sqrt(exact * (1 - exact) / RANDOMIZATIONS) + 2e-3)


@pytest.mark.parametrize("kind", ["decisions", "probabilities"])
@pytest.mark.parametrize("seed", range(2))
def test_the_omnibus_against_all_of_its_permutations(kind: str, seed: int) -> None:
    """All 6^(n r) permutations of three levels, n = 3 images of r = 2 draws, both statistics from their definitions."""
    rng = np.random.default_rng(seed)
    values = rng.random((3, 3, 2, 1)) + np.array([0.0, 0.0, 0.3]).reshape(1, 3, 1, 1)
    values = (values > 0.6).astype(float) if kind == "decisions" else values / 1.3
    h = np.array([[-1, 1, 0], [-1, -1, 2]]) / np.sqrt([[2], [6]])
    features = []
    for y in values[..., 0]:
        stacked = np.stack(reshuffles(y, shared_seeds=True))[..., None]
        w = stacked[..., 0].sum(axis=2) @ h.T
        u = product_statistic(stacked, shared_seeds=True)
        features.append(np.concatenate([w, u, np.square(u), w[:, [0]] * w, w[:, [1]] * w[:, [1]]], axis=1))
    total = features[0]
    for table in features[1:]:
        total = (total[:, None] + table[None]).reshape(-1, 7)
    a, b, u, u2, aa, ab, bb = total.T
    ridge = 1e-6 * (aa + bb) + ((aa + bb) <= 0)
    aa, bb = aa + ridge, bb + ridge
    wald = (bb * a**2 - 2 * ab * a * b + aa * b**2) / (aa * bb - ab**2)
    product = np.where(u2 > 0, u / np.sqrt(np.where(u2 > 0, u2, 1)), 0)
    exact = min_p(np.stack([wald, product], axis=1))
    found = omnibus_test(values, randomizations=RANDOMIZATIONS, seed=seed).pvalue[0]
    # Near-singular Wald statistics tie only up to the solver's rounding, hence the wider band.
    assert found == pytest.approx(exact, abs=4.5 * math.sqrt(exact * (1 - exact) / RANDOMIZATIONS) + 0.02)


def test_adjustments_are_those_of_statsmodels() -> None:
    p = np.random.default_rng(0).random((14, 3)) ** 3
    adjusted = adjust(p)
    assert np.array_equal(adjusted.holm.ravel(), multipletests(p.ravel(), method="holm")[1])
    assert np.array_equal(adjusted.benjamini_hochberg.ravel(), multipletests(p.ravel(), method="fdr_bh")[1])
    ordered = np.sort(p.ravel())
    steps = np.minimum(np.maximum.accumulate(ordered * np.arange(42, 0, -1)), 1)
    assert np.allclose(np.sort(adjusted.holm.ravel()), steps)


def test_one_image_per_patient_is_the_paired_t_test_of_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 40, 3))
    mean = clustered_mean(b - a, Clusters.of(range(40)))
    paired = stats.ttest_rel(b, a)
    assert np.allclose(mean.estimate / mean.se, paired.statistic)
    assert mean.df == pytest.approx(39)
    interval = stats.ttest_1samp(b - a, 0.0).confidence_interval(0.95)
    z = stats.t.isf(0.025, mean.df)
    assert np.allclose(mean.estimate - z * mean.se, interval.low)


def test_equal_clusters_are_the_cluster_robust_variance_of_statsmodels() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(25), 4)
    y = rng.normal(size=100) + rng.normal(size=25)[groups]
    fit = sm.OLS(y, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert float(clustered_mean(y, Clusters.of(groups)).se) == pytest.approx(float(fit.bse[0]), rel=1e-9)


def test_bell_mccaffrey_from_the_matrices() -> None:
    """CR2 and its degrees of freedom by the matrices of the definition, with clusters of unequal sizes."""
    sizes = np.array([1, 2, 2, 5, 9, 3])
    groups = np.repeat(np.arange(6), sizes)
    y = np.random.default_rng(3).normal(size=len(groups))
    n = len(y)
    x = np.ones((n, 1))
    residual_maker = np.eye(n) - x @ x.T / n
    vectors, variance = [], 0.0
    for g in range(6):
        rows = groups == g
        values, basis = np.linalg.eigh(residual_maker[np.ix_(rows, rows)])
        adjustment = basis @ np.diag(values**-0.5) @ basis.T
        weight = adjustment @ x[rows, 0] / n
        vectors.append(residual_maker[rows].T @ weight)
        variance += float(weight @ (residual_maker @ y)[rows]) ** 2
    gram = np.array(vectors) @ np.array(vectors).T
    mean = clustered_mean(y, Clusters.of(groups))
    assert float(mean.variance) == pytest.approx(variance, rel=1e-9)
    assert mean.df == pytest.approx(np.trace(gram) ** 2 / np.trace(gram @ gram), rel=1e-9)


def test_hall_interval_by_hand() -> None:
    """Five of twenty patients respond outright: estimate 1/4, deviations 3/4 (five times) and -1/4 (fifteen times)."""
    mean = clustered_mean(np.array([[1.0]] * 5 + [[0.0]] * 15), Clusters.of(range(20)))
    squares = 5 * 0.75**2 + 15 * 0.25**2  # 3.75
    cubes = 5 * 0.75**3 - 15 * 0.25**3  # 1.875
    variance = squares / 19 / 20  # 0.0098684
    third = cubes / 20**3 / (19 / 20) ** 1.5
    most = 0.75 / 20 / math.sqrt(19 / 20)
    z = 2.0930240544  # t with 19 degrees of freedom at 0.975
    k = third / variance
    low = 0.25 + k * (2 * z**2 + 1) / 6 - z * math.sqrt(variance + k**2 * (z**2 + 2) / 12)
    k = (third + most**3) / (variance + most**2)
    high = 0.25 + k * (2 * z**2 + 1) / 6 + z * math.sqrt(variance + most**2 + k**2 * (z**2 + 2) / 12)
    interval = skew_interval(mean)
    assert (round(low, 4), round(high, 4)) == (0.0802, 0.5213)
    assert float(interval.low[0]) == pytest.approx(low, abs=1e-9)
    assert float(interval.high[0]) == pytest.approx(high, abs=1e-9)


def test_the_score_form_is_hall_to_first_order() -> None:
    """Against Hall's (1992) cubic transformation, whose limits it has to meet as the skewness vanishes."""
    z = stats.norm.isf(0.025)
    for a in (0.02, 0.01):  # skewness of the studentised mean
        mean = ClusteredMean(
            estimate=np.array([0.0]),
            variance=np.array([1.0]),
            third=np.array([a]),
            largest=np.array([0.0]),
            df=1e9,
            deviating=np.array([1000]),
            patients=1e6,
        )
        interval = skew_interval(mean, span=(-9.0, 9.0))
        hall = [-(3 / a) * ((1 + a * (x - a / 6)) ** (1 / 3) - 1) for x in (z, -z)]
        assert float(interval.low[0]) == pytest.approx(hall[0], abs=2 * a**2)
        assert float(interval.high[0]) == pytest.approx(hall[1], abs=2 * a**2)


@pytest.mark.parametrize("events", [1, 2, 3, 5, 10, 30])
def test_rare_events_have_limits_like_the_exact_ones(events: int) -> None:
    """Lower limit between mid-p and Clopper-Pearson's neighbourhood, upper limit near Clopper-Pearson's."""
    n = 2000
    rate = clustered_mean(np.r_[np.ones(events), np.zeros(n - events)][:, None], Clusters.of(range(n)))
    interval = skew_interval(rate)
    exact_high = stats.beta.isf(0.025, events + 1, n - events)
    middle_low = optimize.brentq(
        lambda p: stats.binom.sf(events, n, p) + stats.binom.pmf(events, n, p) / 2 - 0.025, 1e-9, events / n
    )
    assert interval.high[0] * n == pytest.approx(exact_high * n, abs=0.4)
    assert interval.low[0] * n == pytest.approx(middle_low * n, abs=0.4)


def test_wilson_of_independent_patients_is_scipys() -> None:
    for events, n in ((3, 40), (20, 200), (150, 300)):
        rate = clustered_mean(np.r_[np.ones(events), np.zeros(n - events)][:, None], Clusters.of(range(n)))
        interval = wilson_interval(rate)
        reference = stats.binomtest(events, n).proportion_ci(method="wilson")
        assert float(interval.low[0]) == pytest.approx(reference.low, abs=0.01)
        assert float(interval.high[0]) == pytest.approx(reference.high, abs=0.01)


def test_nothing_seen_is_the_rule_of_three() -> None:
    nothing = clustered_mean(np.zeros((300, 1)), Clusters.of(range(300)))
    assert float(skew_interval(nothing, alpha=0.1).high[0]) == pytest.approx(3 / 300, rel=0.01)
    assert float(upper_pvalue(nothing, 0.01)[0]) == pytest.approx(0.99**300)


def test_symmetric_noise_has_the_t_interval() -> None:
    y = np.random.default_rng(5).normal(scale=0.1, size=(5000, 1))
    y = np.concatenate([y, -y])
    interval = signed_interval(signed_mean(y, Clusters.of(range(10_000))))
    t = stats.ttest_1samp(y[:, 0], 0.0).confidence_interval(0.95)
    assert float(interval.low[0]) == pytest.approx(t.low, rel=0.02)
    assert float(interval.high[0]) == pytest.approx(t.high, rel=0.02)
