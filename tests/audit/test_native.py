"""Edits are drawn into pictures at their native size, whatever size they are read at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from citlr.audit.generation import generate
from citlr.audit.redrawing.native import Native
from citlr.audit.redrawing.pictures import Pictures
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.data.edits import Edit
from citlr.data.images import encode_png, fit_square
from citlr.data.pixels.cache import write_cache
from citlr.data.pixels.square import FITS, Fit
from citlr.generators.edits.composition import compose, move_and_put_back
from citlr.generators.oracle import EditingOracle

SIZE = 16


def shift(x: float, y: float, added: float = 0.0) -> Edit:
    """One edit on a grid of 16 points: the same displacement, in its steps, and the same change everywhere."""
    way = np.stack([np.full((SIZE, SIZE), x, np.float32), np.full((SIZE, SIZE), y, np.float32)])
    return Edit(way, np.full((1, SIZE, SIZE), added, np.float32))


def native(picture: np.ndarray, size: int, fit: Fit = "pad") -> Native:
    return Native.of(picture, fit_square(picture, size=size, fit=fit), fit)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.3, 0.7, (1, height, width)).astype(np.float32)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(128, 128), (100, 160), (160, 100), (131, 97)])
def test_lengths_are_to_scale_in_every_rectangle(height: int, width: int, fit: Fit) -> None:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for picture, way in ((x / width, shift(0.5, 0)), (y / height, shift(0, 0.5))):
        own = fit_square(0.2 + 0.6 * picture[None], size=32, fit=fit)
        moved = native(0.2 + 0.6 * picture[None], 32, fit).edited(way)
        # The ramp as it is read, one pixel of 32 further on, as half a step of 16 is.
        there = np.roll(own, -1, axis=2 if way.displacement[0].any() else 1)
        np.testing.assert_allclose(moved[0, 12:20, 12:20], there[0, 12:20, 12:20], atol=2e-3)
        assert np.abs(moved - own)[0, 12:20, 12:20].min() > 0.005


@pytest.mark.parametrize("size", [24, 32, 48])
def test_moving_leaves_next_to_no_marks(size: int) -> None:
    picture, way = noise(192, 192), shift(0.37, -0.23).displacement
    own = fit_square(picture, size=size, fit="pad")
    inside = (0, slice(4, -4), slice(4, -4))
    fine = np.abs(native(picture, size).put_back(way) - own)[inside].mean()
    direct = np.abs(move_and_put_back(own[None], way[None])[0] - own)[inside].mean()
    assert fine < direct / 5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 150), (131, 70)])
@pytest.mark.parametrize("size", [16, 24])
def test_what_is_added_is_as_fine_as_where_it_is_read(height: int, width: int, fit: Fit, size: int) -> None:
    """Drawn among finer pixels and read again, the finest detail of what is added was halved."""
    picture = np.full((1, height, width), 0.5, np.float32)
    added = np.random.default_rng(1).uniform(-0.1, 0.1, (1, SIZE, SIZE)).astype(np.float32)
    one = native(picture, size, fit)
    inside = one.original > 0
    right = compose(one.original[None], Edit(shift(0, 0).displacement, added)[None])[0]
    found = one.edited(Edit(shift(1e-4, 0).displacement, added))
    np.testing.assert_allclose(found[inside], right[inside], atol=1e-4)
    # What is added moves with the picture: by one point of the grid, where nothing holds it at an edge.
    found = native(picture, SIZE, fit).edited(Edit(shift(1, 0).displacement, added))
    middle = (0, slice(7, 9), slice(6, 10))
    np.testing.assert_allclose(found[middle], 0.5 + np.roll(added, -1, axis=2)[middle], atol=5e-3)


@pytest.mark.parametrize("wide", [1, 2, 4])
def test_the_edge_of_a_film_is_neither_smeared_nor_lost(wide: int) -> None:
    picture = np.zeros((1, 128, 128), np.float32)
    picture[:, wide:-wide, wide:-wide] = 0.6
    own = fit_square(picture, size=32, fit="pad")
    moved = native(picture, 32).edited(shift(1.5, 0))[0, 16]
    direct = compose(own[None], shift(1.5, 0)[None])[0, 0, 16]
    dark = own[0, 16].min()
    # Drawn where it is read, the edge is lost on the side that is moved out, and smeared over the other.
    assert direct[0] > 0.59
    assert (direct < dark + 0.1).sum() >= 3
    assert 0.6 - moved[0] > (0.6 - dark) / 2
    assert 0.3 < (0.6 - moved[-4:]).sum() / (0.6 - own[0, 16, -4:]).sum() / 2 < 1.1
    assert (moved[2:-3] > 0.59).all()


@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96)])
def test_bars_beside_a_picture_stay_black(height: int, width: int) -> None:
    picture = noise(height, width)
    own = fit_square(picture, size=32, fit="pad")
    bars = own == 0
    assert bars.mean() > 0.3
    assert not native(picture, 32).edited(shift(0.8, 0.8, 0.1))[bars].any()
    assert compose(own[None], shift(0.8, 0.8, 0.1)[None])[0][bars].any()


def test_an_edit_of_nothing_leaves_every_bit_and_what_stays_is_not_interpolated() -> None:
    picture = noise(150, 128)
    one = native(picture, 32)
    assert np.array_equal(one.edited(shift(0, 0)), one.original)
    assert np.array_equal(one.put_back(shift(0, 0).displacement), one.original)
    half = shift(0, 0)
    half.displacement[0, :, SIZE // 2 + 1 :] = 0.5
    assert np.array_equal(one.edited(half)[..., :14], one.original[..., :14])
    assert not np.array_equal(one.edited(half)[..., 20:], one.original[..., 20:])


def test_very_fine_pictures_are_shrunk_and_coarser_ones_are_taken_as_they_are() -> None:
    assert native(noise(64, 64), 32).image.shape[2:] == (64, 64)
    assert native(noise(300, 600), 32).image.shape[2:] == (64, 128)
    assert native(noise(300, 600), 32, "crop").image.shape[2:] == (128, 256)
    for side in (20, 32):
        picture = gaussian_filter(noise(side, side), (0, 1.5, 1.5))
        one = native(picture, 32)
        assert one.image.shape[2:] == (side, side)
        inside = (slice(None), slice(8, -8), slice(8, -8))
        direct = compose(one.original[None], shift(0.5, 0)[None])[0]
        np.testing.assert_allclose(one.edited(shift(0.5, 0))[inside], direct[inside], atol=0.004)
        assert np.abs(direct - one.original)[inside].max() > 0.012


def test_colours_are_moved_together() -> None:
    picture = np.concatenate([noise(96, 128), noise(96, 128)[:, ::-1], noise(96, 128)[..., ::-1]])
    edit = Edit(shift(0.4, 0.2).displacement, np.repeat(shift(0, 0, 0.05).added, 3, axis=0))
    together = native(picture, 32).edited(edit)
    for channel in range(3):
        alone = native(picture[[channel]], 32).edited(shift(0.4, 0.2, 0.05))
        np.testing.assert_allclose(together[[channel]], alone, atol=1e-6)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Pictures of noise, of 120 pixels and of 30 in turn."""
    names = [f"i{n}" for n in range(4)]
    for n, name in enumerate(names):
        side = 30 if n % 2 else 120
        (tmp_path / f"{name}.png").write_bytes(encode_png(noise(side, side)))
    frame = pd.DataFrame({"image_id": names, "path": [f"{name}.png" for name in names], "patient_id": names})
    return Cohort(frame.assign(split="test", sex=["F", "M"] * 2), tmp_path, attributes=("sex",), labels=())


