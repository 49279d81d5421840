"""Randomising probabilities: matrix products over all images and labels, a slice of the randomisations at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citlr.invariance.randomization.groups import (
    Floats,
    Group,
    Moments,
    encode,
    group_of,
    product_scale,
    product_statistic,
)

# Beyond this many images, whole blocks of images are reshuffled by one and the same element: a subgroup, so the test
# stays exact; with so many blocks next to nothing is lost in power, and the cost stops growing.
_BLOCKS = 16384
_CHUNK = 2_000_000  # numbers held at once
_ROUNDING = 1e-12
_CANCELLED = 1e-7  # times images: outputs are scaled to a spread of 1, so one active image has U and W^2 of that order
_SMALL = 50_000_000  # work up to which double precision costs nothing worth saving

Index = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class _Problem:
    """For each block of images, `linear` (blocks, m, columns) gives W and `quadratic` (blocks, p, columns) gives U."""

    linear: NDArray[np.floating]
    quadratic: NDArray[np.floating]
    constant: NDArray[np.floating]
    maps: NDArray[np.floating]  # (patterns + 1, d, m): the last one is the identity
    weights: NDArray[np.floating]  # (patterns + 1, p)
    observed: Index  # (blocks,) pattern of the observed assignment
    size: Floats  # (columns,) what the outputs were divided by


def randomize(values: Floats, *, shared_seeds: bool, randomizations: int, rng: np.random.Generator) -> Moments:
    """Draw the randomisations of any outputs; see `binary_orbits.randomize` for arguments and result."""
    problem = _prepare(values, shared_seeds=shared_seeds, work=randomizations * values.size, rng=rng)
    rows = randomizations + 1
    return _two_levels(problem, rows, rng) if values.shape[1] == 2 else _many_levels(problem, rows, rng)


def _prepare(values: Floats, *, shared_seeds: bool, work: int, rng: np.random.Generator) -> _Problem:
    n, levels, draws, columns = values.shape
    group = group_of(levels, draws, shared_seeds=shared_seeds, rng=rng)
    scale = product_scale(levels, draws, shared_seeds=shared_seeds)
    blocks, m = min(n, _BLOCKS), group.maps.shape[2]
    first, second = np.triu_indices(m)
    weights = np.einsum("kdi,kdj->kij", group.maps, group.maps)[:, first, second] * np.where(first == second, 1, 2)
    weights = np.concatenate([weights, _weights_of(group.identity, first, second)]) * scale
    moving = np.ptp(weights, axis=0) > 1e-12  # a square whose weight is the same in every reshuffle is a constant
    start = rng.integers(0, len(group.maps), size=blocks)
    linear, constant = np.zeros((blocks, m, columns)), np.zeros((blocks, columns))
    quadratic = np.zeros((blocks, int(moving.sum()), columns))
    size = np.sqrt(np.square(values - values.mean(axis=(1, 2), keepdims=True)).mean(axis=(0, 1, 2)))
    size = np.where(size > _ROUNDING, size, 1.0)
    for begin in range(0, n, blocks):
        part = values[begin : begin + blocks]
        coded = encode(part, shared_seeds=shared_seeds)[:, -m:] / size
        norm = np.square(np.einsum("dm,umk->udk", group.identity, coded)).sum(axis=1)
        free = product_statistic(part, shared_seeds=shared_seeds) / size**2 - scale * norm
        coded = _step_back(group, coded, start[: len(part)])
        linear[: len(part)] += coded
        quadratic[: len(part)] += coded[:, first[moving]] * coded[:, second[moving]]
        still = coded[:, first[~moving]] * coded[:, second[~moving]]
        constant[: len(part)] += free + np.einsum("p,upk->uk", weights[0, ~moving], still)
    dtype = np.float64 if work < _SMALL else np.float32
    identity = np.full(blocks, len(group.maps))
    return _Problem(
        linear=linear.astype(dtype),
        quadratic=quadratic.astype(dtype),
        constant=constant.astype(dtype),
        maps=np.concatenate([group.maps, group.identity[None]]).astype(dtype),
        weights=weights[:, moving].astype(dtype),
        observed=identity if group.steps is None else start,
        size=size,
    )


def _weights_of(identity: Floats, first: Index, second: Index) -> Floats:
    return (identity.T @ identity)[first, second][None] * np.where(first == second, 1, 2)


def _step_back(group: Group, coded: Floats, start: Index) -> Floats:
    if group.steps is None:
        return coded
    # The transpose of an orthogonal step is its inverse.
    return np.asarray(np.einsum("unm,unk->umk", group.steps[start], coded))


def _indices(problem: _Problem, begin: int, end: int, rng: np.random.Generator) -> Index:
    """Pattern of every block in randomisations begin..end, row 0 being the observed one; shape (rows, blocks)."""
    drawn: Index = rng.integers(0, len(problem.maps) - 1, size=(end - begin, len(problem.linear)), dtype=np.uint16)
    if begin == 0:
        drawn[0] = problem.observed
    return drawn


def _two_levels(problem: _Problem, rows: int, rng: np.random.Generator) -> Moments:
    blocks, m, columns = problem.linear.shape
    p = problem.quadratic.shape[1]
    sums, products = np.empty((rows, 1, columns)), np.empty((rows, columns))
    linear, quadratic = problem.linear.reshape(blocks * m, columns), problem.quadratic.reshape(blocks * p, columns)
    maps = np.ascontiguousarray(problem.maps[:, 0])
    step = max(1, _CHUNK // (blocks * (m + p)))
    for begin in range(0, rows, step):
        end = min(rows, begin + step)
        k = _indices(problem, begin, end, rng)
        sums[begin:end, 0] = np.take(maps, k, axis=0).reshape(end - begin, -1) @ linear
        products[begin:end] = np.take(problem.weights, k, axis=0).reshape(end - begin, -1) @ quadratic
    products += problem.constant.sum(axis=0)
    still = np.ptp(products, axis=0) < _CANCELLED * blocks  # U is the same in every reshuffle, up to rounding
    products[:, still] = products[0, still]
    # Back to the precision they were computed in: equal up to its rounding counts as equal.
    dtype = problem.linear.dtype
    return Moments(sums=(sums * problem.size).astype(dtype), products=(products * problem.size**2).astype(dtype))


def _many_levels(problem: _Problem, rows: int, rng: np.random.Generator) -> Moments:
    blocks, m, columns = problem.linear.shape
    d, dtype = problem.maps.shape[1], problem.linear.dtype
    sums, outer = np.zeros((rows, d, columns), dtype), np.zeros((rows, d, d, columns), dtype)
    products, squares = np.zeros((rows, columns), dtype), np.zeros((rows, columns), dtype)
    each = d * m + problem.weights.shape[1]  # numbers of one block in one randomisation
    step = max(1, min(rows, 512, _CHUNK // blocks, _CHUNK // each))
    width = max(1, min(blocks, 400_000 // (step * d * columns) + 1, 4 * _CHUNK // (step * each)))
    for begin in range(0, rows, step):
        here = slice(begin, min(rows, begin + step))
        k = np.ascontiguousarray(_indices(problem, begin, here.stop, rng).T)
        for at in range(0, blocks, width):
            some = slice(at, min(blocks, at + width))
            w = np.take(problem.maps, k[some], axis=0).reshape(some.stop - at, -1, m) @ problem.linear[some]
            w = w.reshape(some.stop - at, here.stop - begin, d, columns)
            u = np.take(problem.weights, k[some], axis=0) @ problem.quadratic[some]
            u += problem.constant[some, None]
            sums[here] += w.sum(axis=0)
            products[here] += u.sum(axis=0)
            squares[here] += np.einsum("ubk,ubk->bk", u, u)
            for i in range(d):
                for j in range(i, d):
                    outer[here, i, j] += np.einsum("ubk,ubk->bk", w[:, :, i], w[:, :, j])
    for i in range(d):
        for j in range(i):
            outer[:, i, j] = outer[:, j, i]
    # W and U can be 0 by cancellation, and are divided by their own size: what only rounding has left is none.
    none = np.sqrt(squares) < _CANCELLED * blocks
    products[none], squares[none] = 0.0, 0.0
    none = np.einsum("biik->bk", outer) < _CANCELLED * blocks
    np.moveaxis(sums, 1, 2)[none], np.moveaxis(outer, 3, 1)[none] = 0.0, 0.0
    one, two = problem.size.astype(dtype), np.square(problem.size).astype(dtype)
    return Moments(sums=sums * one, products=products * two, outer=outer * two, squares=squares * two**2)
