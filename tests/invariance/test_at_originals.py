"""Psi of decisions at the originals' own scores: what draws blur near the threshold is read whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from citlr.invariance.effects.at_originals import at_originals, psi_at_originals
from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.estimates import contrast_effects, psi_parts
from citlr.invariance.power import power
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.responses import Responses
from citlr.invariance.subgroups import subgroup_effects
from citlr.invariance.verdict import assess
from citlr.simulators.families import ScoredFamily

N, DRAWS = 3000, 4


def drawn(shift: float, noise: float, *, seed: int, shared: bool = True, levels: int = 2, **known: Any) -> Responses:
    """Scores whose originals are spread by 2, moved by `shift` a level, each draw off by the noise."""
    rng = np.random.default_rng(seed)
    score, factual = rng.normal(-0.5, 2, N), rng.integers(levels, size=N)
    off = rng.normal(0, noise, (N, 1 if shared else levels, DRAWS))
    level = np.arange(levels)[None, :, None]
    under = score[:, None, None] + shift * (level - factual[:, None, None]) + off
    known = {"factual": factual, "original": expit(score)[:, None]} | known
    return Responses.from_arrays(expit(under), **known)


def of_draws(r: Responses) -> np.ndarray:
    """What the draws' own decisions add to psi."""
    return product_statistic(r.decisions(), shared_seeds=True)


def flips(shift: float, seed: int) -> float:
    """The true psi of the two levels: decisions that differ between them without noise."""
    rng = np.random.default_rng(seed)
    score, factual = rng.normal(-0.5, 2, N), rng.integers(2, size=N)
    return float(np.mean((score - shift * factual >= 0) != (score + shift * (1 - factual) >= 0)))


@pytest.mark.parametrize("shift", [0.2, 0.5, 1.0])
def test_small_effects_are_read_whole(shift: float) -> None:
    r, truth = drawn(shift, 1.0, seed=1), flips(shift, 1)
    assert contrast_effects(r).psi.estimate[0] == pytest.approx(truth, rel=0.01)
    assert contrast_effects(r).drawn.estimate[0] < 0.65 * truth


def test_what_draws_do_not_share_is_not_taken_for_an_effect() -> None:
    r = drawn(0.0, 0.5, seed=2, shared=False)
    assert np.array_equal(psi_parts(r, contrast=(0, 1))[0], of_draws(r))
    assert contrast_effects(r).psi.high[0] < 0.02


@pytest.mark.parametrize(("share", "draws"), [(0.02, 4), (0.1, 4), (0.3, 4), (0.45, 4), (0.3, 2), (0.3, 8)])
def test_noise_that_is_not_shared_makes_no_psi_of_a_blind_model(share: float, draws: int) -> None:
    rng = np.random.default_rng(15)
    score, factual = rng.normal(-0.5, 2, N), rng.integers(2, size=N)
    off = np.sqrt(1 - share) * rng.normal(size=(N, 1, draws)) + np.sqrt(share) * rng.normal(size=(N, 2, draws))
    blind = Responses.from_arrays(expit(score[:, None, None] + off), factual=factual, original=expit(score)[:, None])
    assert at_originals(blind, threshold=0.5).known.all()
    found = contrast_effects(blind).product
    assert abs(found.estimate[0]) < 3 * np.sqrt(found.variance[0]) + 0.002
    assert found.estimate[0] < 0.02


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_nor_does_it_take_anything_from_an_effect(shift: float) -> None:
    rng, truth = np.random.default_rng(16), flips(shift, 16)
    r = drawn(shift, 1.0, seed=16)
    logits = np.log(r.values / (1 - r.values)) + rng.normal(0, 0.3, r.values.shape)
    biased = Responses.from_arrays(expit(logits), factual=r.factual, original=r.original)
    assert contrast_effects(biased).psi.estimate[0] == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("missing", ["original", "factual"])
def test_without_the_original_or_its_level_psi_is_that_of_the_draws(missing: str) -> None:
    r = drawn(0.5, 1.0, seed=5, **{missing: None})
    assert np.array_equal(psi_parts(r, contrast=(0, 1))[0], of_draws(r))


