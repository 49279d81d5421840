"""Tests on (Z, A, Yhat): what they find, what they cannot, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression

from citlr.errors import InputError
from citlr.invariance.observational.distilled import distil
from citlr.invariance.observational.learners import cross_fit_mean, cross_fit_propensity, outcome_learners
from citlr.invariance.observational.nuisances import Observations, assign, fit_nuisances, patient_folds
from citlr.invariance.observational.observe import observe
from citlr.invariance.observational.result import ObservationalResult
from citlr.invariance.observational.tests import assess_observational, distilled_crt, gcm, rms_lower_bound
from citlr.simulators.observed import ObservedFamily

LINEAR = {"ols": LinearRegression()}
FITTED = ("outcome", "treatment")
LOGIT = {"logit": LogisticRegression()}


def sample(n: int = 400, seed: int = 0, **family: object) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    drawn = ObservedFamily(**family).sample(np.random.default_rng(seed), n)
    return (drawn.z, drawn.level, drawn.y), drawn.propensity


def crt(z: Any, level: Any, y: Any, propensity: Any = None, **given: Any) -> ObservationalResult:
    """Run the distilled test from arrays; options go to the step that takes them."""
    part = [{name: given.pop(name) for name in names if name in given} for names in (("patients", "contrast"), FITTED)]
    data = Observations.of(z, level, y, **part[0])
    return distilled_crt(data, fit_nuisances(data, propensity, **part[1]), **given)


def test_a_uniform_shift_is_found_by_all_three() -> None:
    arrays, p = sample(n=1000, effect=0.2, shape="uniform", seed=1)
    found = assess_observational(Observations.of(*arrays), p)
    assert found.verdict == "dependence"
    assert all(test.pvalue < 0.01 for test in found.tests)
    assert 0.02 < found.tests[2].rms_low < 0.2
    middle, width = found.tests[1].effect, found.tests[1].high - found.tests[1].low
    assert abs(middle - 0.2) < width  # four standard errors


def test_a_zero_mean_effect_needs_the_linear_kernel() -> None:
    arrays, p = sample(n=1500, effect=0.25, shape="zero-mean")
    data = Observations.of(*arrays)
    fits = fit_nuisances(data, p, outcome=LINEAR)
    assert distilled_crt(data, fits).pvalue < 0.01
    assert distilled_crt(data, fits, kernels=("rbf",)).pvalue < 0.05
    assert distilled_crt(data, fits, kernels=("constant",)).pvalue > 0.05
    assert gcm(data, fits).pvalue > 0.05


def test_no_result_ever_says_equivalent() -> None:
    for effect in (0.0, 0.4):
        arrays, p = sample(n=150, effect=effect, shape="uniform")
        found = assess_observational(Observations.of(*arrays), p)
        assert found.verdict in ("dependence", "inconclusive")
        assert "equivalen" not in found.reason + "".join(test.note for test in found.tests)


def test_it_says_whether_the_propensity_was_known() -> None:
    arrays, p = sample()
    assert crt(*arrays, propensity=p, outcome=LINEAR).propensity == "known"
    result = crt(*arrays, outcome=LINEAR, treatment=LOGIT)
    assert result.propensity == "estimated"
    assert result.learners == ("ols", "logit")


def test_confounding_alone_is_not_dependence() -> None:
    arrays, p = sample(n=2000, confounded=True, seed=3)
    level, y = arrays[1], arrays[2]
    assert stats.ttest_ind(y[level == "b"], y[level == "a"]).pvalue < 1e-3  # the association is there
    assert crt(*arrays, propensity=p, outcome=LINEAR).pvalue > 0.05
    assert crt(*arrays, outcome=LINEAR, treatment=LOGIT).pvalue > 0.05


def test_constant_predictions_give_one_everywhere() -> None:
    arrays, p = sample()
    flat = Observations.of(*arrays[:2], np.full(400, 0.7))
    fits = fit_nuisances(flat, p)
    for result in (distilled_crt(flat, fits), gcm(flat, fits), rms_lower_bound(flat, p)):
        assert result.pvalue == 1.0
        assert result.propensity == "known"
        assert "all predictions are equal" in result.note
    assert rms_lower_bound(flat).rms_low == 0.0
    assert distilled_crt(flat, fit_nuisances(flat)).pvalue == 1.0


@pytest.mark.parametrize("combine", ["max", "sum"])
def test_relabelling_the_levels_and_shuffling_the_images_change_nothing_but_noise(combine: str) -> None:
    arrays, p = sample(effect=0.08, shape="uniform", seed=4)
    fits = fit_nuisances(Observations.of(*arrays), p, outcome=LINEAR)
    rng = np.random.default_rng(0)
    order = rng.permutation(400)
    data = Observations.of(*arrays)
    one = distil(
        data.z, fits.residual, fits.assignment, kernels=("constant", "linear"), combine=combine, redraws=4000, rng=rng
    )
    shuffled = Observations.of(*(array[order] for array in arrays), contrast=("b", "a"))
    other = assign(shuffled, 1 - p[order])
    two = distil(
        shuffled.z, fits.residual[order], other, kernels=("constant", "linear"), combine=combine, redraws=4000, rng=rng
    )
    assert one.statistic == pytest.approx(two.statistic)
    assert abs(one.pvalue - two.pvalue) < 5 * np.sqrt(one.pvalue * (1 - one.pvalue) * 2 / 4000) + 1 / 4000


def test_copies_of_images_add_nothing_when_patients_are_told() -> None:
    arrays, p = sample(n=300, effect=0.1, shape="uniform", seed=5)
    copies = tuple(np.repeat(array, 3, axis=0) for array in arrays)
    patients = np.repeat(np.arange(300), 3)
    rng = np.random.default_rng(0)
    data, tripled = Observations.of(*arrays), Observations.of(*copies, patients=patients)
    fits = fit_nuisances(data, p, outcome=LINEAR)
    many = gcm(tripled, fit_nuisances(tripled, np.repeat(p, 3), outcome=LINEAR))
    assert many.n_patients == 300
    assert many.statistic == pytest.approx(gcm(data, fits).statistic, rel=0.1)
    both = [
        distil(z, e, unit, kernels=("constant", "linear"), combine="max", redraws=99, rng=rng).statistic
        for z, e, unit in (
            (data.z, fits.residual, fits.assignment),
            (tripled.z, np.repeat(fits.residual, 3), assign(tripled, np.repeat(p, 3))),
        )
    ]
    assert both[0] == pytest.approx(both[1])


def test_an_attribute_that_varies_within_patients_is_noted() -> None:
    arrays, p = sample(n=200)
    result = crt(*arrays, propensity=p, patients=np.repeat(np.arange(50), 4), outcome=LINEAR)
    assert "varies within patients" in result.note


def test_one_image_of_another_level_does_not_make_images_of_patients() -> None:
    """Whom a patient's images have in common: redrawn image by image, a third of innocent models were accused."""
    accused, alone, held = 0, 0, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        level, patients = np.repeat(np.where(rng.random(70) < 0.5, "f", "m"), 6), np.repeat(np.arange(70), 6)
        z, own = rng.normal(size=(420, 2)), np.repeat(rng.normal(size=70), 6)
        y = 1 / (1 + np.exp(-(z[:, 0] + own + 0.5 * rng.normal(size=420))))
        level[0] = "m" if level[0] == "f" else "f"
        data = Observations.of(z, level, y, patients=patients)
        found = assess_observational(data, np.full(420, 0.5), redraws=99, seed=seed)
        accused += found.verdict == "dependence"
        alone += found.tests[0].pvalue < 0.05
        if seed < 2:
            (said,) = observe(z, level, y, patients=patients, propensity=np.full(420, 0.5), redraws=99).assessments
            assert said.pvalue_adjusted == max(test.pvalue for test in said.tests[:2])
            held.append(said.pvalue_adjusted > said.tests[0].pvalue)
    assert accused <= 3  # a chance of .002 of more at 5 %
    assert alone > 2, "the distilled test alone accuses them: these images show the fault"
    assert any(held)


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_a_rare_level_is_not_one_that_is_told(share: float) -> None:
    rng = np.random.default_rng(5)
    z, level = rng.normal(size=(700, 2)), np.where(rng.random(700) < share, "m", "f")
    y = 1 / (1 + np.exp(-(z[:, 0] + 2.0 * (level == "m"))))
    found = assess_observational(Observations.of(z, level, y), redraws=199)
    assert found.overlap > 0.8
    assert found.verdict == "dependence"


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_level_that_z_tells_has_nobody_to_compare_however_rare_it_is(share: float) -> None:
    rng = np.random.default_rng(6)
    level = np.where(rng.random(600) < share, "m", "f")
    z = 15.0 * (level == "m")[:, None] + rng.normal(size=(600, 1))
    found = assess_observational(Observations.of(z, level, rng.random(600)), redraws=99)
    assert found.overlap < 0.1
    assert "nobody is left to compare" in found.reason


