r"""The difference of outputs between recorded levels, and what of it redrawing does not explain.

A generator redraws what it has learnt of an attribute. What a model reads besides moves no redrawn image, but it does
move the outputs on real ones: with the outputs Y on the images as they came, a contrast (a, a') and Z all that is held
and recorded of an image (labels, covariates),

.. math:: \theta = \frac{\sum_i (Y_i - m(Z_i)) (A_i - p(Z_i))}{\sum_i (A_i - p(Z_i))^2},

with m = E[Y | Z] and p = P(A = a' | Z) cross-fitted on patients (Robinson 1988): the difference that is left when those
who share Z are compared. A model that treats everybody alike has none, unless something that is not recorded goes with
the attribute and shows in the image: that cannot be told from a dependence, and the verdict cannot be "equivalent".

It is beyond the margin m where its interval excludes [-m, m], overall, or among images in which the label has one
value, where the difference counts by their share of all images: an effect that raises the output in the sick and lowers
it in the healthy has no mean. So may it be with views, and whatever else of Z has few values is looked at besides.
The intervals are clustered by patient, and corrected (Bonferroni) for the parts of either kind.

Where redrawing takes away what a model looks at, there is a sharper comparison: the output on an image less that on its
null interventions, whose difference between the levels, given Z again, is what redrawing has lost. It is a test of its
own, of the probabilities, image by image, and so finds a small dose that decisions of as many patients do not show.
Of a model that reads finer pixels than the generator's, the output on an image less that on the same image at the
generator's pixels is compared as well, in the same parts: what is finer is left in place by redrawing, never changed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from citlr.audit.measures.covariates import coded
from citlr.audit.results.records import Unexplained
from citlr.audit.results.statistics import outcome_of, recorded_of
from citlr.config import TestConfig
from citlr.invariance.observational.learners import cross_fit_mean, outcome_learners
from citlr.invariance.observational.nuisances import Assignment, Observations, assign, patient_folds
from citlr.invariance.observational.tests import OVERLAP, overlap_of
from citlr.invariance.records import Estimate
from citlr.invariance.responses import Responses
from citlr.randomness import hashed_seed
from citlr.text import shown

Floats = npt.NDArray[np.float64]
# What of the difference null interventions lose, among the parts that it is looked for in.
LOST = "on images redrawn under their own level"
FINER = "in what is finer than the generator's pixels"
# Patients that a part needs on each side, and values of a column that make parts of it.
FEWEST, MOST_PARTS = 10, 4
# Who has which level given Z, at each contrast, by what that was estimated from.
Assigned = dict[str, Assignment]


@dataclass(frozen=True)
class _Difference:
    """An estimate with its influence per image (all images, 0 outside)."""

    estimate: float
    influence: Floats


@dataclass(frozen=True)
class _Compared:
    """Images of two recorded levels: which `rows` of all they are, and how far their level is from what Z says."""

    contrast: tuple[str, str]
    rows: npt.NDArray[np.intp]
    away: Floats
    patients: npt.NDArray[np.intp]
    given: tuple[str, ...]
    settings: TestConfig
    known: pd.DataFrame

    def parts(self, label: str) -> dict[str, npt.NDArray[np.bool_]]:
        """Give the images (n,) of every value of what is given besides the label, where there are few values."""
        found = {}
        for name in self.given:
            values = sorted(self.known[name].dropna().unique().tolist(), key=str)
            for value in values if name != label and 1 < len(values) <= MOST_PARTS else ():
                chosen = (self.known[name] == value).fillna(False).to_numpy(dtype=bool)
                if self.enough(chosen):
                    is_ = f"{value:g}" if isinstance(value, float) else shown(value)
                    found[f"where '{name}' is {is_}"] = chosen
        return found

    def enough(self, chosen: npt.NDArray[np.bool_]) -> bool:
        """Whether a part (n,) of the images has patients enough on both sides."""
        own = self.patients[self.rows]
        return all(len(np.unique(own[chosen & side])) >= FEWEST for side in (self.away > 0, self.away <= 0))

    def difference(self, residual: Floats, chosen: npt.NDArray[np.bool_]) -> _Difference:
        """Estimate the difference within a part (n,) of the images, times its share of them."""
        away = self.away[chosen]
        weight = max(float((away**2).sum()), 1e-12)
        theta = float((residual[chosen] * away).sum()) / weight
        influence = np.zeros(len(self.patients))
        influence[self.rows[chosen]] = (residual[chosen] - theta * away) * away / weight
        share = float(chosen.mean())
        return _Difference(share * theta, share * influence)


def measure_unexplained(
    responses: Responses,
    cohort: pd.DataFrame,
    *,
    given: Sequence[str],
    settings: TestConfig,
    seed: int,
    assigned: Assigned | None = None,
) -> tuple[Unexplained, ...]:
    """Measure the difference of every label at every contrast; `assigned` is filled, for the next model's audit."""
    assigned = {} if assigned is None else assigned
    known = recorded_of(cohort, responses.units)
    found: dict[tuple[str, tuple[str, str]], Unexplained] = {}
    for pair in responses.contrasts:
        contrast = (responses.levels[pair[0]], responses.levels[pair[1]])
        for label, one in _of_contrast(responses, known, pair, given, settings, seed, assigned).items():
            found[label, contrast] = one
    return tuple(
        found[label, (responses.levels[a], responses.levels[b])]
        for label in responses.labels
        for a, b in responses.contrasts
    )


