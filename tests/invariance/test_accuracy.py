"""Accuracy by group: scikit-learn's numbers, intervals that hold by patient, and groups that cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score, roc_auc_score

from citlr.errors import InputError
from citlr.invariance.effects.accuracy import FEWEST, MEASURES, Answers, accuracy_by_level


def simulated(patients: int, images: int, rng: np.random.Generator, *, both: bool = False) -> tuple[np.ndarray, ...]:
    """Calibrated outputs on images of patients who resemble themselves; the second level has the finding less often."""
    who = np.repeat(np.arange(patients), images)
    second = (np.arange(who.size) if both else who) % 2 == 1
    own = [rng.normal(size=patients)[who] * 0.77 + rng.normal(size=who.size) * 0.63 for _ in range(2)]
    score = special.logit(np.where(second, 0.2, 0.35)) + own[0]
    truth = (stats.norm.cdf(own[1]) < special.expit(score)).astype(float)
    return special.expit(score), truth, np.where(second, "m", "f"), who


def measured(*arrays, **changes):
    settings = {"levels": ["f", "m"], "threshold": 0.3} | changes
    groups, differences = accuracy_by_level(Answers("edema", *arrays), **settings)
    return {one.level: one for one in groups}, differences


def test_the_estimates_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    output, truth, level, who = simulated(150, 2, rng)
    output = special.expit(0.4 + 0.7 * special.logit(output))  # neither intercept nor slope is that of calibration
    found, _ = measured(output, truth, level, who)
    for name, rows in {"": level != "", "f": level == "f", "m": level == "m"}.items():
        y, has = output[rows], truth[rows]
        score = special.logit(y)[:, None]
        values = {key: one.estimate for key, one in found[name].measures.items()}
        assert values["auroc"] == pytest.approx(roc_auc_score(has, y))
        assert values["sensitivity"] == pytest.approx(recall_score(has, y >= 0.3))
        assert values["specificity"] == pytest.approx(recall_score(has, y >= 0.3, pos_label=0))
        assert values["prevalence"] == pytest.approx(has.mean())
        assert values["in_the_large"] == pytest.approx(y.mean() - has.mean())
        fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(score, has)
        assert values["slope"] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
        # Under a slope of 1, the mean of the probabilities moved by the intercept is the prevalence.
        assert special.expit(score[:, 0] + values["intercept"]).mean() == pytest.approx(has.mean())
        assert (found[name].n_images, found[name].n_patients) == (rows.sum(), np.unique(who[rows]).size)


def test_with_one_image_a_patient_a_proportion_has_wilsons_interval():
    output, truth, level, who = simulated(400, 1, np.random.default_rng(2))
    found, _ = measured(output, truth, level, who, alpha=0.05)
    own = (output >= 0.3)[(truth == 1) & (level == "f")]
    wilson = stats.binomtest(int(own.sum()), own.size).proportion_ci(method="wilson")
    value = found["f"].measures["sensitivity"]
    assert (value.low, value.high) == pytest.approx((wilson.low, wilson.high), abs=0.005)


def test_the_intervals_hold_for_images_of_the_same_patients():
    """95 % of them hold the truth: no fewer than an exact binomial bound, and no interval that is far too wide."""
    rng = np.random.default_rng(3)
    truth, differs = measured(*simulated(100_000, 2, rng, both=True))
    repeats, held = 140, {}
    for _ in range(repeats):
        found, differences = measured(*simulated(110, 2, rng, both=True))
        for name in MEASURES:
            for key, one, right in (
                ("m", found["m"].measures, truth["m"].measures),
                ("m - f", differences[0].measures, differs[0].measures),
            ):
                held.setdefault((key, name), []).append(one[name].low <= right[name].estimate <= one[name].high)
    assert set(map(len, held.values())) == {repeats}
    few = {key: sum(one) for key, one in held.items() if stats.binom.cdf(sum(one), repeats, 0.95) < 0.01 / len(held)}
    assert few == {}
    assert np.mean(list(held.values())) < 0.985


def test_patients_who_are_in_both_groups_are_not_counted_twice():
    """Each patient has an image in either group with the same answer: what remains is that Wilson's interval leans."""
    output, truth, _, who = simulated(120, 1, np.random.default_rng(4))
    twice = [np.repeat(array, 2) for array in (output, truth, who)]
    _, differences = measured(twice[0], twice[1], np.tile(["f", "m"], 120), twice[2])
    _, apart = measured(twice[0], twice[1], np.tile(["f", "m"], 120), np.arange(240))
    value, other = differences[0].measures, apart[0].measures
    for name in ("auroc", "sensitivity", "specificity", "in_the_large", "slope"):
        assert value[name].estimate == pytest.approx(0, abs=1e-9)
        assert value[name].high - value[name].low < 0.4 * (other[name].high - other[name].low)


def test_what_cannot_be_measured_is_named_and_has_no_number():
    output, truth, level, who = simulated(120, 1, np.random.default_rng(5))
    none = np.where(level == "m", 0.0, truth)
    found, differences = measured(output, none, level, who)
    assert set(found["m"].measures) == {"prevalence", "specificity"}
    assert found["m"].notes["auroc"] == "no image with the finding"
    assert "auroc" not in differences[0].measures
    assert differences[0].notes["auroc"] == "m: no image with the finding"
    gone, _ = measured(output, np.where(level == "m", np.nan, truth), level, who)
    assert gone["m"].measures == {}
    assert gone["m"].notes["prevalence"] == "no image with a known finding"
    assert gone[""].n_images == int((level == "f").sum())


def test_few_patients_give_an_estimate_without_an_interval():
    output, truth, level, who = simulated(120, 1, np.random.default_rng(6))
    cases = np.flatnonzero((level == "m") & (truth == 1))
    truth[cases[FEWEST - 1 :]] = 0
    found, differences = measured(output, truth, level, who)
    value = found["m"].measures["sensitivity"]
    assert np.isfinite(value.estimate)
    assert np.isnan([value.low, value.high]).all()
    assert found["m"].notes["sensitivity"] == "9 patients with the finding: 10 are needed for an interval"
    assert np.isfinite(found["m"].measures["specificity"].low)
    assert np.isnan(differences[0].measures["sensitivity"].low)
    assert np.isfinite(differences[0].measures["specificity"].low)


def test_decisions_and_outputs_that_say_nothing_have_no_calibration():
    output, truth, level, who = simulated(120, 1, np.random.default_rng(7))
    found, _ = measured((output >= 0.3).astype(float), truth, level, who)
    assert "slope" not in found["f"].measures
    assert "decisions" in found["f"].notes["slope"]
    assert found["f"].measures["sensitivity"].estimate < 1
    same, _ = measured(np.full(120, 0.4), truth, level, who)
    assert "all the same" in same["f"].notes["slope"]
    apart, _ = measured(0.1 + 0.8 * truth, truth, level, who)
    assert "separate" in apart["f"].notes["slope"]
    assert apart["f"].measures["auroc"].high == 1
    assert apart["f"].measures["auroc"].low < 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({0: np.full(120, 1.5)}, "outside \\[0, 1\\]"),
        ({1: np.full(120, 2.0)}, "neither 0, 1 nor NaN"),
        ({2: np.array(["f"])}, "arrays of equal length"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, says):
    arrays = dict(enumerate(simulated(120, 1, np.random.default_rng(8)))) | change
    with pytest.raises(InputError, match=says):
        measured(*arrays.values())
