"""The randomisation test: extremes, both engines, large groups and many images."""

from __future__ import annotations

import numpy as np
import pytest

from citlr.errors import InputError
from citlr.invariance.randomization import binary_orbits, dense_orbits
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.randomization.test import contrast_tests, omnibus_test


def noise(n: int, levels: int = 2, draws: int = 4, labels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((n, levels, draws, labels)) < rng.random((n, 1, 1, labels))).astype(float)


@pytest.mark.parametrize("shared_seeds", [True, False])
@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_outputs_that_never_change_give_p_one(shared_seeds: bool, levels: int, value: float) -> None:
    constant = np.full((50, levels, 4, 2), value)
    for test in (contrast_tests, omnibus_test):
        result = test(constant, shared_seeds=shared_seeds, randomizations=99)
        assert np.all(result.pvalue == 1.0)
        assert np.all(result.log10_pvalue == 0.0)
        assert np.all(result.statistic == 0.0)


@pytest.mark.parametrize("shared_seeds", [True, False])
def test_the_tail_goes_on_below_the_floor(shared_seeds: bool) -> None:
    small, large = (np.zeros((n, 2, 4, 1)) for n in (200, 20_000))
    small[:, 1], large[:, 1] = 1.0, 1.0
    results = [contrast_tests(v, shared_seeds=shared_seeds, randomizations=99) for v in (small, large)]
    assert all(r.pvalue[0, 0] == 0.01 for r in results)
    assert results[1].log10_pvalue[0, 0] < results[0].log10_pvalue[0, 0] < -50
    assert np.isfinite(results[1].log10_pvalue[0, 0])
    assert results[1].log10_pvalue[0, 0] < -1000  # far below the smallest double: computed on the log scale


def test_the_sign_of_the_statistic_is_that_of_the_effect() -> None:
    up = np.zeros((100, 2, 4, 2))
    up[:30, 1, :, 0], up[:30, 0, :, 1] = 1.0, 1.0
    result = contrast_tests(up, randomizations=99)
    assert result.mean_z[0, 0] > 3
    assert result.mean_z[0, 1] < -3


def test_effects_that_cancel_are_found_by_the_product() -> None:
    rng = np.random.default_rng(1)
    side = rng.integers(0, 2, 40)
    values = np.zeros((200, 2, 4, 1))
    values[np.arange(40), side] = 1.0
    result = contrast_tests(values, randomizations=999)
    assert result.pvalue[0, 0] == 0.001
    assert result.component[0, 0] == "product"
    assert abs(result.mean_z[0, 0]) < 3


@pytest.mark.parametrize("shared_seeds", [True, False])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_both_engines_have_one_distribution(shared_seeds: bool, levels: int) -> None:
    values = noise(60, levels=levels, draws=3, labels=1, seed=2)
    moments = [
        engine.randomize(values, shared_seeds=shared_seeds, randomizations=4000, rng=np.random.default_rng(3))
        for engine in (binary_orbits, dense_orbits)
    ]
    binary, dense = moments
    assert np.allclose(binary.sums[0], dense.sums[0], atol=1e-9)
    assert np.allclose(
        binary.products[0] - binary.products[1:].mean(), dense.products[0] - dense.products[1:].mean(), atol=2
    )
    if levels > 2:
        assert np.allclose(binary.squares[0], dense.squares[0], rtol=1e-6)
        assert np.allclose(binary.outer[0], dense.outer[0], rtol=1e-6, atol=1e-6)
        assert np.allclose(binary.products[0], product_statistic(values, shared_seeds=shared_seeds).sum(axis=0))
        assert np.allclose(dense.products[0], binary.products[0], rtol=1e-6)
    for name in ("sums", "products"):
        a, b = getattr(binary, name)[1:], getattr(dense, name)[1:]
        error = a.std(axis=0) / np.sqrt(4000)
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 6 * error + 1e-9)
        assert np.allclose(a.std(axis=0), b.std(axis=0), rtol=0.08)


