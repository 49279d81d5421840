"""From a difference of summaries to coefficients: how much of it is shown, and by which edits.

The difference d has the error C, known from the patients' influences; an edit of coefficients c changes summaries by
A c. Coefficients have a normal prior of mean 0, with one variance per block, found by maximising the evidence of d
(block-sparse Bayesian learning; the update is that of Wipf and Nagarajan 2010): blocks of which nothing is shown have
a variance of 0. Errors are shrunk towards uncorrelated ones (Schaefer and Strimmer 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Floats = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]
ROUNDS = 20
FIRST = 0.05
TINY = 1e-9
# With fewer patients than numbers in a summary, their own covariance is too sure of itself in most directions.
LEAST_SHARE = 0.1


def error_root(influences: Floats, share: float | None = None) -> Floats:
    """Find the lower Cholesky factor (width, width) of the error of a difference, from influences (patients, width).

    `share` says how far correlations are shrunk; by their own uncertainty without it.
    """
    n = len(influences)
    deviation = np.sqrt((influences**2).sum(axis=0)) + TINY
    scaled = influences / deviation
    correlation = scaled.T @ scaled
    if share is None:
        off = correlation**2
        np.fill_diagonal(off, 0.0)
        spread = (scaled**2).T @ (scaled**2) - correlation**2 / n
        np.fill_diagonal(spread, 0.0)
        share = float(np.clip(spread.sum() / max(off.sum(), TINY), LEAST_SHARE, 1.0))
    correlation *= 1 - share
    np.fill_diagonal(correlation, 1.0)
    root: Floats = np.linalg.cholesky(correlation * np.outer(deviation, deviation))
    return root


def whitened(root: Floats, values: Floats) -> Floats:
    """Give values (width,) or (width, k) in units of their error."""
    found: Floats = solve_triangular(root, values, lower=True, check_finite=False)
    return found


@dataclass(frozen=True)
class Shrunk:
    """Coefficients of one difference.

    - `mean` (coefficients,): the posterior mean.
    - `variance` (coefficients,): the prior's, 0 where nothing is shown.
    - `evidence`: log evidence against no edit at all.
    """

    mean: Floats
    variance: Floats
    evidence: float

    def penalty(self, answers: Floats) -> float:
        """Log prior of the mean, and what the posterior's width takes off: the evidence without its fit."""
        own = self.variance > TINY
        scaled = answers[:, own] * np.sqrt(self.variance[own])
        _, size = np.linalg.slogdet(np.eye(scaled.shape[1]) + scaled.T @ scaled)
        return float(-0.5 * (self.mean[own] ** 2 / self.variance[own]).sum() - 0.5 * size)

    def draws(self, answers: Floats, count: int, random: np.random.Generator) -> Floats:
        """Draw what the posterior leaves open, (count, coefficients): deviations of mean 0."""
        own = self.variance > TINY
        scale, found = np.sqrt(self.variance[own]), np.zeros((count, len(self.variance)))
        scaled = answers[:, own] * scale
        factor = cho_factor(np.eye(len(answers)) + scaled @ scaled.T)
        for row in found:
            # Matheron's rule: a draw of the prior, less what its own noisy difference gives back.
            drawn = random.standard_normal(int(own.sum()))
            seen = scaled @ drawn + random.standard_normal(len(answers))
            row[own] = scale * (drawn - scaled.T @ cho_solve(factor, seen))
        return found


def shrink(
    answers: Floats, difference: Floats, blocks: npt.NDArray[np.int64], allowed: npt.NDArray[np.bool_]
) -> Shrunk:
    """Find coefficients; `answers` (width, coefficients) and `difference` (width,) in units of the error."""
    own, block = answers[:, allowed], blocks[allowed]
    count, width = int(blocks.max()) + 1, len(difference)
    variance = np.full(count, FIRST)
    for _ in range(ROUNDS):
        each = variance[block]
        total = (own * each) @ own.T
        total.flat[:: width + 1] += 1.0
        root = np.linalg.cholesky(total)
        half = solve_triangular(root, np.column_stack([own, difference]), lower=True, check_finite=False)
        mean = each * (half[:, :-1].T @ half[:, -1])
        shown = np.bincount(block, weights=mean**2, minlength=count)
        width_of = np.bincount(block, weights=(half[:, :-1] ** 2).sum(axis=0), minlength=count)
        evidence = 0.5 * float(difference @ difference - half[:, -1] @ half[:, -1]) - float(np.log(np.diag(root)).sum())
        variance = np.sqrt(shown / np.maximum(width_of, TINY))
    every, prior = np.zeros(len(blocks)), np.zeros(len(blocks))
    every[allowed], prior[allowed] = mean, each
    return Shrunk(every, np.where(prior > TINY, prior, 0.0), evidence)


def nothing(blocks: Blocks) -> Shrunk:
    """Give no edit."""
    return Shrunk(np.zeros(len(blocks)), np.zeros(len(blocks)), 0.0)


def shown(
    answers: dict[str, Floats], influences: Floats, pixels: Floats, random: np.random.Generator, *, redraws: int
) -> float:
    """P value of "no kind of edit is shown": the largest of the kinds' quadratic statistics, patients' signs redrawn.

    `answers` holds (width, k) by kind; `influences` (patients, width) are those under the null, whose sum is the
    difference. A flipped sign leaves their covariance as it is, so that all redraws are measured by the same yardstick
    (sign-flipping score test, Hemerik, Goeman and Finos 2020). `pixels` (patients, s * s) are influences of the mean
    images: what is finer than any summary counts as one kind more. Each statistic is standardised by its own redraws.
    """
    # In units of the covariance of few patients, all signs would look alike: the fewer, the more is left of the scale.
    patients, width = influences.shape
    root = error_root(influences, width / (width + patients))
    signs = random.choice([-1.0, 1.0], size=(redraws + 1, len(influences)))
    signs[0] = 1.0
    redrawn = whitened(root, (signs @ influences).T).T
    scaled = pixels / (np.sqrt((pixels**2).sum(axis=0)) + TINY)
    scores, finest = [], ((signs @ scaled) ** 2).sum(axis=1)
    for statistic in (finest, *(((redrawn @ whitened(root, own)) ** 2).sum(axis=1) for own in answers.values())):
        scores.append((statistic - statistic[1:].mean()) / max(float(statistic[1:].std()), TINY))
    largest = np.max(scores, axis=0)
    return float((largest >= largest[0]).mean())
