r"""What may be reshuffled within one image under the null, and the statistics that a reshuffle leads to.

For one image let Y[l, r] be the output at level l of the compared levels and draw r. Two groups act on it:

shared seeds the levels of one draw came from the same noise, so only the *level labels within each draw* are permuted
    (for two levels: the sign of :math:`D_r = Y[1, r] - Y[0, r]` is flipped); independent draws all L*r outputs were
    drawn independently, so they are permuted *within the image*.

Both are summarised by the contrast vector :math:`W = H \sum_r Y[:, r]` (H: orthonormal contrasts of the levels; for two
levels simply :math:`W = \sum_r D_r`) and by the product statistic U, unbiased for the summed squared differences of the
conditional means, which under either group is a constant plus a multiple of :math:`|W|^2`.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations, product
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert

Floats = NDArray[np.float64]
_TABLE_LIMIT = 4096
# Numbers that a part of a large group takes, at most, and elements that it has at least.
_HELD, _FEWEST = 50_000_000, 256


def contrast_matrix(levels: int) -> Floats:
    """Contrasts of `levels` outputs, shape (levels - 1, levels): (-1, 1) for two, Helmert's orthonormal rows otherwise.

    >>> contrast_matrix(2)
    array([[-1.,  1.]])
    >>> import numpy as np
    >>> h = contrast_matrix(3)
    >>> bool(np.allclose(h @ h.T, np.eye(2)) and np.allclose(h.sum(axis=1), 0))
    True
    """
    if levels == 2:
        return np.array([[-1.0, 1.0]])
    return np.asarray(0.0 - helmert(levels))


def product_scale(levels: int, draws: int, *, shared_seeds: bool) -> float:
    r"""Coefficient of :math:`|W|^2` in U.

    Shared seeds: :math:`U = \sum_{a<b} [(\sum_r D_r)^2 - \sum_r D_r^2] / (r(r-1))`. Independent draws: the same squared
    difference of means minus the within-level variances, :math:`U = \sum_{a<b} [(\bar Y_b - \bar Y_a)^2 - s_a^2/r -
    s_b^2/r]`, which uses every pair of draws instead of the r arbitrary ones. Two levels: :math:`W = \sum D`; more:
    :math:`\sum_{a<b} (\sum_r D_r)^2 = L |W|^2` for orthonormal contrasts.
    """
    pairs = 1.0 if levels == 2 else float(levels)
    if shared_seeds:
        return pairs / (draws * (draws - 1))
    within = (levels - 1) * (1.0 if levels > 2 else 0.5)
    return pairs / draws**2 + within / (draws**2 * (draws - 1))


def product_statistic(outputs: Floats, *, shared_seeds: bool) -> Floats:
    r"""Unbiased estimate of :math:`\sum_{a<b} (g(b, z) - g(a, z))^2` for each image and label.

    Shapes: `outputs` (units, levels, draws, labels); gives (units, labels).
    """
    levels, draws = outputs.shape[1], outputs.shape[2]
    outputs = _centred(outputs, shared_seeds)
    sums = outputs.sum(axis=2)
    between = levels * np.square(sums).sum(axis=1) - np.square(sums.sum(axis=1))
    if shared_seeds:
        same = levels * np.square(outputs).sum(axis=(1, 2)) - np.square(outputs.sum(axis=1)).sum(axis=1)
        return np.asarray((between - same) / (draws * (draws - 1)))
    within = (np.square(outputs).sum(axis=2) - np.square(sums) / draws).sum(axis=1) / (draws - 1)
    return np.asarray(between / draws**2 - (levels - 1) * within / draws)


def _centred(outputs: Floats, shared_seeds: bool) -> Floats:
    """Subtract one of the outputs that are compared, which changes neither W nor U but makes what agrees exactly 0."""
    return np.asarray(outputs - (outputs[:, :1] if shared_seeds else outputs[:, :1, :1]))


@dataclass(frozen=True, eq=False)
class Group:
    """A set of reshuffles of one image's outputs, as maps from the encoded outputs (m numbers) to W (d numbers).

    - `maps` (patterns, d, m): W = maps[k] @ encoded outputs.
    - `steps` (patterns, m, m): The reshuffle itself, on the encoded outputs; None when `maps` holds the whole group, so
      that the identity is as likely as any other. When only a random part of a large group is held, the observed
      outputs are first carried back by one random step (Besag and Clifford 1989), which keeps the p-value exact.
    - `identity` (d, m): The map of the outputs as they are.
    """

    maps: Floats
    steps: Floats | None
    identity: Floats


def encode(outputs: Floats, *, shared_seeds: bool) -> Floats:
    """Turn outputs (units, levels, draws, labels) into (units, m, labels): contrasts of each draw, or all outputs."""
    coded = _centred(outputs, shared_seeds)
    if shared_seeds:
        coded = np.einsum("dl,ulrk->urdk", contrast_matrix(outputs.shape[1]), coded)
    return np.ascontiguousarray(coded).reshape(len(outputs), -1, outputs.shape[-1])


def group_of(levels: int, draws: int, *, shared_seeds: bool, rng: np.random.Generator) -> Group:
    """Hold the whole group when it is small, else a random part of it."""
    if shared_seeds:
        size = factorial(levels) ** draws
        return _within_draws(levels, draws, size, rng)
    return _within_image(levels, draws, rng)


def _within_draws(levels: int, draws: int, size: int, rng: np.random.Generator) -> Group:
    h = contrast_matrix(levels)
    d = levels - 1
    scale = np.square(h).sum(axis=1, keepdims=True)
    identity = np.tile(np.eye(d), (1, draws))
    if size <= _TABLE_LIMIT:
        # Each permutation in contrast coordinates.
        moves = np.stack([h[:, list(order)] @ h.T / scale.T for order in permutations(range(levels))])
        picks = np.array(list(product(range(len(moves)), repeat=draws)))
        maps = np.concatenate([moves[picks[:, r]] for r in range(draws)], axis=2)
        return Group(maps=maps, steps=None, identity=identity)
    count = _part(d * draws)
    orders = rng.permuted(np.tile(np.arange(levels), (count * draws, 1)), axis=1).reshape(count, draws, levels)
    moves = np.moveaxis(h[:, orders] @ h.T / scale.T, 0, 2)
    steps = np.zeros((count, d * draws, d * draws))
    for r in range(draws):
        steps[:, r * d : (r + 1) * d, r * d : (r + 1) * d] = moves[:, r]
    return Group(maps=np.concatenate([moves[:, r] for r in range(draws)], axis=2), steps=steps, identity=identity)


def _part(size: int) -> int:
    """How many elements of a large group are held, each a matrix (size, size); with fewer the test is as exact."""
    return min(_TABLE_LIMIT, max(_FEWEST, _HELD // size**2))


def _within_image(levels: int, draws: int, rng: np.random.Generator) -> Group:
    h = contrast_matrix(levels)
    cells = levels * draws
    sums = np.repeat(h, draws, axis=1)  # cells are ordered level by level
    assignments = factorial(cells) // factorial(draws) ** levels
    if levels == 2 and assignments <= _TABLE_LIMIT:
        signs = -np.ones((assignments, 1, cells))
        for k, chosen in enumerate(combinations(range(cells), draws)):
            signs[k, 0, list(chosen)] = 1.0
        # The first output is 0 once it has been subtracted from all (see encode): its column would only cost time.
        return Group(maps=signs[..., 1:], steps=None, identity=sums[:, 1:])
    count = _part(cells)
    order = rng.permuted(np.tile(np.arange(cells), (count, 1)), axis=1)
    steps = np.zeros((count, cells, cells))
    np.put_along_axis(steps, order[:, :, None], 1.0, axis=2)
    return Group(maps=np.einsum("dm,kmn->kdn", sums, steps), steps=steps, identity=sums)


Outcomes = tuple[NDArray[np.float64], Floats]


@lru_cache(maxsize=4096)
def outcomes_within_draws(levels: int, positives: tuple[int, ...]) -> Outcomes:
    """Distribution of the positives per level when the labels of each draw are permuted.

    Shapes: gives (outcomes, levels).

    >>> counts, probability = outcomes_within_draws(2, (1, 1))
    >>> sorted(zip(counts[:, 1].tolist(), probability.tolist()))
    [(0.0, 0.25), (1.0, 0.5), (2.0, 0.25)]
    """
    law: dict[tuple[int, ...], float] = {(0,) * levels: 1.0}
    for k in positives:
        choices = list(combinations(range(levels), k))
        after: dict[tuple[int, ...], float] = {}
        for counts, probability in law.items():
            for chosen in choices:
                key = tuple(c + (a in chosen) for a, c in enumerate(counts))
                after[key] = after.get(key, 0.0) + probability / len(choices)
        law = after
    return np.array(list(law), dtype=np.float64), np.array(list(law.values()))


@lru_cache(maxsize=4096)
def outcomes_within_image(levels: int, draws: int, positives: int) -> Outcomes:
    """Distribution of the positives per level when all outputs of an image are permuted (multivariate hypergeometric).

    >>> counts, probability = outcomes_within_image(2, 2, 1)
    >>> sorted(zip(counts[:, 1].tolist(), probability.tolist()))
    [(0.0, 0.5), (1.0, 0.5)]
    """
    total = comb(levels * draws, positives)
    law = {}
    for head in product(range(draws + 1), repeat=levels - 1):
        last = positives - sum(head)
        if 0 <= last <= draws:
            ways = comb(draws, last)
            for c in head:
                ways *= comb(draws, c)
            law[(*head, last)] = ways / total
    return np.array(list(law), dtype=np.float64), np.array(list(law.values()))


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over images of the contrast vector W and the product statistic U; row 0 is the observed assignment.

    - `sums` (rows, d, columns): Sum of W.
    - `products` (rows, columns): Sum of U.
    - `outer` (rows, d, d, columns): Sum of W W^T; only needed with more than two levels.
    - `squares` (rows, columns): Sum of U^2; only needed with more than two levels.
    """

    sums: Floats
    products: Floats
    outer: Floats | None = None
    squares: Floats | None = None

    def two_level(self) -> tuple[Floats, Floats]:
        """|sum D| and sum U, each (rows, columns)."""
        return np.abs(self.sums[:, 0]), self.products

    def studentised(self) -> tuple[Floats, Floats]:
        """Wald statistic of the sums and self-normalised sum of U, each (rows, columns).

        Both have a variance estimated within the same randomisation, which keeps the omnibus asymptotically valid where
        the levels have equal means but are not exchangeable.
        """
        if self.outer is None or self.squares is None:
            raise ValueError("the second moments were not collected")
        d = self.sums.shape[1]
        outer = np.moveaxis(self.outer, 3, 1).astype(np.float64)
        sums = np.moveaxis(self.sums, 2, 1).astype(np.float64)[..., None]
        trace = np.trace(outer, axis1=2, axis2=3)
        quiet = trace <= 0
        # A direction without any variance has no sum either; the ridge only keeps the solver from dividing by it.
        ridge = np.where(quiet, 1.0, 1e-6 * trace)
        solved = np.linalg.solve(outer + ridge[..., None, None] * np.eye(d), sums)
        wald = np.where(quiet, 0.0, (sums * solved).sum(axis=(2, 3)))
        root = np.sqrt(np.maximum(self.squares, 0))
        product = np.where(root > 0, self.products / np.where(root > 0, root, 1.0), 0.0)
        return np.maximum(wald, 0.0), product
