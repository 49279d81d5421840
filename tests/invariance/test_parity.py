"""Parity baselines: exact against Welch and DeLong, honest where the data are degenerate, clustered by patient."""

from __future__ import annotations

from types import SimpleNamespace as Namespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from citlr.audit.results.statistics import baselines
from citlr.config import TestConfig
from citlr.errors import InputError
from citlr.invariance.parity import (
    auroc_gap,
    demographic_parity,
    equal_opportunity,
    equalised_odds,
    predictive_equality,
)
from citlr.invariance.responses import Responses

SEX = ("female", "male")


def levels(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.4, *SEX)


def test_one_image_per_patient_is_welch() -> None:
    rng = np.random.default_rng(0)
    y, level = rng.random(83), levels(rng, 83)
    result = demographic_parity(y, level, np.arange(83), contrast=SEX)
    other = stats.ttest_ind(y[level == "male"], y[level == "female"], equal_var=False)
    interval = other.confidence_interval(0.95)
    assert result.statistic == pytest.approx(other.statistic, rel=1e-10)
    assert result.pvalue == pytest.approx(other.pvalue, rel=1e-10)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-10)


def test_reversing_the_contrast_changes_the_sign_only() -> None:
    rng = np.random.default_rng(1)
    y, level, who = rng.random(60), levels(rng, 60), rng.integers(0, 25, 60)
    one = demographic_parity(y, level, who, contrast=SEX)
    two = demographic_parity(y, level, who, contrast=SEX[::-1])
    assert one.pvalue == pytest.approx(two.pvalue)
    assert (one.estimate, one.low, one.high) == pytest.approx((-two.estimate, -two.high, -two.low))


def test_copies_of_an_image_add_nothing() -> None:
    rng = np.random.default_rng(2)
    y, level = rng.random(50), levels(rng, 50)
    single = demographic_parity(y, level, np.arange(50), contrast=SEX)
    copied = demographic_parity(np.tile(y, 5), np.tile(level, 5), np.tile(np.arange(50), 5), contrast=SEX)
    assert copied.n_images == 250
    assert copied.n_patients == 50
    assert copied.pvalue == pytest.approx(single.pvalue, rel=0.02)


def test_size_holds_with_four_images_per_patient_where_images_as_units_fail() -> None:
    rng = np.random.default_rng(3)
    ours, naive, reps = 0, 0, 1500
    for _ in range(reps):
        level = np.repeat(levels(rng, 60), 4)
        y = np.clip(np.repeat(rng.normal(0.5, 0.12, 60), 4) + rng.normal(0, 0.05, 240), 0, 1)
        ours += demographic_parity(y, level, np.repeat(np.arange(60), 4), contrast=SEX).pvalue < 0.05
        naive += stats.ttest_ind(y[level == "male"], y[level == "female"], equal_var=False).pvalue < 0.05
    assert stats.binomtest(ours, reps, 0.05, alternative="greater").pvalue > 0.0005
    assert naive / reps > 0.2


def test_patients_seen_at_both_levels_are_paired() -> None:
    rng = np.random.default_rng(4)
    patient = rng.normal(0.5, 0.1, 200)
    y = np.concatenate([patient, patient + 0.01 + rng.normal(0, 0.005, 200)]).clip(0, 1)
    level, who = np.repeat(SEX, 200), np.tile(np.arange(200), 2)
    paired = stats.ttest_rel(y[200:], y[:200])
    result = demographic_parity(y, level, who, contrast=SEX)
    assert result.statistic == pytest.approx(paired.statistic, rel=1e-9)
    assert result.pvalue == pytest.approx(paired.pvalue, rel=1e-9)


def test_the_same_output_everywhere_gives_one_and_says_so() -> None:
    result = demographic_parity(np.zeros(40), np.repeat(SEX, 20), np.arange(40), contrast=SEX)
    assert result.pvalue == 1.0
    assert "same for every patient" in result.note
    assert result.low < -0.2  # twenty zeros do not prove that the rate is zero
    assert result.high > 0.2


