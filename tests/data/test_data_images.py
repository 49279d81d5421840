"""Images in every accepted form, and every form that is refused."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFile

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import flow_table
from citlr.data.images import decode_png, encode_png, fit_square, quantise, read_image, see_image
from citlr.data.pixels.cache import write_cache
from citlr.data.pixels.checks import structure_fault
from citlr.data.pixels.shown import Remark
from citlr.data.pixels.whole import whole_only
from citlr.data.proposals.pictures import look_at
from citlr.data.reading import read_cohort
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


def test_transparency_of_grey_pictures_is_told_in_8_and_in_16_bits(tmp_path: Path, ramp: np.ndarray) -> None:
    """A mask in the channel alpha takes away what a model that drops the channel sees."""
    masked = np.dstack([ramp, np.where(np.arange(ramp.shape[1]) < 4, 0, 255) + np.zeros_like(ramp)]).astype(np.uint8)
    Image.fromarray(masked).save(tmp_path / "masked.png")
    whole = np.dstack([ramp, np.full_like(ramp, 255)])
    Image.fromarray(whole).save(tmp_path / "whole.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png", transparency=int(ramp.max()) * 257)
    assert see_image(tmp_path / "masked.png").remarks == (Remark.TRANSPARENT,)
    assert see_image(tmp_path / "whole.png").remarks == ()
    deep = see_image(tmp_path / "deep.png")
    assert deep.remarks == (Remark.TRANSPARENT,)
    black = np.where(ramp == ramp.max(), 0, ramp)
    np.testing.assert_allclose(deep.image[0], black / 255.0, atol=1e-6)


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
        encode_png(np.zeros((2, 4, 4), np.float32))
    assert quantise(np.array([1.0], np.float32))[0] == 255


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_file(tmp_path: Path, kind: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another library has told Pillow to fill it up, as WeasyPrint does when it is loaded."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", told)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{kind}")
    whole = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_image(tmp_path / f"a.{kind}")
    with pytest.raises(InputError, match="truncated"):
        read_image(tmp_path / f"a.{kind}", size=32)
    assert told is ImageFile.LOAD_TRUNCATED_IMAGES  # the other library's business is left alone


def test_a_truncated_picture_in_colour_is_none_that_a_plan_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert "in colour (1)" in look_at(["a.png"], tmp_path).said
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert "no image that can be read (1)" in look_at(["a.png"], tmp_path).said


def test_many_threads_read_whole_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)

    def look(_: int) -> bool:
        with whole_only():
            time.sleep(0.001)
            return bool(ImageFile.LOAD_TRUNCATED_IMAGES)

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(look, range(200)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


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
        fit_square(np.zeros((2, 4, 4), np.float32), size=4)


def test_bytes_in_memory_are_named_in_the_error() -> None:
    with pytest.raises(InputError, match="The bytes of an image"):
        decode_png(io.BytesIO(b"junk").getvalue())


@pytest.mark.parametrize("kind", ["png", "png16", "rgb", "jpg"])
@pytest.mark.parametrize("turn", range(2, 9))
def test_orientation_is_applied_whatever_the_format(tmp_path: Path, kind: str, turn: int) -> None:
    values = np.zeros((48, 32), dtype=np.uint8)
    values[:16], values[:16, :16] = 100, 250
    image = {
        "png": Image.fromarray(values),
        "jpg": Image.fromarray(values),
        "png16": Image.fromarray(values.astype(np.uint16) * 257),
        "rgb": Image.fromarray(np.stack([values] * 3, axis=-1)),
    }[kind]
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / ("a.jpg" if kind == "jpg" else "a.png")
    options = {"quality": 97} if kind == "jpg" else {}
    image.save(file, exif=exif, **options)
    flipped = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7}[turn]
    expected = [
        values,
        values[:, ::-1],
        values[::-1, ::-1],
        values[::-1],
        values.T,
        np.rot90(values, -1),
        values[::-1, ::-1].T,
        np.rot90(values),
    ][flipped]
    assert np.abs(read_image(file)[0] - expected / 255).max() < (0.05 if kind == "jpg" else 1e-6)
    assert (
        np.abs(read_image(file, size=16, fit="stretch") - fit_square(read_image(file), size=16, fit="stretch")).max()
        < 0.05
    )


def test_orientation_that_comes_after_the_pixels(tmp_path: Path) -> None:
    values = np.arange(32 * 16, dtype=np.uint16).reshape(32, 16).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    piece = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:-12] + piece + content[-12:])
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], values[::-1, ::-1] / 255, atol=1e-6)


def pictures(folder: Path, arrays: list[np.ndarray]) -> pd.DataFrame:
    """Write images and the table of them, two a patient."""
    rows = []
    for row, values in enumerate(arrays):
        Image.fromarray(values).save(folder / f"{row:02d}.png")
        rows.append({"path": f"{row:02d}.png", "patient_id": f"p{row}", "sex": "fm"[row % 2], "e": row // 2 % 2})
    return pd.DataFrame(rows)


def read(table: pd.DataFrame, images: Path, **options: object) -> Cohort:
    given = {"attribute": "sex", "labels": ["e"], "min_patients_per_level": 0, **options}
    return read_cohort(table, images=images, **given)  # type: ignore[arg-type]


def smooth(row: int, top: int, kind: type = np.uint8) -> np.ndarray:
    """A picture from 0 to `top` that is another for every row."""
    grid = np.linspace(0, 1, 40)
    values = np.abs(np.sin(3 * grid[:, None] + row) * np.cos(2 * grid[None] + row))
    return (values / values.max() * top).astype(kind)


def test_what_shows_nothing_is_left_out_by_name(tmp_path: Path) -> None:
    marker = np.zeros((200, 200), np.uint8)
    marker[5:10, 5:20] = 255  # the side marker on an empty film
    noise = np.random.default_rng(0).integers(100, 103, (40, 40), dtype=np.uint8)
    blanks = [np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8), marker, noise]
    blanks.append(np.full((40, 40), 30_000, np.uint16))
    table = pictures(tmp_path, [*blanks, *(smooth(row, 200) for row in range(20))])
    with pytest.raises(
        InputError, match=r"5 of 25 images .*5 showing nothing.*00.png shows nothing: 99 % of its pixels"
    ):
        read(table, tmp_path)
    cohort = read(table, tmp_path, max_unreadable=0.3)
    assert cohort.flow[-1].names == tuple(f"{row:02d}.png" for row in range(5))
    assert len(cohort) == 20
    # Unchecked, it is named when it is read, and left out of a cache.
    unchecked = read(table, tmp_path, check="exists")
    with pytest.raises(InputError, match=r"00.png shows nothing.*check: decode"):
        unchecked.pixels([0], size=16)
    cached = write_cache(unchecked, tmp_path / "cache", size=16, max_unreadable=0.3)
    assert cached.flow[-1].names == tuple(f"{row:02d}.png" for row in range(5))


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (10, 1023), (12, 4095), (14, 16_383), (15, 65_535)])
def test_few_bits_in_sixteen_are_scaled_where_all_images_have_them(tmp_path: Path, bits: int, white: int) -> None:
    tops = [2**bits - 1 - 5 * row for row in range(20)]
    arrays = [smooth(row, top, np.uint16) for row, top in enumerate(tops)]
    cohort = read(pictures(tmp_path, arrays), tmp_path)
    assert cohort.white == white
    np.testing.assert_allclose(cohort.pixels([7], size=40)[0, 0], arrays[7] / white, atol=1e-6)
    said = [step.reason for step in cohort.flow if step.step == "remark"]
    assert bool(said) == (white < 65_535)
    assert all(f"none of them above {2**bits - 1:,}: {white:,} is taken as white" in one for one in said)
    # A part of it, and what was kept of it, are scaled alike.
    cohort.to_parquet(tmp_path / "c.parquet")
    back = Cohort.from_parquet(tmp_path / "c.parquet").take([7])
    np.testing.assert_array_equal(back.pixels(size=40), cohort.pixels([7], size=40))
    cached = write_cache(cohort, tmp_path / "cache", size=40)
    assert len(np.unique(cached.pixels([7], size=40))) > 100


def test_a_dark_image_among_bright_ones_stays_dark_with_a_remark(tmp_path: Path) -> None:
    tops = [3000 if row in (2, 9) else 65_000 for row in range(20)]
    arrays = [smooth(row, top, np.uint16) for row, top in enumerate(tops)]
    cohort = read(pictures(tmp_path, arrays), tmp_path)
    assert cohort.white == 65_535
    assert cohort.pixels([2], size=40).max() == pytest.approx(3000 / 65_535, abs=1e-4)
    assert (cohort.flow[-1].reason, cohort.flow[-1].names) == (f"2 images {Remark.FAINT}", ("02.png", "09.png"))


@pytest.mark.parametrize(("bits", "others"), [(10, 12), (12, 14), (14, 16)])
def test_images_of_fewer_bits_among_others_are_told(tmp_path: Path, bits: int, others: int) -> None:
    def told(dark: int) -> list[tuple[str, tuple[str, ...]]]:
        tops = [2 ** (bits if row < dark else others) - 1 - row for row in range(20)]
        arrays = [smooth(row, top, np.uint16) for row, top in enumerate(tops)]
        flow = read(pictures(tmp_path, arrays), tmp_path).flow
        return [(step.reason, step.names) for step in flow if "they are too dark" in step.reason]

    ((reason, names),) = told(8)
    assert reason.startswith("8 images with 16 bits whose values would fit in fewer bits than those of others")
    assert names[0] == "00.png"
    assert told(3) == []  # dark, and no more
    assert told(0) == told(20) == []


def test_checks_that_decode_nothing_look_at_a_few(tmp_path: Path) -> None:
    arrays = [smooth(row, 4000, np.uint16) for row in range(40)]
    cohort = read(pictures(tmp_path, arrays), tmp_path, check="structure")
    assert cohort.white == 65_535
    reasons = [step.reason for step in cohort.flow if step.step == "remark"]
    assert "4,095 would be taken as white by the check 'decode'" in reasons[0]
    assert f"looked-at images {Remark.FAINT}" in reasons[1]


def test_sixteen_bits_of_colour_that_pillow_would_lose_are_refused(tmp_path: Path) -> None:
    def deep(top: int) -> bytes:
        rows = b"".join(b"\0" + struct.pack(">24H", *([top] * 12 + [0] * 12)) for _ in range(8))
        pieces = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        parts = [
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in pieces
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    (tmp_path / "a.png").write_bytes(deep(4095))
    with pytest.raises(InputError, match=r"16 bits a channel.*write it as 16-bit grey"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(deep(65_535))
    assert read_image(tmp_path / "b.png").max() == 1.0


def test_colour_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pictures(tmp_path, [smooth(row, 200) for row in range(20)])
    tinted = np.stack([smooth(3, 200), smooth(3, 120), smooth(3, 80)], axis=-1)
    Image.fromarray(tinted).save(tmp_path / "03.png")
    Image.fromarray(tinted).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "04.png")
    Image.fromarray(tinted).convert("CMYK").save(tmp_path / "05.jpg")
    Image.fromarray(np.stack([smooth(6, 200)] * 3, axis=-1)).save(tmp_path / "06.png")
    Image.fromarray(np.stack([smooth(7, 200)] * 3, axis=-1)).save(tmp_path / "07.jpg", quality=70)
    table.loc[5, "path"], table.loc[7, "path"] = "05.jpg", "07.jpg"
    cohort = read(table, tmp_path, narrator=Narrator(quiet=False))
    assert cohort.flow[-1].reason == f"3 images {Remark.COLOUR}"
    assert cohort.flow[-1].names == ("03.png", "04.png", "05.jpg")
    assert "3 images in colour, and read as grey (luminance)" in capsys.readouterr().err
    page = flow_table(cohort.flow)
    assert "in colour" in page
    assert "Left out" not in page
    # The cache does not say it again.
    cached = write_cache(cohort, tmp_path / "cache", size=16)
    assert cached.flow == cohort.flow


@pytest.mark.parametrize("check", ["decode", "structure", "exists"])
def test_what_is_no_file_does_not_hang(tmp_path: Path, check: str) -> None:
    table = pictures(tmp_path, [smooth(row, 200) for row in range(20)])
    for name in ("00.png", "01.png", "02.png"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "00.png")
    (tmp_path / "01.png").mkdir()
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / "02.png"))
    door.close()
    with pytest.raises(
        InputError, match=r"3 of 20 images .*\(0 not there, 3 damaged.*00.png is a named pipe and not a file"
    ):
        read(table, tmp_path, check=check)
    cohort = read(table, tmp_path, check=check, max_unreadable=0.2)
    assert len(cohort) == 17
    unchecked = read(table, tmp_path, check="none")
    assert len(write_cache(unchecked, tmp_path / "cache", size=16, max_unreadable=0.2)) == 17
    for name, what in (("00.png", "a named pipe"), ("01.png", "a folder"), ("02.png", "a socket")):
        with pytest.raises(InputError, match=f"{name} is {what} and not a file"):
            read_image(tmp_path / name)
        assert what in str(structure_fault(tmp_path / name))
    with pytest.raises(InputError, match="is a device"):
        read_image("/dev/zero")


def test_links_out_of_the_folder_are_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    table = pictures(images, [smooth(row, 200) for row in range(20)])
    (images / "00.png").rename(tmp_path / "elsewhere.png")
    (images / "00.png").symlink_to(tmp_path / "elsewhere.png")
    (images / "01.png").rename(images / "inside.png")
    (images / "01.png").symlink_to("inside.png")
    cohort = read(table, images)
    assert (cohort.flow[-1].reason, cohort.flow[-1].names) == (f"1 images {Remark.LINK}", ("00.png",))
    # A link to the whole folder leads nowhere else.
    (tmp_path / "again").symlink_to(images)
    assert read(table, tmp_path / "again").flow[-1].names == ("00.png",)
    frame = pd.DataFrame({"image_id": ["a"], "path": ["../elsewhere.png"], "patient_id": ["p"]})
    with pytest.raises(InputError, match="leads out of the image folder"):
        Cohort(frame, images, attributes=(), labels=()).pixels(size=16)


@pytest.mark.parametrize("check", ["decode", "structure", "exists"])
def test_a_link_to_itself_or_a_name_that_no_file_can_have_is_one_missing_file(tmp_path: Path, check: str) -> None:
    table = pictures(tmp_path, [smooth(row, 200) for row in range(20)])
    (tmp_path / "00.png").unlink()
    (tmp_path / "00.png").symlink_to("00.png")
    (tmp_path / "round").symlink_to("round")
    wrong = ["00.png", "round/1.png", "n" * 5000 + ".png", "n" * 300]
    table.loc[:3, "path"] = wrong
    cohort = read(table, tmp_path, check=check, max_unreadable=0.2)
    assert cohort.flow[-1].names == tuple(wrong)
    assert "4 not there, 0 damaged" in cohort.flow[-1].reason
    assert "not there (4)" in look_at(wrong, tmp_path).said


def test_structure_refuses_what_the_reader_refuses_by_the_header(tmp_path: Path) -> None:
    for name, content in {
        "a.gif": b"GIF89a" + bytes(200),
        "b.tif": b"II*\0" + bytes(200),
        "c.png": b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 60_000, 60_000, 8, 0, 0, 0, 0, 0)
        + bytes(30),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert structure_fault(tmp_path / name) == str(caught.value)
    assert "but a TIFF file; write it as PNG" in str(structure_fault(tmp_path / "b.tif"))


@pytest.mark.parametrize(("mark", "kind"), [(b"WEBP", "WebP"), (b"heic", "HEIC"), (b"avif", "AVIF")])
def test_what_telephones_and_web_pages_give_is_named(tmp_path: Path, mark: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftyp" + mark + bytes(200))
    with pytest.raises(InputError, match=f"but a {kind} file; write it as PNG"):
        read_image(tmp_path / "a.jpg")


def test_see_image_says_what_it_saw(tmp_path: Path) -> None:
    Image.fromarray(smooth(0, 4000, np.uint16)).save(tmp_path / "a.png")
    seen = see_image(tmp_path / "a.png", white=4095)
    assert (seen.peak, seen.remarks) == (4000, ())
    assert seen.image.max() == pytest.approx(4000 / 4095)
    assert 0.5 < seen.contrast <= 1.0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "form", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 4}, {"format": "MPO"}]
)
def test_a_jpeg_that_is_damaged_in_the_middle_is_told(tmp_path: Path, mode: str, form: dict[str, object]) -> None:
    pytest.importorskip("kornia_rs.io", reason="no decoder says so")
    if mode == "CMYK" and form:
        return
    noise = np.random.default_rng(4)
    rows = []
    for number in range(40):
        stream = io.BytesIO()
        picture = Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)).convert(mode)
        picture.save(stream, **{"format": "JPEG", "quality": 90, **form})
        content, middle = stream.getvalue(), len(stream.getvalue()) // 2
        if number in (3, 8):
            content = content[:middle] + bytes(512) + content[middle + 512 :]
        if number in (20, 21):
            content = content[:middle] + b"\xff\xd9"
        (tmp_path / f"{number}.jpg").write_bytes(content + b"what a phone adds" * (number % 2))
        rows.append(
            {"path": f"{number}.jpg", "patient_id": f"p{number}", "sex": "fm"[number // 2 % 2], "edema": number % 2}
        )
    usual = {"images": tmp_path, "attribute": "sex", "labels": ["edema"], "min_patients_per_level": 0}
    cohort = read_cohort(pd.DataFrame(rows), **usual)
    assert len(cohort) == 40
    told = [step.names for step in cohort.flow if "whose JPEG is damaged" in step.reason]
    # Which faults of CMYK are faults, the decoder does not say.
    assert told == ([] if mode == "CMYK" else [("3.jpg", "8.jpg", "20.jpg", "21.jpg")])
