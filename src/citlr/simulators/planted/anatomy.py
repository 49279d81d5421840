"""Where the lungs, the midline and the heart of a frontal chest radiograph are, read off the image itself.

Not a segmentation: a soft map of what is dark inside the body, and the centre and spread of each lung by its moments.
It
has to move with the patient as anatomy does, and to be the same for the same image; it need not be right everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Anatomy:
    """Landmarks of one image, in shares of its side; the image's left lung field first.

    - `lung` (s, s): soft map of the lung fields, 0 to 1.
    - `centre` (2, 2): (x, y) of each lung field.
    - `spread` (2, 2): standard deviations of each lung field along x and y.
    """

    lung: Image
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return int(self.lung.shape[0])

    @property
    def midline(self) -> float:
        """Horizontal position halfway between the lung fields."""
        return float(self.centre[:, 0].mean())

    @property
    def base(self) -> float:
        """Vertical position of the lung bases: two standard deviations below the centres."""
        return float((self.centre[:, 1] + 1.6 * self.spread[:, 1]).mean())

    @property
    def heart(self) -> tuple[float, float]:
        """Middle of the heart (x, y): below the centres of the lungs, a little towards the image's right."""
        width = float(self.centre[1, 0] - self.centre[0, 0])
        return self.midline + 0.12 * width, float(self.centre[:, 1].mean() + 0.8 * self.spread[:, 1].mean())


def grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the positions (x, y) of pixel centres in shares of the side, each (s, s)."""
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return x, y


@lru_cache(maxsize=8)
def _places(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return `grid`, and where lungs may lie (s, s): the same for every image of a size, so made once."""
    x, y = grid(size)
    # Lungs are darker than what is around them, and lie in the middle: air beside the body does not.
    prior = np.zeros_like(x)
    for middle in (0.30, 0.70):
        prior = np.maximum(prior, np.exp(-(((x - middle) / 0.17) ** 4) - ((y - 0.45) / 0.36) ** 4))
    for shared in (x, y, prior):
        shared.flags.writeable = False
    return x, y, prior


def locate(image: Image) -> Anatomy:
    """Find the lungs of an image (s, s) in [0, 1]."""
    size = image.shape[0]
    x, y, prior = _places(size)
    fine = ndimage.gaussian_filter(image.astype(np.float64), 0.025 * size, mode="nearest")
    broad = ndimage.gaussian_filter(image.astype(np.float64), 0.20 * size, mode="nearest")
    dark = broad - fine
    scale = max(float(np.quantile(dark[prior > 0.5], 0.8)), 1e-3)
    lung = prior * expit(6 * (dark / scale - 0.35))
    centre, spread = np.empty((2, 2)), np.empty((2, 2))
    for number, half in enumerate((x < 0.5, x >= 0.5)):
        weight = lung * half
        weight = weight / weight.sum()
        for axis, place in enumerate((x, y)):
            centre[number, axis] = (weight * place).sum()
            spread[number, axis] = np.sqrt((weight * (place - centre[number, axis]) ** 2).sum())
    return Anatomy(lung.astype(np.float32), centre, spread)