def test_one_value_per_level_is_not_called_parity() -> None:
    y, level = np.repeat([0.0, 1.0], 6), np.repeat(SEX, 6)
    result = demographic_parity(y, level, np.arange(12), contrast=SEX)
    assert result.estimate == 1.0
    assert result.pvalue < 0.02
    assert 0 < result.low < 0.5
    assert np.isfinite(result.statistic)


def test_one_patient_at_a_level_gives_one_and_the_counts() -> None:
    result = demographic_parity([0.1, 0.9, 0.4], ["female", "male", "female"], ["a", "b", "c"], contrast=SEX)
    assert result.pvalue == 1.0
    assert "male: 1" in result.note


def test_opportunity_holds_where_parity_fails_by_confounding() -> None:
    rng = np.random.default_rng(5)
    level = levels(rng, 4000)
    truth = (rng.random(4000) < np.where(level == "male", 0.7, 0.3)).astype(float)
    y = np.clip(0.3 + 0.4 * truth + rng.normal(0, 0.05, 4000), 0, 1)
    who = np.arange(4000)
    assert demographic_parity(y, level, who, contrast=SEX).pvalue < 1e-6
    assert equal_opportunity(y, level, truth, who, contrast=SEX).pvalue > 0.05


@pytest.mark.parametrize("gap", [0, 1])
def test_opportunity_is_of_those_with_the_finding_and_predictive_equality_of_those_without(gap: int) -> None:
    level, truth = np.tile(SEX, 300), np.repeat([0.0, 1.0], 300)
    y = np.where(truth == 1, 1.0, 0.0)
    wrong = (truth == gap) & (level == "male") & (np.arange(600) % 4 == 1)
    y[wrong] = 1 - y[wrong]
    tests = (predictive_equality, equal_opportunity)
    found = [test(y, level, truth, np.arange(600), contrast=SEX) for test in tests]
    for outcome, one in enumerate(found):
        own = truth == outcome
        expected = y[own & (level == "male")].mean() - y[own & (level == "female")].mean()
        alone = demographic_parity(y[own], level[own], np.arange(600)[own], contrast=SEX)
        assert one.estimate == pytest.approx(expected)
        assert (one.pvalue, one.low, one.high, one.n_images) == (alone.pvalue, alone.low, alone.high, 300)
    assert found[gap].pvalue < 0.001 < found[1 - gap].pvalue
    assert found[1 - gap].estimate == 0


def test_an_audit_has_a_row_for_those_with_the_finding_and_one_for_those_without() -> None:
    level, truth = np.tile(SEX, 60), np.repeat([0.0, 1.0, np.nan], 40)
    output = np.where((truth == 0) & (level == "male"), 0.9, 0.1)
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(120)], "patient_id": np.arange(120).astype(str)})
    responses = Responses.from_arrays(
        np.full((120, 2, 2, 1), 0.5), levels=SEX, labels=["edema"], units=frame["image_id"],
        patients=frame["patient_id"], factual=(level == "male").astype(int), original=output[:, None],
    )  # fmt: skip
    rows = baselines(responses, Namespace(frame=frame.assign(edema=truth)), settings=TestConfig(margin=0.05))
    found = {row.method: row for row in rows}
    assert list(found) == ["demographic_parity", "equal_opportunity", "predictive_equality"]
    assert found["equal_opportunity"].pvalue == 1
    assert found["equal_opportunity"].difference.estimate == 0
    assert found["predictive_equality"].pvalue < 1e-5
    assert found["predictive_equality"].difference.estimate == 1


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_level_of_which_hardly_any_image_has_the_label_leaves_its_gaps_open(known: int) -> None:
    level, truth = np.tile(SEX, 60), np.repeat([0.0, 1.0], 60)
    truth[np.flatnonzero(level == "male")[known:]] = np.nan
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(120)], "patient_id": np.arange(120).astype(str)})
    responses = Responses.from_arrays(
        np.full((120, 2, 2, 1), 0.5), levels=SEX, labels=["edema"], units=frame["image_id"],
        patients=frame["patient_id"], factual=(level == "male").astype(int), original=np.linspace(0, 1, 120)[:, None],
    )  # fmt: skip
    rows = baselines(responses, Namespace(frame=frame.assign(edema=truth)), settings=TestConfig())
    assert [row.method for row in rows] == ["demographic_parity", "equal_opportunity", "predictive_equality"]
    for row, count in zip(rows[1:], (0, known), strict=True):
        assert row.pvalue == 1
        assert f"{60 - known} images without a known outcome left out" in row.note
        assert count == 2 or f"too few patients to compare (female: 30, male: {count})" in row.note


