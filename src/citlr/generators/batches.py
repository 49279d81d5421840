"""Images through a network in batches of one size, and the check that they are images at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from citlr.errors import InputError
from citlr.generators.base import Images

# Images at a time. Always exactly this many (the last batch is filled up), as libraries choose other arithmetic for
# other batch sizes: an image's bits must not depend on its company.
BATCH = 32


def batches(images: Images, size: int = BATCH) -> Iterator[tuple[slice, list[int], Images]]:
    """Cut images into batches of exactly `size`, the last filled up with its own last image.

    Gives where the batch belongs, its `size` rows, and its images.

    Shapes: `images` (n, c, s, s); gives (size, c, s, s).

    >>> [(part, rows, len(batch)) for part, rows, batch in batches(np.zeros((3, 1, 2, 2), np.float32), 2)]
    [(slice(0, 2, None), [0, 1], 2), (slice(2, 3, None), [2, 2], 2)]
    """
    for begin in range(0, len(images), size):
        part, rows = batch_at(begin, len(images), size)
        yield part, rows, images[rows]


def batch_at(begin: int, count: int, size: int) -> tuple[slice, list[int]]:
    """Give the place of the batch that begins at one of `count` images, and its `size` rows."""
    part = slice(begin, min(count, begin + size))
    return part, [min(row, part.stop - 1) for row in range(begin, begin + size)]


def check_images(images: Images, size: int, channels: int = 1) -> None:
    """Refuse what is no array of images of the generator's size and channels in [0, 1].

    Shapes: `images` (n, channels, size, size).
    """
    if images.ndim != 4 or images.shape[1:] != (channels, size, size):
        raise InputError(f"Images have the shape {images.shape}; the generator needs (n, {channels}, {size}, {size}).")
    if len(images) and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise InputError("Images hold NaN or values outside [0, 1]; read them with citlr.data.images.read_image.")