class Shifting(EditingOracle):
    """Moves what it leads to another level, and makes it lighter."""

    def edit(self, images: np.ndarray, frame: pd.DataFrame, **asked: Any) -> Edit:
        other = np.array([[level != own for level in ("F", "M")] for own in frame["sex"]], np.float32)
        one, every = shift(0.5, 0.25, 0.05), other[..., None, None, None]
        return Edit(every * one.displacement, every * one.added)


def flat(level: str, rows: np.ndarray) -> np.ndarray:
    return np.full((len(rows), 1, SIZE, SIZE), 0.5, np.float32)


@pytest.fixture
def moving(cohort: Cohort, tmp_path: Path) -> CounterfactualSet:
    oracle = Shifting(flat, image_ids=list(cohort.frame["image_id"]), attribute="sex", levels=("F", "M"), size=SIZE)
    return generate(oracle, cohort, attribute="sex", draws=2, placebo_images=2, shard=2, out=tmp_path / "set").main


@pytest.mark.parametrize("cached", [None, 120, 24])
def test_who_reads_a_set_sees_pictures_that_were_drawn_at_their_native_size(
    cohort: Cohort, tmp_path: Path, moving: CounterfactualSet, cached: int | None
) -> None:
    read = cohort if cached is None else write_cache(cohort, tmp_path / "cache", size=cached)
    pictures = Pictures(moving, read, 24)
    own = read.pixels(size=24)
    other = (cohort.frame["sex"] == "F").astype(int).to_numpy()
    found = np.concatenate([images for _, images in pictures])[np.arange(4), other, 0]
    back = np.concatenate([pictures.put_back(number) for number in range(moving.plan.n_shards)])
    for row in range(4):
        # Who reads a cache sees no finer pixels than it has.
        assert read.native(row).shape[1] == (cached or (30 if row % 2 else 120))
        one = Native.of(read.native(row), own[row], read.fit)
        np.testing.assert_allclose(found[row], one.edited(shift(0.5, 0.25, 0.05)), atol=1e-3)
        np.testing.assert_allclose(back[row], one.put_back(shift(0.5, 0.25).displacement), atol=1e-3)


