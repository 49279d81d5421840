"""(Z, A, Yhat, patient), checked once: what every test without a generator starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError, did_you_mean

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


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
    ) -> Observations:
        """Check the arrays and keep the rows of the contrast.

        >>> data = Observations.of([[0.1], [0.2], [0.3], [0.4]], list("fmfm"), [0, 1, 0, 1])
        >>> data.contrast, data.a.tolist(), data.n_patients
        (('f', 'm'), [0.0, 1.0, 0.0, 1.0], 4)
        """
        z, y, level_ = np.asarray(representation, dtype=float), np.asarray(prediction, dtype=float), np.asarray(level)
        z = z[:, None] if z.ndim == 1 else z
        who = np.arange(len(level_)) if patients is None else np.asarray(patients)
        if z.ndim != 2 or y.ndim != 1 or not len(z) == len(y) == len(level_) == len(who):
            raise InputError(
                f"Representation, level, prediction and patients must have one row per image, found shapes {z.shape}, "
                f"{level_.shape}, {y.shape}, {who.shape}."
            )
        if not np.all(np.isfinite(z)):
            raise InputError(f"The representation has {int(np.sum(~np.isfinite(z)))} missing or infinite values.")
        if not np.all((y >= 0) & (y <= 1)):
            bad = int(np.sum(~((y >= 0) & (y <= 1))))
            raise InputError(f"{bad} predictions are missing or outside [0, 1]; give probabilities or decisions.")
        names = level_.astype(str)
        pair = _contrast(names, contrast)
        rows = np.flatnonzero((names == pair[0]) | (names == pair[1]))
        cluster = np.unique(who[rows], return_inverse=True)[1]
        if int(cluster.max()) < 3:
            raise InputError(f"A test without a generator needs at least 4 patients, found {int(cluster.max()) + 1}.")
        return cls(z[rows], (names[rows] == pair[1]).astype(float), y[rows], cluster, pair, rows)


def patient_folds(cluster: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Give each image the fold of its patient; folds hold equally many patients, within one.

    Shapes: `cluster` (n,); gives (n,).
    """
    n_patients = int(cluster.max()) + 1
    if not 2 <= folds <= n_patients:
        raise InputError(f"{folds} folds cannot be made of {n_patients} patients; give 2 to {n_patients}.")
    return np.asarray(rng.permutation(n_patients)[cluster] % folds, dtype=np.intp)


def _contrast(names: NDArray[Any], contrast: Sequence[str] | None) -> tuple[str, str]:
    """Resolve the two levels to compare."""
    present = [str(name) for name in np.unique(names)]
    if contrast is None:
        if len(present) != 2:
            raise InputError(f"There are {len(present)} levels ({', '.join(present)}); name two of them as contrast.")
        return present[0], present[1]
    if len(contrast) != 2 or contrast[0] == contrast[1]:
        raise InputError(f"A contrast is two different levels, found {tuple(contrast)}.")
    for name in contrast:
        if str(name) not in present:
            raise InputError(f"No image has level '{name}'.{did_you_mean(str(name), present)}")
    return str(contrast[0]), str(contrast[1])
