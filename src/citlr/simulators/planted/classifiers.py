"""Classifiers of known bias for real images with a planted attribute: blind, indifferent, biased and shortcut ones.

All are torch modules from float32 images (n, 1, s, s) in [0, 1] to logits (n, 1): frozen random features and a linear
discriminant, seconds each. Real images have no pixels that the attribute leaves alone, so that a blind one is made by
its weights: they are at a right angle to what the attribute does to every image of the world, test images included.
What is left is measured like everybody's, by the exact counterfactuals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from citlr.errors import InputError, require_known
from citlr.simulators.phantom.classifiers import BiasedClassifier
from citlr.simulators.units import WorldUnits

# Side of the grid of mean grey values, and of that of what a random filter answers.
GRID, CELLS = 32, 8
# Sides of the random filters; half of the filters each.
FILTERS = (3, 7)
# How much more than chance variation a change counts that a classifier is to be blind to.
HEAVY = 1e9
# Share of the features' variance that is added to each: there are more of them than images.
RIDGE = 0.3
# Standard deviation of the logits of a finding.
SPREAD = 1.5
# Share of the training patients that a classifier sees, so that no two see the same.
SHARE = 0.7
STRONGEST = 60.0
BATCH = 256
Array = NDArray[np.float64]


class FrozenFeatures(nn.Module):
    """Mean grey values on a grid, and mean absolute answers of `width` random filters on a coarser one.

    The filters answer to no constant: what they see is contrast and fine structure.
    """

    if TYPE_CHECKING:
        kernel_0: Tensor
        kernel_1: Tensor

    def __init__(self, *, width: int, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.width = width
        for number, side in enumerate(FILTERS):
            drawn = rng.normal(size=(width // len(FILTERS), 1, side, side))
            drawn -= drawn.mean(axis=(2, 3), keepdims=True)
            drawn /= np.sqrt((drawn**2).sum(axis=(2, 3), keepdims=True))
            self.register_buffer(f"kernel_{number}", torch.from_numpy(drawn.astype(np.float32)))
        self.grid, self.cells = nn.AdaptiveAvgPool2d(GRID), nn.AdaptiveAvgPool2d(CELLS)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (n, d) of images (n, 1, s, s)."""
        parts = [self.grid(images)]
        if self.width:
            parts += [self.cells(nn.functional.conv2d(images, self.kernel_0, padding="same").abs())]
            parts += [self.cells(nn.functional.conv2d(images, self.kernel_1, padding="same").abs())]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class FeatureClassifier(nn.Module):
    """Logit ``<weight, features> + bias``."""

    if TYPE_CHECKING:
        weight: Tensor
        rest: Tensor

    def __init__(self, features: FrozenFeatures, weight: Array, bias: float) -> None:
        super().__init__()
        self.features, self.bias = features, float(bias)
        # Of single precision, which tells an audit what the model takes, and what is left of it.
        single = weight.astype(np.float32)
        self.register_buffer("weight", torch.from_numpy(single))
        self.register_buffer("rest", torch.from_numpy((weight - single).astype(np.float32)))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1) of images (n, 1, s, s)."""
        # In double precision: what two levels differ by cancels out only there.
        score: Tensor = self.features(images).double() @ (self.weight.double() + self.rest.double())
        return (score + self.bias).float().unsqueeze(1)


@dataclass(frozen=True)
class Trainer:
    """Makes the classifiers of one world.

    - `units`: All units of the world; their levels in the order of `levels`.
    - `learns` (n,): Units that classifiers learn from. Scales and doses are set by the others, whose labels nobody
      looks at: on what a discriminant learnt from it is too sure of itself.
    - `levels`: Images of all units under every level, as they are rendered once.
    """

    units: WorldUnits
    learns: NDArray[np.bool_]
    levels: tuple[NDArray[np.float32], ...] = field(repr=False)

    @classmethod
    def of(cls, units: WorldUnits, learns: NDArray[np.bool_], levels: Sequence[str]) -> Self:
        """Render every unit under every level."""
        seen = tuple(units.counterfactual(level) for level in levels)
        if all(np.array_equal(seen[0], one) for one in seen[1:]):
            raise InputError("No image shows the world's attribute: there is nothing a classifier could be biased by.")
        if learns.all() or not learns.any():
            raise InputError("Classifiers need units to learn from, and others to set their scale: give some of each.")
        return cls(units, learns, seen)

    def blind(self, label: str, *, seed: int, width: int = 16) -> FeatureClassifier:
        """Train one for a label that answers all levels of every image of the world alike."""
        features = FrozenFeatures(width=width, seed=seed)
        seen = [_features(features, images) for images in self.levels]
        rows, there = self._patients(label, seed)
        changes = np.concatenate([one - seen[0] for one in seen[1:]])
        mean = np.mean(seen, axis=0)
        weight = _discriminant(mean[rows][~there], mean[rows][there], changes)
        return _scaled(features, weight, mean[~self.learns])

    def shortcut(self, label: str, *, seed: int, width: int = 16) -> FeatureClassifier:
        """Train one on the images as they are, in which the attribute may go with the label."""
        features = FrozenFeatures(width=width, seed=seed)
        rows, there = self._patients(label, seed)
        seen = _features(features, self._factual(rows))
        weight = _discriminant(seen[~there], seen[there], None)
        return _scaled(features, weight, _features(features, self._factual(np.flatnonzero(~self.learns))))

    def detector(self, *, seed: int = 0, width: int = 32) -> FeatureClassifier:
        """Train what tells the last level from the first, on every learning unit under both."""
        features = FrozenFeatures(width=width, seed=seed)
        first, last = (_features(features, self.levels[k]) for k in (0, -1))
        weight = _discriminant(first[self.learns], last[self.learns], None)
        before, after = (one[~self.learns] @ weight for one in (first, last))
        slope = (after.mean() - before.mean()) / ((before.var() + after.var()) / 2)
        middle = (after.mean() + before.mean()) / 2
        return FeatureClassifier(features, weight * slope, -float(slope * middle)).eval()

    def biased(self, base: nn.Module, detector: nn.Module, *, rate: float, sign: int = 1) -> BiasedClassifier:
        """Add as much of a detector as turns a share `rate` of the decisions between the first and the last level.

        What it turns among other units is to be taken from `true_effect`.
        """
        before, after = (self.levels[k][~self.learns] for k in (0, -1))
        plain = [_features(base, images)[:, 0] for images in (before, after)]
        shown = [1 / (1 + np.exp(-_features(detector, images)[:, 0])) - 0.5 for images in (before, after)]

        def turned(strength: float) -> float:
            one, other = (p + sign * strength * s >= 0 for p, s in zip(plain, shown, strict=True))
            return float(np.mean(one != other))

        low, high = 0.0, STRONGEST
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if turned(middle) >= rate else (middle, high)
        # A little more, so that rounding turns none of them back.
        return BiasedClassifier(base, detector, strength=sign * 1.001 * high).eval()

    def _factual(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.stack([self.levels[self.units.level[row]][row] for row in rows])

    def _patients(self, label: str, seed: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Choose a share of the learning patients by the seed; also which of their images have the label."""
        frame = self.units.frame
        require_known(label, frame, f"The cohort has no label '{label}'")
        patients = np.unique(frame["patient_id"].to_numpy()[self.learns].astype(str))
        kept = np.random.default_rng(seed).permutation(patients)[: max(2, round(SHARE * len(patients)))]
        known = frame[label].notna().to_numpy()
        rows = np.flatnonzero(self.learns & known & frame["patient_id"].astype(str).isin(kept).to_numpy())
        there = shows(frame[label])[rows]
        if there.all() or not there.any():
            raise InputError(f"All {len(rows)} images that a classifier learns from have the same {label}.")
        return rows, there


