"""What the tests without a generator share: observations, and residuals of output and attribute, patient by patient."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import expit, logit
from sklearn.ensemble import ExtraTreesRegressor

from citlr.errors import InputError
from citlr.invariance.arrays import pair_of, require_chances, require_named, unmasked
from citlr.invariance.observational.learners import (
    PROPENSITY_FLOOR,
    Learners,
    cross_fit_mean,
    cross_fit_propensity,
    embedding_outcome,
    embedding_propensity,
    outcome_learners,
    propensity_learners,
)
from citlr.text import listed

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
# Trees read 32 bits, which end at 3.4e38; no embedding comes near, and what stands for "not known" may lie there.
LARGEST = 1e37


@dataclass(frozen=True)
class Observations:
    """Images at two levels of an attribute, with their representation and the output of the model under audit.

    - `z` (n, d): Representation.
    - `a` (n,): 1 at the second level of the contrast, 0 at the first.
    - `y` (n,): Output in [0, 1].
    - `cluster` (n,): Patient of each image, coded 0..n_patients-1.
    - `contrast`: `(a, a')`.
    - `rows` (n,): Which of the rows given these are; rows at other levels are left aside.
    """

    z: Floats
    a: Floats
    y: Floats
    cluster: Integers
    contrast: tuple[str, str]
    rows: Integers

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return int(self.cluster.max()) + 1

    @property
    def constant_within_patient(self) -> bool:
        """Whether every patient has one level."""
        ones = np.bincount(self.cluster, weights=self.a)
        return bool(np.all((ones == 0) | (ones == np.bincount(self.cluster))))

    @classmethod
    def of(
        cls,
        representation: ArrayLike,
        level: ArrayLike,
        prediction: ArrayLike,
        *,
        patients: ArrayLike | None = None,
        contrast: Sequence[str] | None = None,
    ) -> Self:
        """Check the arrays and keep the rows of the contrast."""
        require_named(level, "level")
        z, y, level_ = unmasked(representation, "z"), unmasked(prediction, "prediction"), np.asarray(level)
        z = z[:, None] if z.ndim == 1 else z
        who = np.arange(len(level_)) if patients is None else patients
        require_named(who, "patient")
        who = np.asarray(who)
        if z.ndim != 2 or y.ndim != 1 or not len(z) == len(y) == len(level_) == len(who):
            raise InputError(
                f"Representation, level, prediction and patients must have one row per image, found shapes {z.shape}, "
                f"{level_.shape}, {y.shape}, {who.shape}."
            )
        if not z.shape[1]:
            raise InputError("The representation has no column; give at least one number for each image.")
        if not np.all(np.isfinite(z)):
            raise InputError(f"The representation has {int(np.sum(~np.isfinite(z)))} missing or infinite values.")
        _require_size(z)
        require_chances(y)
        names = level_.astype(str)
        pair = _contrast(names, contrast)
        rows = np.flatnonzero((names == pair[0]) | (names == pair[1]))
        # As they come, whatever they are called: folds are drawn by these numbers.
        cluster = np.asarray(pd.factorize(who[rows])[0], dtype=np.intp)
        if int(cluster.max()) < 3:
            raise InputError(f"A test without a generator needs at least 4 patients, found {int(cluster.max()) + 1}.")
        return cls(z[rows], (names[rows] == pair[1]).astype(float), y[rows], cluster, pair, rows)


def _require_size(z: Floats) -> None:
    """Refuse numbers that the learners cannot take."""
    image, column = np.unravel_index(int(np.abs(z).argmax()), z.shape)
    if abs(z[image, column]) > LARGEST:
        raise InputError(
            f"The representation holds {z[image, column]:.3g} in column {column + 1} of image {image}, and numbers up "
            f"to {LARGEST:.0e} can be learnt from: fill in what stands for 'not known' there, or divide the column."
        )


def patient_folds(cluster: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Give each image (n,) the fold of its patient; folds hold equally many patients, within one."""
    n_patients = int(cluster.max()) + 1
    if not 2 <= folds <= n_patients:
        raise InputError(f"{folds} folds cannot be made of {n_patients} patients; give 2 to {n_patients}.")
    return np.asarray(rng.permutation(n_patients)[cluster] % folds, dtype=np.intp)


