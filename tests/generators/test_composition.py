"""Edits at the generator's size, put into originals of any size: nothing stays nothing, and lengths are to scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from citlr.data.edits import Edit, decode_edit, encode_edit
from citlr.errors import StateError
from citlr.generators.edits.composition import compose, compose_change, edited
from citlr.generators.edits.family import bands
from citlr.generators.edits.warps import warp
from citlr.simulators.phantom import PhantomWorld

SIZES = [(64, 64), (64, 224), (96, 224), (96, 64), (50, 37), (32, 33)]


def smooth(size: int, *, seed: int = 0, n: int = 3, channels: int = 1) -> Edit:
    """Edits of a few waves: up to three 64ths of a side, and a tenth of the grey values."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 0), (0, 1), (1, 1), (2, 1))])
    maps = np.einsum("ncw,wyx->ncyx", rng.uniform(-0.5, 0.5, (n, 2 + channels, 4)), waves).astype(np.float32)
    return Edit(maps[:, :2] * np.float32(3 * size / 64), maps[:, 2:] * np.float32(0.1))


def images(size: int, *, seed: int = 1, n: int = 3, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, channels, size, size), dtype=np.float32)


@pytest.mark.parametrize(("size", "channels"), [(31, 1), (64, 1), (224, 1), (31, 3), (64, 3)])
def test_what_is_kept_is_nearly_what_was_given(size: int, channels: int) -> None:
    edit = smooth(size, channels=channels)
    for number in range(3):
        content = encode_edit(edit[number])
        again = decode_edit(content, size)
        assert np.abs(again.displacement - edit.displacement[number]).max() <= size / 64 / 2048 * 1.001
        assert np.abs(again.added - edit.added[number]).max() <= 1 / 16384 * 1.001
        assert encode_edit(again) == content  # kept twice, it is the same
    nothing = Edit(np.zeros((2, size, size), np.float32), np.zeros((channels, size, size), np.float32))
    assert not any(encode_edit(nothing))
    assert not decode_edit(encode_edit(nothing), size).displacement.any()


@pytest.mark.parametrize(("moved", "added"), [(40.0, 0.0), (0.0, 5.0), (np.nan, 0.0), (0.0, np.inf)])
def test_what_is_no_edit_is_not_kept(moved: float, added: float) -> None:
    edit = Edit(np.full((2, 64, 64), moved, np.float32), np.full((1, 64, 64), added, np.float32))
    with pytest.raises(StateError, match="half a side"):
        encode_edit(edit)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_channels_are_moved_together_and_changed_apart(grid: int, size: int) -> None:
    own, edit = images(size, channels=3), smooth(grid, channels=3)
    composed = compose(own, edit)
    for channel in range(3):
        alone = compose(own[:, [channel]], Edit(edit.displacement, edit.added[:, [channel]]))
        assert np.allclose(composed[:, [channel]], alone, atol=1e-6)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_an_edit_of_nothing_leaves_every_bit(grid: int, size: int) -> None:
    own, edit = images(size), smooth(grid)
    edit.displacement[1], edit.added[1] = 0, 0
    composed = compose(own, edit)
    assert np.array_equal(composed[1], own[1])
    assert (composed[[0, 2]] != own[[0, 2]]).mean() > 0.9
    assert composed.dtype == np.float32
    assert composed.min() >= 0
    assert composed.max() <= 1


def test_at_the_generators_size_it_is_the_edit_itself() -> None:
    own, edit = images(64), smooth(64)
    changed = torch.from_numpy(own + edit.added)
    direct = warp(changed, torch.from_numpy(edit.displacement), sharp=True).clamp(0, 1)
    assert np.array_equal(compose(own, edit), direct.numpy())


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_lengths_are_to_scale(grid: int, size: int) -> None:
    # A ramp along x and y, moved by an eighth of a side along x and a sixteenth back along y.
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    own = (0.25 + 0.5 * np.stack([x, y])[:, None]).astype(np.float32)
    edit = Edit(np.zeros((2, 2, grid, grid), np.float32), np.zeros((2, 1, grid, grid), np.float32))
    edit.displacement[:, 0], edit.displacement[:, 1] = grid / 8, -grid / 16
    inside = slice(size // 5, -size // 5)
    change = (compose(own, edit) - own)[:, 0, inside, inside]
    # Cubic weights, between pixels, are true to a ramp within a twentieth of the step from one pixel to the next.
    near = 1e-5 if size % 16 == 0 else 0.05 * 0.5 / size
    np.testing.assert_allclose(change[0], 0.5 / 8, atol=near)
    np.testing.assert_allclose(change[1], -0.5 / 16, atol=near)


@pytest.mark.parametrize(("grid", "size"), [(64, 224), (96, 224), (96, 64)])
def test_composed_at_another_size_it_shows_what_it_does_at_its_own(grid: int, size: int) -> None:
    def smooth_images(side: int) -> np.ndarray:
        y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
        return np.tile((0.5 + 0.3 * np.sin(5 * x + 3 * y)).astype(np.float32), (3, 1, 1, 1))

    edit = smooth(grid)
    seen = torch.nn.functional.interpolate(
        torch.from_numpy(compose(smooth_images(grid), edit)), size=(size, size), mode="bilinear", antialias=True
    ).numpy()
    middle = slice(size // 10, -size // 10)
    own = compose(smooth_images(size), edit)
    difference = np.abs(own - seen)[..., middle, middle].max()
    change = np.abs(own - smooth_images(size)).max()
    assert difference < 0.05 * change


def test_a_picture_changes_an_original_by_what_it_changes() -> None:
    seen, own = images(16), images(64, seed=5) * 0.2 + 0.4
    assert np.array_equal(compose_change(own, seen, seen), own)
    pictures = np.clip(seen + np.float32(0.125), 0, 1)
    lighter = compose_change(own, pictures, seen) - own
    flat = (pictures - seen == np.float32(0.125)).all(axis=(1, 2, 3))
    assert not flat.any()  # clipped somewhere
    even = compose_change(own, seen * 0.5 + np.float32(0.125), seen * 0.5) - own
    np.testing.assert_allclose(even, 0.125, atol=1e-6)
    assert lighter.max() <= 0.125 + 1e-6
    assert compose_change(own, seen * 0 + 1, seen * 0).max() == 1


def test_a_moved_image_keeps_its_detail() -> None:
    # Beside originals that nobody moved, a blur would pass for the attribute: means of neighbours keep half of the
    # grain and 86 % of what is a little coarser, cubic weights three quarters and 98 %.
    random = torch.Generator().manual_seed(3)
    images = torch.from_numpy(PhantomWorld(size=64).sample(20, seed=4, images_per_patient=1).images())
    grainy = (images + 0.02 * torch.randn(images.shape, generator=random)).clamp(0, 1)
    coarse = torch.randn(20, 2, 3, 3, generator=random)
    way = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic", align_corners=True)
    for sign in (1, -1):
        moved = bands(edited(grainy, sign * way, torch.zeros_like(grainy))).pow(2).mean(dim=(0, 2, 3))
        kept = moved / bands(grainy).pow(2).mean(dim=(0, 2, 3))
        assert 0.88 < kept[0] < 1.02
        assert 0.97 < kept[1] < 1.02