def test_combined_odds_are_the_extreme_stratum_and_agrees_with_its_interval() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        level, truth = levels(rng, 120), (rng.random(120) < 0.5).astype(float)
        y = (rng.random(120) < 0.5 + 0.25 * (level == "male") * truth).astype(float)
        result = equalised_odds(y, level, truth, rng.integers(0, 80, 120), contrast=SEX)
        smallest = min(result.strata, key=lambda s: s.pvalue)
        assert result.estimate == smallest.estimate
        assert result.pvalue == pytest.approx(min(1, 2 * smallest.pvalue))
        assert (result.pvalue < 0.05) == (result.low > 0 or result.high < 0)


def test_odds_size_under_both_nulls() -> None:
    rng = np.random.default_rng(7)
    reps, rejected = 1500, 0
    for _ in range(reps):
        level, truth = levels(rng, 150), (rng.random(150) < 0.4).astype(float)
        y = (rng.random(150) < 0.2 + 0.5 * truth).astype(float)
        rejected += equalised_odds(y, level, truth, np.arange(150), contrast=SEX).pvalue < 0.05
    assert stats.binomtest(rejected, reps, 0.05, alternative="greater").pvalue > 0.0005
    assert rejected / reps > 0.02


def test_unknown_outcomes_are_counted_not_hidden() -> None:
    rng = np.random.default_rng(8)
    truth = np.array([0.0, 1.0, np.nan] * 20)
    result = equal_opportunity(rng.random(60), levels(rng, 60), truth, np.arange(60), contrast=SEX)
    assert result.n_images == 20
    assert "20 images without a known outcome" in result.note
    assert equalised_odds(rng.random(60), levels(rng, 60), truth, np.arange(60), contrast=SEX).n_images == 40


def test_a_stratum_without_patients_is_named() -> None:
    rng = np.random.default_rng(9)
    arrays = (rng.random(40), np.repeat(SEX, 20), np.zeros(40), np.arange(40))
    result = equalised_odds(*arrays, contrast=SEX)
    assert "outcome 1 has too few patients" in result.note
    assert result.pvalue == result.strata[0].pvalue
    assert result.strata[1].pvalue == 1.0
    alone = equal_opportunity(*arrays, contrast=SEX)
    assert alone.pvalue == 1.0
    assert "too few patients to compare (female: 0, male: 0)" in alone.note


def test_odds_are_of_decisions() -> None:
    level, truth = np.tile(SEX, 50), np.repeat([0.0, 1.0], 50)
    y = np.where((level == "male") & (truth == 1), 0.49, 0.51)
    result = equalised_odds(y, level, truth, np.arange(100), contrast=SEX)
    assert result.strata[0].estimate == 0.0
    assert result.estimate == result.strata[1].estimate == -1.0
    assert equalised_odds(y, level, truth, np.arange(100), contrast=SEX, threshold=0.4).pvalue == 1.0


def test_auroc_gap_matches_delong_by_hand() -> None:
    rng = np.random.default_rng(10)
    n = 160
    level, truth = levels(rng, n), (rng.random(n) < 0.5).astype(float)
    y = np.round(np.clip(0.4 + 0.2 * truth + rng.normal(0, 0.2, n), 0, 1), 2)  # rounded: ties
    areas, variances = [], []
    for name in SEX:
        cases, controls = y[(level == name) & (truth == 1)], y[(level == name) & (truth == 0)]
        wins = (cases[:, None] > controls) + 0.5 * (cases[:, None] == controls)
        areas.append(wins.mean())
        variances.append(wins.mean(1).var(ddof=1) / cases.size + wins.mean(0).var(ddof=1) / controls.size)
    result = auroc_gap(y, level, truth, np.arange(n), contrast=SEX)
    assert result.estimate == pytest.approx(areas[1] - areas[0])
    assert result.statistic == pytest.approx((areas[1] - areas[0]) / np.sqrt(sum(variances)))


