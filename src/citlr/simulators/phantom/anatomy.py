"""Exogenous variables of the chest phantom, and the structural equations from them to attribute, findings and view.

Everything random about a unit is drawn here, from a counter-based generator keyed by (seed, patient, image): patient 7
has the same anatomy whether 10 or 10,000 patients are drawn.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from citlr.errors import InputError, require_known
from citlr.simulators.phantom.regions import FINDINGS, Image

VIEWS = ("PA", "AP")

# Standard normal, cut at two standard deviations so that no chest leaves the image.
PATIENT_NORMAL = (
    "trunk_width", "lung_width", "lung_top", "lung_base", "heart_size", "heart_shift", "rib_spacing", "rib_phase",
    "rib_slope", "bone_density", "bone_response", "soft_thickness", "breast_size", "breast_height", "breast_spread",
    "clavicle_tilt", "dome_offset", "aorta", "hilum",
)  # fmt: skip
PATIENT_UNIFORM = ("attribute_rank", "age_rank", "image_count", "vessel_phase")
IMAGE_NORMAL = (
    "shift_x", "shift_y", "tilt", "zoom", "breath", "exposure", "contrast",
    "consolidation_size", "atelectasis_slope", "edema_balance",
)  # fmt: skip
IMAGE_UNIFORM = (
    "consolidation_side", "consolidation_x", "consolidation_y", "consolidation_texture",
    "atelectasis_side", "atelectasis_y", "effusion_side", "gas_bubble",
)  # fmt: skip
# The variables behind the labels: a patient's tendency and the image's own part, mixed to one standard normal.
TENDENCIES = tuple(f"{name}_tendency" for name in (*FINDINGS, "view"))
SEVERITY_RANKS = tuple(f"{name}_rank" for name in FINDINGS)
WITHIN_PATIENT = 0.5
MILDEST = 0.25

_PURPOSES = {"patient": 0, "image": 1, "noise": 2, "build": 3, "pose": 4}


def stream(seed: int, patient: int, image: int, purpose: str) -> np.random.Generator:
    """Return the generator of one unit, independent of every other (seed, patient, image, purpose)."""
    word = (patient << 24) | (image << 4) | _PURPOSES[purpose]
    return np.random.Generator(np.random.Philox(key=np.array([seed, word], dtype=np.uint64)))


def draw_exogenous(n_patients: int, *, seed: int, images_per_patient: tuple[int, int]) -> pd.DataFrame:
    """Draw the exogenous variables of every image.

    >>> few = draw_exogenous(2, seed=0, images_per_patient=(1, 1))
    >>> many = draw_exogenous(5, seed=0, images_per_patient=(1, 1))
    >>> bool((few == many.head(2)).all(axis=None))
    True
    """
    low, high = images_per_patient
    rows: list[NDArray[np.float32]] = []
    keys: list[tuple[int, int]] = []
    patient_normals = len(PATIENT_NORMAL) + len(TENDENCIES)
    image_normals = len(IMAGE_NORMAL) + len(TENDENCIES)
    image_uniforms = len(IMAGE_UNIFORM) + len(SEVERITY_RANKS)
    for patient in range(n_patients):
        rng = stream(seed, patient, 0, "patient")
        normal = rng.standard_normal(patient_normals)
        uniform = rng.random(len(PATIENT_UNIFORM))
        count = low + int(uniform[PATIENT_UNIFORM.index("image_count")] * (high - low + 1))
        for image in range(count):
            rng = stream(seed, patient, image, "image")
            own, ranks = rng.standard_normal(image_normals), rng.random(image_uniforms)
            mixed = (
                np.sqrt(WITHIN_PATIENT) * normal[len(PATIENT_NORMAL) :]
                + np.sqrt(1 - WITHIN_PATIENT) * (own[len(IMAGE_NORMAL) :])
            )
            parts = (normal[: len(PATIENT_NORMAL)], uniform, own[: len(IMAGE_NORMAL)], ranks, mixed)
            rows.append(np.concatenate(parts).astype(np.float32))
            keys.append((patient, image))
    names = (*PATIENT_NORMAL, *PATIENT_UNIFORM, *IMAGE_NORMAL, *IMAGE_UNIFORM, *SEVERITY_RANKS, *TENDENCIES)
    table = pd.DataFrame(np.stack(rows), columns=list(names))
    for name in (*PATIENT_NORMAL, *IMAGE_NORMAL):
        table[name] = table[name].clip(-2, 2)
    index = pd.DataFrame(keys, columns=["patient", "image"])
    return pd.concat([index, table], axis=1)


def choose_level(rank: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the index of the level: the quantile function of `weights` at `rank` in [0, 1)."""
    return np.minimum(np.searchsorted(np.cumsum(weights), rank, side="right"), len(weights) - 1)


def conditional_prevalence(
    prevalence: float, correlation: float, weights: NDArray[np.float64], *, name: str
) -> NDArray[np.float64]:
    """Return P(finding | level) for a given prevalence and Pearson correlation with the level's index.

    ``P(F=1 | A=a) = q + rho * sqrt(q (1-q)) * (a - E[a]) / sd(a)``, linear in the index `a` of the level.

    Shapes: `weights` (n_levels,); gives (n_levels,).

    >>> conditional_prevalence(0.5, 0.8, np.array([0.5, 0.5]), name="edema").round(3).tolist()
    [0.1, 0.9]
    """
    index = np.arange(len(weights), dtype=np.float64)
    centred = index - weights @ index
    score = centred / np.sqrt(weights @ centred**2)
    spread = np.sqrt(prevalence * (1 - prevalence))
    conditional = prevalence + correlation * spread * score
    if conditional.min() < -1e-12 or conditional.max() > 1 + 1e-12:
        signed = np.sign(correlation) * score
        limit = min(prevalence / (spread * -signed.min()), (1 - prevalence) / (spread * signed.max()))
        raise InputError(
            f"A correlation of {correlation:g} between the attribute and {name} is impossible at a prevalence of "
            f"{prevalence:g}; the largest possible is {np.sign(correlation) * limit:.3f}, and more with a "
            "prevalence nearer 0.5."
        )
    result: NDArray[np.float64] = np.clip(conditional, 0.0, 1.0)
    return result


def per_name(
    value: float | Mapping[str, float], names: tuple[str, ...], *, what: str, default: float
) -> dict[str, float]:
    """Spread a number, or a mapping with some of `names`, over all `names`."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, float(value))
    for key in value:
        require_known(key, names, f"{what} names '{key}', which the phantom does not have")
    return {name: float(value.get(name, default)) for name in names}


def graded(rank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the severity of a finding that is there, from `MILDEST` to 1, uniform in its rank in [0, 1)."""
    return MILDEST + (1 - MILDEST) * rank


def present(tendency: NDArray[np.float32], probability: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the finding is there: the tendency's normal score falls below its probability."""
    return np.asarray(ndtr(tendency.astype(np.float64)) < probability)


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
