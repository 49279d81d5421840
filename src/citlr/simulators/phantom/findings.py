"""Findings of the chest phantom at full severity, as shares of the lung's air that they displace; and the heart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from citlr.simulators.phantom.chest import Chest
from citlr.simulators.phantom.regions import Image, choose, smooth


def heart(chest: Chest, u: Mapping[str, Image], severity: Image) -> Image:
    """Return the heart's opacity in [0, 1]: an ellipse leaning to the patient's left, larger with severity.

    A severity of 1 widens it by 38 %; the AP view magnifies it by 7 %.
    """
    scale = (1 + 0.05 * u["heart_size"]) * (1 + 0.07 * u["ap"]) * (1 + 0.38 * severity)
    cx = 0.065 + 0.012 * u["heart_shift"] + 0.02 * severity
    cy = 0.26 + 0.02 * u["breath"] + 0.02 * severity
    dy = chest.y - cy
    across = (chest.x - cx - 0.25 * dy) / (0.228 * scale)
    along = dy / (0.265 * (0.72 + 0.28 * scale))
    return smooth(1 - np.sqrt(across * across + along * along), max(0.16, 5.0 / chest.size))


def edema(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return perihilar haze ("bat wings") with a net of septal lines."""
    side, y = chest.side, chest.y
    dx, dy = (side - np.float32(0.30)) / np.float32(0.42), (y - np.float32(0.02)) / np.float32(0.58)
    haze = np.maximum(1 - dx * dx - dy * dy, 0)
    net = np.cos(41 * side + 23 * y) * np.cos(29 * y - 17 * side)
    balance = 0.55 * (1 + 0.12 * u["edema_balance"] * np.sign(chest.x))
    result: Image = balance * haze * (0.8 + 0.2 * net)
    return result


def consolidation(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return one patch of cloudy outline in one lung."""
    where = choose(u["consolidation_side"] < 0.5, -1, 1)
    radius = 0.25 * (1 + 0.12 * u["consolidation_size"])
    dx = (chest.x - where * (0.32 + 0.22 * u["consolidation_x"])) / radius
    dy = (chest.y - (-0.34 + 0.60 * u["consolidation_y"])) / (1.15 * radius)
    phase = 6.3 * u["consolidation_texture"]
    cloud: Image = np.cos(3.1 * dx + 2.2 * dy + phase) * np.cos(3.7 * dy - 1.9 * dx - 2 * phase)
    cloud += 0.6 * np.cos(7.3 * dx - 3.1 * dy - phase) * np.cos(6.1 * dy + 2.7 * dx + phase)
    return 0.88 * smooth(0.85 - dx * dx - dy * dy + 0.30 * cloud, 1.5)


def atelectasis(chest: Chest, u: Mapping[str, Image]) -> Image:
    """Return two plate-like bands in one lower zone, the lower one fainter."""
    where = choose(u["atelectasis_side"] < 0.5, -1, 1)
    span = where * chest.x
    level = 0.20 + 0.14 * u["atelectasis_y"]
    slope = 0.08 * u["atelectasis_slope"] - 0.10
    along = span - np.float32(0.4)
    off = chest.y - level - slope * along - np.float32(0.25) * along * along
    band = smooth(span - 0.20, 0.20) * smooth(0.66 - span, 0.22)
    width = max(0.026, 2.0 / chest.size)
    upper, lower = np.abs(off), np.abs(off - np.float32(0.12))
    plates = smooth(np.float32(width) - upper, 1.6 * width) + 0.65 * smooth(np.float32(width) - lower, 1.6 * width)
    return 0.85 * band * plates


def effusion(chest: Chest, u: Mapping[str, Image], severity: Image) -> Image:
    """Return fluid in one or both costophrenic angles: the higher the severity, the higher its meniscus."""
    left, right = u["effusion_side"] > 0.35, u["effusion_side"] < 0.65
    there = ((chest.x > 0) & left) | ((chest.x < 0) & right)
    lateral: Image = np.clip((chest.side - 0.34) / np.float32(0.42), 0, 1.2)
    surface: Image = np.float32(0.74) - severity * (0.13 + 0.16 * lateral * lateral)
    return smooth(chest.y - surface, 0.06) * (there & (severity > 0))