def _of_contrast(
    responses: Responses,
    known: pd.DataFrame,
    pair: tuple[int, int],
    given: Sequence[str],
    settings: TestConfig,
    seed: int,
    assigned: Assigned,
) -> dict[str, Unexplained]:
    """Measure all labels at one contrast: who has which level given Z is estimated once."""
    contrast = (responses.levels[pair[0]], responses.levels[pair[1]])
    original, null, recorded = responses.original, responses.null, responses.recorded
    patients = np.unique(known["patient_id"].astype(str), return_inverse=True)[1]

    def unknown(why: str) -> dict[str, Unexplained]:
        return {label: Unexplained(label, contrast, None, None, False, note=why) for label in responses.labels}

    if original is None or null is None or recorded is None:
        return unknown("the images as they came were not answered")
    rows = np.flatnonzero(np.isin(recorded, contrast))
    sides = [len(np.unique(patients[rows][recorded[rows] == level])) for level in contrast]
    if min(sides) < FEWEST:
        return unknown(f"fewer than {FEWEST} patients are recorded as '{contrast[int(np.argmin(sides))]}'")
    z = coded(known.iloc[rows], given)
    z = z if z.shape[1] else np.zeros((len(rows), 1))
    data = Observations.of(z, recorded[rows], np.zeros(len(rows)), patients=patients[rows], contrast=contrast)
    assignment = _assignment(data, seed, assigned)
    if overlap_of(assignment) < OVERLAP:
        return unknown("what is recorded says the level almost surely, so that nobody is left to compare")
    away = (assignment.a - assignment.p)[assignment.unit]
    compared = _Compared(contrast, rows, away, patients, tuple(given), settings, known.iloc[rows])
    folds = patient_folds(
        data.cluster, min(5, data.n_patients), np.random.default_rng(hashed_seed("unexplained", seed))
    )
    found = {}
    for k, label in enumerate(responses.labels):
        y = outcome_of(original[rows, k], label, settings)
        fitted = cross_fit_mean(z, y, folds, outcome_learners(seed)).values if np.ptp(y) else y
        taken = {LOST: original[rows, k] - null[rows, :, k].mean(axis=1)}
        if responses.coarse is not None:
            taken[FINER] = original[rows, k] - responses.coarse[rows, k]
        for where, lost in taken.items():
            mean = cross_fit_mean(z, lost, folds, outcome_learners(seed)).values if np.ptp(lost) else lost
            taken[where] = lost - mean
        truth = known[label].iloc[rows].to_numpy(float) if label in known else np.full(len(rows), np.nan)
        drawn = outcome_of(responses.values[..., k][:, list(pair)], label, settings)
        effect = (drawn[:, 1] - drawn[:, 0]).mean(axis=1)
        found[label] = _judge(compared, label, (y - fitted, taken), truth, effect)
    return found


def _assignment(data: Observations, seed: int, assigned: Assigned) -> Assignment:
    """Estimate who has which level given Z: a matter of the cohort alone, and so once for all models."""
    content = hashlib.sha256(repr((data.z.shape, data.contrast, seed)).encode())
    for part in (data.z, data.a, data.cluster):
        content.update(part.tobytes())
    key = content.hexdigest()
    found = assigned.get(key)
    if found is None:
        found = assigned[key] = assign(data, None, seed=seed)
    return found


def _judge(
    compared: _Compared, label: str, residuals: tuple[Floats, dict[str, Floats]], truth: Floats, effect: Floats
) -> Unexplained:
    """Estimate the difference, overall and by the label's value, and what the effect of redrawing leaves of it.

    `residuals` (n,) are those of the outputs, and of what null interventions and coarser pixels take away from them.
    """
    residual, taken = residuals
    margin, alpha = compared.settings.margin, compared.settings.alpha
    parts = {"": np.ones(len(residual), dtype=bool)}
    for value, where in ((1.0, f"with '{label}'"), (0.0, f"without '{label}'")):
        if compared.enough(truth == value):
            parts[where] = truth == value
    whole, lost = compared.difference(residual, parts[""]), compared.difference(taken[LOST], parts[""])
    difference = _interval(whole, compared.patients, alpha)
    beside, finer = compared.parts(label), taken.get(FINER)
    looked = [(where, compared.difference(residual, chosen), alpha / len(parts)) for where, chosen in parts.items()]
    looked.append((LOST, lost, alpha))
    if finer is not None:
        looked += [
            (FINER, compared.difference(finer, chosen), alpha / len(parts) if where else alpha)
            for where, chosen in parts.items()
        ]
    for values, name in ((residual, ""), (finer, FINER)):
        if values is not None:
            looked += [
                (name or where, compared.difference(values, chosen), alpha / len(beside))
                for where, chosen in beside.items()
            ]
    beyond = [
        where for where, one, level in looked if _reaches_beyond(_interval(one, compared.patients, level), margin)
    ]
    rest = _Difference(whole.estimate - float(effect.mean()), whole.influence - (effect - effect.mean()) / len(effect))
    return Unexplained(
        label=label,
        contrast=compared.contrast,
        difference=difference,
        rest=_interval(rest, compared.patients, alpha),
        beyond=bool(beyond),
        given=compared.given,
        where=beyond[0] if beyond else "",
        lost=_interval(lost, compared.patients, alpha),
        finer=None if finer is None else _interval(compared.difference(finer, parts[""]), compared.patients, alpha),
    )


def _interval(found: _Difference, codes: npt.NDArray[np.intp], alpha: float) -> Estimate:
    """Give the interval, clustered by patient."""
    sums = np.bincount(codes, weights=found.influence)
    count = int(np.count_nonzero(np.bincount(codes, weights=np.abs(found.influence))))
    count = max(count, 2)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1)))
    reach = float(stats.t.isf(alpha / 2, count - 1)) * error
    return Estimate(found.estimate, found.estimate - reach, found.estimate + reach)


def _reaches_beyond(estimate: Estimate, margin: float) -> bool:
    return estimate.low > margin or estimate.high < -margin
