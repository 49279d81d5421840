"""CIT-LR as published: two networks, one split, one paired t-test; a baseline with its measured size beside it.

The null is `E[Yhat g(A,Z)] = E[Yhat h(Z)]` with `g(a,z) = E[Yhat | A=a, Z=z]` and `h(z) = E[Yhat | Z=z]`. On half of
the data g and h are learnt, on the other half `Yhat ghat` and `Yhat hhat` are compared. The two estimates differ in
their errors even where g = h, to first order, so the test rejects true nulls: how often is in `MEASURED_SIZE`, and
every result carries it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from citlr.errors import InputError
from citlr.invariance.observational.learners import few_threads
from citlr.invariance.observational.nuisances import Observations, patient_folds
from citlr.invariance.parity import Found

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredSize:
    """How often the published test rejected true nulls at 5 %, and with how much data.

    - `n_train`, `n_test`: Images that g and h were learnt on, and that the t-test was made on.
    - `rejections`, `reps`: Data redrawn and both networks refitted in each repetition.
    - `low`, `high`: Exact binomial 95 % bounds (Clopper-Pearson) of the rate.
    """

    n_train: int
    n_test: int
    rejections: int
    reps: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Share of true nulls rejected."""
        return self.rejections / self.reps


def measured(n_train: int, n_test: int, rejections: int, reps: int) -> MeasuredSize:
    """Build a row of the table from counts.

    >>> row = measured(100, 100, 10, 100)
    >>> round(row.rate, 2), round(row.low, 3), round(row.high, 3)
    (0.1, 0.049, 0.176)
    """
    bounds = stats.binomtest(rejections, reps).proportion_ci(0.95, "exact")
    return MeasuredSize(n_train, n_test, rejections, reps, float(bounds.low), float(bounds.high))


# Made by `citlr calibrate` (docs/calibration.md): 32 features, an attribute by the toss of a coin that nothing depends
# on, noisy and deterministic decisions pooled.
MEASURED_SIZE: tuple[MeasuredSize, ...] = (
    measured(100, 100, 43, 200),
    measured(250, 250, 34, 200),
    measured(500, 500, 26, 200),
    measured(800, 200, 12, 200),
    measured(800, 4000, 40, 100),
    measured(1000, 1000, 34, 200),
)


@dataclass(frozen=True)
class PublishedResult(Found):
    """One published CIT-LR test, which has no direction.

    - `statistic`: Paired t of `Yhat ghat - Yhat hhat` on the test half.
    - `estimate`, `low`, `high`: Mean of the difference with its 95 % interval, as the published test would have it.
    - `n_images`, `n_patients`: Images at the two levels, and whose they are.
    - `size`: The measured size nearest to these numbers of images: what a p below 5 % is worth.
    - `note`: The size in words; with degenerate predictions, why p is 1.
    """

    n_train: int
    n_test: int
    size: MeasuredSize
    note: str

    def __str__(self) -> str:
        return f"published CIT-LR {self.contrast[0]} / {self.contrast[1]}: p = {self.pvalue:.3g}. {self.note}"


def published_cit_lr(
    representation: ArrayLike,
    level: ArrayLike,
    prediction: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    contrast: Sequence[str] | None = None,
    train_fraction: float = 0.5,
    train: ArrayLike | None = None,
    hidden: tuple[int, ...] = (64, 32),
    epochs: int = 1000,
    seed: int = 0,
) -> PublishedResult:
    """Run Algorithm 1 of the publication on (Z, A, Yhat): `representation` (n, d), all else (n,)."""
    data = Observations.of(representation, level, prediction, patients=patients, contrast=contrast)
    if not 0 < train_fraction < 1:
        raise InputError(f"train_fraction must lie between 0 and 1, found {train_fraction}.")
    rng = np.random.default_rng(seed)
    chosen = _training_rows(data.cluster, train_fraction, rng) if train is None else _given_rows(train, data)
    n_train, n_test = int(chosen.sum()), int((~chosen).sum())
    if min(n_train, n_test) < 2:
        raise InputError(
            f"The published test needs two images in each half, found {n_train} and {n_test}; give more patients or "
            "another train_fraction."
        )
    size = nearest_size(n_train, n_test)
    words = (
        f"Measured size at 5 %: {size.rate:.1%} ({size.low:.1%} to {size.high:.1%}; {size.n_train} training, "
        f"{size.n_test} test images)"
    )
    base = PublishedResult(
        "published_cit_lr",
        data.contrast,
        0.0,
        1.0,
        0.0,
        0.0,
        0.0,
        data.y.size,
        data.n_patients,
        n_train,
        n_test,
        size,
        words,
    )
    if np.ptp(data.y[chosen]) == 0 or np.ptp(data.y[~chosen]) == 0:
        return replace(base, note=f"p = 1: the predictions of a half are all equal. {words}")
    inputs = np.column_stack([data.z, data.a])
    seeds = rng.integers(0, 2**31 - 1, 2)
    g = _learn(inputs[chosen], data.y[chosen], hidden, epochs, int(seeds[0])).predict(inputs[~chosen])
    h = _learn(data.z[chosen], data.y[chosen], hidden, epochs, int(seeds[1])).predict(data.z[~chosen])
    left, right = data.y[~chosen] * g, data.y[~chosen] * h
    if np.ptp(left - right) == 0:
        return replace(base, note=f"p = 1: Yhat g and Yhat h differ by a constant. {words}")
    test = stats.ttest_rel(left, right)
    interval = test.confidence_interval(0.95)
    return replace(
        base,
        statistic=float(test.statistic),
        pvalue=max(float(test.pvalue), float(np.finfo(float).tiny)),
        estimate=float(np.mean(left - right)),
        low=float(interval.low),
        high=float(interval.high),
    )


def nearest_size(n_train: int, n_test: int) -> MeasuredSize:
    """Return the row of `MEASURED_SIZE` nearest on the log scale of both numbers of images."""
    here = np.log([n_train, n_test])
    return min(MEASURED_SIZE, key=lambda row: float(np.sum((np.log([row.n_train, row.n_test]) - here) ** 2)))


def _training_rows(cluster: NDArray[np.intp], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Rows of a random share of the patients."""
    order = patient_folds(cluster, int(cluster.max()) + 1, rng)  # a fold per patient: a random order of patients
    n_patients = int(order.max()) + 1
    return np.asarray(order < round(fraction * n_patients))


def _given_rows(train: ArrayLike, data: Observations) -> NDArray[np.bool_]:
    """Check a split that was given: one entry per image, all of the contrast's, and no patient on both sides."""
    mask = np.asarray(train)
    if mask.dtype != bool or mask.shape != data.y.shape:
        raise InputError(f"train must be {data.y.size} truth values, one per image, found {mask.dtype} {mask.shape}.")
    if np.intersect1d(data.cluster[mask], data.cluster[~mask]).size:
        raise InputError("A patient is in both halves of the given split; split by patient.")
    return mask


def _learn(inputs: Floats, target: Floats, hidden: tuple[int, ...], epochs: int, seed: int) -> MLPRegressor:
    """Fit one network; stopping at the last epoch is the published procedure, so sklearn's advice is muted."""
    network = MLPRegressor(hidden_layer_sizes=hidden, max_iter=epochs, random_state=seed)
    with warnings.catch_warnings(), few_threads(target.size):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), network).fit(inputs, target)