def test_of_decisions_and_of_independent_draws_nothing_changes() -> None:
    r = drawn(0.5, 1.0, seed=6)
    hard = Responses.from_arrays((r.values >= 0.5) * 1.0, factual=r.factual, original=(r.original >= 0.5) * 1.0)
    assert np.array_equal(psi_parts(hard, contrast=(0, 1))[0], of_draws(hard))
    for outcome, shared_seeds in (("decision", False), ("probability", True)):
        values = r.decisions() if outcome == "decision" else r.values
        found, _ = psi_parts(r, contrast=(0, 1), outcome=outcome, shared_seeds=shared_seeds)
        assert np.allclose(found, product_statistic(values, shared_seeds=shared_seeds))


def test_edits_of_the_original_keep_their_decisions() -> None:
    r = drawn(0.7, 0.0, seed=7)
    own = r.values.copy()
    own[np.arange(N), r.factual] = np.repeat(r.original[:, None], DRAWS, axis=1)
    edited = Responses.from_arrays(own, factual=r.factual, original=r.original)
    assert np.array_equal(psi_parts(edited, contrast=(0, 1))[0], of_draws(edited))


def test_every_label_is_looked_at_by_itself() -> None:
    score, hard = drawn(0.5, 1.0, seed=8), drawn(0.5, 1.0, seed=8)
    values = np.concatenate([score.values, hard.values >= 0.5], axis=-1)
    original = np.concatenate([score.original, hard.original >= 0.5], axis=-1)
    both, _ = psi_parts(Responses.from_arrays(values, factual=score.factual, original=original), contrast=(0, 1))
    assert np.array_equal(both[:, :1], psi_parts(score, contrast=(0, 1))[0])
    assert np.array_equal(both[:, 1:], of_draws(hard))


def test_certain_outputs_are_a_step_away_from_the_others() -> None:
    # A forest of 50 trees: 0 is not infinitely far from .02, and .1 with twice .02 more does not reach .5.
    values = np.zeros((40, 2, DRAWS, 1))
    values[:, 1], values[0] = 0.04, 0.98
    r = Responses.from_arrays(values, factual=np.zeros(40, dtype=int), original=np.full((40, 1), 0.1))
    assert not at_originals(r, threshold=0.5).each.any()


def test_outputs_that_are_certain_to_the_last_bit_are_decisions() -> None:
    r = drawn(0.5, 1.0, seed=14)
    certain = expit(np.where(r.values >= 0.5, 40.0, -40.0))
    sure = Responses.from_arrays(certain, factual=r.factual, original=expit(np.where(r.original >= 0.5, 40.0, -40.0)))
    assert np.isfinite(psi_parts(sure, contrast=(0, 1))).all()


def test_three_levels_and_a_number_start_at_the_original_too() -> None:
    three = drawn(0.4, 1.0, seed=9, levels=3)
    at = at_originals(three, threshold=0.5).each
    kept = at[np.arange(N), three.factual]
    assert np.array_equal(kept, np.repeat(three.original[:, None] >= 0.5, DRAWS, axis=1))
    own = three.values[np.arange(N), three.factual]
    aged = Responses.from_arrays(
        three.values, levels=["40", "60", "80"], original=three.original, number=True, own=own, factual=three.factual
    )
    assert np.array_equal(at_originals(aged, threshold=0.5).each, at)


def test_a_threshold_of_its_own_is_met_by_the_models_own_decisions() -> None:
    r = drawn(0.0, 1.0, seed=10)
    at = at_originals(r, threshold=0.2).each
    assert np.array_equal(at, np.broadcast_to((r.original >= 0.2)[:, None, None], at.shape))


def test_the_p_value_is_that_of_the_draws_and_equivalent_is_held_against_the_whole_psi() -> None:
    r, truth = drawn(0.25, 2.0, seed=11), flips(0.25, 11)
    unknown = Responses.from_arrays(r.values, factual=r.factual)
    (with_originals,), (without,) = (assess(one, margin=0.04).tests for one in (r, unknown))
    assert with_originals.pvalue == without.pvalue
    assert with_originals.mean_effect == without.mean_effect
    assert 0.04 < truth < with_originals.psi.high
    assert without.psi.high < 0.04
    assert (without.verdict, with_originals.verdict) == ("equivalent", "inconclusive")


