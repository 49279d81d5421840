r"""The default test: does the model's output depend on the level, given everything else in the image?

One set of randomisations gives the joint null distribution of two statistics, and the p-value is that of the smaller of
their two p-values (min-p, compared with the same randomisations, the observed outputs included):

- the mean statistic :math:`|\sum_i \sum_r D_{ir}|`, which sees effects of one sign (a uniform shift);
- the product statistic :math:`\sum_i U_i` with :math:`U_i = ((\sum_r D_{ir})^2 - \sum_r D_{ir}^2) / (r(r-1))`, unbiased
  for :math:`(g(a', z_i) - g(a, z_i))^2`, which also sees effects that cancel out between images.

Which null it is exact for, given the images, however many of them a patient has (only generator noise is randomised):

=====================  =============================================================================================
two levels,            each D is symmetric about 0. For decisions D is in {-1, 0, 1}, so this is *every* null
shared seeds           g(a, z) = g(a', z). For probabilities it is symmetry of D, which exchangeable levels imply.
two levels,            the outputs at both levels have one distribution given z. For decisions this is *every* null
independent draws      g(a, z) = g(a', z), since the mean is the distribution.
more levels            the omnibus over levels: shared seeds, the outputs of one draw are exchangeable over the levels;
                       independent draws, one distribution at every level (for decisions: every null). Its statistics
                       are studentised in each randomisation, so that with shared seeds it is asymptotically right
                       whenever the means agree. Holm over the contrasts is exact wherever they are.
=====================  =============================================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.randomization import binary_orbits, dense_orbits
from citlr.invariance.randomization.groups import Floats, Moments

FEWEST_RANDOMIZATIONS = 19
_LN10 = float(np.log(10.0))


@dataclass(frozen=True, eq=False)
class RandomizationResult:
    """What the randomisations say; every array has one entry per label (and contrast).

    - `pvalue`: Exact Monte-Carlo p-value of the min-p statistic, in [1/(randomizations + 1), 1].
    - `log10_pvalue`: Its log10; where the p-value is at its floor, the log10 of the asymptotic p-value of the
      studentised statistics (Bonferroni over the two), if that is smaller.
    - `mean_z`, `product_z`: The two statistics, standardised by their randomisation distribution; `mean_z` has the sign
      of the mean effect for two levels, and is the square root of the Wald statistic for more.
    - `mean_pvalue`, `product_pvalue`: Monte-Carlo p-values of the two statistics on their own.
    - `mean_spread`, `product_spread`: Standard deviation under the randomisations of the summed D and the summed U (two
      levels; of the studentised statistics otherwise).
    - `randomizations`: Number of randomisations, the observed outputs not counted.
    """

    pvalue: Floats
    log10_pvalue: Floats
    mean_z: Floats
    product_z: Floats
    mean_pvalue: Floats
    product_pvalue: Floats
    mean_spread: Floats
    product_spread: Floats
    randomizations: int

    def spread(self, contrast: int) -> tuple[Floats, Floats]:
        """Give the spread under the randomisations of one contrast's summed D and summed U, (labels,) each."""
        return self.mean_spread[contrast], self.product_spread[contrast]

    @property
    def statistic(self) -> Floats:
        """The standardised statistic that decided: `mean_z` or `product_z`, whichever has the smaller p-value."""
        return np.where(self.mean_pvalue <= self.product_pvalue, self.mean_z, self.product_z)

    @property
    def component(self) -> NDArray[np.str_]:
        """'mean' or 'product': which of the two statistics decided."""
        return np.where(self.mean_pvalue <= self.product_pvalue, "mean", "product")


def contrast_tests(
    values: Floats,
    *,
    contrasts: Sequence[tuple[int, int]] | None = None,
    shared_seeds: bool = True,
    randomizations: int = 4999,
    seed: int = 0,
) -> RandomizationResult:
    """Test every label of `values` (units, levels, draws, labels) at every contrast of two levels."""
    _check(values, randomizations)
    levels = values.shape[1]
    pairs = [(a, b) for a in range(levels) for b in range(a + 1, levels)] if contrasts is None else list(contrasts)
    stacked = np.concatenate([values[:, [a, b]] for a, b in pairs], axis=-1)
    moments = _randomize(stacked, shared_seeds=shared_seeds, randomizations=randomizations, seed=seed)
    return _min_p(*moments.two_level(), signed=moments.sums[0, 0], levels=2, shape=(len(pairs), values.shape[-1]))


def omnibus_test(
    values: Floats, *, shared_seeds: bool = True, randomizations: int = 4999, seed: int = 0
) -> RandomizationResult:
    """Test every label over all levels at once, (labels,), as `contrast_tests`; of two levels that is its own test."""
    _check(values, randomizations)
    levels = values.shape[1]
    moments = _randomize(values, shared_seeds=shared_seeds, randomizations=randomizations, seed=seed)
    if levels == 2:
        return _min_p(*moments.two_level(), signed=moments.sums[0, 0], levels=2, shape=(values.shape[-1],))
    wald, product = moments.studentised()
    return _min_p(wald, product, signed=None, levels=levels, shape=(values.shape[-1],))


