"""Gaussian optimal transport between the levels of an attribute, from what permutations show of their covariances.

Of all maps that take one normal distribution to another, `T = S^-1/2 (S^1/2 B S^1/2)^1/2 S^-1/2` moves the least mass
(Olkin and Pukelsheim 1982; Takatsu 2011). A map to the barycentre of all levels (Agueh and Carlier 2011) and one back
to any other is then the counterfactual of least change that has the right mean and covariance.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from citlr.generators.effects.contrasts import by_patient
from citlr.learning.scratch import ScratchRows
from citlr.learning.store import Rows, spans

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Permutations that a level's largest change of covariance has to exceed: it does so by chance in one case of 20.
PERMUTATIONS = 19
# Patients of a level per entry of a covariance that is taken as it is.
PATIENTS_PER_ENTRY = 2
# Iterations to the barycentre, which converges within a few for covariances that are alike (Alvarez-Esteban et al.
# 2016), and the relative change at which it has.
ITERATIONS, CONVERGED = 20, 1e-6
# No direction has less variance than this share of the largest one; no level less than SMALLEST of the pooled one.
FLOOR = 1e-9
SMALLEST = 0.05


def transport(start: Floats, end: Floats) -> Floats:
    """Give the symmetric map (k, k) that takes N(0, start) to N(0, end) with the least movement."""
    root, inverse = roots(start)
    middle, _ = roots(root @ end @ root)
    found: Floats = inverse @ middle @ inverse
    return (found + found.T) / 2


def barycentre(covariances: Sequence[Floats]) -> Floats:
    """Give the covariance of the normal distribution whose mean squared transport to all others is least."""
    centre: Floats = np.mean(covariances, axis=0)
    for _ in range(ITERATIONS):
        root, inverse = roots(centre)
        mean: Floats = np.mean([roots(root @ covariance @ root)[0] for covariance in covariances], axis=0)
        moved = inverse @ mean @ mean @ inverse
        change = float(np.linalg.norm(moved - centre) / max(float(np.linalg.norm(centre)), 1e-300))
        centre = (moved + moved.T) / 2
        if change < CONVERGED:
            break
    return centre


def ways_to_barycentre(covariances: Sequence[Floats]) -> list[Floats]:
    """Give the map (k, k) from each normal distribution to the barycentre of all; its inverse is the way back.

    The barycentre of two lies halfway along the transport from one to the other (McCann 1997): one transport is enough.
    """
    if len(covariances) == 2:
        across = transport(*covariances)
        same = np.eye(len(across))
        return [(same + across) / 2, (same + np.linalg.inv(across)) / 2]
    centre = barycentre(covariances)
    return [transport(covariance, centre) for covariance in covariances]


def squares(rows: Rows, weights: Floats | None = None, first: int | None = None) -> Floats:
    """Add up the squares of rows (n, k), each with a weight: (k, k), in double precision whatever the rows have.

    Of the `first` entries only, where that is given.

    Of a piece at a time: all rows again in double precision take more memory than all else of a training.

    >>> squares(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1.0, -1.0])).tolist()
    [[-8.0, 2.0], [2.0, 4.0]]
    """
    count = rows.shape[1] if first is None else first
    found = np.zeros((count, count))
    for part in spans(len(rows)):
        own = rows[part][:, :count].astype(np.float64)
        found += (own if weights is None else own * weights[part, None]).T @ own
    return found


def move(rows: ScratchRows | npt.NDArray[np.floating], where: npt.NDArray[np.bool_], matrix: Floats) -> None:
    """Multiply some of the rows (n, k) by a matrix (k, k) where they stand, in their own precision."""
    for part in spans(len(rows)):
        piece, own = rows[part], where[part]
        piece[own] = piece[own] @ matrix
        rows[part] = piece


def level_covariances(
    rows: Rows, index: Integers, held: Floats, patients: npt.ArrayLike, random: np.random.Generator, *, levels: int
) -> tuple[list[Floats], int]:
    """Estimate each level's covariance: the pooled one, changed where a change is shown.

    Of each level it is asked whether its largest change exceeds that of all permutations, which by chance happens in
    one case of 20. Where it does, directions count whose change exceeds what is usual by chance: the median of the
    permutations' largest.

    The covariance is regressed on what is held first, so that a finding whose severity varies, and which goes with one
    level, is not taken for the level's own doing: of that change as much is subtracted as permutations show.

    Every patient counts once, and patients are permuted: images of one are alike, and so are their levels.

    Shapes: `rows` (n, k), each times the root of its weight (`by_patient`), `index` (n,), `held` (n, m), `patients`
    (n,); gives (k, k).
    """
    number, weights = by_patient(patients)
    total = weights.sum()
    root, inverse = roots(squares(rows) / total)

    def whitened(score: Floats) -> Floats:
        """Regress the covariance of whitened rows on a score: (k, k)."""
        return inverse @ squares(rows, score) @ inverse

    own = np.eye(levels)[index]
    nuisances = [
        (column, _shown(whitened, score, _permuted(score, number, random), soft=True, given=None)[0])
        for column, score in _scores(held, own[:, 1:], weights)
    ]
    found, most = [], 0
    for level in range(levels):
        known, count = own[:, level] > 0, float(weights @ own[:, level])
        if known.all() or not known.any():
            found.append(np.eye(rows.shape[1]))
            continue
        score = own[:, level] / count - 1 / total
        given = sum(((weights * score @ column) * change for column, change in nuisances), np.zeros_like(root))
        orders = _permuted(score, number, random)
        change, kept = _shown(whitened, score, orders, soft=False, given=given)
        found.append(np.eye(rows.shape[1]) + change)
        most = max(most, kept)
    return [root @ one @ root for one in found], most


def plain_covariances(rows: Rows, index: Integers, patients: npt.ArrayLike, *, levels: int) -> tuple[list[Floats], int]:
    """Estimate each level's covariance as it is, in as many entries as the level has patients for.

    Of a level with fewer patients than entries a covariance is singular, and a map out of it would blow up what other
    rows have in the directions that it lacks.

    Shapes: `rows` (n, k), each times the root of its weight (`by_patient`), `index`, `patients` (n,); gives (k, k).
    """
    weights = by_patient(patients)[1]
    pooled, found, most = squares(rows) / weights.sum(), [], 0
    for level in range(levels):
        own = (index == level).astype(np.float64)
        count = float(weights @ own)
        few = min(rows.shape[1], round(count) // PATIENTS_PER_ENTRY)
        covariance = pooled.copy()
        if few:
            covariance[:few], covariance[:, :few] = 0, 0
            covariance[:few, :few] = squares(rows, own, few) / count
        found.append(covariance)
        most = max(most, few)
    return found, most


def _permuted(score: Floats, number: npt.NDArray[np.intp], random: np.random.Generator) -> Iterator[Floats]:
    """Give what a score (n,) could have been: patients swap their means, and the rest changes its sign by patient."""
    count = np.bincount(number)
    if len(count) == len(score):
        yield from (random.permutation(score) for _ in range(PERMUTATIONS))
        return
    mean = np.bincount(number, weights=score) / count
    own = score - mean[number]
    for _ in range(PERMUTATIONS):
        yield random.permutation(mean)[number] + random.choice((-1.0, 1.0), len(count))[number] * own


def _scores(held: Floats, own: Floats, weights: Floats) -> list[tuple[Floats, Floats]]:
    """Give each column of what is held with the score whose product with something is its partial regression on it."""
    found = []
    for j in range(held.shape[1]):
        others = np.concatenate([np.ones((len(held), 1)), own, np.delete(held, j, axis=1)], axis=1)
        root = np.sqrt(weights)
        fitted = np.linalg.lstsq(root[:, None] * others, root * held[:, j], rcond=None)[0]
        rest = held[:, j] - others @ fitted
        power = float(weights * rest @ rest)
        if power > 1e-6 * max(float(weights * held[:, j] @ held[:, j]), 1e-300):
            found.append((held[:, j], rest / power))
    return found


def _shown(
    whitened: Callable[[Floats], Floats], score: Floats, orders: Iterator[Floats], *, soft: bool, given: Floats | None
) -> tuple[Floats, int]:
    """Take what a score does to the covariance of whitened rows; keep eigenvalues that exceed those of its orders.

    None is kept unless the largest exceeds that of all permutations.

    With `soft` these are also made smaller, by what noise adds to their square: a nuisance is rather subtracted too
    little than taken from what is sought.
    """
    chance = [float(np.abs(np.linalg.eigvalsh(whitened(order))).max()) for order in orders]
    edge = max(chance)
    values, vectors = np.linalg.eigh(whitened(score) - (0 if given is None else given))
    # Whether there is any change is asked of the largest one alone, and wrongly said in one case of 20. Where there is,
    # directions count that exceed what is usual by chance.
    kept = np.abs(values) > (float(np.median(chance)) if np.abs(values).max() > edge else edge)
    if soft:
        values = np.sign(values) * np.sqrt(np.maximum(values**2 - edge**2, 0))
    else:
        values = np.maximum(np.where(kept, values, 0), SMALLEST - 1)
    return (vectors * values) @ vectors.T, int(kept.sum())


def roots(matrix: Floats) -> tuple[Floats, Floats]:
    """Give the symmetric square root of a positive matrix, and its inverse."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root = np.sqrt(np.maximum(values, FLOOR * max(float(values[-1]), 1e-300)))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
