"""The gate on what draws share: the test flips signs draw by draw, so that no two may have one noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from citlr.audit.results.records import Gate
from citlr.invariance.effects.clusters import Clusters
from citlr.invariance.responses import Responses
from citlr.text import beside

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Answers

Floats = npt.NDArray[np.float64]
# How often draws that share nothing may fail, in all looks together.
LEVEL = 0.01
# Outputs that differ by less are alike: single precision tells no more.
ROUNDING = 1e-6
# How often the lower bound of the share of draws that are alike may be too high; far below LEVEL.
TOO_HIGH = 1e-5
# Distances that are held at a time.
HELD = 2_000_000


class Shared(NamedTuple):
    """How surely draws share noise: p over the labels, levels and pairs of one look, and what was seen."""

    pvalue: float
    seen: str


def gate_draws(answers: Answers) -> Iterator[Gate]:
    """Hold the draws of every level against each other."""
    if answers.responses is None or not answers.limits.draws:
        return
    pvalue, seen = shared_noise(answers.responses)
    passed = pvalue >= LEVEL
    found = f"(p = {beside(pvalue, LEVEL, 2, 'g')}, the smallest of all looks, adjusted)"
    text = f"No draw lies above the others over all images or a patient's, and none repeats another {found}."
    if not passed:
        text = (
            f"{seen} {found}. Tests and intervals count every image and draw as noise of its own: redraw with a seed "
            "of its own for every image and draw."
        )
    yield Gate("independent draws", pvalue, LEVEL, passed, text, "generator")


def shared_noise(responses: Responses) -> Shared:
    """Look in four ways whether draws of one level share noise; give the smallest p (Bonferroni) and what was seen.

    Draws of one image are exchangeable where its noise is its own, and say nothing where they are all alike.
    """
    values = responses.values - responses.values[:, :, :1]  # (units, levels, draws, labels); 0 where draws are alike
    values = np.where(np.ptp(values, axis=2, keepdims=True) > ROUNDING, values, 0.0)
    centred = values - values.mean(axis=2, keepdims=True)
    whole = Clusters.of(np.zeros(len(values)))
    looks = [
        _together(centred, whole, responses, "all images"),
        _together(centred, Clusters.of(responses.patients), responses, "the images of one patient"),
    ]
    if responses.n_draws > 2:
        looks += [
            look for level in range(len(responses.levels)) for look in _repeated(values[:, level], responses, level)
        ]
    pvalue, seen = min(looks)
    return Shared(min(1.0, 4 * pvalue), seen)


def _together(centred: Floats, groups: Clusters, responses: Responses, whose: str) -> Shared:
    r"""Test whether a draw lies above the others over the images of a group.

    With c_i (draws,) the outputs of an image less their mean, :math:`T = \sum_g |\sum_i c_i|^2 - \sum_i |c_i|^2` has
    mean 0 under permutations of each image's draws, and variance :math:`2/(R-1) \sum_g [(\sum_i |c_i|^2)^2 - \sum_i
    |c_i|^4]`. Of one large group it is chi-squared, Cochran's Q (1950) of decisions; of many nearly normal.
    """
    units, levels, draws, labels = centred.shape
    sums = np.square(groups.sums(centred.reshape(units, -1)).reshape(-1, levels, draws, labels)).sum(axis=2)
    size = np.square(centred).sum(axis=2).reshape(units, -1)
    total = sums.sum(axis=0).ravel() - size.sum(axis=0)
    variance = 2 / (draws - 1) * (np.square(groups.sums(size)) - groups.sums(np.square(size)))
    variance = np.maximum(variance, 0.0)
    # At most that of many images of equal spread, or of two in which one draw is apart.
    skew = max(np.sqrt(8 / (draws - 1)), (draws - 2) / np.sqrt(draws - 1))
    pvalues = _upper_tail(total, variance.sum(axis=0), skew * (variance**1.5).sum(axis=0)).reshape(levels, labels)
    level, label = np.unravel_index(int(np.argmin(pvalues)), pvalues.shape)
    where = f"on '{responses.labels[label]}' under '{responses.levels[level]}'"
    return Shared(
        float(pvalues[level, label]) * pvalues.size,
        f"Draws lie above or below each other over {whose}, {where}, as one seed for {whose} makes them",
    )


def _repeated(values: Floats, responses: Responses, level: int) -> tuple[Shared, Shared]:
    """Test whether draws (units, draws, labels) of one level repeat each other: the same two everywhere, or any.

    By the ranks of their distances within an image, one pair of exchangeable draws is as close as any other. And of
    independent draws that are alike with a chance c, one is alike two others with a chance of c squared or more
    (Jensen), whatever their law; of draws that were copied once it is not.
    """
    draws, count = values.shape[1], len(values)
    first, second = np.triu_indices(draws, 1)
    ends = np.zeros((len(first), draws))
    ends[np.arange(len(first)), first] = ends[np.arange(len(first)), second] = 1
    shift, moments, alike, thrice = np.zeros(len(first)), np.zeros(2), [], 0
    for rows in np.array_split(np.arange(count), max(1, count * len(first) // HELD)):
        apart = np.square(values[rows][:, first] - values[rows][:, second]).sum(axis=2)
        apart[apart <= ROUNDING**2] = 0.0
        # Minus the centred ranks: large where a pair is close.
        close = (len(first) + 1) / 2 - stats.rankdata(apart, axis=1)
        shift += close.sum(axis=0)
        moments += [np.square(close).mean(axis=1).sum(), (close**3).mean(axis=1).sum()]
        same = (apart == 0).astype(np.float64)
        alike.append(same.mean(axis=1))
        thrice += int(((same @ ends) >= 2).any(axis=1).sum())
    pvalues = _upper_tail(shift, moments[0], moments[1])
    pair = int(np.argmin(pvalues))
    share = np.concatenate(alike)
    least = max(0.0, float(share.mean() - stats.norm.isf(TOO_HIGH) * share.std() / np.sqrt(count)))
    by_chance = TOO_HIGH + float(stats.binom.cdf(thrice, count, least**2))
    many, where = len(responses.levels), f"under '{responses.levels[level]}'"
    return (
        Shared(
            float(pvalues[pair]) * len(pvalues) * many,
            f"Draws {first[pair]} and {second[pair]} {where} are closer to each other than others are, as copies are",
        ),
        Shared(by_chance * many, f"Draws of one image {where} repeat each other more often than by chance"),
    )


def _upper_tail(value: Floats, variance: Floats, third: Floats) -> Floats:
    """Tail of a sum with this variance and third moment (Pearson's type III, the normal law without skewness)."""
    spread = np.sqrt(np.where(variance > 0, variance, 1.0))
    skew = np.clip(third / spread**3, 0.0, None)
    tail = stats.pearson3.sf(np.where(variance > 0, value, 0.0) / spread, skew)
    return np.asarray(np.where(variance > 0, tail, 1.0))
