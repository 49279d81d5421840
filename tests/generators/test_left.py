"""What redrawing leaves of the difference between recorded levels: a criterion that needs no truth."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from citlr.generators.probes.linear import describe
from citlr.generators.quality import left
from citlr.generators.quality.left import Yardstick, design_between, put_in, what_is_left
from citlr.generators.quality.records import Left, what_is_unknown
from citlr.studies.generation.effect_page import picks


def films(count: int, random: np.random.Generator) -> np.ndarray:
    """Images of a blob that lies elsewhere in each, with grain: (count, 1, 32, 32)."""
    x, y = np.meshgrid(np.arange(32), np.arange(32))
    centre = 16 + 2 * random.standard_normal((count, 2, 1, 1))
    blob = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / 60)
    return np.clip(0.2 + 0.5 * blob + 0.02 * random.standard_normal(blob.shape), 0, 1)[:, None].astype(np.float32)


def left_by(share: float, *, effect: float = 0.08, seed: int = 0, patients: int = 200) -> Left:
    """Let a generator carry a share of a brighter lower half, of level 1 of two; two images a patient."""
    random = np.random.default_rng(seed)
    level = np.repeat(random.integers(0, 2, patients), 2)
    plain, lower = films(2 * patients, random), (np.arange(32) > 16)[:, None] * effect
    shown = plain + level[:, None, None, None] * lower
    redrawn = {str(k): shown + share * (k - level)[:, None, None, None] * lower for k in range(2)}
    design = design_between(level, 2, np.empty((len(level), 0)), np.repeat(np.arange(patients), 2))
    return what_is_left(describe(shown), {name: describe(one) for name, one in redrawn.items()}, design, random)


def test_what_is_left_falls_with_what_is_carried() -> None:
    carried = [left_by(share, patients=100) for share in (0.0, 0.5, 1.0, 2.0)]
    assert all(one.p == pytest.approx(0.001) and one.before > 5 for one in carried)
    nothing, half, whole, twice = (list(one.left.values()) for one in carried)
    assert nothing == pytest.approx([1.0, 1.0])
    assert half == pytest.approx([0.25, 0.25], abs=0.08)
    assert whole == pytest.approx([0.0, 0.0], abs=0.03)
    assert min(twice) > 0.8


def test_who_loses_what_it_cannot_draw_under_any_level_leaves_the_difference() -> None:
    """A line is lost by a generator that blurs; redrawn under every level its images do not differ by it."""
    random, level = np.random.default_rng(6), np.arange(300) % 2
    plain = films(300, random)
    line = np.zeros((32, 32), np.float32)
    line[:, 12] = 0.1
    shown = np.clip(plain + level[:, None, None, None] * line, 0, 1)
    blurred = ndimage.gaussian_filter(shown, (0, 0, 4, 4))
    redrawn = np.repeat(blurred[:, None], 2, axis=1)
    design = design_between(level, 2, np.empty((300, 0)), np.arange(300))

    def left(images: np.ndarray) -> Left:
        described = {str(k): describe(images[:, k]) for k in range(2)}
        own = np.stack(list(described.values()), axis=1)[np.arange(300), level]
        return what_is_left(own, described, design, np.random.default_rng(0))

    found = left(put_in(shown, redrawn, level))
    assert list(found.left.values()) == [1.0, 1.0]
    truth = np.stack([plain, np.clip(plain + line, 0, 1)], axis=1)
    assert list(left(put_in(shown, truth, level)).left.values()) == pytest.approx([0, 0], abs=0.05)


def test_what_is_put_into_originals_is_the_change_and_the_own_level_stays() -> None:
    random = np.random.default_rng(1)
    images, redrawn = random.random((4, 1, 3, 3), np.float32), random.random((4, 2, 1, 3, 3), np.float32)
    own = np.array([0, 1, 1, 0])
    found = put_in(images, redrawn, own)
    rows = np.arange(4)
    assert np.array_equal(found[rows, own], images)
    expected = np.clip(images + redrawn[rows, 1 - own] - redrawn[rows, own], 0, 1)
    assert found[rows, 1 - own] == pytest.approx(expected, abs=1e-6)
    assert (found.dtype, found.min() >= 0, found.max() <= 1) == (np.float32, True, True)


def test_what_is_left_knows_its_error() -> None:
    found = [left_by(0.5, effect=0.03, seed=seed, patients=80) for seed in range(12)]
    spread = np.std([one.left["0"] for one in found])
    assert spread < found[0].error["0"] < 4 * spread


def test_where_images_show_nothing_nothing_is_said() -> None:
    found = [left_by(1.0, effect=0.0, seed=seed, patients=60) for seed in range(12)]
    # Of 12 tests of level .01, more than one rejects with probability .006.
    assert sum(bool(one.left) for one in found) <= 1
    assert abs(np.mean([one.before for one in found])) < 1


def test_what_goes_with_a_held_label_is_no_difference_of_levels() -> None:
    random = np.random.default_rng(3)
    label = random.integers(0, 2, 400)
    level = np.where(random.random(400) < 0.85, label, 1 - label)
    shown = describe(films(400, random) + 0.1 * label[:, None, None, None].astype(np.float32))
    held = what_is_left(shown, {}, design_between(level, 2, label[:, None].astype(float), np.arange(400)), random)
    free = what_is_left(shown, {}, design_between(level, 2, np.empty((400, 0)), np.arange(400)), random)
    assert held.p > 0.01
    assert free.p == pytest.approx(0.001)


def test_influences_take_no_more_than_what_they_give_and_as_much_again() -> None:
    random = np.random.default_rng(0)
    described = random.normal(size=(1000, 1100)).astype(np.float32)
    design = design_between(random.integers(0, 2, 1000), 2, np.empty((1000, 0)), np.arange(1000))
    tracemalloc.start()
    found = design.influences(described)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2.2 * found.nbytes


def picked_row(
    kind: str, left: dict[str, float], error: float | None, *, spread: float = 0.0, null: float = 0.0, rms: float = 0.1
) -> dict[str, object]:
    effect = None if error is None else {"relative_error": error}
    measured = {"left": left, "error": dict.fromkeys(left, spread)}
    return {"world": "w", "train_images": 9, "kind": kind, "left": measured, "effect": effect} | {
        "null_change": null,
        "rms": rms,
    }


def test_the_pick_is_the_least_left_and_no_change_is_a_candidate() -> None:
    rows = [
        picked_row("a", {"F": 0.2, "M": 0.4}, 0.5, null=0.03),
        picked_row("b", {"F": 0.5, "M": 0.3}, 0.45),
        picked_row("c", {}, 1.4),
    ]
    (found,) = picks(rows)
    assert (found["picked"], found["best"], found["candidates"]) == ("a", "b", 4)
    assert found["loss"] == pytest.approx(0.05)
    (none,) = picks([picked_row("a", {"F": 1.3, "M": 1.2}, 1.4)])
    assert (none["picked"], none["loss"]) == ("no change", 0)
    assert picks([picked_row("a", {}, None)]) == []


def test_of_those_that_cannot_be_told_from_the_best_the_pick_is_the_one_that_changes_least() -> None:
    loses = picked_row("loses what it cannot draw", {"F": 0.30}, 0.9, spread=0.1, null=0.03, rms=0.02)
    far = picked_row("too far", {"F": 0.35}, 0.8, spread=0.2, rms=0.06)
    right = picked_row("right", {"F": 0.39}, 0.5, spread=0.2, rms=0.04)
    worse = picked_row("beyond the error", {"F": 0.41}, 0.7, spread=0.2, rms=0.01)
    assert picks([loses, far, right, worse])[0]["picked"] == "right"
    # The error of the best counts, not that of the others.
    exact = picked_row("loses what it cannot draw", {"F": 0.30}, 0.9, spread=0.01, null=0.03)
    assert picks([exact, far, right, worse])[0]["picked"] == "loses what it cannot draw"


def test_what_is_not_known_is_said() -> None:
    assert "of 10 patients each" in what_is_unknown(None)[0]
    assert "do not differ between levels, beside what is held (p = 0.300)" in what_is_unknown(Left(0.1, 0.3, {}, {}))[0]
    assert what_is_unknown(Left(9.0, 0.001, {"F": 0.2}, {"F": 0.1})) == ()


def test_influences_are_given_to_the_patients_that_they_are_of() -> None:
    random = np.random.default_rng(4)
    values, level = random.standard_normal((90, 3)), np.arange(90) % 2
    design = design_between(level, 2, np.empty((90, 0)), np.arange(90))
    measure = Yardstick(values, design, random)
    for patient in (7, 30, 81):
        alone = values.copy()
        alone[design.patient == patient] += 40.0
        sizes = np.zeros(90)
        for members, one in measure.influences(alone):
            sizes[members] = (one**2).sum(axis=1)
        assert sizes.argmax() == patient


def test_few_patients_are_halved_often_so_that_halves_decide_nothing() -> None:
    """By one halving alone, two readings of the same images differ as much as two generators do."""
    random = np.random.default_rng(5)
    level = random.integers(0, 2, 120)
    plain = films(120, random)
    shown = plain + 0.05 * level[:, None, None, None].astype(np.float32)
    redrawn = {"0": describe(shown), "1": describe(shown + 0.02)}
    described, design = describe(shown), design_between(level, 2, np.empty((120, 0)), np.arange(120))
    found = [what_is_left(described, redrawn, design, np.random.default_rng(seed)).left["1"] for seed in range(6)]
    single = []
    for seed in range(6):
        measure = Yardstick(described, design, np.random.default_rng(seed))
        single.append(measure.shares(redrawn["1"]).sum() / measure.shares(described).sum())
    assert np.std(found) < 0.6 * np.std(single)


def test_a_halving_that_knows_a_number_badly_does_not_outweigh_the_others() -> None:
    """Two patients stand out in a number that hardly varies: where one half has both, the other knows nothing of it."""
    random, level = np.random.default_rng(3), np.arange(80) % 2
    described = random.standard_normal((80, 20))
    described[:, 0] += 1.5 * level
    described[:, 1] *= 0.01
    described[:2, 1] = 5
    design = design_between(level, 2, np.empty((80, 0)), np.arange(80))
    assert max(what_is_left(described, {}, design, np.random.default_rng(seed)).p for seed in range(6)) < 0.05


def test_one_halving_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    described, level = random.standard_normal((200, 300)).astype(np.float32), np.arange(200) % 2
    design = design_between(level, 2, np.empty((200, 0)), np.arange(200))

    def peak(halvings: int) -> int:
        monkeypatch.setattr(left, "HALVINGS", halvings)
        tracemalloc.start()
        what_is_left(described, {"0": described}, design, np.random.default_rng(0))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(8) < 1.5 * peak(1)
