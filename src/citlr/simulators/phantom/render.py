"""Structural equations from anatomy to pixels: path lengths of tissue add up, film darkens exponentially.

``image = digitise(contrast * (1 - exp(-gain * T)) + offset + grain * noise)`` with ``T`` the sum of soft tissue, bone
and the two contributions of the attribute. Whatever follows the sum works pixel by pixel, so the attribute stays
inside its windows. Arrays are float32; a variable of n units has shape (n, 1, 1), a plane (n, size, size).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from citlr.simulators.phantom.bones import clavicles, ribs, shoulders, spine
from citlr.simulators.phantom.chest import Chest
from citlr.simulators.phantom.findings import atelectasis, consolidation, edema, effusion, heart
from citlr.simulators.phantom.regions import Image, attribute_windows, axes, choose, finding_window, smooth
from citlr.simulators.phantom.variation import body_axes

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
    result: Image = np.maximum(knob, vena)
    return result


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
    """Return the total path `T` of shape (n, size, size).

    Shapes: `u` (n, 1, 1), `severity` (n, 1, 1), `bone_gain, breast_gain` (n, 1, 1).
    """
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