def test_folds_keep_patients_together_and_are_even() -> None:
    cluster = np.repeat(np.arange(53), 3)
    folds = patient_folds(cluster, 5, np.random.default_rng(0))
    assert all(np.unique(folds[cluster == c]).size == 1 for c in range(53))
    assert np.ptp(np.bincount(folds)) <= 3


def test_out_of_fold_predictions_never_saw_the_patient() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 2))
    y = rng.random(60)
    folds = np.arange(60) % 3
    before = cross_fit_mean(z, y, folds, LINEAR).values
    y_changed = np.where(folds == 1, 1 - y, y)
    after = cross_fit_mean(z, y_changed, folds, LINEAR).values
    assert np.array_equal(before[folds == 1], after[folds == 1])
    assert not np.allclose(before[folds == 0], after[folds == 0])


def test_the_learner_that_fits_is_chosen() -> None:
    rng = np.random.default_rng(0)
    z = rng.uniform(-2, 2, size=(500, 2))
    folds = np.arange(500) % 5
    straight = cross_fit_mean(z, 0.5 + 0.1 * z[:, 0] + 0.02 * rng.normal(size=500), folds, outcome_learners())
    bent = cross_fit_mean(z, np.abs(z[:, 0]) / 2, folds, outcome_learners())
    assert (straight.chosen, bent.chosen) == ("ridge", "boosting")


