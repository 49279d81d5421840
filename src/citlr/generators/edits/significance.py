"""Whether images show anything of an attribute, before any edit is estimated: a sign-flipping score test by patient."""

import numpy as np
import torch
from scipy.special import gammainc, gammaincc, gammaincinv

from citlr.generators.edits.family import Family, bands, hats
from citlr.generators.edits.shrinkage import DIRECTIONS, TINY, Floats
from citlr.generators.effects.whitening import LEAST, Whitening, decomposed

REDRAWS = 999
# Cells along a side of the film, in which its two finest bands are looked at.
CELLS, FINE = 8, 2


def shown(family: Family, answers: Floats, influences: Floats, pixels: Floats, random: np.random.Generator) -> float:
    """P value of "no edit is shown": the largest of many quadratic statistics, patients' signs redrawn.

    A statistic for every kind of edit and every block of its coefficients, by `answers` (width, coefficients), one for
    each direction in which patients vary most, and one for the finest bands of the film in every cell, which no summary
    may hold. `influences` (patients, width) and `pixels` (patients, c * s * s) are those under the null, whose sums are
    the differences. A flipped sign leaves their covariance as it is, so that all redraws are measured by the same
    yardstick (sign-flipping score test, Hemerik, Goeman and Finos 2020). Statistics of few and of many numbers are
    compared by their tails, each a gamma fitted to its own redraws.
    """
    signs = random.choice([-1.0, 1.0], size=(REDRAWS + 1, len(influences)))
    signs[0] = 1.0
    whiten = Whitening.of(influences)
    score = (whiten((signs @ influences).T).T @ whiten(answers)) ** 2
    blocks = family.blocks.numpy()
    parts = [np.flatnonzero(blocks == block) for block in range(blocks.max() + 1)]
    parts += [np.flatnonzero(family.columns(kind).numpy()) for kind in family.kinds]
    statistics = [score[:, part].sum(axis=1) for part in parts]
    along = _along(influences, signs)
    statistics += [along.sum(axis=1), *along.T]
    for band in fine_bands(pixels, family.channels).swapaxes(0, 1):
        cells = cell_energy(signs @ (band / (np.sqrt((band**2).sum(axis=0)) + TINY)))
        statistics += [cells.sum(axis=(1, 2)), *cells.reshape(len(signs), -1).T]
    tails = np.stack([_tail(statistic) for statistic in statistics])
    largest = tails.max(axis=0)
    return float((largest >= largest[0]).mean())


def shown_along(influences: Floats, random: np.random.Generator) -> float:
    """P value of no difference along the directions in which patients vary most: of influences under the null."""
    signs = random.choice([-1.0, 1.0], size=(REDRAWS + 1, len(influences)))
    signs[0] = 1.0
    sizes = _along(influences, signs).sum(axis=1)
    return float((sizes >= sizes[0]).mean())


def _along(influences: Floats, signs: Floats) -> Floats:
    """Give squared differences (redraws, directions) along what patients vary by, in units of their error."""
    deviation = np.sqrt((influences**2).sum(axis=0))
    deviation[deviation <= LEAST] = np.inf
    left, size, _ = decomposed(influences / deviation)
    return (signs @ left[:, :DIRECTIONS][:, size[:DIRECTIONS] > TINY]) ** 2


def fine_bands(maps: Floats, channels: int = 1) -> Floats:
    """Take the finest bands (k, c * FINE, s * s) of maps (k, c * s * s), those of the first axis first."""
    size = round((maps.shape[-1] // channels) ** 0.5)
    parts = bands(torch.from_numpy(maps).float().reshape(-1, 1, size, size))
    return parts[:, :FINE].reshape(len(maps), channels * FINE, -1).double().numpy()


def _tail(statistic: Floats) -> Floats:
    """Minus the logarithm of how often chance, the redraws after the first number, is as large: (redraws + 1,)."""
    mean, variance = statistic[1:].mean() + TINY, statistic[1:].var() + TINY
    shape, scaled = mean**2 / variance, statistic / (variance / mean)
    # `scipy.stats.gamma.logsf` looks for the median again at every number, which takes two to three times as long.
    below = scaled < gammaincinv(shape, 0.5)
    found: Floats = np.empty_like(scaled)
    found[below] = -np.log1p(-gammainc(shape, scaled[below]))
    with np.errstate(divide="ignore"):
        found[~below] = -np.log(gammaincc(shape, scaled[~below]))
    return found


def cell_energy(maps: Floats) -> Floats:
    """Weighted mean square (k, CELLS, CELLS) of maps (k, s * s) in overlapping cells."""
    size = round(maps.shape[1] ** 0.5)
    axis = hats(CELLS, size).double().numpy()
    found: Floats = np.einsum("yi,kyx,xj->kij", axis, maps.reshape(-1, size, size) ** 2, axis, optimize=True)
    return found