def shows(column: pd.Series) -> NDArray[np.bool_]:
    """Say where a label is positive, or where a covariate has the last of its values in the order of their names."""
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.to_numpy(float) > 0)
    return np.asarray(column == max(column.dropna().unique(), default=""))


@torch.no_grad()
def _features(module: nn.Module, images: NDArray[np.float32]) -> Array:
    """Give what a module puts out of images, (n, d): features, or a logit."""
    return torch.cat([module(part) for part in torch.split(torch.from_numpy(images), BATCH)]).double().numpy()


def _discriminant(low: Array, high: Array, ignored: Array | None) -> Array:
    """Solve ``(S + ridge) w = mean high - mean low`` among the weights at a right angle to changes to be `ignored`."""
    centred = np.concatenate([low - low.mean(axis=0), high - high.mean(axis=0)])
    scale = centred.std(axis=0) + 1e-9
    centred = centred / scale
    spread = centred.T @ centred / len(centred) + RIDGE * np.eye(len(scale))
    if ignored is not None:
        changes = ignored / scale
        size = np.sqrt((changes**2).sum(axis=1).mean()) + 1e-12
        spread += HEAVY * (changes / size).T @ (changes / size) / len(changes)
    found: Array = np.linalg.solve(spread, (high.mean(axis=0) - low.mean(axis=0)) / scale) / scale
    return found


def _scaled(features: FrozenFeatures, weight: Array, seen: Array) -> FeatureClassifier:
    """Give logits of spread `SPREAD` over the features `seen` (n, d), half of them above 0."""
    weight = weight * SPREAD / (seen @ weight).std()
    # Between two images: one that lay on the threshold would be turned by rounding.
    scores = np.sort(seen @ weight)
    middle = scores[len(scores) // 2 - 1 : len(scores) // 2 + 1].mean()
    return FeatureClassifier(features, weight, -float(middle)).eval()
