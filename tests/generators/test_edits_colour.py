"""Edits in colour: what each kind does to red, green and blue, and what of luminance stays as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.edits.estimate import Cases, Edit
from citlr.generators.edits.family import CHANNELS, TINTS, Family, Frame, bands, tones
from citlr.generators.edits.fine import chance, differences, placed
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.edits.significance import shown
from citlr.generators.edits.summaries import edited, formula, summaries, width
from citlr.generators.effects.aligned import of_one
from citlr.generators.effects.axes import axes, grey, red_green_blue
from citlr.generators.effects.contrasts import coded, design
from citlr.generators.effects.whitening import Whitening

FAMILY = Family(64, channels=3)
STILL = Frame(torch.zeros(4, 2, 64, 64), torch.zeros(4, 2, 64, 64))


def pictures(n: int = 4, size: int = 64) -> torch.Tensor:
    """Smooth pictures in colour, whose values stay away from black and white."""
    coarse = torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.4 * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def coefficients(kind: str, axis: int) -> torch.Tensor:
    """One of the first channel of a kind, alike everywhere."""
    field = [one for one in FAMILY.fields if (one.kind, one.channel, one.axis) == (kind, 0, axis)][-1]
    level = torch.zeros(field.grid, field.grid)
    level[:, : field.alike] = 1.0 if field.alike == field.grid else 2**0.5
    found = torch.zeros(4, FAMILY.width)
    found[:, field.span] = level.flatten()
    return found


def test_axes_lead_back_and_opponents_say_nothing_of_grey() -> None:
    images = pictures()
    assert torch.allclose(red_green_blue(axes(images)), images, atol=1e-6)
    assert torch.allclose(axes(images)[:, :1], grey(images), atol=1e-6)
    alike = images[:, :1].expand(-1, 3, -1, -1)
    assert float(axes(alike)[:, 1:].abs().max()) < 1e-6


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("kind", TINTS)
def test_every_kind_of_colour_changes_one_opponent_and_no_luminance(kind: str, axis: int) -> None:
    images = pictures()
    added, displacement = FAMILY.split(images, coefficients(kind, axis), STILL)
    assert float(displacement.abs().max()) == 0
    along, change, unit = axes(images), axes(added), FAMILY_UNIT[kind]
    wanted = {
        "tint": torch.full_like(along[:, :1], unit),
        "colour contrast": (np.exp(unit) - 1) * bands(along[:, [axis]])[:, :1],
        "colour tone": unit * tones(along[:, :1])[:, :1],
    }[kind]
    assert torch.allclose(change[:, [axis]], wanted, atol=1e-4)
    others = [number for number in range(3) if number != axis]
    assert float(change[:, others].abs().max()) < 1e-5


FAMILY_UNIT = {field.kind: field.unit for field in reversed(FAMILY.fields)}


def test_a_family_in_colour_begins_with_that_of_grey_and_shade_changes_all_channels_alike() -> None:
    plain = Family(64)
    assert FAMILY.fields[: len(plain.fields)] == plain.fields
    assert torch.equal(FAMILY.blocks[: plain.width], plain.blocks)
    assert FAMILY.kinds == (*CHANNELS, *TINTS)
    added, _ = FAMILY.split(pictures(), coefficients("shade", 0), STILL)
    assert torch.allclose(added, torch.full_like(added, FAMILY_UNIT["shade"]), atol=1e-5)


def test_a_summary_answers_to_colour_as_the_formula_says() -> None:
    images = pictures()
    noisy = (images + 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0.01, 0.99)
    table, still = formula(FAMILY, noisy), STILL.forth
    assert table.shape == (width(3), FAMILY.width)
    assert summaries(noisy, still).shape == (4, width(3))
    for kind in TINTS:
        own = 0.2 * coefficients(kind, 2)
        ends = [summaries(edited(FAMILY, noisy, way * own, STILL), still) for way in (1, -1)]
        change = ((ends[0] - ends[1]) / 2).mean(dim=0)
        foretold = table @ own[0]
        assert float((change - foretold).norm() / change.norm()) < 0.1
        assert float(change[: width()].abs().max()) < 1e-4  # nothing of what summarises grey


def two_levels(n: int) -> tuple[pd.DataFrame, Conditions]:
    frame = pd.DataFrame({"patient_id": np.arange(n), "sex": np.tile(["F", "M"], n // 2)})
    return frame, Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)


def test_fine_structure_of_one_channel_is_kept_in_it() -> None:
    frame, conditions = two_levels(200)
    lines = design(conditions, conditions.attributes[0], conditions.encode(frame), frame["patient_id"])
    random = np.random.default_rng(4)
    images = torch.from_numpy(random.normal(0.5, 0.05, (200, 3, 32, 32)).astype(np.float32))
    forth = torch.zeros(200, 2, 32, 32)
    by_chance = chance(images, forth, lines, random)
    images[1::2, 2, 10:22, 15] += 0.15
    there = differences(images, forth, lines)
    maps, cost = by_chance.shrunk(there, "film")
    assert cost > 0
    change = placed(torch.ones(1, 1), {"film": maps, "atlas": 0 * maps}, forth[:1])[0, :, 12:20, 15].mean(dim=1)
    assert float(change[2]) > 0.05
    assert float(change[:2].abs().max()) < 0.3 * float(change[2])


def test_where_only_colour_changes_nothing_is_registered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, conditions = two_levels(4)
    codes, sex = conditions.encode(frame), conditions.attributes[0]
    lines = design(conditions, sex, codes, frame["patient_id"])
    own, alone = coded(conditions, sex, codes), of_one(conditions, sex)
    cases = Cases(FAMILY, torch.zeros(1, 2, 32, 32), pictures(), STILL, own, lines, alone, codes[:, :3])
    called = []
    monkeypatch.setattr("citlr.generators.edits.estimate.way_of", lambda *_: called.append(1) or STILL.forth)
    for kind, axis, count in (("tint", 1, 0), ("shade", 0, 1)):
        cases.measure(Edit(coefficients(kind, axis)[:1].double().numpy(), Edit.none(1, FAMILY).fine))
        assert len(called) == count


def test_a_black_surround_does_not_drown_what_is_shown() -> None:
    """Nobody varies there, and a trace of an edit there is not a thousand million errors."""
    random, family = np.random.default_rng(2), Family(16)
    answers = random.standard_normal((40, family.width)) / 5
    influences = random.standard_normal((150, 40)) + 1.5 * answers[:, family.columns("tone").numpy()][:, 0]
    influences[:, :10] = 1e-12 * random.standard_normal((150, 10))
    assert shown(family, answers, influences, np.zeros((150, 256)), random) <= 0.01
    assert np.abs(Whitening.of(influences)(answers)).max() < 100


def test_grey_images_are_refused_by_a_generator_of_colour() -> None:
    generator = EditGenerator(size=32).for_channels(3)
    frame, conditions = two_levels(2)
    generator.build(conditions, seed=0)
    generator._conditions = conditions
    with pytest.raises(InputError, match=r"needs \(n, 3, 32, 32\)"):
        generator.edit(np.zeros((2, 1, 32, 32), np.float32), frame, attribute="sex", levels=("F", "M"))
