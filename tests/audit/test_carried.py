"""The share of the attribute that redrawn images carry, and what it does to "equivalent"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_fake import make_result

from citlr.audit.gates import registry
from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import (
    LOOK_AT_THEM,
    TRAIN_LONGER,
    gate_composition,
    gate_drift,
    gate_effectiveness,
    gate_placebo,
)
from citlr.audit.measures.carried import measure_carried
from citlr.audit.measures.covariates import coded
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.measures.readings import seen_at
from citlr.audit.results.records import Carried, Controls, Estimate, Gate, Placebo, Quality
from citlr.audit.results.verdicts import withhold
from citlr.config import GateConfig
from citlr.errors import InputError
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess
from citlr.report.page import render

LEVELS = ("F", "M")


def world(
    n: int, right: float, share: float, seed: int, *, tied: float = 0.5
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, np.ndarray]:
    """Readings of real and redrawn images by a probe that is right so often; the level goes with a held view."""
    random = np.random.default_rng(seed)
    view = random.random(n) < 0.5
    level = (random.random(n) < np.where(view, tied, 1 - tied)).astype(int)

    def read(chance_of_last: np.ndarray) -> np.ndarray:
        last = random.random(chance_of_last.shape) < chance_of_last
        return np.stack([~last, last], axis=-1).astype(float)

    wrong = 1 - right
    moved = wrong + (right - wrong) * share
    real = read(np.where(level == 1, right, wrong))
    as_first = np.where(level == 0, wrong, 1 - moved)
    as_last = np.where(level == 1, right, moved)
    redrawn = np.stack([read(np.repeat(one[:, None], 2, axis=1)) for one in (as_first, as_last)], axis=1)
    frame = pd.DataFrame({"patient_id": [f"p{k}" for k in range(n)], "view": np.where(view, "AP", "PA")})
    return real, redrawn, frame, level


def measured(real: np.ndarray, redrawn: np.ndarray, frame: pd.DataFrame, level: np.ndarray) -> Carried:
    return measure_carried(real, redrawn, frame, recorded=level, levels=LEVELS, hold=("view",), size=64)


@pytest.mark.parametrize("right", [0.73, 0.98])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_the_share_is_that_of_what_the_probe_reads_of_real_images(right: float, share: float) -> None:
    found = measured(*world(4000, right, share, 0, tied=0.8))
    for one in found.shares.values():
        assert one.estimate == pytest.approx(share, abs=0.1)
        assert one.low <= share <= one.high


def test_shares_that_are_missing_no_numbers_or_beyond_what_there_is_fail_the_gate() -> None:
    nan, fine = float("nan"), Estimate(0.9, 0.85, 0.95)
    answers = Responses.from_arrays(np.full((4, 2, 2, 1), 0.5), levels=LEVELS)
    cases = {
        "'F' is unknown": {"F": Estimate(nan, nan, nan), "M": fine},
        "'M' is unknown": {"F": fine, "M": Estimate(nan, nan, nan)},
        "under 'M' is unknown": {"F": fine},
        "'M' carry 150.0% [130.0%, 170.0%]": {"F": fine, "M": Estimate(1.5, 1.3, 1.7)},
        "less than 80% and more than 125%": {"F": fine, "M": Estimate(2.4, 0.4, 4.6)},
        "": {"F": fine, "M": Estimate(1.5, 1.1, 1.9)},  # it may be 1.25
    }
    for said, shares in cases.items():
        (gate,) = gate_effectiveness(Evidence(GateConfig(), _faithful(), Carried(64, shares), responses=answers))
        assert gate.passed == (not said), said
        assert said in gate.text


def test_images_that_have_the_level_already_do_not_count_as_carried() -> None:
    """A null intervention changes nothing: an audit over all images would call half of the attribute carried."""
    found = measured(*world(1000, 1.0, 0.0, 1))
    assert all(abs(one.estimate) < 0.05 for one in found.shares.values())


def test_the_interval_covers_and_is_never_of_width_zero() -> None:
    inside = [
        one.low <= 0.7 <= one.high
        for seed in range(60)
        for one in measured(*world(300, 0.9, 0.7, seed)).shares.values()
    ]
    assert sum(inside) >= 105  # of 120 at 95 %: fewer happen less than once in a thousand times
    perfect = measured(*world(300, 1.0, 1.0, 0))
    assert all(one.estimate == pytest.approx(1) and 0.94 < one.low < 0.99 for one in perfect.shares.values())


def test_images_of_one_patient_count_as_one() -> None:
    real, redrawn, frame, level = world(300, 0.9, 0.7, 3)
    four = pd.concat([frame] * 4, ignore_index=True)
    many = measured(np.tile(real, (4, 1)), np.tile(redrawn, (4, 1, 1, 1)), four, np.tile(level, 4))
    once = measured(real, redrawn, frame, level)
    for name in LEVELS:
        assert many.shares[name].estimate == pytest.approx(once.shares[name].estimate, abs=1e-3)
        assert many.shares[name].low == pytest.approx(once.shares[name].low, abs=0.01)


def test_of_three_levels_each_has_its_own_share() -> None:
    n, levels = 600, ("a", "b", "c")
    own = np.arange(n) % 3
    real = np.eye(3)[own]
    redrawn = np.stack([np.eye(3)[own], np.eye(3)[np.full(n, 1)], np.eye(3)[np.full(n, 2)]], axis=1)[:, :, None]
    frame = pd.DataFrame({"patient_id": [f"p{k}" for k in range(n)]})
    found = measure_carried(real, redrawn, frame, recorded=own, levels=levels, hold=(), size=64)
    assert [round(found.shares[level].estimate, 6) for level in levels] == [0, 1, 1]


def test_a_probe_that_reads_nothing_makes_the_share_unknown_and_the_gate_fail() -> None:
    found = measured(*world(400, 0.5, 1.0, 0))
    assert not found.shares
    (gate,) = gate_effectiveness(Evidence(GateConfig(), _faithful(), found))
    assert not gate.passed
    assert "no better than chance" in gate.text


def test_the_gate_holds_the_share_at_the_size_of_the_model() -> None:
    found = _faithful(Carried(64, {"F": Estimate(0.97, 0.93, 1.01), "M": Estimate(0.95, 0.9, 1.0)}),
                      Carried(224, {"F": Estimate(0.02, 0.0, 0.04), "M": Estimate(0.95, 0.9, 1.0)}))  # fmt: skip

    def gate(size: int) -> tuple[bool, str]:
        (one,) = gate_effectiveness(Evidence(GateConfig(), found, found.carried_at(size)))
        return one.passed, one.text

    assert gate(64)[0]
    assert not gate(224)[0]
    assert "At 224 pixels" in gate(224)[1]
    assert "'F'" in gate(224)[1]
    assert gate(128) == (False, "What share of the attribute the redrawn images carry is unknown. No probe read the "
                                "images at 128 pixels, the size that the model reads. Measure the quality again "
                                    "with this model (`citlr generate --force`).")  # fmt: skip


def test_a_gate_that_fails_says_what_to_do_next() -> None:
    """And one that passes does not."""
    cases = (((0.056, 0.3, 0.001), TRAIN_LONGER), ((0.02, 0.01, 0.99), None))
    for (composition, drift, pvalue), advice in cases:
        quality = Quality(composition, {}, None, None, {"edema": drift}, None, "", ())
        passed = advice is None
        evidence = Evidence(
            GateConfig(),
            replace(_faithful(), quality=quality),
            Carried(64, {"F": Estimate(0.9 if passed else 0.4, 0.3, 1.0)}),
            controls=Controls(Placebo(pvalue, 0.1, 40), (), None),
            coin_passed=passed,
            retrainable=False,
        )
        for make in (gate_composition, gate_effectiveness, gate_drift, gate_placebo):
            (gate,) = make(evidence)
            assert gate.passed == passed, gate
            assert gate.text.endswith(TRAIN_LONGER) == (not passed), gate
    poor = replace(_faithful(), quality=replace(quality, composition=0.056))
    (gate,) = gate_composition(Evidence(GateConfig(), poor, Carried(64, {})))
    assert gate.text == (
        "Redrawing an image as what it already is should change nothing; it changed by 5.6% of black-to-white, and "
        f"at most 5.0% is allowed. {TRAIN_LONGER}"
    )


def test_a_limit_is_written_as_it_was_set_and_a_number_on_its_side_of_it() -> None:
    """A gate that failed said "changed by 5.0%, and at most 5.0% is allowed", and of a limit of .805 "at least 80%"."""
    limits = GateConfig(composition=0.0512, effectiveness=0.805, drift=0.05)
    quality = Quality(0.05121, {}, None, None, {"edema": -0.050004}, None, "", ())
    shares = Carried(64, {"F": Estimate(0.80496, 0.3, 1.0)})
    evidence = Evidence(limits, replace(_faithful(), quality=quality), shares, retrainable=False)
    (left,), (carried,), (moved,) = (
        list(make(evidence)) for make in (gate_composition, gate_effectiveness, gate_drift)
    )
    assert "it changed by 5.121% of black-to-white, and at most 5.12% is allowed" in left.text
    assert "carry 80.496% [30.0%, 100.0%] of what a probe reads of real ones; at least 80.5% is needed" in carried.text
    assert "by -0.050004 in probability; at most 0.05 is allowed" in moved.text
    assert [gate.passed for gate in (left, carried, moved)] == [False, False, False]


def test_images_that_were_left_as_they_are_are_named_where_too_little_is_carried() -> None:
    for count, share in ((49, 0.4), (49, 0.9), (0, 0.4), (None, 0.4)):
        quality = replace(_faithful().quality, not_placed=count)
        evidence = Evidence(
            GateConfig(), replace(_faithful(), quality=quality), Carried(64, {"F": Estimate(share, 0.3, 1.0)})
        )
        (gate,) = gate_effectiveness(evidence)
        told = bool(count) and share < 0.8
        assert ("and are left as they are: 49." in gate.text) == told
        assert (LOOK_AT_THEM in gate.text) == told
        assert (TRAIN_LONGER in gate.text) == (share < 0.8)


def test_a_finding_that_moves_along_fails_the_gate_also_where_nobody_held_it() -> None:
    """Else a model that reads the finding only is called dependent on the attribute."""

    def gates(moved: float | None) -> list[Gate]:
        quality = Quality(0.0, {}, None, None, {"view": 0.01}, None, "", (), off_target={"edema": moved})
        found = replace(_faithful(), quality=quality)
        return list(gate_drift(Evidence(GateConfig(), found, Carried(64, {}))))

    assert [(gate.name, gate.passed) for gate in gates(-0.2)] == [("drift of view", True), ("drift of edema", False)]
    assert "generator.hold" in gates(-0.2)[1].text
    assert [gate.passed for gate in gates(0.04)] == [True, True]
    # What no probe reads was not promised to stay.
    assert [gate.name for gate in gates(None)] == ["drift of view"]


def test_gates_that_nothing_can_fail_are_waived_and_not_passed() -> None:
    found = _faithful(Carried(64, {"F": Estimate(0.1, 0.05, 0.15)}))
    found = replace(found, quality=replace(found.quality, composition=0.9, drift={"view": 0.7}))
    limits = GateConfig(composition=1, effectiveness=0, drift=1, placebo=False, agreement=0, unexplained=False,
                        draws=False, difference_left=2)  # fmt: skip
    evidence = Evidence(limits, found, found.carried_at(64), rows=make_result().tests)
    gates = registry.gates_of(evidence)
    assert {gate.name: gate.passed for gate in gates} == dict.fromkeys(
        ["composition", "effectiveness", "difference left", "drift of view", "placebo", "agreement",
         "unexplained difference", "independent draws"])  # fmt: skip
    assert "`gates.draws: false`" in gates[-1].text
    assert withhold(evidence.rows, gates) == evidence.rows
    # Who cannot toss a coin waives none.
    assert "placebo" not in [gate.name for gate in registry.gates_of(replace(evidence, tossable=False))]
    # What is not known fails, whatever the limit.
    unknown = replace(found, quality=replace(found.quality, composition=None))
    (first, *_) = registry.gates_of(replace(evidence, faithfulness=unknown))
    assert (first.name, first.passed) == ("composition", False)


def test_a_new_gate_is_a_function_and_a_line_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What withholds verdicts and what the page shows go through the registry, and ask no gate's name."""

    def gate_levels(evidence: Evidence) -> Iterator[Gate]:
        fewest = evidence.limits.probe_steps
        yield Gate("levels", len(evidence.carried.shares), fewest, False, "Too few levels carry anything.", "generator")

    monkeypatch.setattr(registry, "GATES", (*registry.GATES, gate_levels))
    found = _faithful(Carried(64, {"F": Estimate(0.97, 0.93, 1.01)}))
    gates = registry.gates_of(Evidence(GateConfig(), found, found.carried_at(64)))
    assert [gate.name for gate in gates][-1] == "levels"
    result = make_result()
    assert {row.verdict for row in withhold(result.tests, gates[-1:])} == {"inconclusive"}
    page = render(replace(result, quality=replace(result.quality, gates=gates)))
    assert page.count("Too few levels carry anything.") >= 2


