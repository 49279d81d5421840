"""From a difference of summaries to coefficients: how much of it is shown, and by which edits.

The difference d is given in units of its error (`effects/whitening.py`); an edit of coefficients c changes it by A c.
Coefficients have a normal prior of mean 0, with one variance per block, found by maximising the evidence of d
(block-sparse Bayesian learning; the update is that of Wipf and Nagarajan 2010): blocks of which nothing is shown have
a variance of 0.

A prior of one variance a block takes every direction in it for equally likely. Most directions hardly vary between
people, and are known well; that nothing happens there would speak against a change of what does vary, such as width,
depth of breath or brightness, which is where women and men differ most. So edits have besides their coefficients a few
directions: those in which they write best what patients vary by, kinds together (a prior in proportion to the natural
covariance, as Zellner's g of 1986, on its leading directions).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from citlr.generators.effects.whitening import LEAST, decomposed

Floats = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ROUNDS = 20
FIRST = 0.05
TINY = 1e-9
# Directions at most, and the ridge that keeps their coefficients small.
DIRECTIONS, RIDGE = 12, 0.1


@dataclass(frozen=True)
class Shrunk:
    """Coefficients of one difference.

    - `mean` (coefficients + k,): the posterior mean, of coefficients and what is gone along directions among them.
    - `variance` (coefficients + k,): the prior's, 0 where nothing is shown.
    - `directions` (coefficients, k): the directions, see `Modes`.
    - `evidence`: log evidence against no edit at all.
    """

    mean: Floats
    variance: Floats
    directions: Floats
    evidence: float

    @property
    def coefficients(self) -> Floats:
        """All of it as coefficients."""
        return self._folded(self.mean)

    def _folded(self, values: Floats) -> Floats:
        """Give coefficients (..., coefficients) of vectors that go on along the directions."""
        width = len(self.directions)
        return values[..., :width] + values[..., width:] @ self.directions.T

    def penalty(self, answers: Floats) -> float:
        """Log prior of the mean, and what the posterior's width takes off: the evidence without its fit."""
        own = self.variance > TINY
        scaled = longer(answers, self.directions)[:, own] * np.sqrt(self.variance[own])
        _, size = np.linalg.slogdet(np.eye(scaled.shape[1]) + scaled.T @ scaled)
        return float(-0.5 * (self.mean[own] ** 2 / self.variance[own]).sum() - 0.5 * size)

    def draws(self, answers: Floats, count: int, random: np.random.Generator) -> Floats:
        """Draw what the posterior leaves open, (count, coefficients): deviations of mean 0."""
        own = self.variance > TINY
        scale, found = np.sqrt(self.variance[own]), np.zeros((count, len(self.variance)))
        scaled = longer(answers, self.directions)[:, own] * scale
        root = lower_root(np.eye(len(scale)) + scaled.T @ scaled)
        normal = random.standard_normal((len(scale), count))
        found[:, own] = (scale[:, None] * solve_triangular(root, normal, lower=True, trans="T", check_finite=False)).T
        return self._folded(found)


def longer(answers: Floats, directions: Floats) -> Floats:
    """Give the answers (width, coefficients + k) to coefficients and to directions (coefficients, k) among them."""
    return np.concatenate([answers, answers @ directions], axis=1)


def lower_root(matrix: Floats) -> Floats:
    """Give the lower triangular root of the identity plus a square, (k, k), whose eigenvalues are 1 or more.

    Where a difference is known so well that rounding is more than that 1, the eigenvalues are taken back to it.

    >>> lower_root(np.array([[1.0, 0.0], [0.0, -3.0]])).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    try:
        return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        upper = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 1.0))).T, mode="r")
        found: Floats = (upper * np.sign(np.diag(upper))[:, None]).T + 0.0  # no zero is negative
        return found


def shrink(
    answers: Floats,
    difference: Floats,
    blocks: Blocks,
    allowed: Mask,
    *,
    directions: Floats | None = None,
    rounds: int = ROUNDS,
) -> Shrunk:
    """Find coefficients; `answers` (width, coefficients) and `difference` (width,) in units of the error.

    What is gone along `directions` (coefficients, k) has one variance more.
    """
    if directions is None:
        directions = np.zeros((len(blocks), 0))
    more = directions.shape[1]
    blocks = np.concatenate([blocks, np.full(more, blocks.max() + 1)])
    allowed = np.concatenate([allowed, np.ones(more, dtype=np.bool_)])
    own, block = longer(answers, directions)[:, allowed], blocks[allowed]
    square, aim = own.T @ own, own.T @ difference
    count = int(blocks.max()) + 1
    variance = np.full(count, FIRST)
    for _ in range(rounds):
        each = np.sqrt(variance[block])
        scaled = square * each
        root = lower_root(each[:, None] * scaled + np.eye(len(each)))
        half = solve_triangular(root, np.column_stack([scaled.T, each * aim]), lower=True, check_finite=False)
        fit = half[:, -1]
        # The difference in units of its whole error, pulled back: mean = variance (aim - square mean).
        mean = each**2 * (aim - half[:, :-1].T @ fit)
        shown = np.bincount(block, weights=mean**2, minlength=count)
        wide = np.diag(square) - (half[:, :-1] ** 2).sum(axis=0)
        width = np.bincount(block, weights=np.maximum(wide, 0.0), minlength=count)
        evidence = 0.5 * float(fit @ fit) - float(np.log(np.diag(root)).sum())
        variance = np.sqrt(shown / np.maximum(width, TINY))
    every, prior = np.zeros(len(blocks)), np.zeros(len(blocks))
    every[allowed], prior[allowed] = mean, each**2
    return Shrunk(every, np.where(prior > TINY, prior, 0.0), directions, evidence)


def nothing(blocks: Blocks) -> Shrunk:
    """Give no edit."""
    return Shrunk(np.zeros(len(blocks)), np.zeros(len(blocks)), np.zeros((len(blocks), 0)), 0.0)


@dataclass(frozen=True)
class Modes:
    """What patients vary by, and how summaries answer to edits, both in units of a difference's error.

    - `answers` (width of a summary, width): to coefficients.
    - `targets` (width of a summary, k): a standard deviation of patients along each of the leading directions.
    """

    answers: Floats
    targets: Floats

    @classmethod
    def of(cls, table: Floats, influences: Floats) -> Self:
        """Find them from answers `table` (width of a summary, width) and influences (patients, width of a summary)."""
        deviation = np.sqrt((influences**2).sum(axis=0))
        deviation[deviation <= LEAST] = np.inf  # what nobody varies in, see `Whitening`
        _, size, ways = decomposed(influences / deviation)
        # The difference of two halves of the patients has an error of two deviations over the root of their number.
        each = size[:DIRECTIONS, None] * np.sqrt(len(influences)) / 2
        return cls(table / deviation[:, None], (ways[:DIRECTIONS] * each).T)

    def directions(self, allowed: Mask) -> Floats:
        """Give the coefficients (width, k) of allowed columns (width,) that write each of them best."""
        own = self.answers[:, allowed]
        square = own.T @ own
        ridge = RIDGE * np.trace(square) / len(square) + TINY
        found = np.zeros((len(allowed), self.targets.shape[1]))
        found[allowed] = np.linalg.solve(square + ridge * np.eye(len(square)), own.T @ self.targets)
        return found
