"""The quick decoder of plain grey PNGs: the same pixels as Pillow's, and Pillow's word on everything else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from citlr.data.images import decode_png, read_image
from citlr.data.pixels import png
from citlr.data.pixels.png import decode_plain_gray, is_plain_gray
from citlr.data.pixels.shown import contrast
from citlr.errors import InputError

MANY = 10_000_000


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


def gray(side: int = 40, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered(values: np.ndarray, kind: int) -> bytes:
    """A PNG in which every row has one and the same filter, written by hand."""
    rows, above = [], np.zeros(values.shape[1], dtype=int)
    for row in values.astype(int):
        left, corner = np.r_[0, row[:-1]], np.r_[0, above[:-1]]
        guess = left + above - corner
        off = np.abs([guess - left, guess - above, guess - corner])
        paeth = np.where((off[0] <= off[1]) & (off[0] <= off[2]), left, np.where(off[1] <= off[2], above, corner))
        predicted = [0 * row, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
        above = row
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"".join(rows))
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind: int) -> None:
    values = gray()[:, :33]
    decoded = decode_plain_gray(filtered(values, kind), max_pixels=MANY)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, values)


@settings(max_examples=40)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)), st.integers(0, 9))
def test_the_pixels_are_pillows(values: np.ndarray, level: int) -> None:
    content = encoded(Image.fromarray(values), compress_level=level)
    decoded = decode_plain_gray(content, max_pixels=MANY)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(content))))


def others() -> dict[str, bytes]:
    values = gray()
    first = encoded(Image.fromarray(values))
    return {
        "transparent grey": encoded(Image.fromarray(values), transparency=0),
        "16 bit": encoded(Image.fromarray(values.astype(np.uint16) * 257)),
        "colour": encoded(Image.fromarray(np.stack([values] * 3, axis=-1))),
        "palette": encoded(Image.fromarray(values).convert("P")),
        "one bit": encoded(Image.fromarray(values > 90)),
        "animation": encoded(Image.fromarray(values), save_all=True, append_images=[Image.fromarray(255 - values)]),
        # Pillow does not mind; the quick decoder does.
        "no end": first[:-12],
    }


@pytest.mark.parametrize("kind", others())
def test_other_kinds_are_left_to_pillow(kind: str, tmp_path: Path) -> None:
    content = others()[kind]
    assert decode_plain_gray(content, max_pixels=MANY) is None
    (tmp_path / "a.png").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        layered = image.convert("RGBA") if "transparency" in image.info else image
        black = Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered.convert("RGBA"))
        expected = np.asarray(image) / 65535 if image.mode == "I;16" else np.asarray(black.convert("L")) / 255
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], expected, atol=1e-6)
    np.testing.assert_array_equal(decode_png(content), read_image(tmp_path / "a.png"))


def test_faults_are_named_by_pillow(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(gray(200)))
    for damage in (content[: len(content) // 2], content[:60] + bytes(20) + content[80:], content[:36]):
        (tmp_path / "a.png").write_bytes(damage)
        assert decode_plain_gray(damage, max_pixels=MANY) is None
        with pytest.raises(InputError, match=r"a\.png"):
            read_image(tmp_path / "a.png")


def test_size_is_looked_at_before_decoding() -> None:
    content = encoded(Image.fromarray(gray(40)))
    assert is_plain_gray(content[: png.HEAD], max_pixels=1600)
    assert not is_plain_gray(content[: png.HEAD], max_pixels=1599)
    assert not is_plain_gray(content[:20], max_pixels=MANY)


def test_without_the_quick_decoder_the_pixels_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gray(90)).save(tmp_path / "a.png")
    quick = read_image(tmp_path / "a.png", size=32)
    monkeypatch.setattr(png, "_decoder", lambda: None)
    assert decode_plain_gray((tmp_path / "a.png").read_bytes(), max_pixels=MANY) is None
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", size=32), quick)


@pytest.mark.parametrize("size", [1, 2, 3, 200, 201, 4096, 70_001])
def test_the_contrast_of_bytes_is_that_of_the_same_numbers(size: int) -> None:
    random = np.random.default_rng(size)
    for low, high in ((0, 256), (17, 21), (255, 256), (0, 2)):
        image = random.integers(low, high, size).astype(np.uint8)
        assert contrast(image) == contrast(image.astype(np.float64))
