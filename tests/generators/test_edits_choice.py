"""The judge of edits: what it takes for an improvement, and what not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from citlr.generators.conditions import Conditions
from citlr.generators.edits.atlas import build_atlas
from citlr.generators.edits.choice import Choice, _likelier
from citlr.generators.edits.estimate import Blend, Cases, Edit, Search
from citlr.generators.edits.family import DISPLACEMENTS, Family, Frame, bands
from citlr.generators.edits.judge import Change, Judge, Looked
from citlr.generators.edits.summaries import formula, frame_of
from citlr.generators.edits.warps import warp
from citlr.generators.effects.aligned import ALIGNMENT, of_one
from citlr.generators.effects.contrasts import coded, design
from citlr.simulators.phantom import PhantomWorld

PATIENTS = 160


def cases(images: torch.Tensor, level: np.ndarray) -> Cases:
    atlas = build_atlas(images)
    return with_levels(images, atlas, frame_of(images, atlas), level)


def with_levels(images: torch.Tensor, atlas: torch.Tensor, where: Frame, level: np.ndarray) -> Cases:
    frame = pd.DataFrame({"patient_id": np.arange(len(level)), "sex": np.array(["F", "M"])[level]})
    conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    codes, sex = conditions.encode(frame), conditions.attributes[0]
    designed = design(conditions, sex, codes, frame["patient_id"].to_numpy())
    alone = of_one(conditions, sex), codes[:, :3]
    return Cases(Family(64), atlas, images, where, coded(conditions, sex, codes), designed, *alone)


@cache
def with_grain() -> tuple[torch.Tensor, np.ndarray]:
    """Chests of an anatomy that varies, with a grain under one level; the phantom's own attribute does nothing."""
    images = (
        PhantomWorld(size=64, strength=0.0, anatomy="varying").sample(PATIENTS, seed=8, images_per_patient=1).images()
    )
    level = np.arange(PATIENTS) % 2
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1) * 0.05
    return torch.from_numpy((images + level[:, None, None, None] * checker).astype(np.float32).clip(0, 1)), level


@cache
def judged() -> tuple[Cases, Judge]:
    """Chests with a grain under one level, and their judge, who keeps nothing of what he looks at."""
    own = cases(*with_grain())
    return own, Judge(own, np.random.default_rng(0))


def pushed(own: Cases, kind: str = "displacement") -> Edit:
    """An edit that pushes everything, by about a pixel, and has nothing to do with the levels."""
    still = Edit.none(1, own.family)
    coefficients = np.zeros_like(still.coefficients)
    columns = own.family.columns(kind).numpy()
    coefficients[:, columns] = np.random.default_rng(5).standard_normal(int(columns.sum()))
    return Edit(coefficients, still.fine)


def test_moving_images_is_no_cure_of_a_grain() -> None:
    own, judge = judged()
    still, moved = judge.look(Edit.none(1, own.family)), judge.look(pushed(own))
    assert still.left.sum() > 0
    assert still.apart.sum() > 1
    # Their grain is blurred when they are moved, by whatever: by that alone the levels differ by less.
    energy = [
        own.design.difference((bands(images)[:, 0] ** 2).mean(dim=(1, 2)).double().numpy()[:, None])[0, 0]
        for images in (own.images, own.moved(pushed(own), -1.0))
    ]
    assert 0 < energy[1] < 0.7 * energy[0]
    assert moved.gain(still, still) == 0.0
    # The way from the middle blurs as much: of the two, half of the difference counts.
    assert moved.left.sum() > 0.9 * still.left.sum()
    assert moved.apart.sum() > 0.9 * still.apart.sum()
    assert moved.steep.sum() > 0.9 * still.steep.sum()


