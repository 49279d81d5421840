"""Randomising decisions: images with the same pattern share one distribution, so only counts have to be drawn.

Exact, and the cost does not grow with the number of images: an image whose outputs agree at every level cannot change
and is left out, the others fall into a few types, and what the images of a type add up to is a multinomial draw.
"""

import numpy as np
from numpy.typing import NDArray

from citlr.invariance.randomization.groups import (
    Floats,
    Moments,
    contrast_matrix,
    outcomes_within_draws,
    outcomes_within_image,
    product_scale,
    product_statistic,
)

_CHUNK = 4_000_000
# Outcomes of one type of image, at most, up to which their law is written down.
_OUTCOMES = 5000


def feasible(levels: int, draws: int) -> bool:
    """Say whether the laws are short enough: with many levels an image has too many outcomes.

    >>> feasible(2, 1000), feasible(6, 4), feasible(12, 4)
    (True, True, False)
    """
    return bool((draws + 1) ** (levels - 1) <= _OUTCOMES)


def randomize(values: Floats, *, shared_seeds: bool, randomizations: int, rng: np.random.Generator) -> Moments:
    """Draw the randomisations of decisions (units, levels, draws, columns)."""
    levels, columns = values.shape[1], values.shape[3]
    h = contrast_matrix(levels)
    features = h.shape[0] + 1 + (0 if levels == 2 else h.shape[0] ** 2 + 1)
    table = np.zeros((randomizations + 1, features, columns))
    for column in range(columns):
        _column(values[..., column], h, shared_seeds, table[:, :, column], rng)
    d = h.shape[0]
    if levels == 2:
        return Moments(sums=table[:, :d], products=table[:, d])
    outer = table[:, d + 2 :].reshape(len(table), d, d, columns)
    return Moments(sums=table[:, :d], products=table[:, d], squares=table[:, d + 1], outer=outer)


def _column(values: Floats, h: Floats, shared_seeds: bool, table: Floats, rng: np.random.Generator) -> None:
    levels, draws = values.shape[1], values.shape[2]
    if shared_seeds:
        positives = values.sum(axis=1).astype(np.int64)
        positives[positives == levels] = 0  # all levels agree: nothing to permute
        positives = np.sort(positives, axis=1)
        active = positives.any(axis=1)
    else:
        positives = values.sum(axis=(1, 2))[:, None].astype(np.int64)
        active = (positives[:, 0] > 0) & (positives[:, 0] < levels * draws)
    counts = values[active].sum(axis=2)
    types, members = _distinct(positives[active])
    sizes = np.bincount(members, minlength=len(types))
    for t, key in enumerate(map(tuple, types.tolist())):
        if shared_seeds:
            outcomes, probability = outcomes_within_draws(levels, key)
        else:
            outcomes, probability = outcomes_within_image(levels, draws, *key)
        constant = _constant(key, levels, draws, shared_seeds=shared_seeds)
        scale = product_scale(levels, draws, shared_seeds=shared_seeds)
        table[0] += _features(counts[members == t], h, scale, constant).sum(axis=0)
        law = _features(outcomes, h, scale, constant)
        _add_draws(table[1:], law, probability, int(sizes[t]), rng)


def _distinct(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Give the distinct rows (types, m) of rows (n, m) of counts, in order, and which of them every row is (n,)."""
    base = int(rows.max(initial=0)) + 1
    if base ** rows.shape[1] > np.iinfo(np.int64).max:
        types, members = np.unique(rows, axis=0, return_inverse=True)
        return types, members.ravel()  # numpy 2.0 gives it two axes
    # One number for a row, the first count its highest digit: whole rows are compared ten times as slowly.
    numbers = rows @ base ** np.arange(rows.shape[1])[::-1]
    _, first, members = np.unique(numbers, return_index=True, return_inverse=True)
    return rows[first], members


def _constant(key: tuple[int, ...], levels: int, draws: int, *, shared_seeds: bool) -> float:
    """U minus its multiple of |W|^2, the same for all reshuffles of one type of image."""
    example = np.zeros((1, levels, draws, 1))
    if shared_seeds:
        for r, k in enumerate(key):
            example[0, :k, r] = 1.0
    else:
        example.reshape(-1)[: key[0]] = 1.0
    w = contrast_matrix(levels) @ example.sum(axis=2)[0, :, 0]
    scale = product_scale(levels, draws, shared_seeds=shared_seeds)
    return float(product_statistic(example, shared_seeds=shared_seeds)[0, 0] - scale * np.square(w).sum())


def _features(counts: Floats, h: Floats, scale: float, constant: float) -> Floats:
    """W, U and, with more than two levels, U^2 and W W^T, for each row of positives per level."""
    # Rounded, because W and U can be 0 by cancellation, and are divided by their own size with more than two levels.
    w = np.round(counts @ h.T, 12)
    u = np.round(scale * np.square(w).sum(axis=1, keepdims=True) + constant, 9)
    if h.shape[0] == 1:
        return np.concatenate([w, u], axis=1)
    outer = (w[:, :, None] * w[:, None, :]).reshape(len(w), -1)
    return np.concatenate([w, u, np.square(u), outer], axis=1)


def _add_draws(table: Floats, law: Floats, probability: Floats, size: int, rng: np.random.Generator) -> None:
    """Add what `size` independent images of one type sum to, in each randomisation."""
    if size * 4 > len(probability):
        table += rng.multinomial(size, probability, size=len(table)) @ law
        return
    edges = np.cumsum(probability)
    edges[-1] = 1.0
    rows = max(1, _CHUNK // size)
    for start in range(0, len(table), rows):
        part = table[start : start + rows]
        which: NDArray[np.intp] = np.searchsorted(edges, rng.random((len(part), size)), side="right")
        part += law[which].sum(axis=1)