@pytest.mark.parametrize(
    ("levels", "draws", "shared_seeds"), [(2, 14, True), (2, 9, False), (3, 6, True), (3, 4, False)]
)
def test_a_group_too_large_to_hold_is_sampled(levels: int, draws: int, shared_seeds: bool) -> None:
    """A random part of the group with one step back keeps the null: p-values of exchangeable noise are uniform."""
    rng = np.random.default_rng(4)
    values = rng.random((12, levels, draws, 400))
    p = omnibus_test(values, shared_seeds=shared_seeds, randomizations=99, seed=5).pvalue
    assert 2 <= np.sum(p <= 0.05) <= 38  # 20 expected; exact 99.99 % binomial limits
    assert 0.4 < p.mean() < 0.6


@pytest.mark.parametrize(("levels", "draws"), [(2, 90), (3, 44)])
def test_with_many_draws_decisions_keep_the_null(levels: int, draws: int) -> None:
    """Images of one type share a law: types were numbered by a code that 64 bits do not hold."""
    rng = np.random.default_rng(6)
    rate = np.where(rng.random((60, 1, 1, 200)) < 0.5, 0.05, 0.95)
    values = (rng.random((60, levels, draws, 200)) < rate).astype(float)
    p = omnibus_test(values, randomizations=99, seed=7).pvalue
    assert np.sum(p <= 0.05) <= 23  # 10 expected; exact 99.99 % binomial limit
    assert p.mean() > 0.4


def test_twelve_levels_are_tested_in_moments() -> None:
    rng = np.random.default_rng(8)
    blind = (rng.random((80, 12, 4, 1)) < 0.3).astype(float)
    assert omnibus_test(blind, randomizations=99, seed=0).pvalue[0] > 0.01
    blind[:, 3] = 1.0
    assert omnibus_test(blind, randomizations=99, seed=0).pvalue[0] == 0.01


def test_many_images_are_reshuffled_in_blocks() -> None:
    rng = np.random.default_rng(6)
    base = rng.random((40_000, 1, 4, 1)) * 0.5
    null = base + 0.1 * rng.random((40_000, 2, 4, 1))
    effect = null.copy()
    effect[:, 1] += 0.01 * rng.choice([-1, 1], (40_000, 1, 1))
    assert contrast_tests(null, randomizations=99).pvalue[0, 0] > 0.05
    found = contrast_tests(effect, randomizations=99)
    assert found.pvalue[0, 0] == 0.01
    assert found.component[0, 0] == "product"


@pytest.mark.parametrize(("rows", "draws", "base"), [(1000, 4, 3), (60, 1, 20), (0, 4, 3), (200, 45, 3), (50, 62, 2)])
def test_types_of_images_come_in_the_order_of_their_counts(rows: int, draws: int, base: int) -> None:
    positives = np.random.default_rng(rows).integers(0, base, (rows, draws))
    types, members = binary_orbits._distinct(positives)
    assert np.array_equal(types[members], positives)
    # The order of the types is that of the draws: another would give the same seed other numbers.
    assert list(map(tuple, types.tolist())) == sorted(set(map(tuple, positives.tolist())))


def test_a_million_decisions() -> None:
    values = np.zeros((1_000_000, 2, 2, 1))
    values[::1000, 1] = 1.0
    result = contrast_tests(values, randomizations=199)
    assert result.pvalue[0, 0] == 0.005


def test_seeds_reproduce_and_differ() -> None:
    values = noise(80, labels=3)
    one, same, other = (contrast_tests(values, randomizations=199, seed=s).pvalue for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_chosen_contrasts_only() -> None:
    values = noise(40, levels=3, labels=2)
    assert contrast_tests(values, randomizations=99).pvalue.shape == (3, 2)
    assert contrast_tests(values, contrasts=[(0, 2)], randomizations=99).pvalue.shape == (1, 2)


@pytest.mark.parametrize(
    ("values", "randomizations", "message"),
    [
        (np.zeros((5, 2, 4)), 99, "shape"),
        (np.zeros((5, 2, 1, 1)), 99, "two draws"),
        (np.zeros((5, 1, 4, 1)), 99, "two levels"),
        (np.zeros((5, 2, 4, 1)), 10, "19 or more"),
    ],
)
def test_bad_input(values: np.ndarray, randomizations: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        contrast_tests(values, randomizations=randomizations)
