"""The door for those who have embeddings, levels and predictions, and no counterfactuals."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError
from citlr.invariance.arrays import ordered, pair_of, repeated, require_named, require_one_order, unmasked
from citlr.invariance.effects.intervals import check_alpha
from citlr.invariance.observational.given import fit_of_given
from citlr.invariance.observational.lower_bound import FEWEST_PATIENTS
from citlr.invariance.observational.nuisances import Observations
from citlr.invariance.observational.result import Observed
from citlr.invariance.observational.tests import assess_observational, judge
from citlr.invariance.parity import (
    ParityResult,
    auroc_gap,
    demographic_parity,
    equal_opportunity,
    equalised_odds,
    predictive_equality,
)
from citlr.invariance.rows import adjust
from citlr.invariance.verdict import enough
from citlr.values import Count, Number, Seed, Threshold, check_value

REPEATED = (
    " {count} images have Z and prediction of an image of another patient, to the last digit: if one image is there "
    "twice, or a patient's images are not said to be one patient's, p-values are smaller than they should be."
)


def observe(
    z: ArrayLike,
    attribute: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    outcome: ArrayLike | None = None,
    propensity: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    threshold: float = 0.5,
    alpha: float = 0.05,
    redraws: int = 999,
    seed: int = 0,
) -> Observed:
    r"""Look for a dependence of predictions on an attribute without counterfactuals.

    The distilled conditional randomisation test (Candes et al. 2018; Liu et al. 2022) decides: residuals
    :math:`e = \hat Y - m(Z)` of images whose attribute is redrawn from :math:`p(A|Z)`. Beside it stand the generalised
    covariance measure (Shah & Peters 2020), a lower bound of the root mean square effect, and associations: parity,
    equality of opportunity, predictive equality, equalised odds and the gap of the AUROCs.

    Parameters
    ----------
    z : array-like of float, shape (n, d)
        Representation of each image, of everything that the model may rightly use and of nothing of the attribute:
        findings, view, or embeddings of a network that knows no attribute.
    attribute : array-like of str, shape (n,)
        The recorded level of each image; every value of a number is one, so group an age into a few levels first.
    prediction : array-like of float, shape (n,)
        Probability in [0, 1], or decision.
    patients : array-like, shape (n,), optional
        Whose image it is; every image is a patient of its own without it.
    outcome : array-like of {0, 1, nan}, shape (n,), optional
        The finding itself; without it, what needs it is left out.
    propensity : array-like of float, shape (n,), optional
        Known P(A = second level | Z), inside (0, 1), for two levels only. The test is then exact; else it is estimated.
    contrast : (str, str), optional
        The two levels to compare; every pair by default, adjusted by Holm.
    threshold : float
        Operating point of the decisions of equalised odds, in (0, 1].
    alpha : float
        Error rate of the verdict, in (0, 1); intervals have confidence 1 - alpha.
    redraws : int
        Of the attribute, at least 19; the smallest p is 1 / (redraws + 1). With many pairs of levels there are as many
        as it takes for one of them to be significant after adjustment.
    seed : int
        Same seed, same result.

    Returns
    -------
    Observed
        Print it, `to_frame()`, `to_dict()`. The verdict is "dependence" or "inconclusive", and never "equivalent". It
        is "inconclusive" as well where Z says the level almost surely, so that nobody is left to compare, and where
        what Z says of prediction or level is not learnt well enough to tell a dependence from a misfit.

    Raises
    ------
    InputError
        If shapes differ, a value is missing or out of range, or there are fewer than 30 patients at two levels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, sex = rng.normal(size=(400, 2)), np.where(rng.random(400) < 0.5, "f", "m")
    >>> prediction = 1 / (1 + np.exp(-z[:, 0] - 0.8 * (sex == "m")))
    >>> found = observe(z, sex, prediction, propensity=np.full(400, 0.5))
    >>> found.verdict, list(found.to_frame()["method"])
    ('dependence', ['distilled_crt', 'gcm', 'rms_lower_bound', 'demographic_parity'])
    >>> observe(z, sex, 1 / (1 + np.exp(-z[:, 0])), propensity=np.full(400, 0.5)).verdict
    'inconclusive'
    """
    check_alpha(check_value("alpha", alpha, Number))
    threshold, seed = check_value("threshold", threshold, Threshold), check_value("seed", seed, Seed)
    redraws = check_value("redraws", redraws, Count)
    require_one_order(
        z=z, attribute=attribute, prediction=prediction, patients=patients, outcome=outcome, propensity=propensity
    )
    z, prediction = unmasked(z, "z"), unmasked(prediction, "prediction")
    outcome = None if outcome is None else unmasked(outcome, "outcome")
    named = ordered(attribute, "attribute")
    require_named(named, "level")
    levels = named.astype(str)
    who = _patients(np.arange(levels.size) if patients is None else patients)
    if who.size != levels.size:
        raise InputError(f"There are {levels.size} images and {who.size} patients; give the patient of every image.")
    pairs = list(combinations(np.unique(levels).tolist(), 2))
    if contrast is not None:
        pairs = [pair_of(levels, tuple(map(str, ordered(contrast, "contrast"))))]
    if not pairs:
        raise InputError("The attribute has a single level; two are needed to compare.")
    if propensity is not None and len(pairs) > 1:
        raise InputError(f"A propensity is of two levels, and there are {len(pairs)} pairs: say which with contrast.")
    if propensity is not None:
        propensity = unmasked(propensity, "propensity")
        if propensity.shape not in ((levels.size,), (int(np.isin(levels, pairs[0]).sum()),)):
            raise InputError(f"The known propensity has shape {propensity.shape}; give one number per image.")
    redraws = enough(redraws, len(pairs), alpha)
    _require_patients(levels, who, pairs)
    found, told = [], []
    for pair in pairs:
        data = Observations.of(z, levels, prediction, patients=who, contrast=pair)
        told.append(_repeated(data) + ("" if propensity is None else fit_of_given(data, propensity)))
        found.append(assess_observational(data, propensity, redraws=redraws, alpha=alpha, seed=seed))
    adjusted = adjust([one.pvalue_adjusted for one in found]).holm
    verdicts = [judge(one, float(p), alpha) for one, p in zip(found, adjusted, strict=True)]
    judged = tuple(replace(one, reason=one.reason + more) for one, more in zip(verdicts, told, strict=True))
    beside = tuple(
        one
        for pair in pairs
        for one in _associations(prediction, levels, who, outcome, pair, threshold=threshold, alpha=alpha)
    )
    depends = any(one.verdict == "dependence" for one in judged)
    return Observed("dependence" if depends else "inconclusive", judged, beside, alpha)


def _patients(patients: ArrayLike) -> NDArray[np.intp]:
    """Give patients numbers as they come: it does not matter whether one is called 10, "10" or a pseudonym."""
    named = ordered(patients, "patients")
    require_named(named, "patient")
    return np.asarray(pd.factorize(named)[0])


def _require_patients(levels: NDArray[np.str_], patients: NDArray[Any], pairs: Sequence[Sequence[str]]) -> None:
    """Refuse levels that are too rare to be compared, before any of them is."""
    for one, other in pairs:
        count = np.unique(patients[np.isin(levels, (one, other))]).size
        if count < FEWEST_PATIENTS and np.isin((one, other), levels).all():
            raise InputError(
                f"The levels '{one}' and '{other}' have {count} patients, and a comparison needs {FEWEST_PATIENTS} "
                "patients: join rare levels, group the values of a number into a few levels, or name two with contrast."
            )


def _repeated(data: Observations) -> str:
    """Tell of images that are another patient's to the last digit, where Z tells images apart.

    A Z of few values does not: some images that share it are predicted otherwise, and the others are alike by chance.
    """
    rows = np.column_stack([data.z, data.y])
    if len(np.unique(data.z, axis=0)) < len(np.unique(rows, axis=0)):
        return ""
    count = repeated(rows, data.cluster)
    return REPEATED.format(count=count) if count else ""


def _associations(
    prediction: ArrayLike,
    levels: ArrayLike,
    patients: ArrayLike,
    outcome: ArrayLike | None,
    pair: Sequence[str],
    *,
    threshold: float,
    alpha: float,
) -> list[ParityResult]:
    """Compute what is associated at one contrast; strata stay with the functions that make them."""
    parity = demographic_parity(prediction, levels, patients, contrast=pair, alpha=alpha)
    if outcome is None:
        return [parity]
    asked = (prediction, levels, outcome, patients)
    rest = [
        equal_opportunity(*asked, contrast=pair, alpha=alpha),
        predictive_equality(*asked, contrast=pair, alpha=alpha),
        equalised_odds(*asked, contrast=pair, threshold=threshold, alpha=alpha),
        auroc_gap(*asked, contrast=pair, alpha=alpha),
    ]
    return [parity, *(replace(one, strata=()) for one in rest)]
