"""What must not matter to a p-value, and what must hold of every number: hypothesis looks for a counterexample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citlr.invariance.effects.clusters import Clusters, clustered_mean, signed_mean
from citlr.invariance.effects.intervals import (
    beyond_pvalue,
    signed_interval,
    skew_interval,
    upper_pvalue,
    wilson_interval,
)
from citlr.invariance.randomization.test import RandomizationResult, contrast_tests, omnibus_test
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import SPARE, assess

# B = 1999: six standard errors of the difference of two Monte-Carlo p-values, never below the floor's own scale.
RANDOMIZATIONS = 1999


def close(p: float, q: float) -> bool:
    middle = (p + q) / 2
    return bool(abs(p - q) <= 6 * np.sqrt(2 * middle * (1 - middle) / RANDOMIZATIONS) + 3e-3)


def agree(one: RandomizationResult, other: RandomizationResult, values: np.ndarray) -> None:
    """P-values equal up to Monte-Carlo error.

    Both statistics' own p-values always. Their min-p where outputs are continuous: with a handful of possible outcomes,
    two of them may have the same p-value, one by either statistic, and which of the two is the more extreme is then
    left to chance; it stays within Bonferroni's bound.
    """
    for name in ("mean_pvalue", "product_pvalue"):
        assert all(close(p, q) for p, q in zip(getattr(one, name).ravel(), getattr(other, name).ravel(), strict=True))
    smaller = np.minimum(other.mean_pvalue, other.product_pvalue)
    assert np.all(other.pvalue <= np.minimum(2 * smaller, 1) + 1e-12)
    if len(np.unique(values)) > 100:
        assert all(close(p, q) for p, q in zip(one.pvalue.ravel(), other.pvalue.ravel(), strict=True))


@st.composite
def outputs(draw: st.DrawFn, least: int = 2) -> np.ndarray:
    """Outputs of every kind: decisions or probabilities, constant, rare, noisy, shifted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, n_levels, draws = draw(st.integers(2, 40)), draw(st.integers(least, 3)), draw(st.integers(2, 5))
    base = draw(st.sampled_from([-3.0, 0.0, 2.0])) + rng.normal(size=(n, 1, 1, 2))
    noise = draw(st.sampled_from([0.0, 0.3, 2.0])) * rng.normal(size=(n, n_levels, draws, 2))
    shift = draw(st.sampled_from([0.0, 0.5])) * np.arange(n_levels).reshape(1, -1, 1, 1)
    latent = base + noise + shift
    decisions = draw(st.booleans())
    return (latent > 0).astype(float) if decisions else 1 / (1 + np.exp(-latent))


@settings(max_examples=25, deadline=None)
@given(values=outputs(), shared_seeds=st.booleans(), seed=st.integers(0, 1000))
def test_the_order_of_images_does_not_matter(values: np.ndarray, shared_seeds: bool, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(values))
    for test in (contrast_tests, omnibus_test):
        one = test(values, shared_seeds=shared_seeds, randomizations=RANDOMIZATIONS, seed=1)
        agree(one, test(values[order], shared_seeds=shared_seeds, randomizations=RANDOMIZATIONS, seed=2), values)


@settings(max_examples=25, deadline=None)
@given(values=outputs(least=3), shared_seeds=st.booleans(), order=st.permutations(range(3)))
def test_the_names_of_the_levels_do_not_matter(values: np.ndarray, shared_seeds: bool, order: list[int]) -> None:
    renamed = values[:, order]
    pairs = [tuple(sorted((order.index(a), order.index(b)))) for a, b in ((0, 1), (0, 2), (1, 2))]
    options = {"shared_seeds": shared_seeds, "randomizations": RANDOMIZATIONS}
    one, other = contrast_tests(values, seed=1, **options), contrast_tests(renamed, contrasts=pairs, seed=2, **options)
    agree(one, other, values)
    agree(omnibus_test(values, seed=1, **options), omnibus_test(renamed, seed=2, **options), values)


