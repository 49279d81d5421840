"""Models that make nothing of the attribute, moved by the error of a generator that learnt from a finite sample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from citlr.invariance.generator_error import Replicates
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import Assessment, assess

IMAGES, DRAWS, REPLICATES, REPEATS = 150, 4, 12, 120
ERROR = 0.4  # of the logit, as large as the spread of what the model goes by


def audit(rng: np.random.Generator, *, outcome: str, true: float, told: bool) -> Assessment:
    """Audit a model whose logit the attribute moves by `true`, and the generator's error by as much again and again."""
    logit = rng.normal(0, 1.0, (IMAGES, 1, 1, 1))
    noise = rng.normal(0, 0.05, (IMAGES, 1, DRAWS, 1))
    # What is wrong on average is wrong in every image, more or less.
    error, share = rng.normal(0, ERROR), rng.uniform(0.5, 1.5, (IMAGES, 1, 1, 1))
    level = np.array([0.0, 1.0])[None, :, None, None]
    drawn = logit + noise + level * (true + error * share)
    moved = drawn[:, 1:, :1] + rng.normal(0, ERROR, REPLICATES)[None, None, :, None] * share
    values, others = (1 / (1 + np.exp(-one)) for one in (drawn, moved))
    return assess(
        Responses.from_arrays(values),
        margin=0.02,
        outcome=outcome,  # type: ignore[arg-type]
        randomizations=199,
        seed=int(rng.integers(2**31)),
        replicates=Replicates(np.arange(IMAGES), others) if told else None,
    )


@pytest.mark.parametrize("outcome", ["probability", "decision"])
def test_innocent_models_are_rarely_accused_once_the_error_is_known(outcome: str) -> None:
    rng = np.random.default_rng(1)
    found = [audit(rng, outcome=outcome, true=0.0, told=True) for _ in range(REPEATS)]
    accused = sum(one.verdict == "dependence" for one in found)
    covered = sum(one.tests[0].mean_effect.low <= 0 <= one.tests[0].mean_effect.high for one in found)
    assert accused <= stats.binom.isf(0.001, REPEATS, 0.05)
    assert covered >= stats.binom.ppf(0.001, REPEATS, 0.95)
    # Without it most of them are: the 5 % of the test hold for the generator as it is, and it is wrong.
    untold = [audit(rng, outcome=outcome, true=0.0, told=False) for _ in range(30)]
    assert sum(one.verdict == "dependence" for one in untold) > 15


def test_a_dependence_beyond_the_error_is_still_found() -> None:
    rng = np.random.default_rng(2)
    found = [audit(rng, outcome="decision", true=2.0, told=True).verdict == "dependence" for _ in range(40)]
    assert np.mean(found) > 0.9
