"""Structural equations from anatomy to pixels: path lengths of tissue add up, film darkens exponentially.

``image = digitise(contrast * (1 - exp(-T)) + offset + noise)`` with ``T`` the sum of soft tissue, bone, findings and the
two contributions of the attribute. Everything after the sum works pixel by pixel, so the attribute stays in its windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citlr.simulators.phantom_regions import Image, axes, bone_window, breast_window, finding_window, smooth

Column = Mapping[str, Image]
"""Variables of n units, each of shape (n, 1, 1), float32."""


@dataclass(frozen=True)
class Chest:
    """Coordinates and the masks that several structures share, each (n, s, s) or broadcastable to it."""

    size: int
    x: Image
    y: Image
    side: Image
    wall: Image
    lung: Image
    top: Image
    depth: Image


def _bump(distance: Image) -> Image:
    """Return (1 - d)^2 for squared distance d below 1, else 0: a smooth blob with an end."""
    inside = np.maximum(np.float32(1) - distance, 0)
    result: Image = inside * inside
    return result


def _ellipse(chest: Chest, cx: Image | float, cy: Image | float, rx: Image | float, ry: Image | float) -> Image:
    """Return the squared normalised distance from an ellipse's centre."""
    dx, dy = (chest.x - cx) / rx, (chest.y - cy) / ry
    result: Image = dx * dx + dy * dy
    return result


def place(size: int, u: Column) -> Chest:
    """Lay out pose, chest wall, diaphragm and lung fields."""
    grid_x, grid_y = axes(size)
    zoom = 1 + 0.025 * u["zoom"]
    y = ((grid_y - 0.018 * u["shift_y"]) / zoom).astype(np.float32)
    x = ((grid_x - 0.018 * u["shift_x"] - 0.018 * u["tilt"] * grid_y) / zoom).astype(np.float32)
    side = np.abs(x)
    top = -0.80 + 0.025 * u["lung_top"]
    base = 0.47 + 0.03 * u["lung_base"] + 0.03 * u["breath"] - 0.05 * u["ap"]
    outer = 0.72 + 0.025 * u["lung_width"]
    height = np.clip((y - top) / np.float32(1.45), 0, 1)
    wall = 0.13 + (outer - 0.13) * np.sqrt(1 - (1 - height) ** 3) + 0.04 * height
    # The right dome stands higher; both fall away steeply towards the costophrenic angle.
    right = x < 0
    dome = base - np.where(right, 0.035, -0.005) - 0.012 * u["dome_offset"] * np.where(right, 1, -1)
    lateral = side - (0.34 + 0.03 * u["lung_width"])
    diaphragm = dome + np.where(lateral > 0, 1.55, 0.45) * lateral * lateral
    edge = np.float32(max(0.035, 1.2 / size))
    mediastinum = 0.115 + 0.05 * np.clip(height - 0.45, 0, 1)
    depth = (diaphragm - y).astype(np.float32)
    distance = np.minimum(np.minimum(wall - side, side - mediastinum), depth)
    lung = smooth(np.minimum(distance, (y - top) * 2).astype(np.float32), edge)
    return Chest(size=size, x=x, y=y, side=side, wall=wall.astype(np.float32), lung=lung, top=top, depth=depth)


def body(chest: Chest, u: Column) -> Image:
    """Return the soft tissue of neck, shoulders and trunk, and its outline."""
    y, side = chest.y, chest.side
    trunk = 0.90 + 0.025 * u["trunk_width"] + 0.015 * u["soft_thickness"]
    shoulder = smooth((y + 0.80).astype(np.float32), 0.34)
    axilla = smooth((y + 0.30).astype(np.float32), 0.60)
    half = 0.21 + (1.10 - 0.21) * shoulder - (1.10 - trunk) * axilla
    outline = smooth((half - side).astype(np.float32), max(0.03, 1.2 / chest.size))
    ratio = side / half
    profile = np.sqrt(np.maximum(1 - ratio**4, 0))
    belly = smooth((y - 0.45).astype(np.float32), 0.6)
    thickness = (0.34 + 0.40 * profile) * (1 + 0.10 * u["soft_thickness"]) * (1 + 0.30 * belly) * (1 - 0.25 * (y < -2))
    result: Image = (outline * thickness).astype(np.float32)
    return result