def test_equivalence_is_judged_after_division_and_dependence_is_not_enlarged() -> None:
    random = np.random.default_rng(0)
    base = np.broadcast_to(random.random((600, 1, 1, 1)), (600, 2, 4, 1))
    steady = Responses.from_arrays(base, levels=LEVELS)
    whole, half = (assess(steady, margin=0.02, carried=dict.fromkeys(LEVELS, s)).tests[0] for s in (1.0, 0.45))
    assert (whole.verdict, half.verdict) == ("equivalent", "inconclusive")
    # 600 patients show that psi is below .005; over .45 squared that is above the margin.
    assert whole.equivalence_pvalue == pytest.approx(0.98**600)
    assert half.equivalence_pvalue == pytest.approx((1 - 0.02 * 0.45**2) ** 600)
    assert "at least 45.0%" in half.reason
    assert (whole.psi, whole.mean_effect, whole.pvalue) == (half.psi, half.mean_effect, half.pvalue)
    shifted = Responses.from_arrays(np.stack([base[:, 0], np.minimum(base[:, 1] + 0.05, 1)], axis=1), levels=LEVELS)
    plain, attenuated = (assess(shifted, margin=0.02, carried=dict.fromkeys(LEVELS, s)).tests[0] for s in (1.0, 0.1))
    assert (plain.verdict, plain.psi, plain.pvalue) == (attenuated.verdict, attenuated.psi, attenuated.pvalue)
    # A dependence that is significant and negligible is no accusation because the images carry little.
    few = np.array(base)
    few[:, 1][np.arange(600) < 7] = 1 - few[:, 1][np.arange(600) < 7].round()
    slight = Responses.from_arrays(few, levels=LEVELS)
    open_, weak = (assess(slight, margin=0.05, carried=dict.fromkeys(LEVELS, s)).tests[0] for s in (1.0, 0.1))
    assert (open_.verdict, weak.verdict) == ("equivalent", "inconclusive")
    assert weak.pvalue_adjusted < 0.05
    assert "as measured" in weak.reason
    with pytest.raises(InputError, match="no share for the level 'M'"):
        assess(steady, margin=0.02, carried={"F": 1.0})


def test_redrawn_images_are_seen_as_the_model_sees_them() -> None:
    images = np.random.default_rng(0).random((2, 3, 1, 1, 32, 32), dtype=np.float32)
    assert seen_at(images, 80).shape == (2, 3, 1, 1, 80, 80)
    assert np.array_equal(seen_at(images, 32), images)


def test_columns_are_coded_with_what_is_missing() -> None:
    frame = pd.DataFrame({"view": ["AP", "PA", None, "LL"], "age": np.arange(4.0), "one": ["x"] * 4,
                          "sick": [0.0, 1.0, np.nan, 1.0]})  # fmt: skip
    assert coded(frame, ["view"]).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert coded(frame, ["one"]).shape == (4, 0)
    assert coded(frame, ["sick"]).tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]
    many = pd.DataFrame({"age": [*range(20), None]}, dtype=float)
    assert coded(many, ["age"])[:, 0].mean() == pytest.approx(0, abs=1e-9)
    assert coded(many, ["age"])[-1].tolist() == [0, 1]


def _faithful(*carried: Carried) -> Faithfulness:
    return Faithfulness(Quality(0.01, {"F": 1.0, "M": 1.0}, None, 0.0, {}, None, "", ()), carried)
