"""Verdicts: precedence, adjustment, reasons, and what the rows hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from citlr.errors import InputError
from citlr.invariance.records import ContrastTest
from citlr.invariance.responses import Responses
from citlr.invariance.rows import decide
from citlr.invariance.verdict import assess, judge_together

LEVELS = ("asian", "black", "white")


@pytest.fixture(scope="module")
def mixed() -> Responses:
    """Three labels: invariant, dependent at one level, noise in few patients' images."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random((600, 1, 1, 3)), 3, axis=1).repeat(4, axis=2)
    values[:60, 2, :, 1] = 1 - values[:60, 2, :, 1]
    values[..., 2] = rng.random((600, 3, 4))
    return Responses.from_arrays(
        values, levels=LEVELS, labels=("edema", "effusion", "fracture"), attribute="race", factual=np.arange(600) % 3
    )


def rows(assessment: object, label: str) -> dict[tuple[str, str], ContrastTest]:
    return {test.contrast: test for test in assessment.tests if test.label == label}  # type: ignore[attr-defined]


def test_each_label_gets_its_verdict_and_the_worst_is_the_whole(mixed: Responses) -> None:
    found = assess(mixed, margin=0.02, randomizations=999)
    assert len(found.tests) == 9
    assert {t.verdict for t in rows(found, "edema").values()} == {"equivalent"}
    effusion = rows(found, "effusion")
    assert effusion[("asian", "black")].verdict == "equivalent"
    assert effusion[("asian", "white")].verdict == effusion[("black", "white")].verdict == "dependence"
    assert {t.verdict for t in rows(found, "fracture").values()} == {"inconclusive"}
    assert found.verdict == "dependence"
    assert "effusion" in found.reason
    omnibus = {row.label: row for row in found.omnibus}
    assert omnibus["edema"].pvalue == 1.0
    assert omnibus["effusion"].pvalue == 0.001
    assert omnibus["fracture"].pvalue > 0.01


def test_rows_are_complete_and_plain(mixed: Responses) -> None:
    found = assess(mixed, margin=0.02, randomizations=99)
    for test in found.tests:
        for name, value in dataclasses.asdict(test).items():
            assert not isinstance(value, np.generic), name
            if isinstance(value, float):
                assert np.isfinite(value), name
        assert test.pvalue <= test.pvalue_screening <= test.pvalue_adjusted <= 1
        assert test.psi.low <= test.psi.high
        assert test.method == "randomization_sign_flip"
        assert (test.n_images, test.n_patients, test.draws, test.margin) == (600, 600, 4, 0.02)
        assert test.label in test.reason
    frame = found.to_frame()
    assert len(frame) == 9
    assert {"psi_low", "mean_effect_high", "attribute", "reason"} <= set(frame.columns)


def test_two_levels_have_no_omnibus(mixed: Responses) -> None:
    two = Responses.from_arrays(mixed.values[:, :2], levels=LEVELS[:2])
    assert assess(two, margin=0.02, randomizations=99).omnibus == ()


def test_negligible_but_significant_is_equivalent_and_says_so() -> None:
    values = np.zeros((20_000, 2, 4, 1))
    values[:40, 1] = 1.0
    test = assess(Responses.from_arrays(values), margin=0.02).tests[0]
    assert test.pvalue_adjusted < 0.05
    assert test.verdict == "equivalent"
    assert "significant, but shown to be negligible" in test.reason


def test_the_family_grows_with_attributes() -> None:
    values = np.zeros((50, 2, 4, 1))
    values[:6, 1] = 1.0
    one = assess(Responses.from_arrays(values), margin=0.02, randomizations=999)
    assert one.verdict == "dependence"
    p = one.tests[0].pvalue
    many = judge_together([one] * 60)
    assert many[0].tests[0].pvalue_adjusted == pytest.approx(60 * p)
    assert many[0].tests[0].pvalue_screening == pytest.approx(p)
    assert many[0].verdict == "inconclusive"
    with pytest.raises(InputError, match="one alpha"):
        judge_together([])