def test_a_source_that_gives_squares_alone_is_edited_at_their_size(cohort: Cohort, moving: CounterfactualSet) -> None:
    class Squares:
        def read_many(self, ids: list[str], paths: list[str], *, size: int, fit: Fit) -> np.ndarray:
            return np.stack([fit_square(noise(120, 120), size=size, fit=fit) for _ in ids])

    own = replace(cohort, source=Squares())  # type: ignore[arg-type]
    images = next(Pictures(moving, own, 24).batches(0))
    square = own.pixels([0], size=24)[0]
    right = Native.of(square, square, "pad").edited(shift(0.5, 0.25, 0.05))
    assert np.abs(images - right).mean(axis=(1, 2, 3)).min() < 1e-4


class Lighter(EditingOracle):
    """Makes what it leads to the level "M" lighter, everywhere, and moves nothing."""

    def edit(self, images: np.ndarray, frame: pd.DataFrame, **asked: Any) -> Edit:
        lit = np.tile(np.array([0, 1], np.float32)[None, :, None, None, None], (len(images), 1, 1, 1, 1))
        one = shift(0, 0, 0.05)
        return Edit(lit * one.displacement, lit * one.added)


@pytest.mark.parametrize("size", [SIZE, 40])
def test_an_edit_that_moves_nothing_lights_no_bars_beside_a_picture(tmp_path: Path, size: int) -> None:
    names = ["wide", "high", "square"]
    for name, sides in zip(names, [(60, 90), (90, 50), (70, 70)], strict=True):
        (tmp_path / f"{name}.png").write_bytes(encode_png(noise(*sides)))
    frame = pd.DataFrame({"image_id": names, "path": [f"{name}.png" for name in names], "patient_id": names})
    cohort = Cohort(frame.assign(split="test", sex=["F", "M", "F"]), tmp_path, attributes=("sex",), labels=())
    oracle = Lighter(flat, image_ids=names, attribute="sex", levels=("F", "M"), size=SIZE)
    drawn = generate(oracle, cohort, attribute="sex", draws=2, placebo_images=2, shard=2, out=tmp_path / "set").main
    found = np.concatenate([images for _, images in Pictures(drawn, cohort, size)])[:, :, 0]
    own = cohort.pixels(size=size)
    bars = own == 0
    assert bars.mean(axis=(1, 2, 3)) == pytest.approx([1 / 3, 4 / 9, 0], abs=0.06)
    assert np.array_equal(found[:, 0], own)
    assert not found[:, 1][bars].any()
    np.testing.assert_allclose(found[:, 1][~bars], own[~bars] + 0.05, atol=1e-4)
