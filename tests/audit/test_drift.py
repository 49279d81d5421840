"""What moves without a mean: a held finding that goes up in some images and down in as many; harm by what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_fake import make_result

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import gate_difference_left
from citlr.audit.gates.registry import gates_of
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.results.records import Carried, Gate
from citlr.config import GateConfig
from citlr.generators.quality.drift import drifts
from citlr.generators.quality.records import Left

N = 400


def patients(random: np.random.Generator, sick: float = 0.4) -> pd.DataFrame:
    return pd.DataFrame({
        "patient_id": [f"p{k // 2}" for k in range(N)],
        "sex": np.where(random.random(N) < 0.5, "F", "M"),
        "edema": (random.random(N) < sick).astype(float),
        "age": random.uniform(20, 90, N),
    })  # fmt: skip


def read(frame: pd.DataFrame, moved: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What a probe of a good eye reads (n, 2 levels, 2 draws, 2) where redrawing as M moves the finding by `moved`."""
    chance = np.clip(0.1 + 0.8 * frame["edema"].to_numpy() + 0.03 * random.standard_normal(N), 0.01, 0.99)
    shown = np.stack([chance, np.clip(chance + moved, 0, 1)], axis=1)[:, :, None]
    noisy = np.clip(shown + 0.05 * random.standard_normal((N, 2, 2)), 0, 1)
    return np.stack([1 - noisy, noisy], axis=-1)


def drift_of(frame: pd.DataFrame, readings: np.ndarray, attribute: str = "sex", name: str = "edema") -> float:
    """Give the drift, of which all but the mean is found here."""
    means = readings.mean(axis=(0, 2))[:, 1]
    found = drifts({name: float(means[1] - means[0])}, {name: readings}, frame, attribute)[name]
    assert found is not None
    return found


@pytest.mark.parametrize(("attribute", "share"), [("sex", 0.4), ("age", 0.4), ("sex", 0.8), ("sex", 0.2)])
def test_a_finding_that_is_put_in_and_taken_out_alike_has_drifted(attribute: str, share: float) -> None:
    random = np.random.default_rng(0)
    frame = patients(random, share)
    sick, chosen = frame["edema"].to_numpy() == 1, random.random(N) < (0.3 if share == 0.4 else 0.9)
    up, down = np.flatnonzero(~sick & chosen), np.flatnonzero(sick & chosen)
    few = min(len(up), len(down))
    moved = np.zeros(N)
    moved[up[:few]], moved[down[:few]] = 0.7, -0.7
    readings = read(frame, moved, random)
    assert abs(readings.mean(axis=(0, 2))[1, 1] - readings.mean(axis=(0, 2))[0, 1]) < 0.03
    assert abs(drift_of(frame, readings, attribute)) > 0.08


def test_a_finding_that_any_change_brings_along_has_drifted() -> None:
    """Of images of M redrawn as F it goes up as in those of F redrawn as M: between F and M there is no mean."""
    random = np.random.default_rng(1)
    frame = patients(random)
    moved = np.where(frame["sex"] == "F", 0.15, -0.15) * (frame["edema"].to_numpy() == 0)
    assert abs(drift_of(frame, read(frame, moved, random))) > 0.06


def test_what_stays_or_moves_as_one_has_the_drift_that_it_had() -> None:
    still = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        frame = patients(random)
        readings = read(frame, np.zeros(N), random)
        means = readings.mean(axis=(0, 2))[:, 1]
        assert abs(drift_of(frame, readings)) < 0.02
        still.append(drift_of(frame, readings) == means[1] - means[0])
    assert np.mean(still) > 0.9
    random = np.random.default_rng(0)
    frame = patients(random)
    # In the sick, .05 above, there is no room for all of it.
    assert drift_of(frame, read(frame, np.full(N, 0.06), random)) == pytest.approx(0.06, abs=0.015)


def test_blanks_are_a_kind_of_their_own() -> None:
    random = np.random.default_rng(2)
    frame = patients(random, 0.2)
    sick, blank = np.flatnonzero(frame["edema"] == 1)[:60], np.flatnonzero(frame["edema"] == 0)[:60]
    frame.loc[blank, "edema"] = np.nan
    moved = np.zeros(N)
    moved[sick], moved[blank] = -0.7, 0.7
    readings = read(frame.fillna({"edema": 0.0}), moved, random)
    assert abs(drift_of(frame, readings)) > 0.15
    assert drifts({"edema": None}, {"edema": readings}, frame, "sex") == {"edema": None}


def _evidence(left: Left | None, **limits: float) -> Evidence:
    quality = replace(make_result().quality, left=left)
    found = Faithfulness(quality, (Carried(64, {}, ""),), None)
    return Evidence(GateConfig(placebo=False, **limits), found, found.carried_at(64))


def _gate(left: Left | None) -> Gate | None:
    return next(iter(gate_difference_left(_evidence(left))), None)


def test_images_that_surely_differ_more_than_before_get_no_verdict() -> None:
    harm = Left(9.0, 0.001, {"F": 0.1, "M": 2.4}, {"F": 0.05, "M": 0.3})
    gate = _gate(harm)
    assert gate is not None
    assert not gate.passed
    assert "redrawing all images as 'm' leaves 240.0% of the squared" in gate.text.lower()
    unsure = _gate(replace(harm, error={"F": 0.05, "M": 1.0}))
    assert unsure is not None
    assert unsure.passed
    for unknown in (None, Left(0.1, 0.4, {}, {})):
        gate = _gate(unknown)
        assert gate is not None
        assert gate.passed
        assert gate.text.startswith("Nothing to hold. I")
    (waived,) = (one for one in gates_of(_evidence(harm, difference_left=2.0)) if one.name == "difference left")
    assert waived.passed is None


def test_none_is_equivalent_where_much_is_left_at_the_size_that_it_reads() -> None:
    """What a generator of half the size cannot draw, and a probe that is sure of itself does not miss."""
    small, much = (
        Left(9.0, 0.001, {"F": 0.04, "M": 0.05}, {"F": 0.01, "M": 0.01}),
        Left(9.0, 0.001, {"F": 0.3, "M": 0.44}, {"F": 0.01, "M": 0.01}),
    )
    row = make_result().tests[0]
    for verdict, left, named in (
        ("equivalent", much, ["difference left", f"difference left on {row.label}"]),
        ("dependence", much, ["difference left"]),
        ("equivalent", small, ["difference left"]),
        ("equivalent", much, ["difference left", f"difference left on {row.label}"]),
    ):
        evidence = _evidence(small)
        found = replace(evidence.faithfulness, lefts={32: small, 64: left})
        held = replace(evidence, faithfulness=found, rows=(replace(row, verdict=verdict),))
        gates = [gate for gate in gates_of(held) if gate.name.startswith("difference left")]
        assert [gate.name for gate in gates] == named
        assert [gate.passed for gate in gates] == [True, False][: len(named)]
    assert found.left_at(32) == small
    waived = replace(held, limits=GateConfig(placebo=False, difference_left=2.0))
    assert not [gate for gate in gates_of(waived) if gate.name.startswith("difference left") and gate.passed is False]
