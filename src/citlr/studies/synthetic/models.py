"""The models of the synthetic study: the publication's ten families, and a graded pool with both ends of the axis.

A model sees the observation X. Those of the graded pool also see the representation Z_T and a noise of their own, which
carry nothing of the attribute: `score = f(Z_T) + noise + strength * h(X)`, so that at strength 0 a model is exactly
invariant (and still not deterministic), and the larger the strength, the more of the attribute it lets through.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from citlr.errors import InputError
from citlr.simulators.tabular import TabularSample, TabularWorld

Floats = NDArray[np.float64]

# METHOD: the publication's pool. Each takes the seed of its own randomness.
FAMILIES: dict[str, Callable[[int], Any]] = {
    "linear SVC": lambda seed: SVC(kernel="linear", random_state=seed),
    "SVC, rbf": lambda seed: SVC(kernel="rbf", random_state=seed),
    "SVC, cubic": lambda seed: SVC(kernel="poly", degree=3, random_state=seed),
    "logistic regression": lambda seed: LogisticRegression(max_iter=1000),
    "decision tree": lambda seed: DecisionTreeClassifier(random_state=seed),
    "decision tree, depth 5": lambda seed: DecisionTreeClassifier(max_depth=5, random_state=seed),
    "random forest": lambda seed: RandomForestClassifier(50, random_state=seed),
    "gradient boosting": lambda seed: GradientBoostingClassifier(random_state=seed),
    "MLP (16, 8, 4)": lambda seed: MLPClassifier((16, 8, 4), max_iter=500, random_state=seed),
    "MLP (16, 4)": lambda seed: MLPClassifier((16, 4), max_iter=500, random_state=seed),
}
GRADED = "graded"
_OWN_NOISE = 0.3  # of the standardised score: about 10 % of the decisions flip between two draws at strength 0


@dataclass(frozen=True)
class Units:
    """What models see of m inputs: X (m, k), Z_T (m, k), and a standard normal number (m,) of their own."""

    x: Floats
    z: Floats
    own: Floats


@dataclass(frozen=True)
class Model:
    """A fitted model: decisions 0.0 or 1.0 on `Units`."""

    decide: Callable[[Units], Floats]


def fit_family(family: str, train: TabularSample, seed: int) -> Model:
    """Fit one of `FAMILIES` on X."""
    _two_classes(train)
    learner = FAMILIES[family](seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter=500 is the publication's setting
        learner.fit(train.x, train.label)
    return Model(lambda units: np.asarray(learner.predict(units.x), dtype=np.float64))


def fit_graded(strength: float, train: TabularSample) -> Model:
    """Fit a model of the graded pool, which lets `strength` times a score of X through."""
    _two_classes(train)
    scores = []
    for features in (train.z, train.x):
        learner = LogisticRegression(max_iter=1000).fit(features, train.label)
        raw = learner.decision_function(features)
        scores.append((learner, float(raw.mean()), float(raw.std()) or 1.0))
    (clean, centre, spread), (leaky, middle, width) = scores

    def decide(units: Units) -> Floats:
        score = (clean.decision_function(units.z) - centre) / spread + _OWN_NOISE * units.own
        if strength:
            score = score + strength * (leaky.decision_function(units.x) - middle) / width
        return np.asarray(score > -centre / spread, dtype=np.float64)

    return Model(decide)


def _two_classes(train: TabularSample) -> None:
    if np.ptp(train.label) == 0:
        raise InputError(
            f"The {len(train)} training labels are all {int(train.label[0])}; give more units or the balanced option."
        )


def decisions(
    model: Model, world: TabularWorld, z: Floats, *, draws: int, seed: int, shared: bool
) -> NDArray[np.float64]:
    """Redraw each unit under both levels by the world's own equations and decide.

    Shapes: `z` (n, k); gives (n, 2, draws).
    """
    x = world.counterfactuals(z, draws=draws, seed=seed, shared_noise=shared)
    n, k = z.shape
    own = np.random.default_rng([seed, 2]).normal(size=x.shape[:3])
    units = Units(x=x.reshape(-1, k), z=np.broadcast_to(z[:, None, None], x.shape).reshape(-1, k), own=own.reshape(-1))
    return model.decide(units).reshape(n, 2, draws)


def factual(model: Model, sample: TabularSample, x: Floats, seed: int) -> Floats:
    """Decide once on a sample as it came (`x=sample.x`) or as its counterfactual; the seed is the model's own noise."""
    own = np.random.default_rng([seed, 3]).normal(size=len(sample))
    return model.decide(Units(x=x, z=sample.z, own=own))