def test_the_family_that_calibration_draws_from_has_the_psi_that_it_says() -> None:
    for images in (1, 4):
        values, original, factual, patients = ScoredFamily(0.1, images).sample(
            np.random.default_rng(15), 20_000, draws=2, repetitions=2
        )
        r = Responses.from_arrays(values, original=original, factual=factual, patients=patients)
        assert contrast_effects(r).psi.estimate == pytest.approx(0.1, abs=0.01)
        assert np.abs(contrast_effects(r).mean_effect.estimate).max() < 0.01
        assert (contrast_effects(r).drawn.estimate < 0.08).all()


def test_no_equivalence_is_shown_by_what_noise_takes_from_small_effects() -> None:
    # A tenth of the noise is not shared, and moves scores twice as far as the level does.
    values, original, factual, _ = ScoredFamily(0.05, apart=0.1).sample(
        np.random.default_rng(21), 2000, draws=DRAWS, repetitions=100
    )
    effects = contrast_effects(Responses.from_arrays(values, original=original, factual=factual))
    assert (equivalence_test(effects.mean, effects.product, margin=0.05).pvalue < 0.05).mean() > 0.5
    assert (equivalence_test(effects.mean, effects.most, margin=0.05).pvalue < 0.05).mean() < 0.05
    assert (effects.psi.high > 0.05).mean() > 0.95
    assert ((effects.psi.low < 0.05) & (effects.psi.estimate < 0.05)).mean() > 0.9


def test_what_would_have_been_found_is_told_at_the_originals_too() -> None:
    r, truth = drawn(0.5, 1.0, seed=12), flips(0.5, 12)
    shown = contrast_effects(r).drawn.estimate
    assert psi_at_originals(r, shown, threshold=0.5)[0] == pytest.approx(truth, rel=0.15)
    unknown = Responses.from_arrays(r.values, factual=r.factual)
    assert psi_at_originals(unknown, shown, threshold=0.5)[0] == shown[0]
    (row,), (other,) = (assess(one, margin=0.04).tests for one in (r, unknown))
    assert row.detectable_effect > 2 * other.detectable_effect
    assert power(r).detectable_psi[0] == pytest.approx(row.detectable_effect, rel=0.05)


def test_a_psi_that_only_the_originals_let_exceed_the_margin_is_no_dependence_yet() -> None:
    r, truth = drawn(0.15, 2.0, seed=13), flips(0.15, 13)
    (row,) = assess(r, margin=0.03).tests
    assert row.psi.low < 0.03 < row.psi.high
    assert row.drawn_psi.high < 0.03
    assert row.pvalue < 0.05
    assert truth < 0.03
    assert row.verdict == "inconclusive"
    assert "yet it is not shown to be less at the originals" in row.reason


def test_errors_of_a_generator_in_single_images_are_no_dependence() -> None:
    # A blind model: what every image is changed by is an error, which its draws share and which goes either way.
    r = drawn(0.0, 1.0, seed=17)
    error = np.random.default_rng(18).normal(0, 0.25, N) * (1 - 2 * r.factual)
    led_away = np.arange(2)[None, :] != r.factual[:, None]
    logits = np.log(r.values / (1 - r.values)) + (led_away * error[:, None])[:, :, None, None]
    blind = Responses.from_arrays(expit(logits), factual=r.factual, original=r.original)
    (row,) = assess(blind, margin=0.02).tests
    assert row.psi.low > 0.02 > row.drawn_psi.high
    assert row.verdict == "inconclusive"


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_edits_that_end_on_the_threshold_keep_their_decisions(threshold: float) -> None:
    # A forest of 50 trees in single precision: many outputs are the threshold itself.
    own, edited = np.random.default_rng(17).integers(0, 51, (2, N)) / 50
    values = np.repeat(np.stack([own, edited], axis=1)[:, :, None], DRAWS, axis=2).astype(np.float32)
    r = Responses.from_arrays(values, factual=np.zeros(N, dtype=int), original=values[:, 0, 0])
    at = at_originals(r, threshold=threshold)
    assert np.array_equal(at.each, r.decisions(threshold))
    assert np.array_equal(at.mean, r.decisions(threshold)[:, :, 0])


