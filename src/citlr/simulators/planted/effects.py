"""What a planted attribute does to an image: kinds of effect, each placed by the image's own anatomy.

`apply(image, anatomy, amount, kinds)` is deterministic, so that counterfactuals are exact.
An amount of 0 leaves the image as it is, of either sign it changes it in opposite ways where
that has a meaning. An amount of 1 is about as strong as the phantom's attribute.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from citlr.errors import InputError, require_known

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


Effect = Callable[[Image, Anatomy, float], Image]


def _bump(size: int, centre: tuple[float, float], spread: tuple[float, float]) -> NDArray[np.float64]:
    x, y = grid(size)
    return np.exp(-0.5 * (((x - centre[0]) / spread[0]) ** 2 + ((y - centre[1]) / spread[1]) ** 2))


def _warp(image: Image, dx: NDArray[np.float64], dy: NDArray[np.float64]) -> Image:
    """Take every pixel from where the displacement (in shares of the side) points to."""
    size = image.shape[0]
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    moved: Image = ndimage.map_coordinates(
        image, [rows + dy * size, columns + dx * size], order=1, mode="nearest", output=np.float32
    )
    return moved


def shadow(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Add soft tissue before the lower lungs: a shadow below each lung's centre."""
    total = np.zeros(image.shape)
    for (x, y), (sx, sy) in zip(anatomy.centre, anatomy.spread, strict=True):
        total += _bump(anatomy.size, (x, y + 1.1 * sy), (1.4 * sx, 0.8 * sy))
    return (image + 0.22 * amount * total).astype(np.float32)


def contrast(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Make bone denser: amplify fine structure within the chest."""
    size = anatomy.size
    band = ndimage.gaussian_filter(image, 0.008 * size) - ndimage.gaussian_filter(image, 0.05 * size)
    x, y = anatomy.midline, float(anatomy.centre[:, 1].mean())
    where = _bump(size, (x, y), (0.32, 0.30))
    sharper: Image = (image + 1.2 * amount * where * band).astype(np.float32)
    return sharper


def shape(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Widen the lower chest: a smooth displacement away from the midline, most at the lung bases."""
    x, y = grid(anatomy.size)
    side = (x - anatomy.midline) / 0.30
    along = 1 / (1 + np.exp(-(y - anatomy.base + 0.15) / 0.07))
    push = -0.05 * amount * side * np.exp(-0.5 * side**2) * along
    return _warp(image, push, np.zeros_like(push))


def tone(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Take another film or detector: a tone curve."""
    return np.power(np.clip(image, 0, 1), np.exp(0.35 * amount)).astype(np.float32)


def texture(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Lay a grain of single pixels over the lungs: finer than a generator of half the size can draw."""
    checker = np.indices(image.shape).sum(axis=0) % 2 * 2 - 1
    grainy: Image = (image + 0.06 * amount * anatomy.lung * checker).astype(np.float32)
    return grainy


def line(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Draw a device: a thin bright line from the neck along the spine to the heart."""
    x, y = grid(anatomy.size)
    top, (hx, hy) = float(anatomy.centre[:, 1].mean() - 2 * anatomy.spread[:, 1].mean()), anatomy.heart
    along = np.clip((y - top) / max(hy - top, 0.05), 0, 1)
    path = anatomy.midline - 0.05 + (hx - anatomy.midline) * along**2
    inside = ((y >= top) & (y <= hy)).astype(float)
    return (image + 0.25 * amount * inside * np.exp(-0.5 * ((x - path) / 0.008) ** 2)).astype(np.float32)


def organ(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Enlarge the heart: a local displacement away from its middle."""
    hx, hy = anatomy.heart
    width = float(anatomy.centre[1, 0] - anatomy.centre[0, 0])
    x, y = grid(anatomy.size)
    near = _bump(anatomy.size, (hx, hy), (0.32 * width, 0.28 * width))
    return _warp(image, -0.30 * amount * near * (x - hx), -0.18 * amount * near * (y - hy))


def breath(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Breathe in deeper: the diaphragm goes down, and what is above it is drawn out."""
    _, y = grid(anatomy.size)
    low = np.exp(-0.5 * ((y - anatomy.base) / 0.16) ** 2)
    return _warp(image, np.zeros_like(low), -0.06 * amount * low)


def veil(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Lay a veil over the lungs, thicker below: dark tissue becomes brighter by a share of what it lacks of white."""
    _, y = grid(anatomy.size)
    below = 1 / (1 + np.exp(-(y - anatomy.centre[:, 1].mean()) / 0.08))
    veiled: Image = (image + 0.35 * amount * anatomy.lung * below * (1 - image)).astype(np.float32)
    return veiled


def spine(image: Image, anatomy: Anatomy, amount: float) -> Image:
    """Make the spine denser: a bright band along the midline, with more contrast within it."""
    size = anatomy.size
    x, y = grid(size)
    top = float(anatomy.centre[:, 1].mean()) - 0.2
    along = np.exp(-0.5 * ((x - anatomy.midline) / 0.035) ** 2) / (1 + np.exp(-(y - top) / 0.05))
    band = ndimage.gaussian_filter(image, 0.008 * size) - ndimage.gaussian_filter(image, 0.04 * size)
    dense: Image = (image + amount * along * (0.08 + 0.8 * band)).astype(np.float32)
    return dense


_ALL = (shadow, contrast, shape, tone, texture, line, organ, breath, veil, spine)
EFFECTS: dict[str, Effect] = {effect.__name__: effect for effect in _ALL}
# There or not there: the first level has none of it. All others go both ways from the image as it came.
ONE_SIDED = ("texture", "line")


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds in the order in which they are applied, or refuse one that there is not."""
    for kind in kinds:
        require_known(kind, EFFECTS, f"There is no planted effect '{kind}'")
    if len(set(kinds)) < len(kinds):
        raise InputError(f"A planted effect is named twice in {', '.join(kinds)}: name each once.")
    return tuple(kind for kind in EFFECTS if kind in kinds)


def apply(image: Image, anatomy: Anatomy, amount: float, kinds: Sequence[str]) -> Image:
    """Give an image (s, s) what an amount in [0, 1] of the attribute does to it: 0 is the first level, 1 the last."""
    for kind in kinds:
        share = amount if kind in ONE_SIDED else amount - 0.5
        image = EFFECTS[kind](image, anatomy, share)
    return np.clip(image, 0, 1).astype(np.float32)
