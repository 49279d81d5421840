"""Nuisance learners: what `E[Yhat|Z]` and `p(A|Z)` are estimated with, cross-fitted on patient folds.

Outputs of a network have no noise given the image: what is left of them given Z is mostly what the learner missed. So
embeddings get learners of curves and products as well, and both sides are chosen by their cross-validated loss.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

from citlr.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Learners = Mapping[str, Any]
# A probability of exactly 0 or 1 would say that a redraw is impossible.
PROPENSITY_FLOOR = 0.01
_COMPONENTS = 300  # of a kernel
_RIDGE = np.logspace(-5, 5, 11)
# Steps before a model that do not look at the target.
_BLIND = (StandardScaler, Nystroem)
_SMALL = 20_000  # rows; below it, waking threads costs more than they do: 100 times more on a busy machine


def outcome_learners(seed: int = 0) -> dict[str, Any]:
    """Return the default regressors of Yhat on Z, unfitted: ridge with generalised cross-validation, and boosting."""
    return {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 5, 15))),
        "boosting": HistGradientBoostingRegressor(
            max_iter=60, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=seed
        ),
    }


def propensity_learners(seed: int = 0) -> dict[str, Any]:
    """Return the default classifiers of A on Z: the constant, logistic regression at three strengths, boosting.

    The constant is there because it is the truth where the representation has been made independent of the attribute.

    >>> sorted(propensity_learners())
    ['boosting', 'constant', 'logistic C=0.01', 'logistic C=0.1', 'logistic C=1']
    """
    learners: dict[str, Any] = {"constant": DummyClassifier(strategy="prior")}
    scaler = StandardScaler()
    for strength in (0.01, 0.1, 1):
        learners[f"logistic C={strength}"] = make_pipeline(scaler, LogisticRegression(C=strength, max_iter=2000))
    learners["boosting"] = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=seed
    )
    return learners


def embedding_outcome(seed: int = 0) -> dict[str, Any]:
    """Return `outcome_learners` with kernel ridge regression: products of two numbers of Z, and smooth curves."""
    kernels = {name: make_pipeline(StandardScaler(), kernel, RidgeCV(_RIDGE)) for name, kernel in _kernels(seed)}
    return outcome_learners(seed) | kernels


def embedding_propensity(seed: int = 0) -> dict[str, Any]:
    """Return `propensity_learners` with kernel logistic regression at three strengths.

    >>> len(embedding_propensity()) - len(propensity_learners())
    6
    """
    learners = propensity_learners(seed)
    for name, kernel in _kernels(seed):
        scaler = StandardScaler()
        for strength in (1, 10, 100):
            model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=200)
            learners[f"{name} C={strength}"] = make_pipeline(scaler, kernel, model)
    return learners


def _kernels(seed: int) -> tuple[tuple[str, Nystroem], ...]:
    """Give the kernels through features of at most 300 images, so that cost grows with n, not with its cube."""
    of_pairs = Nystroem(kernel="poly", degree=2, coef0=1, n_components=_COMPONENTS, random_state=seed)
    return ("products", of_pairs), ("curves", Nystroem(n_components=_COMPONENTS, random_state=seed))


@dataclass(frozen=True)
class Fit:
    """Out-of-fold predictions of the learner with the smallest cross-validated error.

    - `values` (n,): Each image's prediction by a model that saw no image of its patient.
    - `losses`: Cross-validated loss of every candidate: squared error, or log loss for a probability.
    """

    values: Floats
    chosen: str
    losses: dict[str, float]


def cross_fit_mean(z: Floats, y: Floats, folds: Integers, learners: Learners) -> Fit:
    """Cross-fit `m(z) = E[y | z]`, z (n, d), with every learner; keep the one with the smallest squared error."""
    fits = _out_of_fold(z, y, folds, learners, "predict")
    return _best(fits, {name: float(np.mean((y - fit) ** 2)) for name, fit in fits.items()})


def cross_fit_propensity(z: Floats, a: Floats, folds: Integers, learners: Learners) -> Fit:
    """Cross-fit `p(z) = P(A = 1 | z)` with every learner and keep the one with the smallest log loss."""
    fits = _out_of_fold(z, a, folds, learners, "predict_proba")
    clipped = {name: np.clip(fit, PROPENSITY_FLOOR, 1 - PROPENSITY_FLOOR) for name, fit in fits.items()}
    return _best(clipped, {name: float(-np.mean(np.log(np.where(a == 1, p, 1 - p)))) for name, p in clipped.items()})


def _best(fits: Mapping[str, Floats], losses: dict[str, float]) -> Fit:
    chosen = min(losses, key=lambda name: losses[name])
    return Fit(fits[chosen], chosen, losses)


def fit_best(learners: Learners, z: Floats, y: Floats, folds: Integers, *, probability: bool = False) -> Any:
    """Choose a learner by cross-validation and fit it on all of the rows; give its prediction function of z.

    >>> z = np.linspace(0, 1, 50)[:, None]
    >>> mean = fit_best(outcome_learners(), z, z[:, 0], np.arange(50) % 5)
    >>> round(float(mean(np.array([[0.5]]))[0]), 2)
    0.5
    """
    cross_fit = cross_fit_propensity if probability else cross_fit_mean
    chosen = next(iter(learners)) if len(learners) == 1 else cross_fit(z, y, folds, learners).chosen
    with few_threads(y.size):
        model = _fitted(learners[chosen], z, y)
    if not probability:
        return model.predict
    return lambda at: np.clip(_predicted(model, at, "predict_proba"), PROPENSITY_FLOOR, 1 - PROPENSITY_FLOOR)


@contextmanager
def few_threads(rows: int) -> Iterator[None]:
    """Keep numerical libraries on one thread while the data are small.

    >>> with few_threads(100):
    ...     pass
    """
    if rows >= _SMALL:
        yield
        return
    with _threads().limit(limits=1):
        yield


@cache
def _threads() -> ThreadpoolController:
    """Find the numerical libraries once: looking for them takes longer than a small fit."""
    return ThreadpoolController()


def _fitted(learner: Any, z: Floats, target: Floats | None) -> Any:
    """Fit a clone; a kernel has no more features than there are images, which is no news.

    Where all that is left to learn from has one level, as with a level that few patients have, that one is certain.
    """
    if target is not None and hasattr(learner, "predict_proba") and np.ptp(target) == 0:
        learner = DummyClassifier()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_components > n_samples")
        return clone(learner).fit(z, target)


def _predicted(model: Any, at: Floats, method: str) -> Floats:
    """Give the predicted means, or the chances of 1, which may not have been there to learn from."""
    if method == "predict":
        return np.asarray(model.predict(at))
    classes = list(model.classes_)
    return np.asarray(model.predict_proba(at)[:, classes.index(1.0)] if 1.0 in classes else np.zeros(len(at)))


class _Fold:
    """Images to learn from and images to predict, as the steps before a model see them.

    Those steps do not look at the target: models that share them, one after the other, share what they give.
    """

    def __init__(self, z: Floats, test: NDArray[np.bool_]) -> None:
        self.plain = self.seen = z[~test], z[test]
        self.steps: list[Any] = []

    def before(self, learner: Any) -> tuple[Any, tuple[Floats, Floats]]:
        """Give the model, and what it learns from and is asked."""
        if not (isinstance(learner, Pipeline) and all(isinstance(one, _BLIND) for _, one in learner.steps[:-1])):
            return learner, self.plain
        *steps, model = (one for _, one in learner.steps)
        if [id(one) for one in steps] != [id(one) for one in self.steps]:
            self.steps, self.seen = steps, self.plain
            for one in steps:
                step = _fitted(one, self.seen[0], None)
                self.seen = step.transform(self.seen[0]), step.transform(self.seen[1])
        return model, self.seen


def _out_of_fold(z: Floats, target: Floats, folds: Integers, learners: Learners, method: str) -> dict[str, Floats]:
    """Predict each fold by clones of the learners fitted on the others."""
    if not learners:
        raise InputError("No learner was given; pass at least one scikit-learn estimator by name.")
    for name, learner in learners.items():
        if not hasattr(learner, "fit") or not hasattr(learner, method):
            raise InputError(f"The learner '{name}' has no method {method}; pass a scikit-learn estimator that has.")
    out = {name: np.empty(target.size) for name in learners}
    with few_threads(target.size):
        for fold in np.unique(folds):
            test = folds == fold
            images = _Fold(z, test)
            for name, learner in learners.items():
                model, (known, asked) = images.before(learner)
                model = _fitted(model, known, target[~test])
                out[name][test] = _predicted(model, asked, method)
    return out
