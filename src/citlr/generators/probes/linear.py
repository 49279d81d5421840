"""A probe without a network: penalised logistic regression on described images.

Where some hundred images teach a network nothing, about a thousand numbers that need no training (`described`) may well
tell the levels apart: a smooth change of shape, or a finding that few images have. As all images learn, and none is
spared to choose by, it is judged by cross-fitting: every patient is read by a regression on the others.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from citlr.data.pixels.colour import luminance
from citlr.generators.base import Images
from citlr.generators.edits.warps import blur, gradient
from citlr.randomness import hashed_seed

# Gaussians between the scales of a description, in 64ths of the side, and grey values that are counted.
SCALES = (0.8, 2.0, 5.0)
GREYS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
# Points along a side: of grey values, of local energies and directions, of what needs many pixels.
FINE, MIDDLE, COARSE = 16, 8, 4
EMPTY = 1e-4


def describe(images: Images) -> npt.NDArray[np.float32]:
    """Describe images (n, c, s, s) by numbers (n, width): grey values, energies, directions and shapes of grains.

    Images in colour are described by their luminance, and by what red and blue differ from it by, place by place.
    """
    if images.shape[1] > 1:
        grey = luminance(images)
        tint = functional.adaptive_avg_pool2d(torch.from_numpy(images[:, [0, 2]] - grey), MIDDLE).flatten(1)
        return np.concatenate([describe(grey), tint.numpy()], axis=1)
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), 256)
    return np.concatenate([_described(part).numpy() for part in parts])


def _described(images: Tensor) -> Tensor:
    unit, pool = images.shape[-1] / 64, functional.adaptive_avg_pool2d
    smooth = [images, *(blur(images, sigma * unit) for sigma in SCALES)]
    bands = [fine - coarse for fine, coarse in itertools.pairwise(smooth)]
    found = [pool(smooth[-1], MIDDLE), pool(bands[2], FINE), pool(bands[1], FINE)]
    found += [(pool(band**2, MIDDLE) + EMPTY).log() / 4 for band in bands]
    x, y = torch.split(gradient(smooth[1])[:, 0], 1, dim=1)
    across, along, both = pool(x * x, MIDDLE), pool(y * y, MIDDLE), pool(x * y, MIDDLE)
    steep = across + along + EMPTY / 10
    found += [(across - along) / steep, 2 * both / steep]
    for band in bands[:2]:
        energy = pool(band**2, COARSE) + EMPTY / 10
        found += [pool(band**3, COARSE) / energy**1.5, pool(band.abs(), COARSE) / energy.sqrt()]
        found += [pool(band[..., 1:] * band[..., :-1], COARSE) / energy]
        found += [pool(band[..., 1:, :] * band[..., :-1, :], COARSE) / energy]
    found += [pool(torch.sigmoid((images - grey) / 0.05), COARSE) for grey in GREYS]
    return torch.cat([one.flatten(1) for one in found], dim=1)


Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Described = npt.NDArray[np.floating]
# The inverse of the penalty on standardised numbers, per image: the prior of a thousand small weights.
INVERSE_PENALTY = 1e-3
FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """Logits of levels from described images: `(x - mean) / scale @ weight + bias`.

    - `mean`, `scale` (width,), `weight` (width, levels), `bias` (levels,).
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats

    def logits(self, described: Described) -> Floats:
        """Give the logits (n, levels) of descriptions (n, width)."""
        return ((described - self.mean) / self.scale) @ self.weight + self.bias


def fit_linear(described: Described, codes: Integers, weights: Floats, levels: int) -> LinearProbe:
    """Fit the probe of one target to descriptions (n, width), of levels (n,) that all are there."""
    x = np.asarray(described, dtype=np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000).fit((x - mean) / scale, codes, sample_weight=weights)
    weight, bias = fitted.coef_.T, fitted.intercept_
    if levels == 2:
        # One score tells two levels apart.
        weight, bias = np.concatenate([-weight / 2, weight / 2], axis=1), np.array([-bias[0] / 2, bias[0] / 2])
    return LinearProbe(mean, scale, weight, bias)


