"""Anatomy that varies: what a phantom's patients differ in where the world asks for it.

In the fixed anatomy chests lie on top of each other up to a few pixels, so that one map of pixels is most of what the
attribute does. Here body and pose move by what radiographs of one clinic show (rotation, translation, width and height
of the chest, diaphragm, heart), and the structures in which the attribute shows (ribs, shoulders, breast) lie somewhere
else in every patient. The attribute acts on them wherever they lie inside its windows, which do not move: what lies
outside of `PhantomWorld.support` is still the same number under every level. Where a breast would lie, and how large it
would be, a man's chest shows too: it goes with the diaphragm and with the width of the lungs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from citlr.simulators.phantom.anatomy import stream
from citlr.simulators.phantom.regions import Image

# Standard normal, cut at two standard deviations; drawn beside the variables of `anatomy`, which stay as they are.
PATIENT = ("build_width", "build_height", "shoulder_height")
IMAGE = ("turn", "across", "down")
# By how much more than in the fixed anatomy a variable moves what it moves.
FACTORS = {
    "lung_width": 1.5,
    "lung_top": 1.5,
    "lung_base": 2.5,
    "heart_size": 1.5,
    "heart_shift": 2.0,
    "rib_spacing": 4.0,
    "rib_phase": 4.0,
    "rib_slope": 3.0,
    "clavicle_tilt": 3.0,
}


def draw_variation(table: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Draw the further variables of the images of a table with `patient` and `image`."""
    drawn = np.empty((len(table), len(PATIENT) + len(IMAGE)), dtype=np.float32)
    for row, (patient, image) in enumerate(zip(table["patient"], table["image"], strict=True)):
        drawn[row, : len(PATIENT)] = stream(seed, int(patient), 0, "build").standard_normal(len(PATIENT))
        drawn[row, len(PATIENT) :] = stream(seed, int(patient), int(image), "pose").standard_normal(len(IMAGE))
    return pd.DataFrame(drawn.clip(-2, 2), columns=[*PATIENT, *IMAGE])


def widened(u: Mapping[str, Image]) -> dict[str, Image]:
    """Return the variables of units, (n, 1, 1) each, with those that vary more multiplied."""
    return {name: value * np.float32(FACTORS.get(name, 1.0)) for name, value in u.items()}


def body_axes(x: Image, y: Image, u: Mapping[str, Image]) -> tuple[Image, Image]:
    """Return where the pixels lie in the body, (n, s, s) each: turned by up to 10 degrees, moved, wider or narrower."""
    angle = np.float32(0.09) * u["turn"]
    dx, dy = x - np.float32(0.065) * u["across"], y - np.float32(0.065) * u["down"]
    across = np.cos(angle) * dx + np.sin(angle) * dy
    down = np.cos(angle) * dy - np.sin(angle) * dx
    return across / (1 + np.float32(0.06) * u["build_width"]), down / (1 + np.float32(0.06) * u["build_height"])
