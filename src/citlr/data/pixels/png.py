"""Plain 8-bit grey PNGs, as most public radiographs are, decoded by the Rust decoder of `kornia_rs`.

Pillow takes three times as long: nearly every row of such a file is filtered with Paeth's predictor, whose branches on
single-byte pixels cost it more than the inflating. PNG is lossless, so both give the same values; every other kind of
file, and every file in which this decoder finds a fault, is left to Pillow. Of JPEGs, which Pillow decodes, another of
its decoders says which are damaged.
"""

import struct
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Up to the end of the first chunk, which has the size and the kind of the pixels.
HEAD = 33
# Bit depth 8, colour type grey, the only compression and filter methods that there are, not interlaced.
_PLAIN = bytes((8, 0, 0, 0, 0))
# These change what the pixels mean or which way is up: a transparent grey value, an animation, EXIF, and the texts in
# which some programs keep their EXIF or XMP.
_NOT_PLAIN = (b"tRNS", b"acTL", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_WITH_ORIENTATION = (b"Raw profile type", b"XML:com.adobe.xmp")


def is_plain_gray(head: bytes, *, max_pixels: int) -> bool:
    """Say whether a file that starts like this may be a plain 8-bit grey PNG of at most `max_pixels` pixels."""
    if len(head) < HEAD or not head.startswith(SIGNATURE) or head[12:16] != b"IHDR" or head[24:29] != _PLAIN:
        return False
    width, height = struct.unpack(">II", head[16:24])
    pixels: int = width * height
    return 0 < pixels <= max_pixels


def decode_plain_gray(content: bytes, *, max_pixels: int) -> npt.NDArray[np.uint8] | None:
    """Decode a plain 8-bit grey PNG (H, W); None of another file, one with a fault, or without the decoder."""
    if not is_plain_gray(content[:HEAD], max_pixels=max_pixels) or not _pixels_follow(content):
        return None
    decode = _decoder()
    if decode is None:
        return None
    width, height = struct.unpack(">II", content[16:24])
    try:
        decoded = decode(content, (height, width), "mono")
    except (
        Exception
    ):  # the bindings raise plain Exceptions; Pillow then decides whether the fault matters, and names it
        return None
    return np.asarray(decoded).reshape(height, width)


def _pixels_follow(content: bytes) -> bool:
    """Walk the chunks; False at one that changes the meaning of the pixels, or when there are no pixels.

    To the end, since EXIF may follow the pixels; there are some fifty chunks in a file, and none is looked into.
    """
    place, pixels = HEAD, False
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        pixels = pixels or kind == b"IDAT"
        if kind in _NOT_PLAIN or (kind in _TEXTS and content[place + 8 : place + 25].startswith(_WITH_ORIENTATION)):
            return False
        place += 12 + length
    return pixels


@cache
def _decoder() -> Any:
    """Import the decoder at the first image; None on a platform that it has no build for."""
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    return decode_image_png_u8


def jpeg_is_damaged(content: bytes) -> bool:
    """Say whether a JPEG, of grey or RGB, has faults that Pillow passes over.

    A JPEG has no checksum: behind a block that was lost, Pillow goes on with whatever comes out. Most such are found.
    """
    from kornia_rs.io import decode_image_jpegturbo

    try:
        decode_image_jpegturbo(content, "mono")
    except Exception:  # the bindings raise plain Exceptions
        return True
    return False