def heart(chest: Chest, u: Column, severity: Image) -> Image:
    """Return the heart's opacity in [0, 1]: an ellipse leaning to the patient's left, larger with severity."""
    scale = (1 + 0.05 * u["heart_size"]) * (1 + 0.07 * u["ap"]) * (1 + 0.42 * severity)
    cx = 0.075 + 0.012 * u["heart_shift"] + 0.03 * severity
    rx, ry = 0.235 * scale, 0.265 * (0.72 + 0.28 * scale)
    cy = 0.26 + 0.02 * u["breath"] + 0.02 * severity
    lean = chest.x - cx - 0.25 * (chest.y - cy)
    dy = (chest.y - cy) / ry
    distance = 1 - np.sqrt((lean / rx) ** 2 + dy * dy)
    return smooth(distance.astype(np.float32), max(0.16, 5.0 / chest.size))


def mediastinum(chest: Chest, u: Column) -> tuple[Image, Image]:
    """Return the opacity of great vessels in [0, 1] and the path of air in trachea and main bronchi."""
    y, x = chest.y, chest.x
    edge = max(0.05, 1.6 / chest.size)
    knob = 1 - np.sqrt(_ellipse(chest, 0.085, -0.27, 0.105 + 0.012 * u["aorta"], 0.12))
    vena = 1 - np.sqrt(_ellipse(chest, -0.06, -0.15, 0.13, 0.36))
    vessels = np.maximum(smooth(knob.astype(np.float32), 0.35), smooth(vena.astype(np.float32), 0.5))
    trachea = smooth((0.05 - np.abs(x + 0.01)).astype(np.float32), edge) * smooth((-0.20 - y).astype(np.float32), 0.12)
    fork = np.abs(np.abs(x + 0.01) - 0.75 * (y + 0.22))
    bronchi = smooth((0.03 - fork).astype(np.float32), edge) * smooth((y + 0.22).astype(np.float32), 0.05)
    bronchi = bronchi * smooth((-0.06 - y).astype(np.float32), 0.1)
    return vessels, np.maximum(trachea, 0.6 * bronchi)


def bones(chest: Chest, u: Column) -> tuple[Image, Image]:
    """Return the path in ribs, clavicles and shoulder (which the attribute acts on), and that in the spine."""
    x, y, side = chest.x, chest.y, chest.side
    pixel = 2.0 / chest.size
    inside = smooth((chest.wall + 0.05 - side).astype(np.float32), 0.06)
    spacing = 0.150 + 0.004 * u["rib_spacing"]
    curve = (0.50 + 0.06 * u["rib_slope"]) * (side - 0.27) ** 2 * (1.0 + 0.5 * y)
    beat = np.cos(np.float32(2 * np.pi) * ((y - curve) / spacing + 0.08 * u["rib_phase"]), dtype=np.float32)
    # A rib is a tube: its rim is denser than its middle.
    tube = smooth(beat - np.float32(0.25), max(0.7, 8 * pixel))
    rim = 0.75 + 0.5 * (1 - smooth(beat - np.float32(0.75), 0.6))
    reach = smooth((side - 0.10).astype(np.float32), 0.1) * smooth((0.66 - y).astype(np.float32), 0.16)
    posterior = tube * rim * reach * smooth((y - chest.top - 0.06).astype(np.float32), 0.12)
    front = np.cos(
        np.float32(2 * np.pi) * ((y + 0.62 * side - 0.2 * side * side) / (1.06 * spacing) + 0.3), dtype=np.float32
    )
    anterior = smooth(front - np.float32(0.4), max(0.7, 8 * pixel)) * smooth((side - 0.36).astype(np.float32), 0.3)
    anterior = anterior * smooth((0.42 - y).astype(np.float32), 0.3) * smooth((y + 0.45).astype(np.float32), 0.3)
    ribs = inside * (0.125 * posterior + 0.05 * anterior)

    line = -0.60 - (0.16 + 0.03 * u["clavicle_tilt"]) * side - 0.02 * u["ap"] - 0.035 * np.sin(7.0 * side)
    thick = 0.028 + 0.012 * np.abs(side - 0.4)
    across = np.abs(y - line) / thick
    clavicle = smooth((1.05 - across).astype(np.float32), max(0.8, 40 * pixel / 1.2 / 2))
    clavicle = clavicle * (0.8 + 0.35 * np.minimum(across, 1)) * smooth((side - 0.085).astype(np.float32), 0.05)
    clavicle = clavicle * smooth((0.82 - side).astype(np.float32), 0.06)
    # Shoulder blade: a wedge lateral of the lung, its inner border leaning outwards on the way down.
    inner = 0.70 - 0.05 * u["ap"] + 0.20 * (y + 0.5) ** 2
    blade = smooth((side - inner).astype(np.float32), 0.05) * smooth((y + 0.62).astype(np.float32), 0.12)
    blade = (
        blade
        * smooth((0.92 - 0.55 * (y + 0.6) - side).astype(np.float32), 0.08)
        * smooth((-0.06 - y).astype(np.float32), 0.2)
    )
    humerus = 1 - np.sqrt(((side - 1.0) / 0.15) ** 2 + ((y + 0.56) / 0.13) ** 2)
    shoulder = 0.16 * blade + 0.24 * smooth(humerus.astype(np.float32), 0.3)
    density = 1 + 0.10 * u["bone_density"] - 0.25 * (u["age_rank"] - 0.5)
    moved = (density * (ribs + 0.21 * clavicle + shoulder)).astype(np.float32)

    disc = np.cos(np.float32(2 * np.pi) * (y / (0.9 * spacing) + 0.2 * u["rib_phase"]), dtype=np.float32)
    column = smooth((0.095 + 0.012 * y - side).astype(np.float32), max(0.04, 1.2 * pixel))
    process = smooth((0.022 - side).astype(np.float32), max(0.03, pixel)) * np.maximum(disc, 0)
    spine = density * (column * (0.20 + 0.045 * disc) + 0.07 * process)
    return moved, spine.astype(np.float32)


