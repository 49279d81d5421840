"""A world of digits: thickness and intensity by the equations of Pawlowski et al. (2020), and every counterfactual.

`t = 0.5 + Gamma(10, rate 5)`, `i = 64 + 191 sigmoid(0.5 e + 2 t - 5)` with standard normal e; the image is the digit
drawn at t and i. Thickness moves intensity, and intensity moves nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.special import expit

from citlr.data.cohort import Cohort
from citlr.run.files import fingerprint
from citlr.simulators.morphomnist.files import Digits
from citlr.simulators.units import write_images

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
            return left[:, 1:-1, 1:-1].astype(bool)


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


ATTRIBUTES, DIGIT = ("thickness", "intensity"), "digit"
# Digits are drawn at 28 pixels and lie in the middle of this many.
SIZE = 32
TABLE = "digits.csv"


def intensity_of(thickness: ArrayLike, noise: ArrayLike) -> Floats:
    """Give the intensity (n,) that a thickness has under the noise of an image: what do(thickness) moves along."""
    found: Floats = 64 + 191 * expit(0.5 * np.asarray(noise) + 2 * np.asarray(thickness) - 5)
    return found


@dataclass(frozen=True)
class MorphoSample:
    """Digits with their thickness and intensity, and on demand with any other.

    - `digits`: Strokes as they were written; what is drawn depends on them, the thickness and the intensity alone.
    - `names` (n,): Of the images.
    - `thickness`, `noise` (n,): In pixels; what else moves intensity.
    - `intensity` (n,): In 0 to 255.
    """

    digits: Digits
    names: tuple[str, ...]
    thickness: Floats
    noise: Floats
    intensity: Floats

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per image: image_id, patient_id, path, thickness, intensity, digit."""
        return pd.DataFrame(
            {
                "image_id": self.names,
                "patient_id": self.names,
                "path": [f"images/{name}.png" for name in self.names],
                "thickness": self.thickness,
                "intensity": self.intensity,
                DIGIT: [str(label) for label in self.digits.labels],
            }
        )

    def take(self, rows: ArrayLike) -> MorphoSample:
        """Return some of them, by position."""
        index = np.asarray(rows, dtype=np.intp)
        return MorphoSample(
            self.digits.take(index),
            tuple(self.names[row] for row in index),
            self.thickness[index],
            self.noise[index],
            self.intensity[index],
        )

    def do(self, *, thickness: ArrayLike | None = None, intensity: ArrayLike | None = None) -> MorphoSample:
        """Set thickness, intensity or both, (n,) or one for all: the same strokes and the same noise.

        With thickness alone, intensity follows; with intensity, thickness stays.
        """
        count = len(self)
        width = self.thickness if thickness is None else np.broadcast_to(np.asarray(thickness, dtype=np.float64), count)
        grey = self.intensity if thickness is None else intensity_of(width, self.noise)
        if intensity is not None:
            grey = np.broadcast_to(np.asarray(intensity, dtype=np.float64), count)
        return replace(self, thickness=np.array(width), intensity=np.array(grey))

    def images(self) -> NDArray[np.float32]:
        """Draw them: (n, 1, 32, 32) in [0, 1], in 256 grey values as files are."""
        out = np.zeros((len(self), 1, SIZE, SIZE), dtype=np.float32)
        for start in range(0, len(self), BLOCK):
            depth, skeleton = shapes(self.digits.pixels[start : start + BLOCK])
            for k, row in enumerate(range(start, min(start + BLOCK, len(self)))):
                image = drawn(depth[k], skeleton[k], float(self.thickness[row]), float(self.intensity[row]))
                edge = (SIZE - len(image)) // 2
                out[row, 0, edge:-edge, edge:-edge] = np.round(image) / WHITE
        return out

    def fingerprint(self) -> str:
        """Fingerprint all that the images depend on."""
        numbers = [self.thickness.tolist(), self.noise.tolist(), self.intensity.tolist()]
        return fingerprint([self.digits.fingerprint(), self.names, numbers])

    def write(self, directory: str | Path) -> None:
        """Write 8-bit PNG files, and the table last."""
        write_images(directory, self.frame, self.images(), table=TABLE)

    def cohort(self, directory: str | Path) -> Cohort:
        """Give what `write` wrote as images to learn from."""
        return Cohort(self.frame, Path(directory), attributes=ATTRIBUTES, labels=(), covariates=(DIGIT,))


def sample_digits(digits: Digits, count: int, *, name: str, seed: int) -> MorphoSample:
    """Draw so many of the digits, and a thickness and an intensity for each."""
    random = np.random.default_rng([seed, sum(name.encode())])
    rows = np.sort(random.permutation(len(digits))[:count])
    thickness = 0.5 + random.gamma(10, 1 / 5, len(rows))
    noise = random.standard_normal(len(rows))
    names = tuple(f"{name}{row:06d}" for row in rows)
    return MorphoSample(digits.take(rows), names, thickness, noise, intensity_of(thickness, noise))
