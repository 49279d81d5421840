"""What a trained generator does on average, held against what the cohort itself shows: nothing true is needed.

The guidance that gives an effect of the right size, and the mean error that is left.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from citlr.console import Narrator
from citlr.generators.batches import BATCH
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.published.hiding import mean_effects
from citlr.learning.store import Dataset, spans
from citlr.randomness import hashed_seed

# Images that are redrawn to measure the size of the effect; their mean is what is compared.
IMAGES = 48
# A size this near to 1 is left alone: guidance of exactly 1 costs half the time of any other.
TOLERANCE = 0.1
LOWEST, HIGHEST = 0.7, 4.0
LEAST_SLOPE = 0.1


@dataclass(frozen=True)
class Calibration:
    """Guidance, and the size of the mean effect; of sizes 1 is right, and NaN is unknown.

    - `guidance`: What was chosen, 0.7 to 4.
    - `size_at_one`: Measured at guidance 1, see `effect_size`.
    - `size`: At the chosen guidance, on the straight line through the two sizes that were measured.
    """

    guidance: float
    size_at_one: float
    size: float


def effect_size(
    generated: npt.NDArray[np.floating], first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]
) -> float:
    """Size of a generated mean effect along the observed one: 1 is the whole of it.

    The observed mean difference, given the held covariates, is the true mean effect plus sampling noise, and its own
    square is too large by that noise. Two halves of the cohort have noise of their own each, so that
    `<g, (o1 + o2) / 2> / <o1, o2>` is free of it.

    Examples
    --------
    >>> effect_size(np.array([0.5, 0.0]), np.array([1.0, 0.3]), np.array([1.0, -0.3])) > 0.5
    True
    >>> effect_size(np.array([0.5]), np.array([1.0]), np.array([-1.0]))
    nan
    """
    power = float((first * second).sum())
    return float((generated * (first + second) / 2).sum()) / power if power > 0 else float("nan")


def calibrate(sampler: Sampler, train: Dataset, validation: Dataset, *, seed: int, narrator: Narrator) -> Calibration:
    """Choose the guidance at which the generated mean effect of the first attribute has the size of the observed one.

    The size grows nearly in proportion to the guidance, so two measurements and a straight line are enough:
    `w = 1 + (1 - size(1)) / (size(2) - size(1))`, kept within 0.7 and 4. A size within 0.1 of 1 is left alone.
    """
    conditions = sampler.conditions
    attribute = conditions.attributes[0]
    codes = conditions.encode(train.cohort.frame)
    # Whole patients in either half: images of one patient share their noise.
    side = np.asarray([hashed_seed("half", patient) & 1 for patient in train.cohort.frame["patient_id"]])
    # Only where the intervention may act at all: elsewhere the observed effect is chance.
    where = sampler.support.of([attribute.name])[0, 0].cpu().numpy()
    halves = []
    for half in (0, 1):
        effects = mean_effects(train.pixels, codes, sampler.secret, rows=np.flatnonzero(side == half)).numpy()
        halves.append(
            np.stack([effects[k] - effects[0] for k in range(1, len(attribute.levels))])
            if attribute.levels
            else 2 * effects[:1]  # of a continuous one: from a deviation below the mean to one above
        )
    levels = attribute.levels or (
        str(attribute.centre - attribute.spread),
        str(attribute.centre + attribute.spread),
    )
    rows = np.unique(np.linspace(0, len(validation) - 1, IMAGES).astype(np.int64))
    images, frame = validation.images(rows).numpy(), validation.cohort.frame.iloc[rows].reset_index(drop=True)

    def size_at(guidance: float) -> float:
        redrawn = sampler.redraw(images, frame, attribute=attribute.name, levels=levels, seed=seed, guidance=guidance)
        mean = redrawn.mean(axis=(0, 2), dtype=np.float64)
        return effect_size(mean[1:] - mean[0], where * halves[0], where * halves[1])

    with narrator.progress("guidance", 2) as tick:
        one = size_at(1.0)
        tick(1, f"size {one:.2f}")
        if abs(one - 1) <= TOLERANCE or not np.isfinite(one):
            return Calibration(1.0, one, one)
        two = size_at(2.0)
        tick(2, f"size {two:.2f}")
    slope = two - one
    # Where the size hardly depends on the guidance, it comes from the alignment, and none would mend it.
    wanted = 1 + (1 - one) / slope if np.isfinite(two) and slope > LEAST_SLOPE else 1.0
    guidance = float(np.clip(round(wanted, 2), LOWEST, HIGHEST))
    return Calibration(guidance, one, one + slope * (guidance - 1))


def measure_errors(sampler: Sampler, train: Dataset, *, seed: int, narrator: Narrator) -> torch.Tensor:
    """Measure by how much an intervention changes aligned training images on average, where it should change nothing.

    Shapes: gives (columns, s, s).
    """
    conditions, recentring = sampler.conditions, sampler.recentring
    assert recentring is not None
    # The same change around the image itself: the anchor, which would be three times as long, cancels out.
    plain = dataclasses.replace(sampler, config=dataclasses.replace(sampler.config, detail="draw"))
    random = np.random.default_rng(hashed_seed("recentring", seed))
    rows = np.sort(random.permutation(len(train))[: sampler.config.recentre])
    frame = train.cohort.frame.iloc[rows].reset_index(drop=True)
    codes, ids = conditions.encode(frame), frame["image_id"].astype(str).tolist()
    noise = hashed_seed("recentring", seed)
    variables = [variable for variable in conditions.attributes if variable.levels]
    total = torch.zeros(recentring.errors.shape, dtype=torch.float64)
    count = torch.zeros(len(total), dtype=torch.float64)
    with narrator.progress("mean error", len(variables) * len(rows)) as tick:
        for k, variable in enumerate(variables):
            request = sampler.request(variable.name, variable.levels, 1, noise, None, True, None)
            for part in spans(len(rows), BATCH):
                own, changed = plain.redraw_aligned(train.images(rows[part]), codes[part], ids[part], request)
                for level, redrawn in zip(variable.levels, changed, strict=True):
                    asked = conditions.intervene(codes[part], request.names, level)
                    entered = recentring.entered(codes[part], asked).double()
                    total += torch.einsum("nc,nhw->chw", entered, (redrawn - own)[:, 0, 0].double().cpu())
                    count += entered.sum(dim=0)
                tick(k * len(rows) + part.stop)
    return (total / count.clamp(min=1)[:, None, None]).float()
