"""The six tabular worlds: exact counterfactuals, the equations as stated, truths that can be computed another way."""

from __future__ import annotations

import numpy as np
import pytest

from citlr.errors import InputError
from citlr.simulators.tabular import SETS, TabularWorld, expected_counterfactual_accuracy, tabular_truth


@pytest.mark.parametrize("name", SETS)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name: str) -> None:
    one, two = TabularWorld(name, seed=3).sample(50, seed=1), TabularWorld(name, seed=3).sample(50, seed=1)
    assert np.array_equal(one.x, two.x)
    assert np.array_equal(one.label, two.label)
    assert not np.array_equal(one.x, TabularWorld(name, seed=4).sample(50, seed=1).x)


@pytest.mark.parametrize("name", SETS)
def test_an_intervention_is_the_structural_equations_step_by_step(name: str) -> None:
    world = TabularWorld(name, seed=0)
    sample = world.sample(20, seed=2)
    for level in (0, 1):
        got = world.intervene(sample, level)
        for i in range(20):
            state = sample.z[i]
            for t in range(world.steps):
                state = world.maps[level, t] @ state + sample.noise[i, t]
            expected = world.observation @ state + world.offset + sample.noise[i, -1]
            assert got[i] == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_twice_the_counterfactual_is_the_fact() -> None:
    world = TabularWorld("sin", seed=1)
    sample = world.sample(100, seed=0)
    twin = world.counterfactual(sample)
    there = sample.attribute == 1
    assert np.array_equal(world.intervene(sample, 1)[there], sample.x[there])
    assert np.array_equal(world.intervene(sample, 0)[there], twin[there])
    assert np.array_equal(world.intervene(sample, sample.attribute), sample.x)


def test_the_maps_have_rows_of_norm_one_and_differ_between_the_levels() -> None:
    world = TabularWorld("linear", seed=0)
    assert np.abs(world.maps).sum(-1) == pytest.approx(np.ones((2, 3, 32)))
    assert not np.allclose(world.maps[0], world.maps[1])


@pytest.mark.parametrize("name", SETS)
def test_the_balanced_intercept_balances(name: str) -> None:
    share = TabularWorld(name, seed=0, balanced=True).sample(20_000, seed=5).label.mean()
    assert 0.47 < share < 0.53


def test_the_quadratic_set_is_one_sided_as_published() -> None:
    shares = [TabularWorld("quadratic", seed=s).sample(4000, seed=0).label.mean() for s in range(8)]
    assert np.median(shares) > 0.8


@pytest.mark.parametrize("name", SETS)
def test_the_label_is_of_the_representation_alone(name: str) -> None:
    world = TabularWorld(name, seed=0, balanced=True)
    sample = world.sample(500, seed=0)
    assert np.array_equal(sample.label, (world.outcome_probability(sample.z) >= 0.5).astype(int))


def test_interactive_form_is_the_double_sum() -> None:
    world = TabularWorld("interactive", seed=0, features=4)
    z = np.random.default_rng(0).normal(size=(3, 4))
    expected = [
        sum(world.weight[i, j] * row[i] * row[j] for i in range(4) for j in range(4) if i != j) + world.intercept
        for row in z
    ]
    chance = world.outcome_probability(z)
    assert np.log(chance / (1 - chance)) == pytest.approx(expected, abs=1e-8)


def test_a_model_of_the_representation_is_invariant_and_a_model_of_the_attribute_is_not() -> None:
    world = TabularWorld("linear", seed=0, balanced=True)
    sample = world.sample(300, seed=0)
    counterfactuals = world.counterfactuals(sample.z, draws=8, seed=1)
    invariant = np.broadcast_to((world.outcome_probability(sample.z) > 0.5)[:, None, None], counterfactuals.shape[:3])
    assert tabular_truth(invariant.astype(float)).psi == 0.0
    aware = np.zeros(counterfactuals.shape[:3])
    aware[:, 1] = 1.0
    truth = tabular_truth(aware)
    assert (truth.psi, truth.mean_effect, truth.within_flip_rate) == (1.0, 1.0, 0.0)


def test_true_psi_agrees_with_plug_in_on_two_thousand_draws_of_few_units() -> None:
    world = TabularWorld("sin", seed=0, balanced=True)
    sample = world.sample(40, seed=0)
    w = np.random.default_rng(0).normal(size=32)

    def model(x: np.ndarray) -> np.ndarray:
        return (x @ w > 0.0).astype(float)

    few = tabular_truth(model(world.counterfactuals(sample.z, draws=64, seed=1)))
    many = model(world.counterfactuals(sample.z, draws=2000, seed=2)).mean(axis=2)
    plug_in = float(np.mean((many[:, 1] - many[:, 0]) ** 2))
    assert abs(few.psi - plug_in) < 4 * few.psi_error + 0.002


def test_shared_noise_is_shared_and_own_noise_is_not() -> None:
    world = TabularWorld("linear", seed=0)
    world_flat = TabularWorld("linear", seed=0, noise=0.0)
    z = world.sample(10, seed=0).z
    assert np.allclose(np.ptp(world_flat.counterfactuals(z, draws=3, seed=0), axis=2), 0.0)
    shared = world.counterfactuals(z, draws=2, seed=0)
    own = world.counterfactuals(z, draws=2, seed=0, shared_noise=False)
    assert np.array_equal(shared[:, 0], own[:, 0])
    assert not np.array_equal(shared[:, 1], own[:, 1])


def test_eca_counts_the_factual_level_as_kept() -> None:
    assert expected_counterfactual_accuracy(np.ones(4), np.zeros(4)) == 0.5
    assert expected_counterfactual_accuracy(np.ones(4), np.ones(4)) == 1.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "linaer"}, "Did you mean 'linear'"),
        ({"name": "linear", "features": 1}, "at least 2 features"),
        ({"name": "linear", "noise": float("nan")}, "noise >= 0"),
    ],
)
def test_bad_settings_are_sentences(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TabularWorld(**settings)


def test_bad_requests_are_sentences() -> None:
    world = TabularWorld("linear")
    with pytest.raises(InputError, match="at least one unit"):
        world.sample(0, seed=0)
    with pytest.raises(InputError, match="At least one draw"):
        world.counterfactuals(np.zeros((2, 32)), draws=0, seed=0)
    with pytest.raises(InputError, match="draws >= 2"):
        tabular_truth(np.zeros((3, 2, 1)))
