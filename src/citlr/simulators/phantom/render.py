"""Structural equations from anatomy to pixels: path lengths of tissue add up, film darkens exponentially.

``image = digitise(contrast * (1 - exp(-gain * T)) + offset + grain * noise)`` with ``T`` the sum of soft tissue, bone
and the two contributions of the attribute. Whatever follows the sum works pixel by pixel, so the attribute stays
inside its windows. Arrays are float32; a variable of n units has shape (n, 1, 1), a plane (n, size, size).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from citlr.simulators.phantom.anatomy import body_axes
from citlr.simulators.phantom.regions import Image, attribute_windows, axes, choose, finding_window, smooth


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


@dataclass(frozen=True)
class Chest:
    """Coordinates of a posed patient and the masks that several structures share.

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


Units = Mapping[str, Image]


def place(size: int, u: Units) -> Chest:
    """Lay out pose, chest wall, diaphragm and lung fields."""
    grid_x, grid_y = axes(size)
    if "turn" in u:
        grid_x, grid_y = body_axes(grid_x, grid_y, u)
    zoom = 1 + 0.025 * u["zoom"]
    y = (grid_y - 0.018 * u["shift_y"]) / zoom
    x = (grid_x - 0.018 * u["shift_x"] - 0.018 * u["tilt"] * grid_y) / zoom
    side = np.abs(x)
    top = -0.80 + 0.025 * u["lung_top"]
    height = np.clip((y - top) / np.float32(1.45), 0, 1)
    outer = 0.72 + 0.025 * u["lung_width"]
    rest = 1 - height
    wall: Image = 0.13 + (outer - 0.13) * np.sqrt(1 - rest * rest * rest) + 0.04 * height
    inner = 0.115 + 0.05 * np.maximum(height - 0.45, 0)
    # The right dome stands higher; both fall away steeply towards the costophrenic angle.
    base = 0.47 + 0.03 * u["lung_base"] + 0.03 * u["breath"] - 0.05 * u["ap"]
    tilt = 0.020 + 0.012 * u["dome_offset"]
    dome = base - 0.015 + tilt * np.sign(x)
    lateral: Image = side - (0.34 + 0.03 * u["lung_width"])
    fall = choose(lateral > 0, 1.55, 0.45)
    depth: Image = dome + fall * lateral * lateral - y
    distance = np.minimum(np.minimum(wall - side, side - inner), depth)
    lung = smooth(np.minimum(distance, 2 * (y - top)), max(0.035, 1.2 / size))
    return Chest(size=size, x=x, side=side, y=y, wall=wall, lung=lung)


def body(chest: Chest, u: Units) -> tuple[Image, Image]:
    """Return the outline of neck, shoulders and trunk in [0, 1], and the path in soft tissue."""
    y, side = chest.y, chest.side
    trunk = 0.90 + 0.025 * u["trunk_width"] + 0.015 * u["soft_thickness"]
    half: Image = 0.21 + (1.10 - 0.21) * smooth(y + 0.80, 0.34) - (np.float32(1.10) - trunk) * smooth(y + 0.30, 0.60)
    outline = smooth(half - side, max(0.03, 1.2 / chest.size))
    ratio = side / half
    ratio *= ratio
    profile: Image = np.sqrt(np.maximum(1 - ratio * ratio, 0))
    belly = (1 + 0.30 * smooth(y - 0.45, 0.6)) * (1 + 0.10 * u["soft_thickness"])
    return outline, outline * (0.34 + 0.40 * profile) * belly


def great_vessels(chest: Chest, u: Units) -> Image:
    """Return the opacity in [0, 1] of aortic knob and superior vena cava, beside the spine."""
    knob_x, knob_y = (chest.x - 0.085) / (0.105 + 0.012 * u["aorta"]), (chest.y + 0.27) / 0.12
    vena_x, vena_y = (chest.x + 0.06) / 0.13, (chest.y + 0.15) / 0.36
    knob = smooth(1 - np.sqrt(knob_x * knob_x + knob_y * knob_y), 0.35)
    vena = smooth(1 - np.sqrt(vena_x * vena_x + vena_y * vena_y), 0.5)
    return np.maximum(knob, vena)


def airways(chest: Chest) -> Image:
    """Return the air in the trachea and, fainter, in the main bronchi, 0 to 1."""
    middle = np.abs(chest.x + 0.01)
    edge = max(0.05, 1.6 / chest.size)
    trachea = smooth(0.05 - middle, edge) * smooth(-0.20 - chest.y, 0.12)
    fork = np.abs(middle - 0.75 * (chest.y + 0.22))
    bronchi = smooth(0.03 - fork, edge) * (smooth(chest.y + 0.22, 0.05) * smooth(-0.06 - chest.y, 0.1))
    result: Image = np.maximum(trachea, 0.6 * bronchi)
    return result


