"""Null and alternative families of (Z, A, Yhat): what the tests without a generator are certified on."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from citlr.errors import require_known

Floats = NDArray[np.float64]
EffectShape = Literal["none", "uniform", "zero-mean"]


@dataclass(frozen=True)
class ObservedSample:
    """Representation (n, k); attribute, decision, true `P(A=1|Z)`, patient and true label of each image (n,)."""

    z: Floats
    a: Floats
    y: Floats
    propensity: Floats
    patients: NDArray[np.intp]
    outcome: Floats

    @property
    def level(self) -> NDArray[np.str_]:
        """Attribute as words: "a" for 0, "b" for 1."""
        return np.where(self.a == 1, "b", "a")


@dataclass(frozen=True)
class ObservedFamily:
    """Decisions with chance `.1 + .7 sigmoid(2 w.z [+ z_1]) + A tau(z)`.

    - `confounded`: Whether `P(A=1|Z) = sigmoid(z_1 + z_2 / 2)` instead of one half; the decision then leans on z_1 as
      well.
    - `effect`: Size of tau.
    - `shape`: tau is 0, `effect`, or `effect` times the sign of the first feature.
    - `features`: k, at least 2.
    - `images_per_patient`: Images of a patient share the attribute and most of the representation.
    """

    confounded: bool = False
    effect: float = 0.0
    shape: EffectShape = "none"
    features: int = 8
    images_per_patient: int = 1

    def __post_init__(self) -> None:
        require_known(self.shape, get_args(EffectShape), f"shape is '{self.shape}'")

    def sample(self, rng: np.random.Generator, n: int) -> ObservedSample:
        """Draw `n` images, a multiple of `images_per_patient`; the weights w are drawn afresh too."""
        m, k = self.images_per_patient, self.features
        patient = rng.normal(size=(n // m, k))
        share = np.full(n // m, 0.5)
        if self.confounded:
            share = 1 / (1 + np.exp(-patient[:, 0] - 0.5 * patient[:, 1]))
        a = np.repeat((rng.random(n // m) < share).astype(float), m)
        z = np.repeat(patient, m, axis=0)
        if m > 1:
            z[:, 2:] += 0.5 * rng.normal(size=(n, k - 2))  # the features that go with the attribute are the patient's
        w = rng.normal(size=k) / np.sqrt(k)
        chance = 0.1 + 0.7 / (1 + np.exp(-2 * z @ w - self.confounded * z[:, 0]))
        tau = {"none": 0.0, "uniform": self.effect, "zero-mean": self.effect * np.sign(z[:, 0])}[self.shape]
        y = (rng.random(n) < np.clip(chance + a * tau, 0, 1)).astype(float)
        outcome = (rng.random(n) < chance).astype(float)
        return ObservedSample(z, a, y, np.repeat(share, m), np.repeat(np.arange(n // m), m), outcome)

    @property
    def root_mean_square(self) -> float:
        """True `sqrt(E[tau^2])`, the clipping at 0 aside (it makes the zero-mean effect a little smaller)."""
        return 0.0 if self.shape == "none" else abs(self.effect)
