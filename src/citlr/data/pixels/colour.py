"""A picture in colour: which kinds of file become red, green and blue, and which are refused by name."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from citlr.data.pixels.shown import Remark
from citlr.errors import InputError

# Of a cohort: grey, or red, green and blue (sRGB, as the files have it).
Channels = Literal[1, 3]
CHANNELS: tuple[Channels, ...] = (1, 3)
# Modes of Pillow that say what they are in red, green and blue without a choice of ours.
_PLAIN = ("RGB", "P", "L", "1", "LA", "PA", "RGBA")
# Weights of red, green and blue in luminance (ITU-R BT.601, as Pillow has it).
LUMINANCE = (0.299, 0.587, 0.114)


def require_channels(channels: int, source: object = None) -> None:
    """Refuse a number of channels that is neither grey nor colour, or not that of the pixels of a source."""
    if isinstance(channels, bool) or channels not in CHANNELS:
        raise InputError(f"channels={channels} is not known: give 1 (grey) or 3 (red, green and blue).")
    there = getattr(source, "channels", channels)
    if there != channels:
        raise InputError(
            f"The pixels of the cohort have {there} channel(s) and the cohort is to have {channels}: prepare it again "
            "that way, or read the image files (cohort.cache: false)."
        )


def as_rgb(image: Image.Image, name: str, *, deep: bool) -> tuple[Image.Image, tuple[Remark, ...]]:
    """Turn an upright picture into mode RGB, with what was done to it.

    Transparency lies on black, grey is repeated, and both are remarked. `deep` says that the file has 16 bits a
    channel: those, CMYK and other spaces are refused, for what becomes of them is a choice that is its owner's.
    """
    if deep or image.mode.startswith(("I", "F")):
        raise InputError(f"{name} has 16 bits a channel, and colour is read with 8: write it as 8-bit RGB.")
    if image.mode not in _PLAIN:
        raise InputError(
            f"{name} is in {image.mode}, not in RGB: write it as 8-bit RGB with the profile it was made for."
        )
    laid = on_black(image)
    said = {Remark.TRANSPARENT: is_transparent(image), Remark.GREY: laid.mode in ("L", "1")}
    return laid.convert("RGB"), tuple(remark for remark, holds in said.items() if holds)


def on_black(image: Image.Image) -> Image.Image:
    """Lay a picture on a black ground, if it has a transparency at all."""
    if not _has_transparency(image):
        return image
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)


def is_transparent(image: Image.Image) -> bool:
    """Say whether a picture lets the ground show through anywhere."""
    shows = _has_transparency(image)
    return shows and bool(np.asarray(image.convert("RGBA").getchannel("A")).min(initial=255) < 255)


def _has_transparency(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info


def luminance(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give the luminance (..., 1, h, w) of images (..., c, h, w); grey ones are what they are."""
    if images.shape[-3] == 1:
        return images
    weights = np.asarray(LUMINANCE, dtype=np.float32).reshape(3, 1, 1)
    found: npt.NDArray[np.float32] = (images * weights).sum(axis=-3, keepdims=True)
    return found