def cross_read(
    described: Described, codes: Integers, weights: Floats, levels: int, patients: npt.ArrayLike, seed: int
) -> Floats | None:
    """Read every image (n, levels) by a regression on other patients; None where a fold lacks a level."""
    _, person = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    order = np.random.default_rng(hashed_seed("linear probe", seed)).permutation(person.max() + 1)
    fold = (order % FOLDS)[person]
    read = np.zeros((len(codes), levels))
    for number in range(FOLDS):
        out = fold == number
        if len(np.unique(codes[~out])) < levels:
            return None
        read[out] = fit_linear(described[~out], codes[~out], weights[~out], levels).logits(described[out])
    return read


def told_apart(score: Floats, there: npt.NDArray[np.bool_], strata: Integers, patients: npt.ArrayLike) -> float:
    """Give the one-sided p-value of scores (n,) that are higher where something is there, within strata (n,).

    The rank sums of the strata are added, each over its size (van Elteren 1960): what goes with the other group of
    targets is no merit. Images of a patient (n,) that are alike in both count once, by their mean: more of them say
    little more. 1 where no stratum has both.
    """
    person = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    units, own = np.unique(np.stack([person, strata, there], axis=1), axis=0, return_inverse=True)
    own = own.reshape(-1)
    score = np.bincount(own, weights=score) / np.bincount(own)
    strata, there = units[:, 1], units[:, 2].astype(bool)
    total = variance = 0.0
    for stratum in np.unique(strata):
        rows = strata == stratum
        count, found = int(rows.sum()), int(there[rows].sum())
        if 0 < found < count:
            ranks = rankdata(score[rows])
            total += (float(ranks[there[rows]].sum()) - found * (count + 1) / 2) / (count + 1)
            variance += (
                found
                * (count - found)
                / (count * (count - 1))
                * float(((ranks - ranks.mean()) ** 2).sum())
                / (count + 1) ** 2
            )
    return float(norm.sf(total / np.sqrt(variance))) if variance > 0 else 1.0


# Offsets: of a label, per level of the attribute, what is added to the logits.
Offsets = Mapping[str, Mapping[str, Sequence[float]]]
# Images of each value of a label in a level, without which it has no offset there.
FEWEST = 5


def fit_offsets(logits: Floats, values: npt.NDArray[np.int64], weights: Floats, *, ridge: float = 1.0) -> Floats:
    """Fit what is to be added to logits so that the values are as frequent as they are read.

    The offsets minimise the weighted cross-entropy, whose gradient is the difference of both frequencies, plus
    `ridge / 2` times their square; the first of them is 0.

    Shapes: `logits` (n, k), `values` (n,), `weights` (n,); gives (k,).
    """
    count = logits.shape[1]
    if np.bincount(values, minlength=count).min() < FEWEST:
        return np.zeros(count)
    there = np.eye(count)[values]

    def cost(free: Floats) -> tuple[float, Floats]:
        moved = logits + np.concatenate([[0.0], free])
        surprise = -(weights * log_softmax(moved, axis=1)[np.arange(len(values)), values]).sum()
        slope = (weights[:, None] * (softmax(moved, axis=1) - there)).sum(axis=0)[1:]
        return float(surprise + ridge / 2 * (free**2).sum()), slope + ridge * free

    found = minimize(cost, np.zeros(count - 1), jac=True, method="BFGS")
    return np.concatenate([[0.0], found.x])


def moved(readings: npt.NDArray[np.float32], offset: Sequence[float]) -> npt.NDArray[np.float32]:
    """Add an offset (k,) to the logits of readings (..., k), which are probabilities."""
    odds = readings * np.exp(np.asarray(offset, dtype=np.float32))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True), dtype=np.float32)
