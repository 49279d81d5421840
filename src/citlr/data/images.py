"""One image in, one float32 array in [0, 1] out: PNG, JPEG and DICOM, 8 and 16 bit, any size, upright, grey or RGB."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from citlr.data.pixels.colour import as_rgb, is_transparent, on_black, require_channels
from citlr.data.pixels.png import HEAD, SIGNATURE, decode_plain_gray, is_plain_gray
from citlr.data.pixels.shown import BARE_DICOM, DICOM, MAX_PIXELS, WHITE, Pixels, Remark, Seen, contrast
from citlr.data.pixels.square import FITS, Fit, Region
from citlr.data.pixels.whole import whole_only
from citlr.errors import InputError, require_known
from citlr.run.files import require_regular
from citlr.text import shortened

# What Pillow may decode: every further format is a parser more that a hostile file can reach.
FORMATS = ("PNG", "JPEG")
# How Pillow names what a file holds, in words.
MODES = {"L": "grey, 8 bits", "1": "black and white", "LA": "grey with transparency", "I;16": "grey, 16 bits",
         "I": "grey, 16 bits", "P": "a palette", "RGB": "RGB", "RGBA": "RGB with transparency"}  # fmt: skip
DICOM_SUFFIXES = (".dcm", ".dicom")
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg")
# Channels of a grey JPEG that was saved in colour differ by rounding; a coloured mark differs by more.
TINT = 16
# The bytes of a DICOM file up to the end of the word that says so.
PREAMBLE = 132
# How files of other kinds begin: an error says what was found.
_OTHERS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\x1f\x8b": "gzip",
    b"\0\0\0\x0cjP": "JPEG 2000",
}
# What telephones and web pages give: kinds that stand behind the length of a box.
_IN_BOX = {b"WEBP": "WebP", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


def read_image(path: str | os.PathLike[str], *, size: int | None = None, fit: Fit = "pad", channels: int = 1) -> Pixels:
    """Read one image as values in [0, 1]: grey, or with `channels=3` red, green and blue (see `as_rgb`).

    Read as grey, colour becomes luminance. Transparency lies on black, the orientation that is noted in a PNG or JPEG
    is applied, 16-bit values are divided by 65535 and 8-bit ones by 255. Shrinking is antialiased (triangle filter).

    `size` is the side of a square that is wanted, and `fit` how a rectangle becomes one: black bars (pad), the centre
    square (crop), or a change of aspect (stretch). Shapes: (channels, H, W).
    """
    return see_image(path, size=size, fit=fit, channels=channels).image


def see_image(
    path: str | os.PathLike[str], *, size: int | None = None, fit: Fit = "pad", white: int = WHITE, channels: int = 1
) -> Seen:
    """Read one image as `read_image` does, with what there is to say of it; `white` is that of 16-bit values."""
    _check_request(size, fit)
    require_channels(channels)
    source = require_regular(path)
    named = source.suffix.lower() in DICOM_SUFFIXES
    # The quick kind first, which no DICOM file is: it is opened once.
    plain = _read_plain(source) if channels == 1 and not named else None
    if plain is not None:
        kind = f"PNG, {MODES['L']}"
        return Seen(_to_array(Image.fromarray(plain), size, fit), contrast(plain) / 255.0, kind=kind)
    if named or is_dicom(source):
        if channels > 1:
            raise InputError(f"{source} is DICOM, which is read as grey: write it as an RGB PNG, or say channels: 1.")
        from citlr.data.pixels.dicom import show_dicom

        film, remarks, stated = show_dicom(source)
        kind = DICOM if stated else BARE_DICOM
        return Seen(fit_square(film, size=size, fit=fit), contrast(film), remarks, kind=kind)
    with _opened(source) as image:
        kind = f"{image.format}, {MODES.get(image.mode, image.mode)}"
        return replace(_seen(image, size, fit, white=white, channels=channels), kind=kind)


def require_openable(file: Path) -> None:
    """Refuse, by its first bytes, what `read_image` refuses by them: no PNG or JPEG, or too many pixels."""
    with _opened(require_regular(file)):
        return


def is_dicom(file: Path) -> bool:
    """Say whether a file begins as a DICOM one does, whatever it is called; False where it cannot be read."""
    try:
        with require_regular(file).open("rb") as stream:
            head = stream.read(PREAMBLE)
    except (OSError, InputError):
        return False
    return head[128:] == b"DICM" and not head.startswith((SIGNATURE, b"\xff\xd8\xff"))


def fit_square(image: Pixels, *, size: int | None, fit: Fit = "pad") -> Pixels:
    """Resize values (1, H, W), (H, W) or (3, H, W) to (c, size, size); with `size=None` only add a leading axis."""
    _check_request(size, fit)
    plane = np.asarray(image, dtype=np.float32)
    if plane.ndim == 3 and len(plane) == 3:
        return np.concatenate([fit_square(one, size=size, fit=fit) for one in plane])
    plane = plane[0] if plane.ndim == 3 and plane.shape[0] == 1 else plane
    if plane.ndim != 2:
        raise InputError(f"An image has the shape {tuple(image.shape)}; (1, H, W), (H, W) or (3, H, W) is needed.")
    if size is None:
        return plane[None]
    return _to_array(Image.fromarray(plane, mode="F"), size, fit)


def decode_png(content: bytes, channels: int = 1) -> Pixels:
    """Turn the bytes of a PNG into values (channels, H, W) in [0, 1]."""
    plain = decode_plain_gray(content, max_pixels=MAX_PIXELS) if channels == 1 else None
    if plain is not None:
        return _to_array(Image.fromarray(plain), None, "pad")
    with _opened(io.BytesIO(content)) as image:
        return _seen(image, None, "pad", white=WHITE, channels=channels).image


def encode_png(image: npt.NDArray[np.floating]) -> bytes:
    """Turn values (1, H, W), (H, W) or (3, H, W) in [0, 1] into the bytes of an 8-bit PNG, off by 1/510 at most."""
    plane = image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    if plane.ndim != 2 and not (plane.ndim == 3 and len(plane) == 3):
        raise InputError(f"An image has the shape {tuple(image.shape)}; a PNG is written of (1, H, W) or (3, H, W).")
    # The comparison is false for NaN, so one test finds both faults.
    if not (plane.size and float(plane.min()) >= 0.0 and float(plane.max()) <= 1.0):
        raise InputError("An image to be written as PNG holds NaN or values outside [0, 1]; scale it first.")
    stream = io.BytesIO()
    # Level 1: a quarter of the time of the default for a tenth more bytes on radiographs.
    Image.fromarray(interleaved(quantise(plane))).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def interleaved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give 8-bit pixels (H, W), (1, H, W) or (3, H, W) as picture files have them: (H, W) or (H, W, 3)."""
    if pixels.ndim == 2:
        return pixels
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def quantise(image: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Round values in [0, 1] to the nearest of 256 steps."""
    scaled = np.asarray(image, dtype=np.float32) * np.float32(255.0)
    rounded: npt.NDArray[np.uint8] = np.floor(scaled + np.float32(0.5)).astype(np.uint8)
    return rounded


def _check_request(size: int | None, fit: str) -> None:
    require_known(fit, FITS, f"fit='{fit}' is not known")
    if size is not None and size < 1:
        raise InputError(f"size={size} is not a number of pixels; give 1 or more.")


def _read_plain(source: Path) -> npt.NDArray[np.uint8] | None:
    """Decode the quick kind; None for every other file and every fault, which `_opened` then names."""
    try:
        with source.open("rb") as stream:
            head = stream.read(HEAD)
            if not is_plain_gray(head, max_pixels=MAX_PIXELS):
                return None
            content = head + stream.read()
    except OSError:
        return None
    return decode_plain_gray(content, max_pixels=MAX_PIXELS)


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Open a PNG or JPEG and turn every way in which that can fail, now or while decoding, into one sentence."""
    name = str(source) if isinstance(source, Path) else "The bytes of an image"
    try:
        with whole_only(), Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{name} claims {width} x {height} pixels, more than the {MAX_PIXELS:,} that a radiograph can "
                    "have; it is refused as a decompression bomb."
                )
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name} is not there; check the image folder and the path column.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} claims more pixels than a radiograph can have; it is refused ({error}).") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a PNG or JPEG image, nor DICOM{_other_kind(source)}.") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{name} cannot be decoded, it may be truncated ({shortened(str(error))}).") from error
    except Exception as error:
        raise InputError(f"{name} cannot be decoded ({type(error).__name__}: {shortened(str(error))}).") from error


