"""What the tests without a generator share: residuals of the output and of the attribute, patient by patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError
from citlr.invariance.observational.learners import (
    Learners,
    cross_fit_mean,
    cross_fit_propensity,
    outcome_learners,
    propensity_learners,
)
from citlr.invariance.observational.observations import Observations, patient_folds

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True)
class Assignment:
    """How the attribute is distributed given the representation, unit by unit of randomisation.

    - `unit` (n,): Unit of each image: its patient where the attribute belongs to the patient, the image itself
      otherwise.
    - `a`, `p` (units,): Attribute (0 or 1) and its probability of being 1.
    - `source`: Whether `p` was given or cross-fitted.
    """

    unit: Integers
    a: Floats
    p: Floats
    source: Literal["known", "estimated"]
    learner: str
    note: str = ""


@dataclass(frozen=True)
class Nuisances:
    """Cross-fitted residuals.

    - `residual` (n,): `e = Yhat - mhat(Z)`; fitted without the attribute, so that redrawing the attribute leaves it as
      it is.
    """

    residual: Floats
    assignment: Assignment
    learner: str


def assign(
    data: Observations, propensity: ArrayLike | None, *, folds: int = 5, learners: Learners | None = None, seed: int = 0
) -> Assignment:
    """Resolve `p(A | Z)`: the one given, or cross-fitted on patient folds.

    Where every patient has one level, the attribute belongs to the patient: one probability per patient, estimated on
    the mean representation of the patient's images.

    Shapes: `propensity` (n,).
    """
    by_patient = data.constant_within_patient
    unit = data.cluster if by_patient else np.arange(data.a.size)
    first = np.unique(unit, return_index=True)[1]
    a = data.a[first]
    note = "" if by_patient else "the attribute varies within patients and is redrawn image by image"
    if propensity is not None:
        p = _known(propensity, data)
        if np.any(np.abs(p - p[first][unit]) > 1e-9):
            raise InputError(
                "The known propensity differs between images of one patient, whose level is one and the same."
            )
        return Assignment(unit, a, p[first], "known", "given", note)
    count = np.bincount(unit)[:, None]
    z = np.column_stack([np.bincount(unit, weights=column) for column in data.z.T]) / count
    cluster = data.cluster[first]
    rng = np.random.default_rng([seed, 1])
    chosen = propensity_learners(seed) if learners is None else learners
    fit = cross_fit_propensity(z, a, patient_folds(cluster, min(folds, data.n_patients), rng), chosen)
    return Assignment(unit, a, fit.values, "estimated", fit.chosen, note)


def fit_nuisances(
    data: Observations,
    propensity: ArrayLike | None = None,
    *,
    folds: int = 5,
    outcome: Learners | None = None,
    treatment: Learners | None = None,
    seed: int = 0,
) -> Nuisances:
    """Cross-fit everything that the tests need, once.

    - `propensity` (n,): Known `P(A = a' | Z, A in contrast)`; cross-fitted without it, and the distilled test is then
      only approximate.
    - `outcome`, `treatment`: Candidate learners of `E[Yhat|Z]` and `p(A|Z)`, see `learners.py`.
    """
    assignment = assign(data, propensity, folds=folds, learners=treatment, seed=seed)
    if np.ptp(data.y) == 0:
        return Nuisances(np.zeros(data.y.size), assignment, "none")
    rng = np.random.default_rng([seed, 0])
    chosen = outcome_learners(seed) if outcome is None else outcome
    fit = cross_fit_mean(data.z, data.y, patient_folds(data.cluster, min(folds, data.n_patients), rng), chosen)
    return Nuisances(data.y - fit.values, assignment, fit.chosen)


def _known(propensity: ArrayLike, data: Observations) -> Floats:
    p = np.asarray(propensity, dtype=float)
    if p.ndim == 1 and p.size != data.a.size and p.size > int(data.rows.max()):
        p = p[data.rows]  # given for all rows, of which the contrast uses some
    if p.shape != data.a.shape:
        raise InputError(f"The known propensity has shape {p.shape}; give one number per image.")
    if not np.all((p > 0) & (p < 1)):
        raise InputError("A known propensity is missing or not inside (0, 1); units with a certain level say nothing.")
    return p