def test_null_interventions_of_fewer_draws_tell_nothing_of_the_others() -> None:
    r = drawn(0.4, 1.0, seed=18)
    own = r.values[np.arange(N), r.factual][:, :2]
    aged = Responses.from_arrays(
        r.values, levels=["40", "60"], original=r.original, number=True, own=own, factual=r.factual
    )
    assert np.array_equal(psi_parts(aged, contrast=(0, 1))[0], of_draws(aged))


def test_psi_of_parts_averages_to_that_of_the_whole() -> None:
    r = drawn(0.5, 1.0, seed=19)
    logits = np.log(r.values / (1 - r.values))
    noisy = np.arange(N) < 300
    logits[noisy] += np.random.default_rng(20).normal(0, 2, logits[noisy].shape)
    whole = Responses.from_arrays(expit(logits), factual=r.factual, original=r.original)
    psi = contrast_effects(whole).psi.estimate[0]
    rows = subgroup_effects(whole, {"scanner": np.where(noisy, "old", "new")}, depth=1)
    parts = [row for row in rows if row.subgroup[0][0] == "scanner"]
    assert sum(row.psi.estimate * row.n_images for row in parts) / N == pytest.approx(psi)


@pytest.mark.parametrize(("share", "draws"), [(0.1, 4), (0.4, 4), (0.4, 2)])
def test_noise_wider_than_the_scores_is_not_shown_to_be_an_effect(share: float, draws: int) -> None:
    # A blind model: a third of the scores lie within .2 of the threshold, and the noise of the draws is five times it.
    rng = np.random.default_rng(31)
    near = rng.random(N) < 1 / 3
    score = np.where(near, rng.normal(0, 0.2, N), rng.choice([-12.0, 12.0], N))
    off = np.sqrt(1 - share) * rng.normal(size=(N, 1, draws)) + np.sqrt(share) * rng.normal(size=(N, 2, draws))
    factual = rng.integers(2, size=N)
    blind = Responses.from_arrays(expit(score[:, None, None] + off), factual=factual, original=expit(score)[:, None])
    (row,) = assess(blind, margin=0.05).tests
    assert row.psi.estimate > 0.03
    assert row.psi.low == row.drawn_psi.low < 0.005
    assert row.psi.high > row.psi.estimate
    parts = subgroup_effects(blind, {"half": np.arange(N) % 2}, depth=1)
    assert max(part.psi.low for part in parts) < 0.01


def test_an_effect_beside_little_noise_keeps_its_lower_limit() -> None:
    r, truth = drawn(1.0, 1.0, seed=32), flips(1.0, 32)
    logits = np.log(r.values / (1 - r.values)) + np.random.default_rng(33).normal(0, 0.02, r.values.shape)
    found = contrast_effects(Responses.from_arrays(expit(logits), factual=r.factual, original=r.original))
    assert 0.8 * truth < found.psi.low[0] < truth
    assert found.drawn_psi.low[0] < 0.75 * truth


def test_noise_that_takes_from_an_effect_shows_no_equivalence() -> None:
    # A fifth of the scores lie just below the threshold, and the level lifts them over it: most of them in any draw.
    rng = np.random.default_rng(34)
    near, factual = rng.random(N) < 0.2, rng.integers(2, size=N)
    score = np.where(near, rng.normal(-0.6, 0.3, N), rng.choice([-15.0, 15.0], N))
    lift = np.outer(near, [0.0, 1.2])
    off = np.sqrt(0.55) * rng.normal(size=(N, 1, DRAWS)) + np.sqrt(0.45) * rng.normal(size=(N, 2, DRAWS))
    original = expit(score + lift[np.arange(N), factual])
    values = expit((score[:, None] + lift)[:, :, None] + off)
    r = Responses.from_arrays(values, factual=factual, original=original)
    truth = float(np.mean((score >= 0) != (score + lift[:, 1] >= 0)))
    assert psi_parts(r, contrast=(0, 1))[1].mean() < 0.92 * truth
    assert contrast_effects(r).most.estimate[0] > 0.97 * truth
    assert assess(r, margin=truth).tests[0].verdict != "equivalent"
    assert assess(r, margin=round(truth, 2) + 0.06).tests[0].verdict == "equivalent"