def test_a_propensity_is_never_zero_or_one() -> None:
    z = np.linspace(-3, 3, 200)[:, None]
    fit = cross_fit_propensity(z, (z[:, 0] > 0).astype(float), np.arange(200) % 5, {"l": LogisticRegression(C=1e6)})
    assert fit.values.min() >= 0.01
    assert fit.values.max() <= 0.99


def test_the_tail_orders_what_the_floor_does_not() -> None:
    log10 = []
    for effect in (0.4, 0.6, 0.8):
        arrays, p = sample(n=400, effect=effect, shape="uniform", seed=1)
        result = crt(*arrays, propensity=p, redraws=99, outcome=LINEAR)
        assert result.pvalue == 0.01
        log10.append(result.log10_pvalue)
    assert log10[0] > log10[1] > log10[2]
    assert log10[0] < -3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernels": ("linaer",)}, "Did you mean 'linear'"),
        ({"kernels": ()}, "No kernel"),
        ({"combine": "mean"}, "combine is 'mean'"),
        ({"redraws": 5}, "5 redraws"),
        ({"propensity": np.zeros(400)}, r"inside \(0, 1\)"),
        ({"propensity": np.full(3, 0.5)}, "one number per image"),
        ({"contrast": ("a", "c")}, "No image has level 'c'"),
        ({"outcome": {}}, "No learner"),
        ({"treatment": LINEAR, "propensity": None}, "no method predict_proba"),
    ],
)
def test_bad_input_is_a_sentence(change: dict[str, object], words: str) -> None:
    arrays, p = sample()
    with pytest.raises(InputError, match=words):
        crt(*arrays, **({"propensity": p, "outcome": LINEAR} | change))


def test_too_few_patients_are_refused() -> None:
    arrays, p = sample(n=20)
    with pytest.raises(InputError, match="30 patients"):
        rms_lower_bound(Observations.of(*arrays), p)
    with pytest.raises(InputError, match="at least 4 patients"):
        Observations.of(*arrays, patients=np.repeat([1, 2], 10))


def test_three_levels_need_a_contrast() -> None:
    rng = np.random.default_rng(0)
    z, level, y = rng.normal(size=(90, 2)), np.repeat(["a", "b", "c"], 30), rng.random(90)
    with pytest.raises(InputError, match="3 levels"):
        Observations.of(z, level, y)
    data = Observations.of(z, level, y, contrast=("a", "c"))
    result = gcm(data, fit_nuisances(data, np.full(90, 0.5), outcome=LINEAR))
    assert result.n_images == 60
    assert result.contrast == ("a", "c")