def _other_kind(source: Path | io.BytesIO) -> str:
    if not isinstance(source, Path):
        return ""
    with source.open("rb") as stream:
        head = stream.read(12)
    kind = next((name for start, name in _OTHERS.items() if head.startswith(start)), None) or _IN_BOX.get(head[8:12])
    return "" if kind is None else f", but a {kind} file; write it as PNG"


def _seen(image: Image.Image, size: int | None, fit: Fit, *, white: int, channels: int) -> Seen:
    # The decoder's name of the pixels; Pillow drops the lower half of all but grey ones.
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    if image.format == "JPEG" and size is not None:
        # The decoder then skips the frequencies that a target this small cannot show; never below twice the size.
        image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))
    image.load()
    upright = ImageOps.exif_transpose(image)
    if channels > 1:
        colour, done = as_rgb(upright, getattr(image, "filename", None) or "An image", deep=deep)
        return Seen(_to_array(colour, size, fit), contrast(np.asarray(colour.convert("L"))) / 255.0, done)
    if upright.mode.startswith("I"):
        values, clear = np.asarray(upright), upright.info.get("transparency")
        ground = values == clear if isinstance(clear, int) else np.zeros(values.shape, dtype=bool)
        values = np.where(ground, 0, values)
        peak = int(values.max(initial=0))
        scaled = np.clip(values.astype(np.float32) / np.float32(white), 0.0, 1.0)
        clears = (Remark.TRANSPARENT,) if ground.any() else ()
        return Seen(_to_array(Image.fromarray(scaled, mode="F"), size, fit), contrast(scaled), clears, peak=peak)
    gray, coloured = _gray(upright)
    values = np.asarray(gray)
    if deep and values.max(initial=0) < 64:
        raise InputError(
            f"{getattr(image, 'filename', None) or 'An image'} has 16 bits a channel, with values below "
            f"{64 * 256:,} of 65,535, and Pillow reads the upper 8 of colour and transparent images; write it as "
            "16-bit grey."
        )
    said = {Remark.COLOUR: coloured, Remark.TRANSPARENT: is_transparent(upright)}
    remarks = tuple(remark for remark, holds in said.items() if holds)
    return Seen(_to_array(gray, size, fit), contrast(values) / 255.0, remarks)


