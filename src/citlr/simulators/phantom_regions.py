"""Fixed windows of the phantom: where in the image, for any unit, the attribute or a finding can change a pixel.

The anatomy moves with pose and patient; the windows do not. Every contribution of the attribute (or of a finding) is
multiplied by its window before it enters the sum, so a pixel with window zero cannot differ between two levels: what
is added there is exactly zero. Coordinates run from -1 to 1, x to the right (the patient's left), y downwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

FADE = 0.08


def axes(size: int) -> tuple[Image, Image]:
    """Return pixel centres as `x` of shape (1, size) and `y` of shape (size, 1), both in (-1, 1)."""
    centres = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
    return centres[None, :], centres[:, None]


def smooth(distance: Image, width: float | Image) -> Image:
    """Return a smooth step from 0 to 1 over `width`, centred at distance 0; exactly 0 and 1 beyond."""
    step = np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)
    result: Image = step * step * (np.float32(3) - np.float32(2) * step)
    return result


def _inside(distance: Image) -> Image:
    """Return a window that is 0 from distance 0 outwards and 1 from `FADE` inwards."""
    return smooth(distance - np.float32(FADE / 2), FADE)


def _box(size: int, *, left: float, right: float, top: float, bottom: float) -> Image:
    x, y = axes(size)
    distance = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))
    return _inside(distance.astype(np.float32))


def _both_sides(size: int, *, inner: float, outer: float, top: float, bottom: float) -> Image:
    right = _box(size, left=inner, right=outer, top=top, bottom=bottom)
    return np.maximum(right, right[:, ::-1])


def bone_window(size: int) -> Image:
    """Return the window (size, size) of the attribute's effect on bone: shoulders, clavicles, upper ribs."""
    return _both_sides(size, inner=0.20, outer=1.2, top=-1.2, bottom=-0.18)


def breast_window(size: int) -> Image:
    """Return the window (size, size) of the breast shadow: lateral, between axilla and costophrenic angle."""
    return _both_sides(size, inner=0.48, outer=0.98, top=-0.24, bottom=0.46)


def finding_window(name: str, size: int) -> Image:
    """Return the window (size, size) of a finding; cardiomegaly and effusion lie outside the attribute's windows."""
    if name == "cardiomegaly":
        return _box(size, left=-0.48, right=0.48, top=-0.18, bottom=0.70)
    if name == "effusion":
        return _both_sides(size, inner=0.34, outer=0.96, top=0.46, bottom=0.86)
    if name == "atelectasis":
        return _both_sides(size, inner=0.10, outer=0.84, top=0.0, bottom=0.60)
    if name == "consolidation":
        return _both_sides(size, inner=0.08, outer=0.88, top=-0.62, bottom=0.60)
    return _both_sides(size, inner=0.06, outer=0.84, top=-0.66, bottom=0.60)
