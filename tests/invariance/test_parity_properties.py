"""Whatever the data, parity results are proper, symmetric in the levels and blind to the order of the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citlr.invariance.parity import (
    auroc_gap,
    demographic_parity,
    equal_opportunity,
    equalised_odds,
    predictive_equality,
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(2, 40))
    values = st.sampled_from([0.0, 1.0, 0.5]) if draw(st.booleans()) else st.floats(0, 1, width=32)
    rest = st.lists(st.sampled_from(["f", "m"]), min_size=n - 2, max_size=n - 2)
    return {
        "prediction": np.array(draw(st.lists(values, min_size=n, max_size=n))),
        "level": np.array(["f", "m", *draw(rest)]),
        "outcome": np.array(draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=n, max_size=n))),
        "patients": np.array(draw(st.lists(st.integers(0, 15), min_size=n, max_size=n))),
    }


def run_all(t: dict[str, Any], contrast: tuple[str, str] = ("f", "m")) -> list[Any]:
    return [
        demographic_parity(t["prediction"], t["level"], t["patients"], contrast=contrast),
        *(test(**t, contrast=contrast) for test in (equal_opportunity, predictive_equality, equalised_odds, auroc_gap)),
    ]


@settings(max_examples=60, deadline=None)
@given(tables())
def test_every_result_is_proper(t: dict[str, Any]) -> None:
    for result in run_all(t):
        assert 0 < result.pvalue <= 1
        assert -1 - 1e-9 <= result.low <= result.estimate + 1e-9
        assert result.estimate - 1e-9 <= result.high <= 1 + 1e-9
        assert np.isfinite(result.statistic)


@settings(max_examples=40, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_images_and_names_of_patients_do_not_matter(t: dict[str, Any], random: Any) -> None:
    order = list(range(len(t["level"])))
    random.shuffle(order)
    other = {key: value[order] for key, value in t.items()}
    other["patients"] = np.array([f"patient {97 * p % 16}" for p in other["patients"]])
    for one, two in zip(run_all(t), run_all(other), strict=True):
        assert one.pvalue == pytest.approx(two.pvalue, rel=1e-6)
        assert one.estimate == pytest.approx(two.estimate, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_the_reverse_contrast_is_the_mirror_image(t: dict[str, Any]) -> None:
    for one, two in zip(run_all(t), run_all(t, ("m", "f")), strict=True):
        assert one.pvalue == pytest.approx(two.pvalue, rel=1e-6)
        assert abs(one.estimate) == pytest.approx(abs(two.estimate), abs=1e-9)
        if one.estimate != 0:
            assert np.sign(one.estimate) == -np.sign(two.estimate) or one.strata
