"""The dose-response: bands that hold for all values at once, the largest change, and responses to a number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.effects.clusters import Clusters
from citlr.invariance.effects.doses import dose_response, simultaneous_alpha
from citlr.invariance.generator_error import Replicates
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess

AGES = ("30", "45", "60", "75")
RISE = np.array([0.0, 0.02, 0.08, 0.05])


def world(seed: int, *, patients: int = 150, rise: np.ndarray = RISE) -> Responses:
    """Two images per patient, whose response to age differs by patient; a probability that rises and falls."""
    rng = np.random.default_rng(seed)
    own = np.repeat(rng.normal(1.0, 0.6, patients), 2)
    base = np.repeat(rng.uniform(0.2, 0.7, patients), 2) + rng.uniform(0, 0.1, 2 * patients)
    wiggle = np.repeat(rng.normal(0, 0.05, (patients, len(rise))), 2, axis=0) * (rise != rise[0])
    noise = rng.normal(0, 0.01, (2 * patients, len(rise), 2))
    values = np.clip(base[:, None, None] + (own[:, None] * rise + wiggle)[:, :, None] + noise, 0, 1)
    return Responses.from_arrays(
        values, patients=np.repeat(np.arange(patients), 2), levels=AGES[: len(rise)], number=True
    )


def test_bands_cover_the_whole_curve_and_the_largest_change() -> None:
    runs, inside, largest, single = 300, 0, 0, 0
    for seed in range(runs):
        curve = dose_response(world(seed), outcome="probability", bootstraps=400, seed=seed)[0]
        bands = [one.change for one in curve.points[1:]]
        within = [band.low <= true <= band.high for band, true in zip(bands, RISE[1:], strict=True)]
        inside += all(within)
        single += within[0]
        a, b = (AGES.index(name) for name in curve.contrast)
        largest += curve.largest.low <= RISE[b] - RISE[a] <= curve.largest.high
    # No fewer than an exact 99.9 % bound of 95 % coverage; and together no more than any single band does.
    fewest = stats.binom.ppf(0.001, runs, 0.95)
    assert inside >= fewest
    assert largest >= fewest
    assert single > inside


def test_bands_of_all_values_are_wider_than_single_intervals_and_narrower_than_bonferroni() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(400, 1)) + 0.5 * rng.normal(size=(400, 6))
    each = simultaneous_alpha(columns, Clusters.of(range(400)), alpha=0.05)
    assert 0.05 / 6 < each < 0.05


def test_few_patients_with_most_images_do_not_say_that_all_columns_are_one() -> None:
    rng = np.random.default_rng(1)
    patients = np.concatenate([np.repeat([0, 1], 30), np.arange(2, 42)])
    each = simultaneous_alpha(rng.normal(size=(100, 4)), Clusters.of(patients), alpha=0.05)
    assert each == 0.0125


def test_the_curve_is_sorted_by_value_and_of_the_outcome_that_is_asked_for() -> None:
    found = world(1)
    turned = Responses.from_arrays(
        found.values[:, ::-1], patients=found.patients, levels=AGES[::-1], number=True, labels=["edema"]
    )
    one, other = (dose_response(each, outcome="probability")[0] for each in (found, turned))
    assert [point.level for point in other.points] == list(AGES)
    assert other.reference == "30"
    assert other.points[2].change.estimate == pytest.approx(one.points[2].change.estimate)
    shares = dose_response(found, outcome="decision", threshold=0.5)[0]
    decided = (found.values[..., 0] >= 0.5).mean(axis=2)
    assert shares.points[3].change.estimate == pytest.approx(float((decided[:, 3] - decided[:, 0]).mean()))
    assert shares.points[3].output == pytest.approx(float(decided[:, 3].mean()))


def test_a_model_that_is_blind_has_a_flat_curve_and_is_equivalent() -> None:
    blind = world(2, rise=np.zeros(3))
    found = assess(blind, margin=0.05, randomizations=199, outcome="probability")
    assert {row.contrast for row in found.tests} == {("30", "45"), ("30", "60"), ("45", "60")}
    assert found.verdict == "equivalent"
    curve = dose_response(blind, outcome="probability")[0]
    assert max(abs(curve.largest.low), abs(curve.largest.high)) < 0.05


def test_what_the_training_split_leaves_open_widens_the_bands() -> None:
    found = world(3)
    moved = np.repeat(found.values[:40, 1:, :1], 12, axis=2) + np.linspace(-0.1, 0.1, 12)[:, None]
    known = Replicates(np.arange(40), np.clip(moved, 0, 1))
    plain, wide = (
        dose_response(found, outcome="probability", replicates=each)[0].points[2].change for each in (None, known)
    )
    assert wide.estimate == plain.estimate
    assert wide.high - wide.low > 1.5 * (plain.high - plain.low)


def table(recorded: list[str]) -> pd.DataFrame:
    rows = []
    for number, own in enumerate(recorded):
        head = {"image_id": f"i{number}", "patient_id": f"p{number}", "attribute": "age", "label": "edema"}
        rows.append({**head, "level": own, "draw": -1, "probability": 0.5})
        for level, value in (("100", 0.9), ("30", 0.1), ("70", 0.2), ("recorded", 0.4)):
            rows += [{**head, "level": level, "draw": draw, "probability": value} for draw in (0, 1)]
    return pd.DataFrame(rows)


def test_null_interventions_are_those_under_the_own_value_and_groups_go_by_the_nearest() -> None:
    found = Responses.from_frame(table(["12", "49.5", "51", "88"]), number=True)
    assert found.levels == ("30", "70", "100")
    assert found.recorded is not None
    assert found.recorded.tolist() == ["30", "30", "70", "100"]
    assert found.null is not None
    assert found.null.shape == (4, 2, 1)
    assert (found.null == 0.4).all()
    assert found.take([1, 2]).null is not None


def test_an_original_without_a_number_is_named() -> None:
    with pytest.raises(InputError, match="'i1' is recorded with 'old', and 'age' is a number"):
        Responses.from_frame(table(["12", "old"]), number=True)


def test_levels_that_are_no_numbers_have_no_curve() -> None:
    named = Responses.from_arrays(np.full((4, 2, 2, 1), 0.5), levels=["F", "M"])
    with pytest.raises(InputError, match="levels that are numbers; found F, M"):
        dose_response(named)
