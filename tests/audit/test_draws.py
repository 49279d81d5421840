"""The gate on draws that share noise: over all images, over those of a patient, or with each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from citlr.audit.conditional import audit_predictions
from citlr.audit.gates.draws import LEVEL, shared_noise
from citlr.config import TestConfig
from citlr.invariance.responses import Responses

DRAWS = 4


def test_noise_that_images_share_carries_no_verdict() -> None:
    """One seed for all images: each draw lies above or below the others as a whole, and the signs follow it."""
    random = np.random.default_rng(17)
    settings, verdicts = TestConfig(margin=0.005, randomizations=199), []
    for shared in (True, False):
        noise = random.normal(0, 0.03, (1 if shared else 250, 2, DRAWS, 1))
        responses = Responses.from_arrays(random.uniform(0.2, 0.8, (250, 1, 1, 1)) + noise)
        known = pd.DataFrame({"image_id": responses.units, "patient_id": responses.patients})
        result = audit_predictions(responses, known, settings=settings)
        (gate,) = [gate for gate in result.quality.gates if gate.name == "independent draws"]
        verdicts.append((gate.passed, "seed of its own" in gate.text))
    assert verdicts == [(False, True), (True, False)]


def test_draws_that_are_alike_or_only_rounded_share_no_noise() -> None:
    values = np.random.default_rng(18).random((400, 2, 1, 2)).repeat(3, axis=2)
    assert shared_noise(Responses.from_arrays(values))[0] == 1
    values[:, :, 1] += 1e-8
    assert shared_noise(Responses.from_arrays(np.clip(values, 0, 1)))[0] == 1


@pytest.mark.parametrize("grid", [1, 12])
def test_draws_that_share_nothing_fail_as_rarely_as_promised(grid: int) -> None:
    """Decisions and outputs of twelve steps are often alike within an image, and patients have several images."""
    random, patients = np.random.default_rng(19), np.arange(80) // 3
    chance = random.beta(0.5, 0.5, (400, 80, 1, 1, 1))
    pvalues = [
        shared_noise(Responses.from_arrays(random.binomial(grid, one, (80, 2, 4, 2)) / grid, patients=patients))[0]
        for one in chance
    ]
    assert np.sum(np.array(pvalues) < LEVEL) <= 11  # 4 expected; exact 99.9 % binomial limit


def _one_again(noise: np.ndarray, random: np.random.Generator) -> None:
    noise[:, :, 2] = noise[:, :, 0]


def _copies_in_any_order(noise: np.ndarray, random: np.random.Generator) -> None:
    noise[:, :, 2:] = noise[:, :, :2]
    noise[:] = random.permuted(noise, axis=2)


def _a_chain(noise: np.ndarray, random: np.random.Generator) -> None:
    for draw in range(1, DRAWS):
        noise[:, :, draw] = 0.8 * noise[:, :, draw - 1] + 0.6 * noise[:, :, draw]


def _of_a_patient(noise: np.ndarray, random: np.random.Generator) -> None:
    noise[1::2] = noise[::2]


@pytest.mark.parametrize("decisions", [True, False])
@pytest.mark.parametrize(
    ("share", "seen"),
    [
        (_one_again, "Draws 0 and 2 under"),
        (_copies_in_any_order, "repeat each other more often than by chance"),
        (_a_chain, "closer to each other than others are"),
        (_of_a_patient, "over the images of one patient"),
    ],
)
def test_draws_that_repeat_each_other_carry_no_verdict(
    share: Callable[[np.ndarray, np.random.Generator], None], seen: str, decisions: bool
) -> None:
    random = np.random.default_rng(21)
    noise = random.normal(0, 1, (600, 2, DRAWS))
    share(noise, random)
    values = 1 / (1 + np.exp(-noise - random.normal(0, 1, (600, 1, 1))))
    # Decisions repeat by chance, so that copies in any order do not show in them.
    tells = not decisions or share is not _copies_in_any_order
    values = (values > 0.5).astype(float) if decisions else values
    found = shared_noise(Responses.from_arrays(values, patients=np.arange(600) // 2))
    assert (found[0] < LEVEL) == tells
    assert seen in found[1] or not tells
