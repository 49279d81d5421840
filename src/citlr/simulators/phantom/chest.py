"""A posed patient: coordinates and masks that several structures share."""

from __future__ import annotations

from dataclasses import dataclass

from citlr.simulators.phantom.regions import Image


@dataclass(frozen=True)
class Chest:
    """Coordinates of a posed patient and the masks that several structures share.

    - `size`: Pixels per side.
    - `x`, `side` (n, size, size): Horizontal position, and its distance from the midline.
    - `y` (n, size, 1): Vertical position, downwards.
    - `wall` (n, size, 1): Distance of the inner chest wall from the midline.
    - `lung` (n, size, size): Lung fields, 0 to 1.
    """

    size: int
    x: Image
    side: Image
    y: Image
    wall: Image
    lung: Image