@pytest.mark.parametrize(("few", "many", "rate"), [(25, 450, 0.04), (60, 700, 0.02), (20, 500, 0.1)])
def test_a_small_group_in_which_what_is_rare_was_not_met_is_no_evidence(few: int, many: int, rate: float) -> None:
    """Under exact parity: where nobody of the small group is positive, its variance is 0 and knows nothing."""
    rng = np.random.default_rng(11)
    level = np.array(["female"] * few + ["male"] * many)
    truth, patients = (np.arange(few + many) % 2).astype(float), np.arange(few + many)
    rejected = {"parity": 0, "opportunity": 0}
    for _ in range(200):
        y = (rng.random(few + many) < rate).astype(float)
        whole = demographic_parity(y, level, patients, contrast=SEX)
        assert (whole.pvalue < 0.05) == (not whole.low <= 0 <= whole.high)
        rejected["parity"] += whole.pvalue < 0.05
        rejected["opportunity"] += equal_opportunity(y, level, truth, patients, contrast=SEX).pvalue < 0.05
    assert max(rejected.values()) <= 20  # more than 20 of 200 have a chance of .001 at 5 %


def test_p_and_interval_never_contradict_each_other() -> None:
    rng = np.random.default_rng(13)
    for _ in range(400):
        n = int(rng.integers(8, 70))
        level = np.where(rng.random(n) < rng.uniform(0.2, 0.8), *SEX)
        if len(set(level)) < 2:
            continue
        truth, patients = (rng.random(n) < 0.5).astype(float), rng.integers(0, n, n)
        for y in ((rng.random(n) < rng.random()).astype(float), np.clip(rng.normal(0.1, 0.2, n), 0, 1)):
            found = equal_opportunity(y, level, truth, patients, contrast=SEX)
            assert (found.pvalue < 0.05) == (not found.low <= 0 <= found.high)


def test_an_area_of_one_in_a_small_group_is_no_evidence() -> None:
    rng = np.random.default_rng(12)
    level = np.array(["female"] * 30 + ["male"] * 400)
    rejected = 0
    for _ in range(150):
        truth = (rng.random(430) < 0.3).astype(float)
        y = 1 / (1 + np.exp(-(rng.normal(size=430) + 2.5 * truth)))
        gap = auroc_gap(y, level, truth, np.arange(430), contrast=SEX)
        assert (gap.pvalue < 0.05) == (not gap.low <= 0 <= gap.high)
        rejected += gap.pvalue < 0.05
    assert rejected <= 17


def test_a_difference_of_rare_decisions_is_still_found() -> None:
    level = np.array(["female"] * 200 + ["male"] * 200)
    y = (np.arange(400) >= 340).astype(float)  # 0 and 30 %
    found = demographic_parity(y, level, np.arange(400), contrast=SEX)
    assert found.pvalue < 1e-6
    assert 0.2 < found.low < 0.3 < found.high < 0.4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": [0.1, np.nan, 0.3, 0.4]}, "1 predictions are missing"),
        ({"prediction": [0.1, 1.2, 0.3, 0.4]}, "outside"),
        ({"prediction": [0.1, 0.3, 0.4]}, "equal length"),
        ({"contrast": ("female", "mail")}, "Did you mean 'male'"),
        ({"alpha": 5.0}, "alpha must lie between 0 and 1"),
        ({"contrast": ("male", "male")}, "two different levels"),
        ({"outcome": [0, 1, 2, 0]}, "neither 0, 1 nor NaN"),
    ],
)
def test_bad_input_is_a_sentence(change: dict[str, object], words: str) -> None:
    good = {
        "prediction": [0.1, 0.2, 0.3, 0.4],
        "level": ["female", "female", "male", "male"],
        "outcome": [0, 1, 0, 1],
        "patients": [1, 2, 3, 4],
        "contrast": SEX,
    }
    with pytest.raises(InputError, match=words):
        equal_opportunity(**(good | change))
