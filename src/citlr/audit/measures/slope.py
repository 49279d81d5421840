r"""What share of a difference in a number, such as the age, redrawn images carry, as a probe reads it at one size.

With the number :math:`r(x)` that a probe reads off an image, recorded values :math:`a_i`, and redrawn images under the
values :math:`a_1 < ... < a_K`,

.. math:: s = \frac{\text{mean over images of the slope of } r(x_i^{do(a_k)}) \text{ on } a_k}{\text{slope of }
          r(x_i) \text{ on } a_i \text{, beside what is held}}.

1: what is read moves with what is asked for as it does with what is recorded. 0: redrawing changes nothing. Both slopes
are over the same range: of the real images those count whose value lies between the lowest and the highest asked for. A
probe that reads everybody nearer to the middle than they are does so on both sides, and its shrinkage cancels. The
share is one for the whole range: what is carried between two neighbouring values only is not told apart.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from citlr.audit.measures.carried import ALPHA
from citlr.audit.measures.covariates import coded
from citlr.audit.results.records import Carried
from citlr.doses import as_numbers
from citlr.invariance.effects.clusters import Clusters
from citlr.invariance.records import Estimate

Floats = npt.NDArray[np.float64]
# Patients between the lowest and the highest value, with fewer of whom no slope is read off real images.
FEWEST = 10


def carried_slope(
    real: Floats,
    redrawn: Floats,
    frame: pd.DataFrame,
    *,
    attribute: str,
    levels: Sequence[str],
    hold: Sequence[str],
    size: int,
) -> Carried:
    """Measure the share, by numbers read off `real` (n,) and `redrawn` images (n, levels, draws)."""
    asked = as_numbers(levels)
    assert asked is not None
    own, clusters = frame[attribute].to_numpy(dtype=np.float64), Clusters.of(frame["patient_id"])
    within = (own >= asked.min()) & (own <= asked.max())
    people = len(np.unique(clusters.codes[within]))
    if people < FEWEST:
        note = f"At {size} pixels {people} patients lie between {levels[0]} and {levels[-1]}, too few for a slope."
        return Carried(size, {}, note, slope=True)
    weight = (asked - asked.mean()) / np.square(asked - asked.mean()).sum()
    each = redrawn.mean(axis=2) @ weight
    drawn = float(each.mean())
    away, rest = _beside(own[within], coded(frame[within], hold)), real[within]
    power = float(away @ away)
    slope = float(away @ rest) / max(power, 1e-12)
    residual = _beside(rest, coded(frame[within], hold)) - slope * away
    of_real = np.zeros(len(own))
    of_real[within] = away * residual / max(power, 1e-12)
    reach = float(stats.t.isf(ALPHA / 2, people - 1))

    def error(influence: Floats) -> float:
        sums = clusters.sums(influence[:, None])[:, 0]
        return float(np.sqrt(np.square(sums).sum() * people / (people - 1)))

    if slope <= reach * error(of_real):
        note = f"At {size} pixels what the probe reads of real images does not rise with '{attribute}'."
        return Carried(size, {}, note, slope=True)
    share = drawn / slope
    spread = reach * error(((each - drawn) / len(each) - share * of_real) / slope)
    found = Estimate(share, share - spread, share + spread)
    return Carried(size, dict.fromkeys(levels, found), slope=True)


def _beside(values: Floats, held: Floats) -> Floats:
    """Give what a linear regression on what is held leaves of values (n,)."""
    design = np.column_stack([np.ones(len(values)), held])
    return np.asarray(values - design @ np.linalg.lstsq(design, values, rcond=None)[0])