def test_what_takes_the_difference_off_gains_all_of_it_and_its_opposite_nothing() -> None:
    own, judge = judged()
    apart = torch.from_numpy(own.design.difference(judge.pixels).reshape(1, 64, 64)).float()
    still = Edit.none(1, own.family)
    fine = still.fine | {"film": apart}
    first = judge.look(still)
    taken, doubled = (judge.look(Edit(still.coefficients, {**fine, "film": sign * fine["film"]})) for sign in (1, -1))
    assert taken.gain(first, first) > 1.0
    assert taken.apart.sum() < 0.1 * first.apart.sum()
    assert doubled.gain(first, first) == 0.0
    assert isinstance(taken, Looked)
    assert doubled.apart.sum() > 2 * first.apart.sum()


def test_where_levels_do_not_differ_nothing_is_gained() -> None:
    same, level = judged()[0], with_grain()[1]
    # Where images lie has nothing to do with their levels.
    own = with_levels(same.images, same.atlas, same.frame, np.random.default_rng(3).permutation(level))
    judge = Judge(own, np.random.default_rng(0))
    first = judge.look(Edit.none(1, own.family))
    gains = [
        judge.look(pushed(own, kind)).gain(first, first) for kind in ("shade", "displacement", "local displacement")
    ]
    assert gains == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", DISPLACEMENTS)
def test_of_two_displacements_the_one_that_was_there_is_the_likelier(kind: str) -> None:
    images = torch.from_numpy(PhantomWorld(size=64, strength=0.0).sample(80, seed=8, images_per_patient=1).images())
    level, family = np.arange(80) % 2, Family(64)
    field = next(one for one in family.fields if one.kind == kind)
    table, planted = torch.zeros(field.grid, field.grid), torch.zeros(1, family.width)
    if kind == DISPLACEMENTS[0]:
        table[:] = 0.8  # everywhere a little
    else:
        table[4, 2], table[4, 3], table[2, 5], table[3, 5] = 1.5, -1.5, 1.5, -1.5  # two places
    planted[0, field.span] = table.flatten()
    way = torch.from_numpy(2.0 * level - 1).float().view(-1, 1, 1, 1)
    own = cases(warp(images, way * family.maps(planted)[kind]), level)
    answers = formula(family, warp(own.images, own.frame.forth)).double().numpy()
    assert _likelier(DISPLACEMENTS, Search(own, answers, np.random.default_rng(0)), ()) == kind


def with_grainy_surround() -> tuple[torch.Tensor, np.ndarray]:
    """Bright rings of any size and place on black, with a grain in the black under one level."""
    random, level = np.random.default_rng(6), np.arange(PATIENTS) % 2
    y, x = np.indices((64, 64))
    centre, radius = random.uniform(24, 40, (2, PATIENTS, 1, 1)), random.uniform(8, 18, (PATIENTS, 1, 1))
    far = np.abs(np.hypot(x - centre[0], y - centre[1]) - radius)
    rings = random.uniform(0.6, 1.0, (PATIENTS, 1, 1)) * np.exp(-((far / 2.5) ** 2))
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1) * (rings < 0.05)
    noise = 0.005 * random.standard_normal(rings.shape)
    images = rings + noise + 0.03 * level[:, None, None] * checker
    return torch.from_numpy(images[:, None].astype(np.float32).clip(0, 1)), level


def test_what_takes_a_grain_off_the_black_and_sharpens_what_varies_is_no_cure() -> None:
    own = cases(*with_grainy_surround())
    judge = Judge(own, np.random.default_rng(0))
    still = Edit.none(1, own.family)
    first = judge.look(still)
    curves = np.flatnonzero(own.family.columns("tone").numpy())
    looked = []
    for size in (-3.0, 3.0):
        coefficients = np.zeros_like(still.coefficients)
        coefficients[0, curves[-1]] = size  # the curve whose dark and bright ends go apart, everywhere
        looked.append(judge.look(Edit(coefficients, still.fine)))
    best = min(looked, key=lambda one: one.left.sum())
    assert best.left.sum() < 0.7 * first.left.sum()
    assert best.apart.sum() <= first.apart.sum()
    assert best.steep.sum() > 2 * abs(first.steep.sum())
    assert best.gain(first, first) == 0.0


