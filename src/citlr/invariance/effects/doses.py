r"""The dose-response of an output to a number that is intervened on, with bands that hold for all values at once.

With images i, draws r, values a_0 < ... < a_K of it and :math:`Y_i(a) = \frac1R \sum_r Y[i, a, r]`, the curve
is the mean of :math:`Y_i(a_k) - Y_i(a_0)`. Each change has the interval of any mean effect (`signed_interval` of
`intervals`: clustered by patient, skewness and rare changes allowed for), at the confidence at which all of them hold
together with probability 1 - alpha. That is found by a multiplier bootstrap of patients (Chernozhukov, Chetverikov and
Kato 2013): with :math:`e_{ck}` what patient c adds to the error of change k, and standard normal :math:`\xi_c`,

.. math:: T = \max_k \Big| \sum_c \xi_c e_{ck} \Big| / se_k,

whose 1 - alpha quantile takes the place of the normal one. The largest change is that between any two values, with an
interval from the same bootstrap over all pairs, so that it holds although the pair was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from citlr.doses import as_numbers
from citlr.errors import InputError
from citlr.invariance.effects.clusters import Clusters, Floats, signed_mean, summarise
from citlr.invariance.effects.estimates import Outcome, outcome_values
from citlr.invariance.effects.intervals import check_alpha, signed_interval
from citlr.invariance.generator_error import Replicates, contrast_error
from citlr.invariance.records import DosePoint, DoseResponse, Estimate
from citlr.invariance.responses import Responses

# Draws that are in memory at a time.
BLOCK = 256
# Effective patients from which on the bootstrap tells how much columns have in common.
FEWEST = 20


def dose_response(
    responses: Responses,
    *,
    alpha: float = 0.05,
    outcome: Outcome = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    bootstraps: int = 2000,
    seed: int = 0,
    replicates: Replicates | None = None,
) -> tuple[DoseResponse, ...]:
    """Estimate the curve of every label, from the lowest of the values on.

    `replicates` are outputs on images moved by what the generator's training split leaves open: bands hold that too.

    >>> rng = np.random.default_rng(0)
    >>> base, rise = rng.random((300, 1, 2, 1)) / 2, np.array([0, 0.1, 0.2]).reshape(1, 3, 1, 1)
    >>> r = Responses.from_arrays(base + rise, levels=["30", "50", "70"], number=True)
    >>> curve = dose_response(r, outcome="probability")[0]
    >>> [round(point.change.estimate, 2) for point in curve.points], curve.contrast
    ([0.0, 0.1, 0.2], ('30', '70'))
    """
    check_alpha(alpha)
    doses = as_numbers(responses.levels)
    if doses is None:
        raise InputError(f"A dose-response needs levels that are numbers; found {', '.join(responses.levels)}.")
    order = [int(place) for place in np.argsort(doses)]
    values = outcome_values(responses, outcome=outcome, threshold=threshold)[:, order].mean(axis=2)
    names = [responses.levels[place] for place in order]
    pairs = list(combinations(range(len(order)), 2))
    # A band goes from the lowest value on; the largest change may be between any two.
    of_curve, of_pairs = (
        _Changes(values, Clusters.of(responses.patients), which)
        for which in ([pair for pair in pairs if pair[0] == 0], pairs)
    )

    def errors(changes: _Changes) -> Floats | None:
        if replicates is None:
            return None
        asked = {"outcome": outcome, "threshold": threshold}
        each = [
            contrast_error(responses, replicates, contrast=(order[a], order[b]), **asked)  # type: ignore[arg-type]
            for a, b in changes.pairs
        ]
        return np.stack([one.mean for one in each])

    count = 0 if replicates is None else replicates.values.shape[2]
    curves = []
    for k, label in enumerate(responses.labels):
        curve, every = (
            changes.bands(k, alpha, Bootstrap(bootstraps, seed), errors(changes), count)
            for changes in (of_curve, of_pairs)
        )
        changed = [Estimate(0.0, 0.0, 0.0), *curve]
        points = tuple(
            DosePoint(name, float(doses[place]), float(values[:, n, k].mean()), change)
            for n, (name, place, change) in enumerate(zip(names, order, changed, strict=True))
        )
        most = max(range(len(pairs)), key=lambda one: abs(every[one].estimate))
        contrast = (names[pairs[most][0]], names[pairs[most][1]])
        curves.append(DoseResponse(label, outcome, names[0], points, contrast, every[most]))
    return tuple(curves)


@dataclass(frozen=True)
class Bootstrap:
    """How many multipliers are drawn for every patient, and their seed."""

    draws: int = 2000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Changes:
    """Changes between pairs of values: outputs (units, values, labels), and who the patients are."""

    values: Floats
    clusters: Clusters
    pairs: Sequence[tuple[int, int]]

    def bands(
        self, label: int, alpha: float, bootstrap: Bootstrap, errors: Floats | None, replicates: int
    ) -> list[Estimate]:
        """Give the change over each pair, with intervals that hold for all pairs at once.

        `errors` (pairs, labels) are the standard errors that come from the generator, known from so many replicates.
        """
        of = self.values[:, :, label]
        change = np.stack([of[:, b] - of[:, a] for a, b in self.pairs], axis=1)
        each = simultaneous_alpha(change, self.clusters, alpha=alpha, bootstrap=bootstrap)
        interval = signed_interval(signed_mean(change, self.clusters), alpha=each)
        middle, low, high = interval.estimate, interval.low, interval.high
        if errors is not None:
            reach = float(stats.t.isf(each / 2, replicates)) * errors[:, label]
            low = np.maximum(middle - np.hypot(middle - low, reach), -1.0)
            high = np.minimum(middle + np.hypot(high - middle, reach), 1.0)
        return [Estimate(*map(float, bounds)) for bounds in zip(middle, low, high, strict=True)]


def simultaneous_alpha(
    columns: Floats, clusters: Clusters, *, alpha: float, bootstrap: Bootstrap | None = None
) -> float:
    """Give the error rate of single intervals of the means of columns (units, columns) at which all hold together.

    It is between alpha over the number of columns (Bonferroni) and alpha, of columns that say one and the same. To few
    patients, effectively, all columns seem to say the same: Bonferroni's is taken.
    """
    mean, parts = summarise(columns, clusters)
    varies = mean.se > 0
    # What every patient adds to the error of each mean, in units of its standard error.
    parts = parts[:, varies] / mean.se[varies]
    if parts.shape[1] < 2:
        return alpha
    if clusters.effective < FEWEST:
        return alpha / int(parts.shape[1])
    bootstrap = bootstrap or Bootstrap()
    rng, largest = np.random.default_rng(bootstrap.seed), []
    for start in range(0, bootstrap.draws, BLOCK):
        multipliers = rng.standard_normal((min(BLOCK, bootstrap.draws - start), len(parts)))
        largest.append(np.abs(multipliers @ parts).max(axis=1))
    quantile = float(np.quantile(np.concatenate(largest), 1 - alpha))
    return float(np.clip(2 * stats.norm.sf(quantile), alpha / parts.shape[1], alpha))
