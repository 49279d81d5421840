"""Fixed windows of the phantom: where in the image, for any unit, the attribute or a finding can change a pixel.

The anatomy moves with pose and patient; the windows do not. Every contribution of the attribute (or of a finding) is
multiplied by its window before it enters the sum, so a pixel with window zero cannot differ between two levels: what
is added there is exactly zero. Coordinates run from -1 to 1, x to the right (the patient's left), y downwards.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from citlr.errors import require_known

Image = NDArray[np.float32]

FINDINGS = ("cardiomegaly", "edema", "consolidation", "atelectasis", "effusion")

# left, right, top, bottom of each rectangle; a window is the largest of its rectangles' values.
_HEART = ((-0.42, 0.50, -0.15, 0.72),)
_SHOULDERS = ((-1.2, -0.20, -0.86, -0.16), (0.20, 1.2, -0.86, -0.16))
# The heart lies to the patient's left (image right), so the shadow on that side starts further out.
_BREASTS = ((-1.00, -0.42, -0.22, 0.45), (0.50, 1.00, -0.22, 0.45))
# Where anatomy varies, one region on each side: the same pixels, but no edge where the two above meet.
_SIDES = (*_SHOULDERS, (-1.00, -0.42, -0.86, 0.45), (0.50, 1.00, -0.86, 0.45))
_ANGLES = ((-0.96, -0.34, 0.45, 0.88), (0.34, 0.96, 0.45, 0.88))
_LOWER_ZONES = ((-0.84, -0.10, 0.0, 0.62), (0.10, 0.84, 0.0, 0.62))
_LUNGS = ((-0.88, -0.06, -0.66, 0.60), (0.06, 0.88, -0.66, 0.60))
_FINDING_BOXES = {
    "cardiomegaly": _HEART,
    "edema": _LUNGS,
    "consolidation": _LUNGS,
    "atelectasis": _LOWER_ZONES,
    "effusion": _ANGLES,
}


def axes(size: int) -> tuple[Image, Image]:
    """Return pixel centres as `x` of shape (1, size) and `y` of shape (size, 1), both in (-1, 1)."""
    centres = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    return centres[None, :], centres[:, None]


def smooth(distance: Image, width: float) -> Image:
    """Return a smooth step from 0 to 1 over `width`, centred at distance 0; exactly 0 and 1 beyond."""
    step = distance * np.float32(1 / width)
    step += np.float32(0.5)
    np.clip(step, 0, 1, out=step)
    result = step * np.float32(-2)
    result += np.float32(3)
    result *= step
    result *= step
    return result


def _window(size: int, boxes: tuple[tuple[float, float, float, float], ...], *, across: float, down: float) -> Image:
    """Return the window (size, size): 0 outside of the rectangles, 1 from `across` (x) and `down` (y) inwards."""
    x, y = axes(size)
    window = np.zeros((size, size), dtype=np.float32)
    for left, right, top, bottom in boxes:
        distance = np.minimum(np.minimum(x - left, right - x) / across, np.minimum(y - top, bottom - y) / down)
        np.maximum(window, smooth(distance - np.float32(0.5), 1.0), out=window)
    window.setflags(write=False)
    return window


def choose(condition: NDArray[np.bool_], yes: float, no: float) -> Image:
    """Return `yes` where the condition holds and `no` elsewhere, in float32."""
    return np.where(condition, np.float32(yes), np.float32(no))


@lru_cache(maxsize=32)
def bone_window(size: int) -> Image:
    """Return the window (size, size) of the attribute's effect on bone: shoulders, clavicles, upper ribs."""
    return _window(size, _SHOULDERS, across=0.08, down=0.08)


@lru_cache(maxsize=32)
def breast_window(size: int) -> Image:
    """Return the window (size, size) of the breast shadow: lateral, between axilla and costophrenic angle."""
    return _window(size, _BREASTS, across=0.15, down=0.07)


@lru_cache(maxsize=32)
def attribute_windows(size: int, *, varying: bool = False) -> tuple[Image, Image]:
    """Return the windows (size, size) of the effect on bone and on the breast.

    Where anatomy varies, it moves through them. So there is one window for both, which fades over a quarter of the
    image: an edge would be a mark of the film's own, at which no structure of a body begins or ends.
    """
    if not varying:
        return bone_window(size), breast_window(size)
    either = _window(size, _SIDES, across=0.25, down=0.25)
    return either, either


@lru_cache(maxsize=64)
def finding_window(name: str, size: int) -> Image:
    """Return the window (size, size) of a finding; cardiomegaly and effusion lie outside the attribute's windows."""
    return _window(size, _FINDING_BOXES[name], across=0.06, down=0.06)


def check_finding(finding: str) -> None:
    """Raise InputError, naming the nearest, if the phantom has no such finding."""
    require_known(finding, FINDINGS, f"The phantom has no finding '{finding}'")