def _gray(image: Image.Image) -> tuple[Image.Image, bool]:
    """Turn any image of 8 bits into mode L, and say whether it was in colour."""
    image = on_black(image)
    if image.mode in ("L", "1"):
        return image.convert("L"), False
    red, green, blue = image.convert("RGB").split()
    tints = [np.asarray(ImageChops.difference(red, other)) for other in (green, blue)]
    return image.convert("L"), any(int(tint.max(initial=0)) > TINT for tint in tints)


def _to_array(image: Image.Image, size: int | None, fit: Fit) -> Pixels:
    scale = np.float32(1.0) if image.mode == "F" else np.float32(1.0 / 255.0)
    resized = image if size is None else _resized(image, size, fit)
    values = np.asarray(resized, dtype=np.float32) * scale
    planes = values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))
    if size is None or planes.shape[1:] == (size, size):
        return planes
    square = np.zeros((len(planes), size, size), dtype=np.float32)
    place = Region.of(*image.size, size=size, fit=fit)
    top, left = int(place.top), int(place.left)
    square[:, top : top + planes.shape[1], left : left + planes.shape[2]] = planes
    return square


def _resized(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    place, box, target = Region.of(width, height, size=size, fit=fit), None, (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    else:
        target = (int(place.width), int(place.height))
    return image.resize(target, Image.Resampling.BILINEAR, box=box)
