"""A propensity that is called known: of the right level, and of the levels that are there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import citlr
from citlr.errors import InputError


def world(seed: int, patients: int = 500, images: int = 1) -> dict[str, Any]:
    """Give a model that reads Z alone, levels drawn by their propensity, and that propensity."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(patients, 2))
    propensity = 1 / (1 + np.exp(-z[:, 0]))
    second = rng.random(patients) < propensity
    found = {
        "z": z,
        "attribute": np.where(second, "white", "black"),
        "prediction": 1 / (1 + np.exp(-z[:, 0])),
        "propensity": propensity,
        "patients": np.arange(patients),
    }
    return {"redraws": 99, **{name: np.repeat(values, images, axis=0) for name, values in found.items()}}


@pytest.mark.parametrize("images", [1, 3])
def test_a_propensity_of_the_other_level_is_refused(images: int) -> None:
    seen = world(1, images=images)
    with pytest.raises(InputError, match="has to be that of 'white', and it is the larger one for images of 'black'"):
        citlr.observe(**{**seen, "propensity": 1 - seen["propensity"]})
    with pytest.raises(InputError, match="has to be that of 'black'"):
        citlr.observe(**seen, contrast=("white", "black"))
    turned = citlr.observe(**{**seen, "propensity": 1 - seen["propensity"]}, contrast=("white", "black"))
    assert "does not fit" not in turned.assessments[0].reason


def test_a_propensity_that_does_not_fit_is_told() -> None:
    seen = world(2)
    whole = citlr.observe(**{**seen, "propensity": np.full(500, 0.8)}).assessments[0].reason
    assert "by it 400 of 500 images are 'white', and " in whole
    placed = citlr.observe(**{**seen, "propensity": 1 / (1 + np.exp(-3 * seen["z"][:, 0]))}).assessments[0].reason
    assert "or not those that it says" in placed


@pytest.mark.parametrize("seed", range(5))
def test_of_a_propensity_that_fits_nothing_is_told(seed: int) -> None:
    for images in (1, 4):
        reason = citlr.observe(**world(seed, patients=60, images=images)).assessments[0].reason
        assert "does not fit" not in reason


def test_a_rare_level_that_hardly_anybody_has_fits() -> None:
    seen = world(3, patients=90)
    seen["attribute"] = np.where(np.arange(90) < 1, "white", "black")
    reason = citlr.observe(**{**seen, "propensity": np.full(90, 0.04)}).assessments[0].reason
    assert "does not fit" not in reason
