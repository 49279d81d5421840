"""The true effect of the attribute on any classifier, from the phantom's exact counterfactuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.errors import InputError

Classify = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From float32 images (n, 1, s, s) in [0, 1] to probabilities (n,) in [0, 1]."""
BATCH = 256
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

    Attributes
    ----------
    contrast : tuple of str
        Levels (a, a').
    psi : float
        ``mean (d(a') - d(a))^2`` of the decisions `d`; with exact counterfactuals the flip rate is the same number.
    flip_rate : float
        Share of units whose decision differs.
    mean_effect : float
        ``mean d(a') - d(a)``.
    psi_probability, mean_effect_probability : float
        The same of the probabilities.
    n_images, n_patients : int
        Units and patients behind the means.
    threshold : float
        Probability from which on the decision is 1.
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


def true_effect(
    classify: Classify, sample: Units, contrast: tuple[str, str], *, threshold: float = 0.5, batch: int = 512
) -> TrueEffect:
    """Return the true effect of the attribute on a classifier, from exact counterfactuals.

    Parameters
    ----------
    classify : callable
        From float32 images (n, 1, s, s) in [0, 1] to probabilities (n,) in [0, 1].
    sample : PhantomSample or SemiRealSample
        Units; both levels of the contrast are rendered for each of them.
    contrast : tuple of str
        Levels (a, a'); effects are a' minus a.
    threshold : float
        Probability from which on the decision is 1.
    batch : int
        Images per call.

    Returns
    -------
    TrueEffect
        Means over the units.

    Raises
    ------
    InputError
        If the output has another shape or leaves [0, 1].

    Examples
    --------
    >>> from citlr.simulators.phantom.world import PhantomWorld
    >>> sample = PhantomWorld(size=32).sample(4, seed=0)
    >>> true_effect(lambda images: images[:, 0, 16, 16].astype(float), sample, ("female", "male")).psi
    0.0
    """
    pieces = []
    for start in range(0, len(sample), batch):
        part = sample.take(slice(start, start + batch))
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


def fixed_map_share(sample: Units, contrast: tuple[str, str]) -> float:
    """Return the share of the attribute's effect, in squares, that the best map of pixels for all units explains.

    With ``t = x(a') - x(a)`` of every unit and ``m`` their mean, ``1 - sum |t - m|^2 / sum |t|^2``: 1 where the effect
    is the same in every image, near 0 where it lies somewhere else in each. The map is fitted to the units themselves,
    so that few of them make it too large by one over their number.
    """
    total, power = np.zeros(()), 0.0
    for start in range(0, len(sample), BATCH):
        part = sample.take(slice(start, start + BATCH))
        before, after = (part.counterfactual(level).astype(np.float64) for level in contrast)
        total = total + (after - before).sum(axis=0)
        power += float(((after - before) ** 2).sum())
    if power == 0:
        raise InputError(f"No image differs between {' and '.join(contrast)}: there is no effect for a map to explain.")
    return float((total**2).sum() / len(sample) / power)


def _probabilities(classify: Classify, images: NDArray[np.float32]) -> NDArray[np.float64]:
    result = np.asarray(classify(images), dtype=np.float64)
    if result.shape != (len(images),):
        raise InputError(
            f"The classifier returned shape {result.shape} for {len(images)} images; it should be ({len(images)},)."
        )
    if not ((result >= 0) & (result <= 1)).all():
        raise InputError("The classifier returned something outside [0, 1]; a probability is needed, not a logit.")
    return result
