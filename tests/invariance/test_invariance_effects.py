"""Effects, their intervals, equivalence, power and subgroups."""

from __future__ import annotations

import numpy as np
import pytest

from citlr.errors import InputError
from citlr.invariance.effects.clusters import Clusters, clustered_mean, signed_mean
from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.estimates import (
    contrast_effects,
    counterfactual_accuracy,
    flip_shares,
    within_flip_shares,
)
from citlr.invariance.effects.intervals import (
    beyond_pvalue,
    negate,
    signed_interval,
    skew_interval,
    upper_pvalue,
    wilson_interval,
)
from citlr.invariance.power import patients_needed, power
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.responses import Responses
from citlr.invariance.rows import adjust
from citlr.invariance.subgroups import subgroup_effects
from citlr.invariance.verdict import assess


def binary(n: int, seed: int = 0, draws: int = 4, levels: int = 2, labels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((n, levels, draws, labels)) < rng.random((n, 1, 1, labels))).astype(float)


def test_psi_is_the_excess_of_flips_over_flips_within_a_level() -> None:
    y = binary(200, labels=2)
    excess = flip_shares(y, shared_seeds=False) - within_flip_shares(y)
    assert np.allclose(product_statistic(y, shared_seeds=False), excess)


@pytest.mark.parametrize("shared_seeds", [True, False])
@pytest.mark.parametrize("levels", [2, 3])
def test_the_product_statistic_is_unbiased(shared_seeds: bool, levels: int) -> None:
    rng = np.random.default_rng(1)
    g = rng.random((1, levels, 1, 1))
    y = (rng.random((200_000, levels, 3, 1)) < g).astype(float)
    truth = sum((g[0, a, 0, 0] - g[0, b, 0, 0]) ** 2 for a in range(levels) for b in range(a))
    u = product_statistic(y, shared_seeds=shared_seeds)
    assert abs(u.mean() - truth) < 4 * u.std() / np.sqrt(len(u))


def test_known_effects_are_recovered() -> None:
    values = np.zeros((1000, 2, 4, 1))
    values[:100, 1], values[100:130, 0] = 1.0, 1.0
    effects = contrast_effects(Responses.from_arrays(values))
    for interval, truth in (
        (effects.mean_effect, 0.07),
        (effects.psi, 0.13),
        (effects.flip_rate, 0.13),
        (effects.rms_effect, np.sqrt(0.13)),
    ):
        assert interval.estimate[0] == pytest.approx(truth)
        assert interval.low[0] < truth < interval.high[0]
    assert effects.within_flip_rate[0] == 0.0


def test_flips_and_eca_are_about_decisions_whatever_the_outcome() -> None:
    values = np.random.default_rng(2).random((50, 3, 4, 2))
    r = Responses.from_arrays(values, factual=np.arange(50) % 3)
    one = contrast_effects(r, outcome="decision", contrast=(0, 2))
    other = contrast_effects(r, outcome="probability", contrast=(0, 2))
    assert np.array_equal(one.flip_rate.estimate, other.flip_rate.estimate)
    assert np.array_equal(one.eca, other.eca)
    assert other.psi.estimate[0] == pytest.approx(product_statistic(values[:, [0, 2]], shared_seeds=True)[:, 0].mean())


def test_eca_by_the_definition() -> None:
    y = binary(60, levels=3)
    factual = np.arange(60) % 3
    kept = [
        np.mean([1.0 if b == a else float(np.mean(y[i, a, :, 0] == y[i, b, :, 0])) for b in range(3)])
        for i, a in enumerate(factual)
    ]
    assert counterfactual_accuracy(y, factual)[0][0] == pytest.approx(np.mean(kept))
    over_all = [
        np.mean([1.0 if a == b else float(np.mean(y[i, a, :, 0] == y[i, b, :, 0])) for a in range(3) for b in range(3)])
        for i in range(60)
    ]
    assert counterfactual_accuracy(y, None)[0][0] == pytest.approx(np.mean(over_all))


def test_corrected_eca_does_not_count_generator_noise() -> None:
    y = binary(4000, seed=3)
    eca, corrected = counterfactual_accuracy(y, np.zeros(4000, dtype=int), shared_seeds=False)
    assert eca[0] < 0.9
    assert corrected[0] == pytest.approx(1.0, abs=0.02)


