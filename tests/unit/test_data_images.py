"""Images in every accepted form, and every form that is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from citlr.data.images import decode_png, encode_png, fit_square, quantise, read_image
from citlr.errors import InputError


@pytest.fixture
def ramp() -> np.ndarray:
    return np.linspace(0, 255, 48 * 32).reshape(48, 32).round().astype(np.uint8)


def test_png_8_bit_is_exact(tmp_path: Path, ramp: np.ndarray) -> None:
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (1, 48, 32)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0], ramp / 255.0, atol=1e-7)


def test_png_16_bit_keeps_more_than_256_levels(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(image[0], values / 65535.0, atol=1e-6)
    assert len(np.unique(image)) == 1024
    small = read_image(tmp_path / "a.png", size=16)
    assert small.shape == (1, 16, 16)
    assert 0.0 <= small.min() <= small.max() <= 1.0


def test_jpeg_colour_and_size(tmp_path: Path) -> None:
    colour = np.zeros((400, 300, 3), dtype=np.uint8)
    colour[..., 0] = 200
    Image.fromarray(colour).save(tmp_path / "a.jpg", quality=95)
    whole = read_image(tmp_path / "a.jpg")
    assert whole.shape == (1, 400, 300)
    assert whole.mean() == pytest.approx(200 * 0.299 / 255, abs=0.01)
    # The decoder's own reduction must give what a full decode and resize give.
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg", size=32, fit="crop"), whole.mean(), atol=0.01)


def test_jpeg_reduction_in_the_decoder_agrees_with_full_decode(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).resize(
        (768, 768), Image.Resampling.BICUBIC
    )
    smooth.save(tmp_path / "a.jpg", quality=95)
    quick = read_image(tmp_path / "a.jpg", size=64)
    slow = fit_square(read_image(tmp_path / "a.jpg"), size=64)
    assert np.abs(quick - slow).max() < 0.03


def test_orientation_of_a_jpeg_is_applied(tmp_path: Path) -> None:
    values = np.zeros((40, 80), dtype=np.uint8)
    values[:, 40:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(values).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (1, 80, 40)
    assert image[0, :30].mean() < 0.05
    assert image[0, 50:].mean() > 0.95


def test_transparency_lies_on_black(tmp_path: Path) -> None:
    layers = np.full((8, 8, 4), 255, dtype=np.uint8)
    layers[:4, :, 3] = 0
    Image.fromarray(layers).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, :4].max() == 0.0
    assert image[0, 4:].min() == 1.0


def test_palette_and_one_bit_images(tmp_path: Path, ramp: np.ndarray) -> None:
    Image.fromarray(ramp).convert("P").save(tmp_path / "p.png")
    np.testing.assert_allclose(read_image(tmp_path / "p.png")[0], ramp / 255.0, atol=1e-6)
    Image.fromarray(ramp > 127).save(tmp_path / "one.png")
    assert set(np.unique(read_image(tmp_path / "one.png"))) == {0.0, 1.0}


@pytest.mark.parametrize(("fit", "corner", "centre"), [("pad", 0.0, 1.0), ("crop", 1.0, 1.0), ("stretch", 1.0, 1.0)])
def test_fits(tmp_path: Path, fit: str, corner: float, centre: float) -> None:
    Image.fromarray(np.full((64, 32), 255, dtype=np.uint8)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", size=16, fit=fit)  # type: ignore[arg-type]
    assert image.shape == (1, 16, 16)
    assert (image[0, 0, 0], image[0, 8, 8]) == (corner, centre)


def test_crop_takes_the_centre(tmp_path: Path) -> None:
    values = np.zeros((30, 90), dtype=np.uint8)
    values[:, 30:60] = 255
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", size=10, fit="crop")
    # The outermost pixels are blends with what lies just outside.
    assert image[:, :, 1:-1].min() > 0.99


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (256, 128))
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", size=64)
    # At the border half of the filter is cut off, and with it the balance of black and white.
    assert np.abs(image[0, :, 1:-1] - 0.5).max() < 0.01


@pytest.mark.parametrize("side", [256, 100, 40])
def test_resizing_is_the_antialiased_one_of_torchvision_within_a_grey_level(tmp_path: Path, side: int) -> None:
    from torchvision.transforms.v2.functional import resize

    values = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = resize(torch.from_numpy(values / 255.0).float()[None], [64, 64], antialias=True)
    # Two passes, each rounded to a grey level.
    assert np.abs(read_image(tmp_path / "a.png", size=64) - expected.numpy()).max() <= 1 / 255 + 1e-6


def test_png_round_trip_and_its_refusals() -> None:
    image = np.random.default_rng(1).random((1, 9, 7), dtype=np.float32)
    assert np.abs(decode_png(encode_png(image)) - image).max() <= 1 / 510 + 1e-6
    assert encode_png(image) == encode_png(image[0])
    for bad in (image * 2, image - 1, np.full((2, 2), np.nan, np.float32), np.zeros((0, 4), np.float32)):
        with pytest.raises(InputError, match="NaN or values outside"):
            encode_png(bad)
    with pytest.raises(InputError, match="shape"):
        encode_png(np.zeros((3, 4, 4), np.float32))
    assert quantise(np.array([1.0], np.float32))[0] == 255


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_file(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{kind}")
    whole = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_image(tmp_path / f"a.{kind}")
    with pytest.raises(InputError, match="truncated"):
        read_image(tmp_path / f"a.{kind}", size=32)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_image(tmp_path / "no.png")
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match="not a PNG or JPEG"):
        read_image(tmp_path / "a.png")
    # A GIF is an image, but no format that a radiograph comes in: its parser is not reachable.
    Image.new("L", (4, 4)).save(tmp_path / "b.gif")
    (tmp_path / "b.gif").rename(tmp_path / "b.png")
    with pytest.raises(InputError, match="not a PNG or JPEG"):
        read_image(tmp_path / "b.png")
    with pytest.raises(InputError):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_decompression_bomb_is_refused_before_decoding(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match="radiograph can have"):
        decode_png(bomb)


def test_requests_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'crop'"):
        read_image(tmp_path / "a.png", fit="cropp")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="size=0"):
        read_image(tmp_path / "a.png", size=0)
    with pytest.raises(InputError, match="shape"):
        fit_square(np.zeros((3, 4, 4), np.float32), size=4)


def test_bytes_in_memory_are_named_in_the_error() -> None:
    with pytest.raises(InputError, match="The bytes of an image"):
        decode_png(io.BytesIO(b"junk").getvalue())