def vessels(chest: Chest, u: Column) -> Image:
    """Return the path in the hila and the vascular tree, which thins out towards the periphery."""
    dx, dy = chest.side - np.float32(0.17), chest.y - np.float32(0.02)
    radius = np.sqrt(dx * dx + np.float32(0.6) * dy * dy)
    angle = np.arctan2(dy, dx + np.float32(0.06))
    phase = np.float32(2 * np.pi) * u["vessel_phase"] + np.where(chest.x < 0, np.float32(1.3), np.float32(0))
    fine = np.cos(9 * angle + phase + 5 * radius, dtype=np.float32)
    coarse = np.cos(5 * angle - phase + 2 * radius, dtype=np.float32)
    branches = smooth(fine - np.float32(0.6), 0.8) + smooth(coarse - np.float32(0.6), 0.8)
    decay = np.maximum(1 - radius / np.float32(0.62), 0)
    hilum = _bump((dx / np.float32(0.13)) ** 2 + (dy / np.float32(0.20)) ** 2)
    result: Image = (0.11 * branches * decay * decay + (0.20 + 0.02 * u["hilum"]) * hilum).astype(np.float32)
    return result


def breast(chest: Chest, u: Column) -> Image:
    """Return the path in a breast-like shadow: thickest at its lower fold, ending in a curved edge."""
    cx = 0.64 + 0.02 * u["breast_spread"]
    cy = 0.08 + 0.03 * u["breast_height"]
    radius = 0.33 * (1 + 0.06 * u["breast_size"])
    dx, dy = (chest.side - cx) / (0.95 * radius), (chest.y - cy) / radius
    distance = dx * dx + dy * dy
    fold = 0.55 + 0.45 * np.clip(dy, -1, 1)
    shadow = smooth((1 - distance).astype(np.float32), 0.25) * fold
    result: Image = (shadow * (1 + 0.12 * u["breast_size"])).astype(np.float32)
    return result


def edema(chest: Chest, u: Column) -> Image:
    """Return perihilar haze ("bat wings") with a net of septal lines."""
    dx, dy = (chest.side - np.float32(0.30)) / np.float32(0.40), (chest.y - np.float32(0.02)) / np.float32(0.55)
    haze = _bump(dx * dx + dy * dy)
    net = np.cos(41 * chest.side + 23 * chest.y, dtype=np.float32) * np.cos(
        29 * chest.y - 17 * chest.side, dtype=np.float32
    )
    balance = 1 + 0.12 * u["edema_balance"] * np.sign(chest.x)
    result: Image = (0.62 * balance * haze * (1 + 0.25 * net)).astype(np.float32)
    return result


def consolidation(chest: Chest, u: Column) -> Image:
    """Return one dense patch of cloudy outline in one lung."""
    where = np.where(u["consolidation_side"] < 0.5, np.float32(-1), np.float32(1))
    cx = where * (0.32 + 0.22 * u["consolidation_x"])
    cy = -0.36 + 0.62 * u["consolidation_y"]
    radius = 0.21 * (1 + 0.12 * u["consolidation_size"])
    phase = 6.3 * u["consolidation_texture"]
    cloud = np.cos(19 * chest.x + phase, dtype=np.float32) * np.cos(17 * chest.y - phase, dtype=np.float32)
    distance = _ellipse(chest, cx, cy, radius, 1.15 * radius) - 0.22 * cloud
    result: Image = (0.62 * smooth((1 - distance).astype(np.float32), 0.9)).astype(np.float32)
    return result


