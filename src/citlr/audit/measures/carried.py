r"""What share of an attribute redrawn images carry, as a probe reads it at the size that the model under audit reads.

With images of held-out patients and a level a,

.. math:: s_a = \frac{P(\text{read as } a \mid do(a), \text{recorded otherwise}) - P(\text{read as } a \mid \text{real,
          recorded otherwise})}{P(\text{read as } a \mid \text{real } a) - P(\text{read as } a \mid \text{real, recorded
          otherwise})}.

1: images of other levels, redrawn under a, are read as real ones of a are. 0: redrawing changed nothing. Images that
have the level already are left out of the numerator: they would carry it unchanged. Real images of a are weighted to
the distribution that what is held has in the others.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from citlr.audit.measures.covariates import coded
from citlr.audit.results.records import Carried
from citlr.generators.effects.propensity import HEAVIEST, Propensity
from citlr.invariance.effects.clusters import Clusters
from citlr.invariance.records import Estimate

Floats = npt.NDArray[np.float64]
# Error rate of the intervals: 95 %, whatever the test's alpha, which is not known when images are measured.
ALPHA = 0.05


def measure_carried(
    real: npt.NDArray[np.floating],
    redrawn: npt.NDArray[np.floating],
    frame: pd.DataFrame,
    *,
    recorded: npt.NDArray[np.int64],
    levels: Sequence[str],
    hold: Sequence[str],
    size: int,
) -> Carried:
    """Measure the share of each level: `real` (n, levels), `redrawn` (n, levels, draws, levels), `recorded` (n,)."""
    held, clusters = coded(frame, hold), Clusters.of(frame["patient_id"])
    shares, unread = {}, []
    for level, name in enumerate(levels):
        as_level = (real.argmax(axis=-1) == level).astype(np.float64)
        drawn_as = (redrawn[:, level].argmax(axis=-1) == level).mean(axis=1)
        share = _share(as_level, drawn_as, recorded, level, held, clusters)
        if share is None:
            unread.append(f"'{name}'")
        else:
            shares[name] = share
    if unread:
        note = f"At {size} pixels the probe reads real images of {', '.join(unread)} no better than chance."
        return Carried(size, {}, note)
    return Carried(size, shares)


def _share(
    as_level: Floats, drawn_as: Floats, recorded: npt.NDArray[np.int64], level: int, held: Floats, clusters: Clusters
) -> Estimate | None:
    """Estimate one share with its interval, clustered by patient; None where real images are not told apart."""
    own, others = recorded == level, (recorded >= 0) & (recorded != level)
    if min(own.sum(), others.sum()) < 2:
        return None
    weight = own * _like_the_others(own, others, held)
    other = others / others.sum()
    weight = weight / weight.sum()
    right, wrong, drawn = weight @ as_level, other @ as_level, other @ drawn_as
    gap = right - wrong
    people = [len(np.unique(clusters.codes[part])) for part in (own, others)]
    quantile = float(stats.t.isf(ALPHA / 2, max(min(people) - 1, 1)))

    def error(influence: Floats) -> float:
        sums = clusters.sums(influence[:, None])[:, 0]
        return float(np.sqrt((sums**2).sum() * min(people) / max(min(people) - 1, 1)))

    of_right, of_wrong = weight * (as_level - right), other * (as_level - wrong)
    if gap <= quantile * error(of_right - of_wrong):
        return None
    share = (drawn - wrong) / gap
    spread = error((other * (drawn_as - drawn) - (1 - share) * of_wrong - share * of_right) / gap)
    # What none of n patients showed may still be so in 1 - alpha^(1/n) of all (`citlr.invariance.effects.intervals`).
    effective = min(1 / max((clusters.sums(part[:, None]) ** 2).sum(), 1e-12) for part in (weight, other))
    unseen = (1 - (ALPHA / 2) ** (1 / effective)) / gap
    reach = max(quantile * spread, unseen)
    return Estimate(float(share), float(share - reach), float(share + reach))


def _like_the_others(own: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_], held: Floats) -> Floats:
    """Give weights (n,) under which what is held is distributed in the images of a level as it is in the others."""
    rows = own | others
    if not held.shape[1]:
        return np.ones(len(own))
    odds = np.zeros(len(own))
    chance = np.exp(Propensity().fit(own[rows].astype(np.int64), held[rows]).log_odds(held[rows]))
    odds[rows] = chance[:, 0] / np.maximum(chance[:, 1], 1e-12)
    return np.asarray(np.minimum(odds / odds[own].mean(), HEAVIEST))
