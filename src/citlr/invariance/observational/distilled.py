"""The distilled conditional randomisation test's statistic and its null, as matrix products."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, log10, sqrt
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from citlr.errors import InputError, did_you_mean, require_known
from citlr.invariance.observational.nuisances import Assignment

Floats = NDArray[np.float64]
KERNELS = ("constant", "linear", "rbf")
Combine = Literal["max", "sum"]
_RBF_LIMIT = 5000  # units; the Gaussian kernel is a dense matrix of units squared
_CHUNK = 4_000_000  # entries of a block of redraws: 32 MB


@dataclass(frozen=True)
class Draw:
    """A statistic among its redraws."""

    statistic: float
    pvalue: float
    log10_pvalue: float
    null: Floats


def distil(
    z: Floats,
    residual: Floats,
    assignment: Assignment,
    *,
    kernels: tuple[str, ...],
    combine: Combine,
    redraws: int,
    rng: np.random.Generator,
) -> Draw:
    """Compare the second-order statistic with its redraws under `A ~ p(A|Z)`.

    Each kernel's `sum_{i != j} w_i w_j K_ij` has mean zero under the null and variance
    `2 sum_{i != j} v_i v_j (e_i e_j K_ij)^2`, `v = p (1 - p)`; it is divided by that standard deviation.

    Shapes: `z` (n, d), `residual` (n,).
    """
    require_known(combine, get_args(Combine), f"combine is '{combine}'")
    if not kernels:
        raise InputError(f"No kernel was named.{did_you_mean('', KERNELS)}")
    spread = z.std(axis=0)
    scaled = (z - z.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    terms = [_term(name, scaled, residual, assignment) for name in kernels]
    p = assignment.p
    join = np.maximum.reduce if combine == "max" else np.add.reduce
    observed = float(join([term((assignment.a - p)[None]) for term in terms])[0])
    null = np.empty(redraws)
    step = max(1, _CHUNK // p.size)
    for start in range(0, redraws, step):
        stop = min(start + step, redraws)
        s = (rng.random((stop - start, p.size)) < p).astype(float) - p
        null[start:stop] = join([term(s) for term in terms])
    # Redraws that agree with the observed attribute give the same sum up to rounding: they count as ties.
    pvalue = (1 + int(np.sum(null >= observed - 1e-9 * max(1.0, abs(observed))))) / (redraws + 1)
    return Draw(observed, pvalue, _log10(observed, pvalue, null), null)


def _term(name: str, z: Floats, residual: Floats, assignment: Assignment) -> Callable[[Floats], Floats]:
    """Make the standardised sum over pairs of units, as a function of `A - p` (redraws, units)."""
    unit, v = assignment.unit, assignment.p * (1 - assignment.p)
    if name == "rbf":
        gram = _gaussian_gram(z, residual, unit)
    elif name in ("constant", "linear"):
        features = residual[:, None] * (np.ones((residual.size, 1)) if name == "constant" else z)
        summed: Floats = np.column_stack(
            [np.bincount(unit, weights=column, minlength=v.size) for column in features.T]
        ).astype(float)
        return _low_rank(summed, v)
    else:
        raise InputError(f"There is no kernel '{name}'.{did_you_mean(name, KERNELS)}")
    diagonal = np.diag(gram).copy()
    variance = 2 * (float(v @ gram**2 @ v) - float(np.sum((v * diagonal) ** 2)))
    scale = sqrt(max(variance, 0.0)) or 1.0
    return lambda s: np.asarray((np.einsum("bi,bi->b", s @ gram, s) - s**2 @ diagonal) / scale)


def _low_rank(features: Floats, v: Floats) -> Callable[[Floats], Floats]:
    """Pairs through features: `||sum s f||^2 - sum s^2 ||f||^2`, never a matrix of units squared."""
    norm = np.sum(features**2, axis=1)
    second = (features * v[:, None]).T @ features  # sum_i v_i f_i f_i'
    variance = 2 * (float(np.sum(second**2)) - float(np.sum((v * norm) ** 2)))
    scale = sqrt(max(variance, 0.0)) or 1.0
    return lambda s: np.asarray((np.sum((s @ features) ** 2, axis=1) - s**2 @ norm) / scale)


def _gaussian_gram(z: Floats, residual: Floats, unit: NDArray[np.intp]) -> Floats:
    """Sum over images of two units of `e_i e_j exp(-|z_i - z_j|^2 / (2 width^2))`, width the median distance."""
    if z.shape[0] > _RBF_LIMIT:
        raise InputError(f"The kernel 'rbf' takes up to {_RBF_LIMIT} images, found {z.shape[0]}; leave it out.")
    square = np.sum(z**2, axis=1)
    distance = np.maximum(square[:, None] + square - 2 * z @ z.T, 0.0)
    typical = float(np.median(distance[np.triu_indices(z.shape[0], 1)])) or 1.0
    weighted = np.exp(-distance / (2 * typical)) * residual[:, None] * residual
    if np.array_equal(unit, np.arange(unit.size)):
        return np.asarray(weighted)
    member = np.zeros((int(unit.max()) + 1, unit.size))
    member[unit, np.arange(unit.size)] = 1.0
    return np.asarray(member @ weighted @ member.T)


def _log10(observed: float, pvalue: float, null: Floats) -> float:
    """log10 of p; at the floor, of a gamma tail with the redraws' mean, variance and skewness."""
    floor = 1 / (null.size + 1)
    if pvalue > floor * 1.5 or null.std() == 0:
        return log10(pvalue)
    skew = max(float(stats.skew(null)), 0.1)
    tail = float(stats.pearson3.logsf(observed, skew, loc=float(null.mean()), scale=float(null.std()))) / log(10)
    return min(log10(pvalue), max(tail, -300.0)) if np.isfinite(tail) else -300.0