def _check(values: Floats, randomizations: int) -> None:
    if values.ndim != 4:
        raise InputError(f"values has shape {values.shape}; give (units, levels, draws, labels).")
    if values.shape[1] < 2 or values.shape[2] < 2:
        raise InputError(
            f"The test needs at least two levels and two draws; found {values.shape[1]} and {values.shape[2]}."
        )
    if randomizations < FEWEST_RANDOMIZATIONS:
        raise InputError(f"{randomizations} randomisations cannot reach p = 0.05; ask for 19 or more (default 4999).")


def _randomize(values: Floats, *, shared_seeds: bool, randomizations: int, seed: int) -> Moments:
    rng = np.random.default_rng(seed)
    binary = bool(np.all((values == 0) | (values == 1))) and binary_orbits.feasible(*values.shape[1:3])
    engine = binary_orbits.randomize if binary else dense_orbits.randomize
    return engine(values, shared_seeds=shared_seeds, randomizations=randomizations, rng=rng)


def _min_p(
    first: Floats, second: Floats, *, signed: Floats | None, levels: int, shape: tuple[int, ...]
) -> RandomizationResult:
    """Joint p-value; row 0 of the statistics (randomisations + 1, columns) is the observed one."""
    p_first, p_second = _tail_shares(first), _tail_shares(second)
    order = _extremeness(first, second, np.minimum(p_first, p_second))
    pvalue = (order <= order[0] + 1e-6).mean(axis=0)
    mean_z, log_first = _mean_tail(first, signed, levels)
    spread = second[1:].std(axis=0, dtype=np.float64)
    product_z = np.where(
        spread > 0, (second[0] - second[1:].mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1.0), 0.0
    )
    log_second = np.where(spread > 0, stats.norm.logsf(product_z), 0.0)
    tail = (np.log(2.0) + np.minimum(log_first, log_second)) / _LN10
    log10 = np.log10(pvalue)
    at_floor = pvalue * len(first) < 1.5
    return RandomizationResult(
        pvalue=pvalue.reshape(shape),
        log10_pvalue=np.where(at_floor, np.minimum(log10, tail), log10).reshape(shape),
        mean_z=mean_z.reshape(shape),
        product_z=product_z.reshape(shape),
        mean_pvalue=p_first[0].reshape(shape),
        product_pvalue=p_second[0].reshape(shape),
        mean_spread=np.sqrt(np.square(first[1:], dtype=np.float64).mean(axis=0)).reshape(shape),
        product_spread=spread.reshape(shape),
        randomizations=len(first) - 1,
    )


def _extremeness(first: Floats, second: Floats, smaller: Floats) -> Floats:
    """Rank of the smaller p-value, ties broken by the larger standardised statistic; most extreme lowest.

    Without the second key two randomisations, the most extreme of either statistic, would always tie at the top and the
    p-value could not fall below 2 / rows. Every row is standardised by all rows, so the rows stay exchangeable.
    """
    scale = np.sqrt(np.square(first, dtype=np.float64).mean(axis=0))
    spread = second.std(axis=0, dtype=np.float64)
    z_first = first / np.where(scale > 0, scale, 1.0)
    z_second = (second - second.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1.0)
    larger = np.maximum(np.maximum(z_first, z_second), 0.0)
    return np.asarray(smaller * len(first) - larger / (1 + larger))


def _mean_tail(first: Floats, signed: Floats | None, levels: int) -> tuple[Floats, Floats]:
    if signed is None:
        return np.sqrt(first[0], dtype=np.float64), np.asarray(stats.chi2.logsf(first[0], levels - 1))
    root = np.sqrt(np.square(first[1:], dtype=np.float64).mean(axis=0))  # the randomisation mean of sum D is 0
    z = np.where(root > 0, signed / np.where(root > 0, root, 1.0), 0.0)
    return z, np.where(root > 0, np.log(2.0) + stats.norm.logsf(np.abs(z)), 0.0)


def _tail_shares(statistics: Floats) -> Floats:
    """Share of all rows that reach each row, column by column; equal up to rounding counts as equal."""
    scale = np.abs(statistics).max(axis=0)
    decimals = 8 if statistics.dtype == np.float64 else 5
    rounded = np.round(statistics / np.where(scale > 0, scale, 1), decimals)
    out = np.empty(statistics.shape)
    for column in range(statistics.shape[1]):
        ordered = np.sort(rounded[:, column])
        out[:, column] = len(ordered) - np.searchsorted(ordered, rounded[:, column], side="left")
    return out / len(statistics)