@settings(max_examples=25, deadline=None)
@given(values=outputs(), shared_seeds=st.booleans(), constant=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_constant_label_changes_nothing(values: np.ndarray, shared_seeds: bool, constant: float) -> None:
    more = np.concatenate([values, np.full_like(values[..., :1], constant)], axis=-1)
    for test in (contrast_tests, omnibus_test):
        one = test(values, shared_seeds=shared_seeds, randomizations=RANDOMIZATIONS, seed=1)
        other = test(more, shared_seeds=shared_seeds, randomizations=RANDOMIZATIONS, seed=2)
        assert np.all(other.pvalue[..., -1] == 1.0)
        kept = {name: getattr(other, name)[..., :-1] for name in ("pvalue", "mean_pvalue", "product_pvalue")}
        agree(one, replace(other, **kept), values)


@settings(max_examples=20, deadline=None)
@given(values=outputs(), shared_seeds=st.booleans(), seed=st.integers(0, 1000), patients=st.integers(2, 40))
def test_every_number_is_one_and_in_its_range(values: np.ndarray, shared_seeds: bool, seed: int, patients: int) -> None:
    owner = np.arange(len(values)) % patients
    if len(np.unique(owner)) < 2:
        return
    outcome = "decision" if set(np.unique(values)) <= {0.0, 1.0} else "probability"
    responses = Responses.from_arrays(values, patients=owner, factual=np.arange(len(values)) % values.shape[1])
    options = {"margin": 0.1, "outcome": outcome, "shared_seeds": shared_seeds, "randomizations": 99, "seed": seed}
    found = assess(responses, **options)
    assert found == assess(responses, **options)
    least = 0.05 / (SPARE * len(found.tests)) - 1e-12
    for test in found.tests:
        assert least <= test.pvalue <= test.pvalue_adjusted <= 1
        assert test.log10_pvalue <= 0
        assert 0 <= test.equivalence_pvalue <= 1
        assert 0 < test.detectable_effect <= 1 or outcome == "probability"
        assert 0 <= test.psi.low <= test.psi.high <= 1
        assert -1 <= test.mean_effect.low <= test.mean_effect.estimate <= test.mean_effect.high <= 1
        assert 0 <= test.flip_rate.low <= test.flip_rate.estimate <= test.flip_rate.high <= 1
        assert 0 <= test.eca <= 1
        assert test.mean_effect.high > test.mean_effect.low
        assert test.psi.high > test.psi.low
    for row in found.omnibus:
        assert least <= row.pvalue <= 1


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    patients=st.integers(2, 60),
    images=st.integers(1, 4),
    density=st.sampled_from([0.02, 0.2, 1.0]),
    bound=st.floats(0.01, 0.9),
)
def test_intervals_grow_with_confidence_and_pvalues_fall_with_the_bound(
    seed: int, patients: int, images: int, density: float, bound: float
) -> None:
    rng = np.random.default_rng(seed)
    n = patients * images
    values = rng.uniform(-1, 1, (n, 2)) * (rng.random((n, 2)) < density)
    clusters = Clusters.of(np.arange(n) % patients)
    mean, square = signed_mean(values, clusters), clustered_mean(np.square(values), clusters)
    for interval in (
        lambda alpha: signed_interval(mean, alpha=alpha),
        lambda alpha: skew_interval(square, alpha=alpha, decisions=True),
        lambda alpha: wilson_interval(clustered_mean(np.abs(values), clusters), alpha=alpha),
    ):
        narrow, wide = interval(0.2), interval(0.05)
        assert np.all(wide.low <= narrow.low + 1e-12)
        assert np.all(wide.high >= narrow.high - 1e-12)
    for pvalue in (lambda m: beyond_pvalue(mean, m), lambda m: upper_pvalue(square, m, unseen=m)):
        p, q = pvalue(bound), pvalue(min(bound + 0.05, 0.99))
        assert np.all((p >= 0) & (p <= 1))
        assert np.all(q <= p + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_turning_the_levels_around_turns_the_effect_around(seed: int) -> None:
    values = np.random.default_rng(seed).random((60, 2, 4, 1))
    one, other = (
        assess(Responses.from_arrays(v), margin=0.1, outcome="probability", randomizations=RANDOMIZATIONS).tests[0]
        for v in (values, values[:, ::-1])
    )
    assert one.mean_effect.low == pytest.approx(-other.mean_effect.high)
    assert one.mean_effect.estimate == pytest.approx(-other.mean_effect.estimate)
    assert one.psi.high == pytest.approx(other.psi.high)
    assert one.equivalence_pvalue == pytest.approx(other.equivalence_pvalue)
    assert close(one.pvalue, other.pvalue)
