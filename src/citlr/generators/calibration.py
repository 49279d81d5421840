"""How much guidance gives an effect of the right size, as the cohort itself shows it: nothing true is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citlr.console import Narrator
from citlr.generators.hiding import mean_effects
from citlr.generators.sampling import Sampler
from citlr.generators.store import Dataset

# Images that are redrawn to measure the size of the effect; their mean is what is compared.
IMAGES = 48
# A size this near to 1 is left alone: guidance of exactly 1 costs half the time of any other.
TOLERANCE = 0.1
LOWEST, HIGHEST = 0.7, 4.0


@dataclass(frozen=True)
class Calibration:
    """Guidance, and the size of the mean effect at guidance 1 and at the chosen one; 1 is right, infinite is astray."""

    guidance: float
    size_at_one: float
    size: float


def effect_size(generated: npt.NDArray[np.floating], observed: npt.NDArray[np.floating]) -> float:
    """Size of a generated mean effect, as a share of the true one, judged by the observed one.

    The observed mean difference (given the held covariates) is the true mean effect plus sampling noise. Its projection
    on the generated direction is free of most of that noise, and so `<g, g> / <g, o>` is the size along g.

    Returns
    -------
    float
        1 when they agree; infinite when the generated effect points nowhere near the observed one.

    Examples
    --------
    >>> effect_size(np.array([0.5, 0.0]), np.array([1.0, 0.3]))
    0.5
    """
    power, along = float((generated * generated).sum()), float((generated * observed).sum())
    return power / along if along > 0 else float("inf")


def calibrate(sampler: Sampler, train: Dataset, validation: Dataset, *, seed: int, narrator: Narrator) -> Calibration:
    """Choose the guidance at which the generated mean effect of the first attribute has the size of the observed one.

    The size grows nearly in proportion to the guidance, so two measurements and a straight line are enough.

    Parameters
    ----------
    sampler : Sampler
        The trained parts.
    train, validation : Dataset
        The first gives the observed effect, images of the second are redrawn.
    seed : int
        Of the noise.
    narrator : Narrator
        Shows the progress.
    """
    conditions = sampler.conditions
    attribute = conditions.attributes[0]
    effects = mean_effects(train.pixels, conditions.encode(train.cohort.frame), sampler.secret).numpy()
    observed = np.stack([effects[k] - effects[0] for k in range(1, len(attribute.levels))])
    rows = np.unique(np.linspace(0, len(validation) - 1, IMAGES).astype(np.int64))
    images, frame = validation.images(rows).numpy(), validation.cohort.frame.iloc[rows].reset_index(drop=True)

    def size_at(guidance: float) -> float:
        redrawn = sampler.redraw(
            images, frame, attribute=attribute.name, levels=attribute.levels, seed=seed, guidance=guidance
        )
        mean = redrawn.mean(axis=(0, 2), dtype=np.float64)
        return effect_size(mean[1:] - mean[0], observed)

    with narrator.progress("guidance", 2) as tick:
        one = size_at(1.0)
        tick(1, f"size {one:.2f}")
        if abs(one - 1) <= TOLERANCE or not np.isfinite(one):
            return Calibration(1.0, one, one)
        two = size_at(2.0)
        tick(2, f"size {two:.2f}")
    slope = two - one
    wanted = 1 + (1 - one) / slope if np.isfinite(two) and slope > 1e-3 else (HIGHEST if one < 1 else 1.0)
    guidance = float(np.clip(round(wanted, 2), LOWEST, HIGHEST))
    return Calibration(guidance, one, one + slope * (guidance - 1))