def test_clusters_widen_the_intervals() -> None:
    values = np.zeros((400, 2, 4, 1))
    values[:40, 1] = 1.0
    alone = contrast_effects(Responses.from_arrays(values))
    together = contrast_effects(Responses.from_arrays(values, patients=np.arange(400) // 4))
    for name in ("mean_effect", "psi", "flip_rate"):
        narrow, wide = getattr(alone, name), getattr(together, name)
        assert wide.high[0] - wide.low[0] > 1.5 * (narrow.high[0] - narrow.low[0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_variance_is_no_certainty(value: float) -> None:
    patients = Clusters.of(range(50))
    column = np.full((50, 1), value)
    beta = 1 - 0.025 ** (1 / 50)
    psi = skew_interval(clustered_mean(column, patients))
    mean = signed_interval(signed_mean(column, patients))
    assert max(psi.high[0] - value, value - psi.low[0]) == pytest.approx(beta)
    assert mean.high[0] - mean.low[0] >= beta
    assert wilson_interval(clustered_mean(column, patients)).high[0] > value - 0.5
    assert upper_pvalue(clustered_mean(np.zeros((50, 1)), patients), 0.05)[0] == pytest.approx(0.95**50)


def test_five_patients_never_show_equivalence() -> None:
    assert assess(Responses.from_arrays(np.zeros((5, 2, 4, 1))), margin=0.02).verdict == "inconclusive"
    assert assess(Responses.from_arrays(np.zeros((400, 2, 4, 1))), margin=0.02).verdict == "equivalent"


def test_many_images_of_few_patients_are_few() -> None:
    many = Responses.from_arrays(np.zeros((4000, 2, 4, 1)), patients=np.arange(4000) % 20)
    assert assess(many, margin=0.02).verdict == "inconclusive"


def test_many_patients_of_one_image_say_nothing_of_one_who_has_a_third() -> None:
    # Patient 0 has 60 of 180 images, and answers like most; 9 of the 120 others change.
    patients, values = np.r_[np.zeros(60, int), np.arange(1, 121)], np.zeros((180, 2, 4, 1))
    values[60:69, 1] = 1.0
    one = contrast_effects(Responses.from_arrays(values, patients=patients))
    apart = contrast_effects(Responses.from_arrays(values))
    assert one.mean_effect.high[0] > 0.25  # he may be one who changes
    assert one.mean_effect.low[0] < 0 < apart.mean_effect.low[0]
    assert one.psi.high[0] > 0.25 > apart.psi.high[0]


def test_noise_alone_cannot_show_that_psi_is_below_three_in_n() -> None:
    """Generator noise makes U small and varying; a patient who flips outright may still have been missed."""
    values = np.zeros((200, 2, 4, 1))
    values[:20, 1, :2] = 1.0
    values[:20, 0, 1:3] = 1.0
    high = contrast_effects(Responses.from_arrays(values)).psi.high[0]
    assert high >= 1 - 0.025 ** (1 / 200)


@pytest.mark.parametrize("seed", range(5))
def test_pvalues_invert_their_intervals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patients = Clusters.of(rng.integers(0, 80, 240))
    values = rng.choice([-1.0, -0.25, 0.0, 0.25, 1.0], p=[0.05, 0.1, 0.6, 0.15, 0.1], size=(240, 3))
    mean, product = signed_mean(values, patients), clustered_mean(np.square(values), patients)
    for alpha in (0.01, 0.05, 0.2):
        interval, upper = signed_interval(mean, alpha=2 * alpha), skew_interval(product, alpha=2 * alpha).high
        for k in range(3):
            assert beyond_pvalue(mean, float(interval.high[k]))[k] == pytest.approx(alpha, abs=1e-9)
            assert beyond_pvalue(negate(mean), -float(interval.low[k]))[k] == pytest.approx(alpha, abs=1e-9)
            assert upper_pvalue(product, float(upper[k]))[k] == pytest.approx(alpha, abs=1e-9)


def test_pvalues_beyond_the_estimate_are_large() -> None:
    mean = signed_mean(np.r_[np.ones(30), np.zeros(70)][:, None], Clusters.of(range(100)))
    assert beyond_pvalue(mean, 0.1)[0] > 0.99
    assert upper_pvalue(mean.positive, 0.1)[0] > 0.99
    assert beyond_pvalue(mean, 0.9)[0] < 1e-10


def test_a_uniform_shift_does_not_pass_as_equivalent_by_its_small_psi() -> None:
    """Ten points of shift are psi = 0.01: below a margin of 0.02, but the mean effect is not."""
    rng = np.random.default_rng(4)
    values = 0.2 + 0.6 * rng.random((2000, 1, 1, 1)) + np.array([0.0, 0.1]).reshape(1, 2, 1, 1) + np.zeros((1, 1, 4, 1))
    test = assess(Responses.from_arrays(values), margin=0.02, outcome="probability").tests[0]
    assert test.psi.high < 0.02
    assert test.verdict == "dependence"


def test_flips_that_cancel_do_not_pass_as_equivalent_by_their_small_mean() -> None:
    values = np.zeros((2000, 2, 4, 1))
    values[:60, 1], values[60:120, 0] = 1.0, 1.0
    test = assess(Responses.from_arrays(values), margin=0.02).tests[0]
    assert test.mean_effect.high < 0.02
    assert (test.verdict, test.component) == ("dependence", "product")


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, float("nan")])
def test_a_margin_is_between_nothing_and_everything(margin: float) -> None:
    """Checked at the doors, `assess` and `power`, and no further down."""
    for door in (assess, power):
        with pytest.raises(InputError, match=r"margin is|margin=nan"):
            door(Responses.from_arrays(np.zeros((10, 2, 4, 1))), margin=margin)


@pytest.mark.parametrize("bad", [[], [0.5, 1.2], [float("nan")]])
def test_adjusting_needs_pvalues(bad: list[float]) -> None:
    with pytest.raises(InputError, match="p-value"):
        adjust(bad)


def noisy_audit(n: int, psi: float, seed: int, reps: int = 200, draws: int = 4) -> Responses:
    """One label per repetition: noise in 30 % of images, and a share psi of images that flip outright."""
    rng = np.random.default_rng(seed)
    noisy = rng.random((n, 1, 1, reps)) < 0.3
    values = (rng.random((n, 2, draws, reps)) < 0.5) & noisy
    flips = rng.random((n, reps)) < psi
    side = rng.random((n, reps)) < 0.5
    values[:, 0] = np.where(flips[:, None], side[:, None], values[:, 0])
    values[:, 1] = np.where(flips[:, None], ~side[:, None], values[:, 1])
    return Responses.from_arrays(values.astype(float))


@pytest.mark.parametrize("shared_seeds", [True, False])
@pytest.mark.parametrize(("n", "draws"), [(300, 2), (1200, 2), (600, 3), (300, 4), (1200, 4)])
def test_the_detectable_psi_is_found_four_times_in_five(n: int, draws: int, shared_seeds: bool) -> None:
    from citlr.invariance.effects.estimates import outcome_values
    from citlr.invariance.randomization.test import contrast_tests

    report = power(noisy_audit(n, 0.0, seed=5, draws=draws), shared_seeds=shared_seeds)
    planted = noisy_audit(n, float(np.median(report.detectable_psi)), seed=6, draws=draws)
    p = contrast_tests(outcome_values(planted), shared_seeds=shared_seeds, randomizations=499).pvalue[0]
    assert 141 <= np.sum(p <= 0.05) <= 178  # of 200; exact 99.9 % binomial limits at 80 %


def test_without_noise_three_flips_are_needed() -> None:
    report = power(Responses.from_arrays(np.zeros((300, 2, 4, 1))))
    assert report.detectable_psi[0] == pytest.approx(2.9943 / 300, rel=1e-3)  # Poisson mean with P(X >= 2) = 0.8
    assert report.patients_needed is None


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_the_patients_needed_are_enough_and_not_too_many(margin: float) -> None:
    pilot = noisy_audit(400, 0.0, seed=7)
    needed = int(np.median(patients_needed(contrast_effects(pilot), margin=margin)))
    audit = contrast_effects(noisy_audit(needed, 0.0, seed=8))
    share = np.mean(equivalence_test(audit.mean, audit.product, margin=margin).pvalue < 0.05)
    assert 0.72 < share < 0.97
    half = contrast_effects(noisy_audit(needed // 2, 0.0, seed=9))
    assert np.mean(equivalence_test(half.mean, half.product, margin=margin).pvalue < 0.05) < 0.7


def test_power_is_between_half_and_one() -> None:
    with pytest.raises(InputError, match="power is 80"):
        power(Responses.from_arrays(np.zeros((10, 2, 4, 1))), power=80)


def test_subgroups_and_their_intersections() -> None:
    values = np.zeros((80, 2, 4, 1))
    view = np.where(np.arange(80) < 40, "PA", "AP")
    old = np.where(np.arange(80) % 2 == 0, "old", None)
    values[(view == "PA") & (np.arange(80) % 2 == 0), 1] = 1.0
    r = Responses.from_arrays(values, factual=np.arange(80) // 2 % 2, levels=["f", "m"], attribute="sex")
    rows = {row.subgroup: row for row in subgroup_effects(r, {"view": view, "age": old})}
    assert rows[(("view", "PA"),)].psi.estimate == 0.5
    assert rows[(("view", "PA"), ("age", "old"))].psi.estimate == 1.0
    assert rows[(("view", "AP"), ("age", "missing"))].psi.estimate == 0.0
    assert rows[(("sex", "f"), ("view", "PA"))].n_images == 20
    assert sum(row.n_images for key, row in rows.items() if [name for name, _ in key] == ["sex", "age"]) == 80
    assert len(subgroup_effects(r, {"view": view}, depth=1)) == 4


def test_a_subgroup_of_one_patient_is_listed_and_says_nothing() -> None:
    r = Responses.from_arrays(np.zeros((6, 2, 4, 1)))
    lone = next(row for row in subgroup_effects(r, {"site": ["a"] * 5 + ["b"]}) if row.subgroup == (("site", "b"),))
    assert lone.note.startswith("one patient")
    assert (lone.psi.low, lone.psi.high, lone.mean_effect.low) == (0.0, 1.0, -1.0)


@pytest.mark.parametrize(
    ("covariates", "message"), [(None, "nothing to group by"), ({"v": ["a"]}, "1 values"), ({"attribute": 5}, "values")]
)
def test_bad_covariates(covariates: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        subgroup_effects(Responses.from_arrays(np.zeros((6, 2, 4, 1))), covariates)  # type: ignore[arg-type]