def test_many_labels_and_levels_leave_a_dependence_to_be_found() -> None:
    """Holm multiplies by the number of tests: so many randomisations are drawn that one can still be significant."""
    values = np.repeat(np.repeat(np.random.default_rng(3).random((120, 1, 1, 24)), 5, axis=1), 2, axis=2)
    values[:, 4] = np.minimum(values[:, 4] + 0.4, 1)
    found = assess(Responses.from_arrays(values), margin=0.02, randomizations=99)
    assert len(found.tests) == 240
    assert {test.verdict for test in found.tests if "level4" in test.contrast} == {"dependence"}
    with pytest.raises(InputError, match=r"240 tests at an alpha of 1e-05 take .* test fewer labels"):
        assess(Responses.from_arrays(values), margin=0.02, alpha=1e-5)


def test_what_could_have_been_found_allows_for_the_other_tests() -> None:
    values = (np.random.default_rng(4).random((300, 2, 4, 12)) < 0.05).astype(float)
    one, many = (assess(Responses.from_arrays(values[..., :k]), margin=0.02, randomizations=999) for k in (1, 12))
    assert many.tests[0].detectable_effect > 1.2 * one.tests[0].detectable_effect


def test_methods_are_named(mixed: Responses) -> None:
    found = assess(mixed, margin=0.02, randomizations=99, shared_seeds=False)
    assert {t.method for t in found.tests} == {"randomization_permutation"}


def test_same_seed_same_assessment(mixed: Responses) -> None:
    one, same = (assess(mixed, margin=0.02, randomizations=99, seed=3) for _ in range(2))
    assert one == same


def test_a_pvalue_is_written_on_its_side_of_alpha(mixed: Responses) -> None:
    """A dependence at p = .0496 said "adjusted p = 0.05", which is not below an alpha of .05."""
    row = rows(assess(mixed, margin=0.02, randomizations=99), "effusion")["asian", "white"]
    row = dataclasses.replace(row, log10_pvalue=-1.3)
    for pvalue, shown in ((0.0496, "0.0496"), (0.0304, "0.03"), (0.0499996, "0.0499996"), (0.0504, "0.0504")):
        _, reason = decide(dataclasses.replace(row, pvalue_adjusted=pvalue), 0.05)
        assert f"adjusted p = {shown}" in reason