def _contrast(names: NDArray[Any], contrast: Sequence[str] | None) -> tuple[str, str]:
    """Resolve the two levels to compare."""
    if contrast is not None:
        return pair_of(names, contrast)
    present = [str(name) for name in np.unique(names)]
    if len(present) != 2:
        raise InputError(f"There are {len(present)} levels ({listed(present)}); name two of them as contrast.")
    return present[0], present[1]


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
    - `slopes`: By how much the logit of the level goes with what was learnt of the outputs; none where p is known.
    - `foretold`: p of whether trees that had no part in the fit still foretell `A - p` from Z; 1 where p is known.
    """

    residual: Floats
    assignment: Assignment
    learner: str
    slopes: tuple[float, ...] = ()
    foretold: float = 1.0


def assign(
    data: Observations, propensity: ArrayLike | None, *, folds: int = 5, learners: Learners | None = None, seed: int = 0
) -> Assignment:
    """Resolve `p(A | Z)`: the one given, or cross-fitted on patient folds.

    Where every patient has one level, the attribute belongs to the patient: one probability per patient, estimated on
    the mean representation of the patient's images.
    """
    by_patient = data.constant_within_patient
    unit = data.cluster if by_patient else np.arange(data.a.size)
    first = np.unique(unit, return_index=True)[1]
    a = data.a[first]
    note = "" if by_patient else "the attribute varies within patients and is redrawn image by image"
    if propensity is not None:
        p = known_propensity(propensity, data)
        if np.any(np.abs(p - p[first][unit]) > 1e-9):
            raise InputError(
                "The known propensity differs between images of one patient, whose level is one and the same."
            )
        return Assignment(unit, a, p[first], "known", "given", note)
    z, cluster = _of_units(data.z, unit), data.cluster[first]
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

    A propensity that is not known is fitted on Z and on what Z tells of the outputs, as a misfit does harm where the
    two go together; outputs without noise teach more of such a direction than levels do.

    - `propensity` (n,): Known `P(A = a' | Z, A in contrast)`; cross-fitted without it, and the distilled test is then
      only approximate.
    - `outcome`, `treatment`: Candidate learners of `E[Yhat|Z]` and `p(A|Z)`, see `learners.py`.
    """
    if np.ptp(data.y) == 0:
        assignment = assign(data, propensity, folds=folds, learners=treatment, seed=seed)
        return Nuisances(np.zeros(data.y.size), assignment, "none")
    rng = np.random.default_rng([seed, 0])
    chosen = outcome
    if chosen is None:
        chosen = embedding_outcome(seed) if propensity is None else outcome_learners(seed)
    fold = patient_folds(data.cluster, min(folds, data.n_patients), rng)
    fit = cross_fit_mean(data.z, data.y, fold, chosen)
    if propensity is not None:
        return Nuisances(data.y - fit.values, assign(data, propensity), fit.chosen)
    seen = replace(data, z=np.column_stack([data.z, fit.values]))
    classifiers = embedding_propensity(seed) if treatment is None else treatment
    assignment = assign(seen, None, folds=folds, learners=classifiers, seed=seed)
    slopes, foretold = _slopes(data, fit.values, fold, seed), _foretold(seen, assignment, seed)
    return Nuisances(data.y - fit.values, assignment, fit.chosen, slopes, foretold)


def misfit(fits: Nuisances, slope: float) -> Assignment:
    """Give the assignment if the residual were misfit, and the logit of the level went with it by this slope."""
    given = fits.assignment
    left = _of_units(fits.residual[:, None], given.unit)[:, 0]
    p = expit(logit(given.p) + slope * left)
    return replace(given, p=np.clip(p, PROPENSITY_FLOOR, 1 - PROPENSITY_FLOOR))


def _slopes(data: Observations, fitted: Floats, folds: Integers, seed: int) -> tuple[float, ...]:
    """Estimate by how much the level's logit goes with what `fitted` has learnt of the outputs: all, and beyond lines.

    The upper 95 % bounds of their size; what is not significant is left out.
    """
    lines = cross_fit_mean(data.z, data.y, folds, {"ridge": outcome_learners(seed)["ridge"]}).values
    linear = {name: one for name, one in propensity_learners(seed).items() if name != "boosting"}
    known = assign(data, None, learners=linear, seed=seed)
    cluster = data.cluster[np.unique(known.unit, return_index=True)[1]]
    found = []
    for chance, before in ((known.a.mean(), data.y.mean()), (known.p, lines)):
        learnt, missed = _of_units(np.column_stack([fitted - before, data.y - before]), known.unit).T
        sums = np.bincount(cluster, weights=(known.a - chance) * learnt)
        error, load = sqrt(sums.size) * float(sums.std(ddof=1)), float(learnt @ missed)
        total = abs(float(sums.sum()))
        if load > 0 and total > stats.norm.isf(0.025) * error:
            size = (total + stats.norm.isf(0.05) * error) / load / float(np.mean(known.p * (1 - known.p)))
            found.append(float(np.copysign(size, sums.sum())))
    return tuple(found)


def _of_units(z: Floats, unit: Integers) -> Floats:
    """Average the representation over the images of a unit."""
    return np.column_stack([np.bincount(unit, weights=column) for column in z.T]) / np.bincount(unit)[:, None]


def _foretold(data: Observations, assignment: Assignment, seed: int) -> float:
    """Test whether `A - p` is foretold from Z: cross-fitted trees, clustered by patient, one-sided."""
    unit, left = assignment.unit, assignment.a - assignment.p
    cluster = data.cluster[np.unique(unit, return_index=True)[1]]
    folds = patient_folds(cluster, min(5, data.n_patients), np.random.default_rng([seed, 4]))
    trees = ExtraTreesRegressor(100, min_samples_leaf=5, max_features=1 / 3, random_state=seed)
    told = cross_fit_mean(_of_units(data.z, unit), left, folds, {"trees": trees}).values
    sums = np.bincount(cluster, weights=left * told)
    spread = float(sums.std(ddof=1))
    return float(stats.t.sf(sqrt(sums.size) * float(sums.mean()) / spread, sums.size - 1)) if spread > 0 else 1.0


def known_propensity(propensity: ArrayLike, data: Observations) -> Floats:
    """Check a propensity that was given, of all rows or of those of the contrast, and keep the latter: (n,)."""
    p = unmasked(propensity, "propensity")
    if p.ndim == 1 and p.size != data.a.size and p.size > int(data.rows.max()):
        p = p[data.rows]  # given for all rows, of which the contrast uses some
    if p.shape != data.a.shape:
        raise InputError(f"The known propensity has shape {p.shape}; give one number per image.")
    if not np.all((p > 0) & (p < 1)):
        raise InputError("A known propensity is missing or not inside (0, 1); units with a certain level say nothing.")
    return p
