"""Thickness and intensity of a digit: how they are measured, and the same digit with others.

The definitions are those of Morpho-MNIST (Castro et al. 2019): thickness is twice the mean distance from the skeleton
to the edge, measured on the binary digit at a finer raster; intensity, as in Pawlowski et al. (2020), the median of
the pixels brighter than half. Strokes are thickened and thinned by moving their edge along the distance to it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
# Fine pixels per pixel, along a side.
FINE = 4
# Digits thinned at a time.
BLOCK = 64
# Half of the thinnest stroke, in fine pixels: what is left of a skeleton alone.
THINNEST = 0.5
WHITE = 255.0


def measure(images: NDArray[np.floating] | NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Measure thickness in pixels and intensity in 0 to 255, (n,) each, of images (n, s, s) in 0 to 255."""
    depth, skeleton = shapes(images)
    thickness = np.array([2 * _half(each, bones, 0.0) / FINE for each, bones in zip(depth, skeleton, strict=True)])
    return thickness, intensities(images)


def intensities(images: NDArray[np.floating] | NDArray[np.uint8]) -> Floats:
    """Give the median of the pixels at or above the middle of an image's range, (n,)."""
    flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
    middle = (flat.min(axis=1) + flat.max(axis=1)) / 2
    return np.array([np.median(pixels[pixels >= least]) for pixels, least in zip(flat, middle, strict=True)])


def shapes(images: NDArray[np.floating] | NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Give depth and skeleton of digits (n, s, s): (n, 4s, 4s) each.

    Depth is the distance to the edge in fine pixels, positive within the stroke.
    """
    pixels = torch.from_numpy(np.asarray(images, dtype=np.float32))[:, None]
    fine = torch.nn.functional.interpolate(pixels, scale_factor=FINE, mode="bicubic", align_corners=False)[:, 0].numpy()
    low, high = (bound(fine, axis=(1, 2), keepdims=True) for bound in (np.min, np.max))
    within = (fine >= (low + high) / 2) & (high > low)
    depth = np.stack([_depth(each) for each in within])
    skeleton = np.concatenate([thinned(within[k : k + BLOCK]) for k in range(0, len(within), BLOCK)])
    return depth, skeleton


def _depth(within: NDArray[np.bool_]) -> NDArray[np.float32]:
    # The edge lies half a pixel from the centres on either side of it.
    inside, outside = ndimage.distance_transform_edt(within), ndimage.distance_transform_edt(~within)
    found: NDArray[np.float32] = np.where(within, inside - 0.5, 0.5 - outside).astype(np.float32)
    return found


def thinned(within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin shapes (n, s, s) to lines of one pixel that keep how they hang together (Zhang and Suen 1984).

    >>> bar = np.zeros((1, 7, 9), dtype=bool)
    >>> bar[:, 2:5, 1:8] = True
    >>> thinned(bar)[0].sum(axis=1).tolist()
    [0, 0, 0, 4, 0, 0, 0]
    """
    left = np.pad(within, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    while True:
        before = int(left.sum())
        for table in _tables():
            left[:, 1:-1, 1:-1] &= table[_neighbours(left)]
        if int(left.sum()) == before:
            found: NDArray[np.bool_] = left[:, 1:-1, 1:-1].astype(bool)
            return found


def _neighbours(padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Code the eight neighbours of every pixel as bits, clockwise from the one above."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    code = np.zeros((len(padded), height, width), dtype=np.uint8)
    for bit, (down, right) in enumerate(((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))):
        code |= padded[:, down : down + height, right : right + width] << np.uint8(bit)
    return code


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Say for every code of neighbours whether the pixel stays, in each of the two passes."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    count = bits.sum(axis=1)
    rises = ((bits == 0) & (np.roll(bits, -1, axis=1) == 1)).sum(axis=1)
    above, right, below, left = (bits[:, k] for k in (0, 2, 4, 6))
    edge = (count >= 2) & (count <= 6) & (rises == 1)
    first = edge & (above * right * below == 0) & (right * below * left == 0)
    second = edge & (above * right * left == 0) & (above * below * left == 0)
    return (~first).astype(np.uint8), (~second).astype(np.uint8)


def _half(depth: NDArray[np.float32], skeleton: NDArray[np.bool_], move: float) -> float:
    """Give the mean distance from the skeleton to an edge that is moved outwards, in fine pixels."""
    bones = depth[skeleton]
    return float(np.maximum(bones.astype(np.float64) + move, THINNEST).mean()) if len(bones) else 0.0


def drawn(depth: NDArray[np.float32], skeleton: NDArray[np.bool_], thickness: float, intensity: float) -> Floats:
    """Draw one digit at a thickness in pixels and an intensity in 0 to 255: (s, s) in 0 to 255, not rounded.

    The edge is moved so that twice the mean distance from the digit's own skeleton is the thickness. The skeleton stays
    where a stroke would vanish, so that a thin digit does not fall apart.
    """
    low, high = -float(depth.max()) - 1, FINE * thickness
    for _ in range(40):
        move = (low + high) / 2
        low, high = (move, high) if 2 * _half(depth, skeleton, move) / FINE < thickness else (low, move)
    cover = np.maximum(np.clip(depth + high + 0.5, 0, 1), skeleton)
    side = depth.shape[0] // FINE
    image = WHITE * cover.reshape(side, FINE, side, FINE).mean(axis=(1, 3), dtype=np.float64)
    bright = float(intensities(image[None])[0])
    found: Floats = np.clip(image * (intensity / bright), 0, WHITE)
    return found