def test_the_tail_is_told_where_the_pvalue_is_at_its_floor() -> None:
    values = np.zeros((500, 2, 4, 1))
    values[:100, 1] = 1.0
    test = assess(Responses.from_arrays(values), margin=0.02, randomizations=199).tests[0]
    assert test.log10_pvalue < -10
    assert "about 1e-" in test.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "margin is 0"),
        ({"margin": 0.02, "alpha": 0.0}, "alpha is 0"),
        ({"margin": 0.02, "alpha": 5}, "alpha is 5"),
        ({"margin": 0.02, "outcome": "decisions"}, "Did you mean 'decision'"),
        ({"margin": 0.02, "threshold": 2.0}, "threshold=2.0: it should be less than or equal to 1"),
        ({"margin": 0.02, "threshold": {"edma": 0.5}}, "No threshold for the label 'edema'"),
        ({"margin": 0.02, "randomizations": 9}, "19 or more"),
    ],
)
def test_bad_settings(mixed: Responses, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assess(mixed, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("threshold", "verdict"), [(0.5, "inconclusive"), (0.2, "dependence")])
def test_no_model_is_equivalent_whose_decisions_are_all_alike(threshold: float, verdict: str) -> None:
    """A network of a rare finding that never says more than .4, though it adds .1 to every second level."""
    random = np.random.default_rng(0)
    base = np.broadcast_to(random.uniform(0.05, 0.3, (600, 1, 1, 1)), (600, 2, 4, 1))
    shifted = Responses.from_arrays(base + np.array([0.0, 0.1]).reshape(1, 2, 1, 1))
    found = assess(shifted, margin=0.02, threshold=threshold)
    assert found.verdict == verdict
    assert ("operating point" in found.reason) is (verdict == "inconclusive")
    assert assess(shifted, margin=0.02, outcome="probability").verdict == "dependence"


@pytest.mark.parametrize("outlier", [False, True])
def test_probabilities_without_room_do_not_stand_in_for_decisions_that_are_all_alike(outlier: bool) -> None:
    """A rare finding, of which the model never says more than .01, and a tenth of that for one of the levels."""
    random = np.random.default_rng(0)
    rare = random.uniform(0, 0.01, (600, 1, 1, 1)) * np.array([1, 0.1]).reshape(1, 2, 1, 1)
    rare[0] = 0.4 if outlier else rare[0]
    responses = Responses.from_arrays(np.broadcast_to(rare, (600, 2, 4, 1)))
    found = assess(responses, margin=0.05)
    assert found.verdict == "inconclusive"
    assert "operating point" in found.reason
    assert assess(responses, margin=0.05, threshold=0.005).verdict == "dependence"


def test_equivalence_needs_room_for_an_effect() -> None:
    """What says the same of every image depends on nothing, and decisions have no other threshold."""
    random = np.random.default_rng(0)
    still = Responses.from_arrays(np.broadcast_to(random.uniform(0.05, 0.3, (600, 1, 1, 1)), (600, 2, 4, 1)))
    few = Responses.from_arrays(np.broadcast_to((random.random((2000, 1, 1, 1)) < 0.005) * 1.0, (2000, 2, 4, 1)))
    same = Responses.from_arrays(np.full((600, 2, 4, 1), 0.3))
    for responses in (still, few, same):
        assert assess(responses, margin=0.02).verdict == "equivalent"
        assert assess(responses, margin=0.02, outcome="probability").verdict == "equivalent"
    # One output of exactly 0 and one of exactly 1 are no threshold's worth of room.
    wide = random.uniform(0.05, 0.3, (600, 1, 1, 1)) + np.array([0.0, 0.1]).reshape(1, 2, 1, 1)
    wide[0], wide[1] = 0.0, 1.0
    assert assess(Responses.from_arrays(np.broadcast_to(wide, (600, 2, 4, 1))), margin=0.02).verdict == "inconclusive"
    close = random.uniform(0.5, 0.51, (600, 1, 1, 1)) * np.array([0.9, 0.91]).reshape(1, 2, 1, 1)
    found = assess(Responses.from_arrays(np.broadcast_to(close, (600, 2, 4, 1))), margin=0.02, outcome="probability")
    assert found.verdict == "inconclusive"
    assert "smaller margin" in found.reason


def test_probabilities_that_move_both_ways_are_not_equivalent() -> None:
    """Their psi, a mean square, is held against the square of the margin: 9 points up or down are more than 2."""
    rng = np.random.default_rng(5)
    base, step = rng.uniform(0.3, 0.7, (800, 1, 1, 1)), rng.choice([-0.09, 0.09], (800, 1, 1, 1))
    values = np.concatenate([base, base + step], axis=1).repeat(4, axis=2) + rng.normal(0, 0.01, (800, 2, 4, 1))
    for size, verdict in ((1.0, "dependence"), (0.1, "equivalent")):
        moved = values[:, :1] + size * (values - values[:, :1])
        assert assess(Responses.from_arrays(moved), margin=0.02, outcome="probability").verdict == verdict


@pytest.mark.parametrize(("patients", "share", "margin"), [(70, 0.03, 0.02), (45, 0.05, 0.04)])
def test_a_rare_kind_of_patient_is_not_ruled_out_by_few(patients: int, share: float, margin: float) -> None:
    """A true mean beyond the margin, in patients of whom chance may have met none."""
    rng, equivalent = np.random.default_rng(6), 0
    for seed in range(80):
        values = rng.uniform(0.05, 0.1, (patients, 1, 1, 1)) + rng.normal(0, 0.004, (patients, 2, 4, 1))
        values[rng.random(patients) < share, 1] += 0.85
        found = assess(
            Responses.from_arrays(np.clip(values, 0, 1)),
            margin=margin,
            outcome="probability",
            randomizations=99,
            seed=seed,
        )
        equivalent += found.verdict == "equivalent"
    assert equivalent <= 12  # a chance of .001 at 5 %