def hila(chest: Chest, u: Units) -> Image:
    """Return the path in the hila and the vascular tree, which thins out towards the periphery."""
    dx, dy = chest.side - np.float32(0.15), chest.y - np.float32(0.02)
    radius = np.sqrt(dx * dx + np.float32(0.6) * dy * dy)
    angle = np.arctan2(dy, dx + np.float32(0.10))
    phase = np.float32(2 * np.pi) * u["vessel_phase"] + np.float32(0.65) * np.sign(chest.x)
    fine = smooth(np.cos(11 * angle + phase + 9 * radius) - np.float32(0.55), 0.9)
    coarse = smooth(np.cos(6 * angle - phase - 4 * radius) - np.float32(0.55), 0.9)
    # Faint at the root, where the branches would meet in a star, and at the rim, where they are too thin to see.
    decay = np.maximum(1 - radius * np.float32(1 / 0.60), 0) * np.minimum(radius * np.float32(5), 1)
    spread = (dx - 0.03) * (dx - 0.03) * np.float32(1 / 0.10**2) + (dy - 0.5 * dx) ** 2 * np.float32(1 / 0.20**2)
    root = np.maximum(1 - spread, 0)
    result: Image = (0.10 * fine + 0.11 * coarse) * decay + (0.30 + 0.03 * u["hilum"]) * root * root
    return result


def breast(chest: Chest, u: Units) -> Image:
    """Return the relative path in a breast-like shadow: thickest at its lower fold, ending in a curved edge."""
    radius = 0.33 * (1 + 0.05 * u["breast_size"])
    middle = 0.040 + 0.025 * u["breast_height"]
    if "turn" in u:
        radius *= 0.62 * (1 + 0.13 * u["lung_width"])
        middle = middle + 0.05 * u["lung_base"]
    dx = (chest.side - (0.66 + 0.02 * u["breast_spread"])) / (0.95 * radius)
    dy = (chest.y - middle) / radius
    fold = 0.45 + 0.55 * np.clip(dy, -0.8, 1)
    result: Image = smooth(1 - dx * dx - dy * dy, 0.30) * fold * (1 + 0.12 * u["breast_size"])
    return result


def thickness(size: int, u: Units, severity: Units, bone_gain: Image, breast_gain: Image) -> Image:
    """Return the total path `T` (n, size, size); units, severity and gains are (n, 1, 1)."""
    chest = place(size, u)
    plain = heart(chest, u, np.zeros_like(bone_gain))
    enlarged = np.maximum(plain, heart(chest, u, severity["cardiomegaly"]))
    cardiac = plain + finding_window("cardiomegaly", size) * (enlarged - plain)
    vessels, air = great_vessels(chest, u), airways(chest)
    outline, soft = body(chest, u)

    filled = severity["edema"] * finding_window("edema", size) * edema(chest, u)
    filled += severity["consolidation"] * finding_window("consolidation", size) * consolidation(chest, u)
    filled += severity["atelectasis"] * finding_window("atelectasis", size) * atelectasis(chest, u)
    filled += finding_window("effusion", size) * effusion(chest, u, severity["effusion"])
    np.minimum(filled, 1, out=filled)
    aerated = chest.lung * (1 - 0.80 * cardiac) * (1 - 0.75 * vessels) * (1 - filled)

    stomach_x, stomach_y = (chest.x - 0.36) / 0.17, (chest.y - 0.75) / 0.10
    bubble = np.maximum(1 - stomach_x * stomach_x - stomach_y * stomach_y, 0) * np.maximum(u["gas_bubble"] - 0.2, 0)
    total: Image = soft * (1 - 0.80 * aerated - 0.35 * air - 0.40 * bubble)
    total += 0.16 * cardiac + 0.08 * vessels
    total += aerated * hila(chest, u)

    density = 1 + 0.10 * u["bone_density"] - 0.25 * (u["age_rank"] - 0.5)
    skeleton = density * outline * (ribs(chest, u) + clavicles(chest, u) + shoulders(chest, u))
    total += density * spine(chest, u)
    bone, soft_window = attribute_windows(size, varying="turn" in u)
    total += skeleton * (1 + bone_gain * bone)
    total += breast_gain * (soft_window * outline * breast(chest, u))
    return total


def film(total: Image, u: Units, noise: Image) -> Image:
    """Return the image in [0, 1]: exponential response, exposure and contrast of the view, noise, limits."""
    gain = np.float32(1.75) * (1 + 0.05 * u["exposure"])
    signal = 1 - np.exp(-gain * total)
    contrast = (1.06 + 0.04 * u["contrast"]) * (1 - 0.13 * u["ap"])
    offset = 0.055 * u["ap"] - 0.03
    # Fewer quanta reach the film behind dense tissue: noise grows there, and in the bedside view.
    grain = (np.float32(0.006) + np.float32(0.010) * signal) * (1 + 0.35 * u["ap"])
    result: Image = np.clip(contrast * signal + offset + grain * noise, 0, 1)
    return result


def digitise(image: Image) -> Image:
    """Round to the 256 grey values that a file holds, so that memory and file agree bit for bit."""
    result: Image = np.rint(image * np.float32(255)) * np.float32(1 / 255)
    return result