def atelectasis(chest: Chest, u: Column) -> Image:
    """Return two plate-like bands in one lower zone."""
    where = np.where(u["atelectasis_side"] < 0.5, np.float32(-1), np.float32(1))
    level = 0.24 + 0.12 * u["atelectasis_y"]
    slope = 0.10 * u["atelectasis_slope"] - 0.12
    span = where * chest.x
    band = smooth((span - 0.16).astype(np.float32), 0.12) * smooth((0.66 - span).astype(np.float32), 0.14)
    width = max(0.030, 2.0 / chest.size)
    first = np.abs(chest.y - level - slope * (span - 0.4)) / width
    second = np.abs(chest.y - level - 0.13 - 0.6 * slope * (span - 0.4)) / width
    plates = smooth((1 - first).astype(np.float32), 1.2) + 0.8 * smooth((1 - second).astype(np.float32), 1.2)
    result: Image = (0.52 * band * plates).astype(np.float32)
    return result


def effusion(chest: Chest, u: Column, severity: Image) -> Image:
    """Return fluid in the costophrenic angle: a meniscus that climbs along the lateral wall."""
    left = u["effusion_side"] > 0.35
    right = u["effusion_side"] < 0.65
    there = np.where(chest.x > 0, left, right)
    lateral = np.clip((chest.side - 0.34) / np.float32(0.42), 0, 1.2)
    surface = 0.72 - severity * (0.10 + 0.13 * lateral**2)
    result: Image = (0.62 * there * smooth((chest.y - surface).astype(np.float32), 0.07)).astype(np.float32)
    return result


def thickness(size: int, u: Column, severity: Column, bone_gain: Image, breast_gain: Image) -> Image:
    """Return the total path `T` of shape (n, size, size).

    Parameters
    ----------
    size : int
        Height and width of the image.
    u : mapping of str to ndarray of shape (n, 1, 1)
        Exogenous variables, and `ap` (0 or 1).
    severity : mapping of str to ndarray of shape (n, 1, 1)
        Severity of each finding in [0, 1], 0 where absent.
    bone_gain, breast_gain : ndarray of shape (n, 1, 1)
        What the attribute's level does to this unit: relative change of bone, path of the breast shadow.
    """
    chest = place(size, u)
    plain = heart(chest, u, np.zeros_like(bone_gain))
    enlarged = np.maximum(plain, heart(chest, u, severity["cardiomegaly"]))
    shadow = plain + finding_window("cardiomegaly", size) * (enlarged - plain)
    great, air = mediastinum(chest, u)
    outline = body(chest, u)
    aerated = chest.lung * (1 - 0.80 * shadow) * (1 - 0.75 * great)
    moved, spine = bones(chest, u)
    opacity = severity["edema"] * finding_window("edema", size) * edema(chest, u)
    opacity += severity["consolidation"] * finding_window("consolidation", size) * consolidation(chest, u)
    opacity += severity["atelectasis"] * finding_window("atelectasis", size) * atelectasis(chest, u)
    opacity += finding_window("effusion", size) * effusion(chest, u, severity["effusion"]) * (severity["effusion"] > 0)
    bubble = _bump(_ellipse(chest, 0.36, 0.74, 0.17, 0.10)) * (u["gas_bubble"] - 0.2)
    total = outline * (1 - 0.80 * aerated - 0.35 * air - 0.30 * np.maximum(bubble, 0))
    total += 0.16 * shadow + 0.08 * great + spine
    total += chest.lung * (vessels(chest, u) * (1 - 0.7 * shadow) + opacity)
    total += moved * (1 + bone_gain * bone_window(size))
    total += breast_gain * (breast_window(size) * breast(chest, u)) * (outline > 0)
    result: Image = total.astype(np.float32)
    return result


def film(total: Image, u: Column, noise: Image) -> Image:
    """Return the image in [0, 1]: exponential response, exposure and contrast of the view, noise, limits of the film."""
    gain = np.float32(1.75) * (1 + 0.05 * u["exposure"])
    signal = 1 - np.exp(-gain * total)
    contrast = (1.06 + 0.04 * u["contrast"]) * (1 - 0.13 * u["ap"])
    offset = 0.055 * u["ap"] - 0.03
    # Fewer quanta reach the film behind dense tissue: noise grows there, and in the bedside view.
    grain = (np.float32(0.008) + np.float32(0.012) * signal) * (1 + 0.35 * u["ap"])
    result: Image = np.clip(contrast * signal + offset + grain * noise, 0, 1).astype(np.float32)
    return result


def digitise(image: NDArray[np.float32]) -> Image:
    """Round to the 256 grey values that a file holds, so that memory and file agree bit for bit."""
    result: Image = np.rint(image * np.float32(255)).astype(np.uint8).astype(np.float32) / np.float32(255)
    return result
