"""Whether a propensity that somebody gives as known is that of the levels beside it."""

from math import sqrt

import numpy as np
from scipy.special import logit

from citlr.errors import InputError
from citlr.invariance.observational.nuisances import Floats, Observations, known_propensity

# Standard errors, of sums by patient, that no propensity which is right is off by.
FAR = 5.0
UNFIT = (
    " The propensity that was given does not fit: by it {expected:.0f} of {count} images are '{level}', and "
    "{found:.0f} are{more}. The test is exact only where it is right; without it, it is estimated."
)
ELSEWHERE = ", or not those that it says"


def fit_of_given(data: Observations, propensity: Floats) -> str:
    """Say so where a known propensity does not fit the levels; refuse one that is of the other level."""
    p = known_propensity(propensity, data)
    count, placed = _unfit(data, p)
    if not count and not placed:
        return ""
    if not any(_unfit(data, 1 - p)):
        first, second = data.contrast
        raise InputError(
            f"The propensity has to be that of '{second}', and it is the larger one for images of '{first}': give 1 - "
            "propensity, or name the two levels in the other order (contrast)."
        )
    said = {"expected": p.sum(), "found": data.a.sum(), "count": p.size, "level": data.contrast[1]}
    return UNFIT.format(**said, more="" if count else ELSEWHERE)


def _unfit(data: Observations, p: Floats) -> tuple[bool, bool]:
    """Say whether more or fewer images have the level than p says, and whether others have it."""
    return abs(_off(data, p, np.ones(p.size))) > FAR, abs(_off(data, p, logit(p))) > FAR


def _off(data: Observations, p: Floats, weight: Floats) -> float:
    """Give by how many standard errors the weighted sum of `A - p` is off zero, clustered by patient.

    The larger of those that p gives, where a patient's images share all, and those that are seen: of a rare level the
    one or the other is far too small.
    """
    sums = np.bincount(data.cluster, weights=(data.a - p) * weight)
    spread = np.bincount(data.cluster, weights=np.sqrt(p * (1 - p)) * np.abs(weight))
    error = sqrt(max(float(np.sum(sums**2)), float(np.sum(spread**2))))
    return float(sums.sum()) / error if error > 0 else 0.0
