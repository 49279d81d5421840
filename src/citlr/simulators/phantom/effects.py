"""The true effect of the attribute on any classifier, from the phantom's exact counterfactuals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.errors import InputError

Classify = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From float32 images (n, 1, s, s) in [0, 1] to probabilities (n,) in [0, 1]."""
BATCH = 512
"""Images rendered at a time."""


class Units(Protocol):
    """Units whose counterfactuals are exact: a phantom's, or real images with a planted attribute."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row per image, with `patient_id`."""

    def __len__(self) -> int: ...

    def take(self, rows: slice) -> Self:
        """Return some of them."""

    def counterfactual(self, level: str) -> NDArray[np.float32]:
        """Give their images (n, 1, s, s) under a level."""


@dataclass(frozen=True)
class TrueEffect:
    """The true effect of setting the attribute on a classifier's output, over the units of a sample.

    - `psi`: ``mean (d(a') - d(a))^2`` of the decisions `d`; with exact counterfactuals the same as the flip rate.
    - `psi_probability`, `mean_effect_probability`: The same of the probabilities.
    - `threshold`: Probability from which on the decision is 1.
    """

    contrast: tuple[str, str]
    psi: float
    flip_rate: float
    mean_effect: float
    psi_probability: float
    mean_effect_probability: float
    n_images: int
    n_patients: int
    threshold: float


def true_effect(classify: Classify, sample: Units, contrast: tuple[str, str], *, threshold: float = 0.5) -> TrueEffect:
    """Return the true effect of the attribute on a classifier, from exact counterfactuals; effects are a' minus a."""
    pieces = []
    for start in range(0, len(sample), BATCH):
        part = sample.take(slice(start, start + BATCH))
        pieces.append([_probabilities(classify, part.counterfactual(level)) for level in contrast])
    before, after = (np.concatenate(column) for column in zip(*pieces, strict=True))
    change = (after >= threshold).astype(np.float64) - (before >= threshold)
    return TrueEffect(
        contrast=contrast,
        psi=float(np.mean(change**2)),
        flip_rate=float(np.mean(change != 0)),
        mean_effect=float(np.mean(change)),
        psi_probability=float(np.mean((after - before) ** 2)),
        mean_effect_probability=float(np.mean(after - before)),
        n_images=len(sample),
        n_patients=int(sample.frame["patient_id"].nunique()),
        threshold=threshold,
    )


def _probabilities(classify: Classify, images: NDArray[np.float32]) -> NDArray[np.float64]:
    result = np.asarray(classify(images), dtype=np.float64)
    if result.shape != (len(images),):
        raise InputError(
            f"The classifier returned shape {result.shape} for {len(images)} images; it should be ({len(images)},)."
        )
    if not ((result >= 0) & (result <= 1)).all():
        raise InputError("The classifier returned something outside [0, 1]; a probability is needed, not a logit.")
    return result
