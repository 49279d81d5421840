from __future__ import annotations

import numpy as np
import pytest

from citlr.invariance.generator_error import Replicates, contrast_error
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess


def responses(seed: int = 0, levels: int = 2, units: int = 400, shift: float = 0.0) -> Responses:
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.1, 0.6, (units, 1, 1, 1)) + rng.normal(0, 0.002, (units, levels, 4, 1))
    base[:, 1:] += shift
    return Responses.from_arrays(np.clip(base, 0, 1))


def unmoved(drawn: Responses, rows: np.ndarray, replicates: int = 12) -> np.ndarray:
    return np.repeat(drawn.values[rows][:, 1:, :1], replicates, axis=2)


def test_a_model_that_the_error_does_not_move_is_judged_as_before() -> None:
    drawn, rows = responses(), np.arange(0, 400, 2)
    before = assess(drawn, margin=0.02)
    after = assess(drawn, margin=0.02, replicates=Replicates(rows, unmoved(drawn, rows)))
    one, other = before.tests[0], after.tests[0]
    assert (other.mean_error, other.psi_error, other.replicates) == (0.0, 0.0, 12)
    assert one.mean_error is None
    assert (one.mean_effect, one.psi, one.equivalence_pvalue) == (
        other.mean_effect,
        other.psi,
        other.equivalence_pvalue,
    )
    assert before.verdict == after.verdict == "equivalent"


def test_an_effect_within_the_error_is_inconclusive_and_says_so() -> None:
    drawn = responses(shift=0.06)
    rows, errors = np.arange(400), np.random.default_rng(3).normal(0, 0.06, 12)
    assert assess(drawn, margin=0.02, outcome="probability").verdict == "dependence"
    moved = np.clip(drawn.values[:, 1:, :1] + errors[None, None, :, None], 0, 1)
    found = assess(drawn, margin=0.02, outcome="probability", replicates=Replicates(rows, moved))
    assert found.verdict == "inconclusive"
    assert "training sample leaves open" in found.reason
    assert found.tests[0].pvalue_adjusted < 0.05
    assert found.tests[0].mean_effect.low < 0 < found.tests[0].mean_effect.high


def test_an_equivalence_within_the_error_is_not_claimed() -> None:
    drawn = responses()
    errors = np.random.default_rng(4).normal(0, 0.02, 12)
    moved = np.clip(drawn.values[:, 1:, :1] + errors[None, None, :, None], 0, 1)
    found = assess(drawn, margin=0.02, outcome="probability", replicates=Replicates(np.arange(400), moved))
    assert found.verdict == "inconclusive"
    assert found.tests[0].equivalence_pvalue > 0.05


def test_contrasts_share_the_first_level_as_it_was_drawn() -> None:
    drawn = responses(levels=3)
    errors = np.random.default_rng(5).normal(0, 0.03, 12)
    moved = drawn.values[:, 1:, :1] + errors[None, None, :, None]
    options = {"outcome": "probability", "threshold": 0.5}
    size = [
        float(contrast_error(drawn, Replicates(np.arange(400), moved), contrast=pair, **options).mean[0])  # type: ignore[arg-type]
        for pair in ((0, 1), (0, 2), (1, 2))
    ]
    assert size[0] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-3)
    assert size[1] == pytest.approx(size[0])
    assert size[2] == pytest.approx(0.0, abs=1e-6)  # both levels are moved alike


def test_the_noise_of_a_small_sample_is_no_error() -> None:
    drawn, rng = responses(), np.random.default_rng(6)
    found = []
    for rows in (np.arange(40), np.arange(400)):
        jitter = rng.normal(0, 0.05, (len(rows), 1, 12, 1))
        moved = drawn.values[rows][:, 1:, :1] + jitter
        options = {"contrast": (0, 1), "outcome": "probability", "threshold": 0.5}
        found.append(float(contrast_error(drawn, Replicates(rows, moved), **options).mean[0]))  # type: ignore[arg-type]
    assert max(found) < 0.006  # 0.05 / sqrt(40) were 0.008


def test_only_the_moved_images_are_needed_and_their_order_does_not_matter() -> None:
    drawn, rows = responses(), np.arange(0, 400, 4)
    errors = np.random.default_rng(7).normal(0, 0.05, 12)
    moved = drawn.values[rows][:, 1:, :1] + errors[None, None, :, None]
    options = {"contrast": (0, 1), "outcome": "decision", "threshold": 0.5}
    order = np.random.default_rng(8).permutation(len(rows))
    straight = contrast_error(drawn, Replicates(rows, moved), **options)  # type: ignore[arg-type]
    shuffled = contrast_error(drawn, Replicates(rows[order], moved[order]), **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(straight.mean, shuffled.mean)
    assert straight.mean[0] > 0


@pytest.mark.parametrize(("turned", "verdict"), [(12, "inconclusive"), (48, "dependence")])
def test_without_noise_of_draws_an_effect_has_to_exceed_the_margin(turned: int, verdict: str) -> None:
    """Edits of the original are alike in all draws: the test then finds whatever turns a few decisions of 400."""
    values = np.random.default_rng(7).uniform(0.1, 0.4, (400, 1, 1, 1)) + np.zeros((400, 2, 4, 1))
    values[:turned, 1] = 0.6
    drawn, rows = Responses.from_arrays(values), np.arange(400)
    known = Replicates(rows, unmoved(drawn, rows))
    found = assess(drawn, margin=0.02, replicates=known)
    assert found.verdict == verdict
    assert found.tests[0].pvalue_adjusted < 0.001
    assert ("errors of this generator" in found.reason) == (verdict == "inconclusive")
    # Counterfactuals that are taken as they are, and draws that differ, are judged as ever.
    assert assess(drawn, margin=0.02).verdict == "dependence"
    values[:, :, 1:] += 1e-6
    differ = Responses.from_arrays(values)
    assert assess(differ, margin=0.02, replicates=Replicates(rows, unmoved(differ, rows))).verdict == "dependence"