def test_a_blend_takes_of_each_kind_what_it_leaves_it() -> None:
    family, random = Family(64), np.random.default_rng(2)
    fine = {name: torch.from_numpy(random.standard_normal((1, 64, 64))).float() for name in ("film", "atlas")}
    edit = Edit(random.standard_normal((1, family.width)), fine)
    faded = edit.faded(family, Blend(("contrast", "film"), 0.25))
    for kind, taken in (("contrast", 1.0), ("shade", 0.75), ("displacement", 0.75)):
        own = family.columns(kind).numpy()
        assert np.allclose(faded.coefficients[:, own], taken * edit.coefficients[:, own])
    assert torch.equal(faded.fine["film"], fine["film"])
    assert torch.equal(faded.fine["atlas"], 0.75 * fine["atlas"])


class Squares(Judge):
    """Sees the squared difference of numbers and nothing else; what was planted is 1 in each of 400."""

    def __init__(self, cases: Any = None) -> None:
        self.cases, self.own = cases, self.noted(np.ones(400))

    @staticmethod
    def noted(numbers: np.ndarray) -> Change:
        return Change(numbers, np.zeros(1), np.zeros(1))

    def see(self, images: Change) -> Looked:
        return Looked(np.asarray(images.numbers) ** 2, np.zeros(400), np.zeros(400))


def test_what_is_expected_of_all_patients_has_half_of_the_error_of_one_half() -> None:
    random, judge = np.random.default_rng(3), Squares()
    error, halves, expected = 0.8, [], []
    for _ in range(50):
        told, own = (judge.noted(-0.9 + error * random.standard_normal(400)) for _ in range(2))
        halves.append(judge.see(judge.own + told).left.mean())
        expected.append(judge.expect(told, own).left.mean())
    assert np.mean(halves) == pytest.approx(0.1**2 + error**2, rel=0.03)
    assert np.mean(expected) == pytest.approx(0.1**2 + error**2 / 2, rel=0.03)


@pytest.mark.parametrize(
    ("edits", "alignment", "share"),
    [((0.6, 0.6), (0.6, 0.6), 0.5), ((0.6, 0.3), (1.2, 0.3), 0.25), ((0.1, 0.1), (0.9, 0.6), None)],
    ids=["errors that are not alike", "one errs more", "one harms"],
)
def test_edits_and_alignment_are_averaged_where_that_comes_closer(
    edits: tuple[float, float], alignment: tuple[float, float], share: float | None
) -> None:
    """`edits` and `alignment`: the error of every number, and what of the change each leaves out in all of them."""
    random = np.random.default_rng(4)

    def estimates(error: float, missed: float) -> list[np.ndarray]:
        return [missed * random.choice([0.0, 2.0], 400) - 1 + error * random.standard_normal(400) for _ in range(2)]

    told = {"edits": estimates(*edits), "alignment": estimates(*alignment)}

    class Told(Squares):
        def changes(self, edit: Any, aligned: Any = None) -> Change:
            return self.noted(told["edits" if aligned is None else "alignment"][edit.half])

    class Half(SimpleNamespace):
        def faded(self, family: Any, blend: Blend) -> Half:
            return self

    judges: Sequence[Any] = [Told(), Told()]
    searches: Any = [SimpleNamespace(cases=SimpleNamespace(family=None, aligned=lambda edit, seed: edit))] * 2
    states: Any = [SimpleNamespace(edit=Half(half=half)) for half in (0, 1)]
    first = Looked(np.ones(800), np.zeros(800), np.zeros(800))
    before = Choice(("shade",), {"shade": 0.5}, states, first, first)
    after = before.blended(before, searches, judges, 0)
    if share is None:
        assert after is before
    else:
        assert after.kinds == ("shade", ALIGNMENT)
        assert after.blend is not None
        assert after.blend.share == share
        assert after.left[ALIGNMENT] < min(
            float(before.now.left.sum()), *(float((1 + one).T @ (1 + one)) / 400 for one in told["edits"])
        )
