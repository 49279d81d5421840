"""Bone of the chest phantom: path lengths of ribs, clavicles, shoulders and spine before density and attribute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from citlr.simulators.phantom.chest import Chest
from citlr.simulators.phantom.regions import Image, smooth

TURN = np.float32(2 * np.pi)


def spacing(u: Mapping[str, Image]) -> Image:
    """Return the distance between ribs, (n, 1, 1); vertebrae follow it."""
    return 0.150 + 0.004 * u["rib_spacing"]


def ribs(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return posterior ribs, which fall away laterally, and the fainter anterior ribs, which descend to the midline."""
    y, side = chest.y, chest.side
    soft_edge = max(0.7, 16 / chest.size)
    step = spacing(u)
    beside = side - np.float32(0.27)
    curve = (0.60 + 0.06 * u["rib_slope"]) * (1 + 0.5 * y) * (beside * beside)
    beat = np.cos((y - curve) * (TURN / step) + TURN * 0.08 * u["rib_phase"])
    # A rib is a tube: its rim is denser than its middle.
    rim = 1.25 - 0.5 * smooth(beat - np.float32(0.75), 0.6)
    ends = smooth(0.66 - y, 0.16) * smooth(y + 0.72, 0.12)
    posterior = smooth(beat - np.float32(0.25), soft_edge) * rim * (smooth(side - 0.10, 0.1) * ends)
    front = np.cos((y + 0.62 * side - 0.2 * side * side) * (TURN / (1.06 * step)) + TURN * 0.3)
    shown = smooth(0.42 - y, 0.3) * smooth(y + 0.45, 0.3)
    anterior = smooth(front - np.float32(0.4), soft_edge) * (smooth(side - 0.36, 0.3) * shown)
    inside = smooth(chest.wall + 0.05 - side, 0.06)
    return inside * (0.125 * posterior + 0.05 * anterior)


def clavicles(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return two S-shaped bars from the sternum up to the shoulders."""
    side = chest.side
    line = -0.60 - (0.16 + 0.03 * u["clavicle_tilt"]) * side - 0.02 * u["ap"] - 0.035 * np.sin(7 * side)
    across = np.abs(chest.y - line) / (0.028 + 0.012 * np.abs(side - 0.4))
    bar = smooth(1.05 - across, max(0.8, 34 / chest.size)) * (0.8 + 0.35 * np.minimum(across, 1))
    result: Image = 0.21 * bar * (smooth(side - 0.085, 0.05) * smooth(0.84 - side, 0.06))
    return result


def shoulders(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return shoulder blades, wedges lateral of the lungs, and the heads of the upper arms."""
    y, side = chest.y, chest.side
    if "shoulder_height" in u:
        y = y - np.float32(0.06) * u["shoulder_height"]
    inner = 0.70 - 0.05 * u["ap"] + 0.20 * (y + 0.5) * (y + 0.5)
    ends = smooth(y + 0.62, 0.12) * smooth(-0.06 - y, 0.2)
    blade = smooth(side - inner, 0.05) * smooth(0.59 - 0.55 * y - side, 0.08) * ends
    dx, dy = (side - 1.0) / 0.15, (y + 0.56) / 0.13
    head = smooth(1 - np.sqrt(dx * dx + dy * dy), 0.3)
    return 0.16 * blade + 0.24 * head


def spine(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return the column of vertebrae with its discs and spinous processes."""
    y, side = chest.y, chest.side
    disc = np.cos(y * (TURN / (0.9 * spacing(u))) + TURN * 0.2 * u["rib_phase"])
    column = smooth(0.095 + 0.012 * y - side, max(0.04, 2.4 / chest.size))
    process = smooth(0.022 - side, max(0.03, 2.0 / chest.size))
    result: Image = column * (0.20 + 0.045 * disc) + process * (0.07 * np.maximum(disc, 0))
    return result
