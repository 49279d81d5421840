"""Lower confidence bound of the root mean square effect, on sequential splits."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.dummy import DummyRegressor

from citlr.errors import InputError
from citlr.invariance.observational.learners import (
    Learners,
    cross_fit_mean,
    embedding_outcome,
    embedding_propensity,
    fit_best,
    outcome_learners,
)
from citlr.invariance.observational.nuisances import Observations, assign, patient_folds

Floats = NDArray[np.float64]
_BLOCKS = 3
FEWEST_PATIENTS = 10 * _BLOCKS
_FOLDS = 5  # inside a training block


@dataclass(frozen=True)
class Bound:
    """The bound with the one-sided test that it inverts."""

    statistic: float
    pvalue: float
    log10_pvalue: float
    rms_low: float
    learners: tuple[str, ...]
    note: str


def sequential_bound(
    data: Observations,
    propensity: ArrayLike | None,
    *,
    outcome: Learners | None,
    treatment: Learners | None,
    alpha: float,
    seed: int,
) -> Bound:
    """Learn on the blocks before, try on the next; pool the trials by their number of images."""
    if data.n_patients < FEWEST_PATIENTS:
        raise InputError(f"The lower bound needs {FEWEST_PATIENTS} patients, found {data.n_patients}.")
    rng = np.random.default_rng([seed, 3])
    block = patient_folds(data.cluster, _BLOCKS, rng)
    regressors, classifiers = outcome, treatment
    if regressors is None:
        regressors = outcome_learners(seed) if propensity is not None else embedding_outcome(seed)
    if classifiers is None:
        classifiers = embedding_propensity(seed)
    known = None
    if propensity is not None:
        given = assign(data, propensity)
        known = given.p[given.unit]
    total = estimate = variance = 0.0
    for k in range(1, _BLOCKS):
        train, test = block < k, block == k
        q, d = _trial(data, (train, test), known, (regressors, classifiers), rng)
        ratio, square = _ratio(q, d, data.cluster[test])
        weight = float(test.sum())
        total, estimate, variance = total + weight, estimate + weight * ratio, variance + weight**2 * square
    ratio, error = estimate / total, sqrt(variance) / total
    if error == 0:
        return Bound(0.0, 1.0, 0.0, 0.0, tuple(regressors), "p = 1: no effect was learnt")
    freedom = data.n_patients * (_BLOCKS - 1) // _BLOCKS - (_BLOCKS - 1)
    t = ratio / error
    low = max(0.0, ratio - float(stats.t.ppf(1 - alpha, freedom)) * error)
    log_p = max(float(stats.t.logsf(t, freedom)) / log(10), -300.0)
    # The bound is on sqrt(E[v tau^2]); v = p (1 - p) <= 1/4 turns it into one on sqrt(E[tau^2]).
    return Bound(t, float(10**log_p), log_p, 2 * low, tuple(regressors), "")


def _trial(
    data: Observations,
    split: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    known: Floats | None,
    learners: tuple[Learners, Learners],
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Learn m, p and tau on the first part; give `(Yhat - mhat)(A - p) tauhat` and `v tauhat^2` on the second.

    `learners` are regressors of the output and classifiers of the attribute.
    """
    (train, test), (regressors, classifiers) = split, learners
    codes = np.unique(data.cluster[train], return_inverse=True)[1]
    folds = patient_folds(codes, min(_FOLDS, int(codes.max()) + 1), rng)
    z, a, y = data.z[train], data.a[train], data.y[train]
    fit = cross_fit_mean(z, y, folds, regressors)
    inside, mean = fit.values, fit_best({fit.chosen: regressors[fit.chosen]}, z, y, folds)
    if known is None:
        chance = fit_best(classifiers, np.column_stack([z, inside]), a, folds, probability=True)
        p_train, p_test = (chance(np.column_stack(on)) for on in ((z, inside), (data.z[test], mean(data.z[test]))))
    else:
        p_train, p_test = known[train], known[test]
    # E[(Yhat - m)(A - p) / v | Z] = tau(Z), so that any regressor of this pseudo-outcome on Z learns the effect.
    pseudo = (y - inside) * (a - p_train) / (p_train * (1 - p_train))
    effect = fit_best({"constant": DummyRegressor(), **regressors}, z, pseudo, folds)
    tau = np.asarray(effect(data.z[test]))
    q = (data.y[test] - mean(data.z[test])) * (data.a[test] - p_test) * tau
    return np.asarray(q), np.asarray(p_test * (1 - p_test) * tau**2)


def _ratio(q: Floats, d: Floats, cluster: NDArray[np.intp]) -> tuple[float, float]:
    """`mean(q) / sqrt(mean(d))` with its variance by the delta method, clustered by patient."""
    size = float(d.mean())
    if size <= 1e-20:
        return 0.0, 0.0
    ratio = float(q.mean()) / sqrt(size)
    codes = np.unique(cluster, return_inverse=True)[1]
    each = (q - q.mean()) / sqrt(size) - ratio * (d - size) / (2 * size)
    influence = np.bincount(codes, weights=each) / q.size
    n = influence.size
    return ratio, n / (n - 1) * float(np.sum(influence**2))
