"""The publication's six tabular worlds, with counterfactuals that are exact.

A unit has a representation `Z_T`, an attribute `A` that is independent of it, an observation `X` that carries both, and
a label `Y` that depends on `Z_T` alone: a perfect classifier is invariant, a real one reads `A` off `X`. Redrawing a
unit under the other level uses the same matrices and the same noise with `1 - A`; the published notebook drew new
matrices, so what it called a counterfactual belonged to another world.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from citlr.errors import InputError, require_known

Floats = NDArray[np.float64]
SetName = Literal["linear", "quadratic", "exponential", "interactive", "log-scale", "sin"]
SETS: tuple[SetName, ...] = get_args(SetName)

_WEIGHT: dict[SetName, float] = {"quadratic": 4.0}  # half-width of w; 1 elsewhere
_INTERCEPT: dict[SetName, float] = {
    "linear": -1.5,
    "quadratic": 20.0,
    "exponential": 10.0,
    "interactive": 0.0,
    "log-scale": 5.0,
    "sin": 0.0,
}
_ATTRIBUTE_SHARE = 0.5


@dataclass(frozen=True)
class TabularSample:
    """Units of one world, with the noise that makes their counterfactuals exact.

    - `z` (n, k): Representation `Z_T`: everything but the attribute.
    - `attribute` (n,): `A` in {0, 1}.
    - `x` (n, k): Observation that a classifier sees.
    - `label` (n,): `Y` in {0, 1}.
    - `noise` (n, T + 1, k): Exogenous noise of the T steps and of the observation.
    """

    z: Floats
    attribute: NDArray[np.int64]
    x: Floats
    label: NDArray[np.int64]
    noise: Floats

    def __len__(self) -> int:
        return int(self.attribute.size)


@dataclass(frozen=True)
class TabularWorld:
    """One of the six structural causal models, with one realisation of its parameters.

    `Z_t = A M_t Z_{t+1} + (1 - A) N_t Z_{t+1} + xi_t`, `X = M_X Z_0 + r + eps`, `Y = 1[sigmoid(u(Z_T)) >= 1/2]`.
    `M_t`, `N_t` have entries U(-10, 10) with rows divided by their L1 norm; `M_X`, `r` have entries U(-1, 1).

    - `name`: Form of `u`.
    - `seed`: Draws the parameters; the same name and seed give the same world, bit for bit.
    - `balanced`: Replace the intercept so that half the units are positive. As published, the quadratic and exponential
      sets are 89-99 % positive. The log-scale set is balanced by construction and keeps its intercept.
    - `features`, `steps`: k and T.
    - `noise`: Standard deviation of every `xi_t` and of `eps`; 0 makes the world deterministic.
    """

    name: SetName
    seed: int = 0
    balanced: bool = False
    features: int = 32
    steps: int = 3
    noise: float = 0.01
    maps: Floats = field(init=False, repr=False, compare=False)  # (2, T, k, k): N_t under A=0, M_t under A=1
    observation: Floats = field(init=False, repr=False, compare=False)  # (k, k)
    offset: Floats = field(init=False, repr=False, compare=False)  # (k,)
    weight: Floats = field(init=False, repr=False, compare=False)  # (k,), or (k, k) for the interactive set
    intercept: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_known(self.name, SETS, f"There is no tabular set '{self.name}'")
        if self.features < 2 or self.steps < 1 or not self.noise >= 0:
            raise InputError(
                f"A tabular world needs at least 2 features, 1 step and a noise >= 0, found "
                f"{self.features}, {self.steps}, {self.noise}."
            )
        rng = np.random.default_rng([SETS.index(self.name), self.seed])
        k = self.features
        maps = rng.uniform(-10, 10, (2, self.steps, k, k))
        maps /= np.abs(maps).sum(axis=-1, keepdims=True)
        width = _WEIGHT.get(self.name, 1.0)
        weight = rng.uniform(-width, width, (k, k) if self.name == "interactive" else k)
        if self.name == "interactive":
            np.fill_diagonal(weight, 0.0)
        drawn = {
            "maps": maps,
            "observation": rng.uniform(-1, 1, (k, k)),
            "offset": rng.uniform(-1, 1, k),
            "weight": weight,
            "intercept": float(rng.normal(_INTERCEPT[self.name], 1.0)),
        }
        for key, value in drawn.items():
            object.__setattr__(self, key, value)
        if self.balanced:
            reference = rng.normal(size=(20_000, k))
            object.__setattr__(self, "intercept", _nearest_to_half(self._shape(reference), self.intercept))

    def sample(self, n: int, *, seed: int) -> TabularSample:
        """Draw `n` units."""
        if n < 1:
            raise InputError(f"A sample needs at least one unit, found n = {n}.")
        rng = np.random.default_rng([self.seed, seed])
        z = rng.normal(size=(n, self.features))
        attribute = (rng.random(n) < _ATTRIBUTE_SHARE).astype(np.int64)
        noise = self._draw_noise(rng, n)
        label = (self.outcome_probability(z) >= 0.5).astype(np.int64)
        return TabularSample(z, attribute, self._observe(z, attribute, noise), label, noise)

    def outcome_probability(self, z: Floats) -> Floats:
        """`sigmoid(u(z))` for each row of `z` (n, k), in [0, 1]."""
        u = np.clip(self._shape(z) + self.intercept, -500, 500)
        return np.asarray(1 / (1 + np.exp(-u)))

    def intervene(self, sample: TabularSample, attribute: int | NDArray[np.int64]) -> Floats:
        """Observation under `do(A = attribute)`: same matrices, same noise (n, k)."""
        level = np.broadcast_to(np.asarray(attribute, dtype=np.int64), sample.attribute.shape)
        return self._observe(sample.z, level, sample.noise)

    def counterfactual(self, sample: TabularSample) -> Floats:
        """Observation under the other level: `intervene(sample, 1 - sample.attribute)` (n, k)."""
        return self.intervene(sample, 1 - sample.attribute)

    def counterfactuals(self, z: Floats, *, draws: int, seed: int, shared_noise: bool = True) -> Floats:
        """Draw units `z` (n, k) afresh under both levels, by the world's own equations: (n, 2, draws, k)."""
        if draws < 1:
            raise InputError(f"At least one draw per level is needed, found draws = {draws}.")
        rng = np.random.default_rng([self.seed, seed, 1])
        n, k = z.shape
        repeated = np.repeat(z, draws, axis=0)
        out = np.empty((n, 2, draws, k))
        noise = self._draw_noise(rng, n * draws)
        for level in (0, 1):
            if level == 1 and not shared_noise:
                noise = self._draw_noise(rng, n * draws)
            seen = self._observe(repeated, np.full(n * draws, level), noise)
            out[:, level] = seen.reshape(n, draws, k)
        return out

    def _draw_noise(self, rng: np.random.Generator, n: int) -> Floats:
        shape = (n, self.steps + 1, self.features)
        return rng.normal(0.0, self.noise, shape) if self.noise else np.zeros(shape)

    def _observe(self, z: Floats, attribute: NDArray[np.int64], noise: Floats) -> Floats:
        """Run the structural equations for each unit at its level."""
        state = np.empty_like(z)
        for level in (0, 1):
            rows = attribute == level
            moved = z[rows]
            for t in range(self.steps):
                moved = moved @ self.maps[level, t].T + noise[rows, t]
            state[rows] = moved
        return np.asarray(state @ self.observation.T + self.offset + noise[:, -1])

    def _shape(self, z: Floats) -> Floats:
        """Form of the world: `u(z)` without its intercept (n,)."""
        w = self.weight
        if self.name == "interactive":
            return np.asarray(np.einsum("ni,ij,nj->n", z, w, z, optimize=True))
        if self.name == "log-scale":
            return np.asarray(np.log(np.maximum(z @ w, 1e-4)))
        inner = {"linear": z, "quadratic": z**2, "exponential": np.exp(z), "sin": np.sin(z)}[self.name]
        return np.asarray(inner @ w)


@dataclass(frozen=True)
class TabularTruth:
    """What a model truly does in a world, from many noise draws.

    - `psi`: `E[(g(1,Z) - g(0,Z))^2]`, g the mean output over noise: zero exactly when the model is invariant.
    - `psi_error`: Monte-Carlo standard error of `psi` over noise, units held fixed.
    - `mean_effect`: `E[g(1,Z) - g(0,Z)]`.
    - `flip_rate`: Mean squared change between the levels under the same noise (the share of flips, for decisions).
    - `within_flip_rate`: The same between two noise draws at one level: what ECA counts although no definition of
      invariance does.
    """

    psi: float
    psi_error: float
    mean_effect: float
    flip_rate: float
    within_flip_rate: float


def tabular_truth(outputs: Floats) -> TabularTruth:
    """Compute the true effects of a model from its outputs on `TabularWorld.counterfactuals`.

    `U_i = ((sum_r D_ir)^2 - sum_r D_ir^2) / (R (R-1))` is unbiased for `(g(1,z_i) - g(0,z_i))^2` at any R >= 2.

    Shapes: `outputs` (n, 2, R).
    """
    if outputs.ndim != 3 or outputs.shape[1] != 2 or outputs.shape[2] < 2:
        raise InputError(f"Outputs must have shape (units, 2 levels, draws >= 2), found {outputs.shape}.")
    draws = outputs.shape[2]
    change = outputs[:, 1] - outputs[:, 0]
    unit = (change.sum(1) ** 2 - (change**2).sum(1)) / (draws * (draws - 1))
    # Var U = 4 g^2 s^2 / R + 2 (s^2 / R)^2 nearly, s^2 the variance of D over draws; of g^2 there is only U itself.
    spread = change.var(axis=1, ddof=1)
    error = np.sqrt(np.sum(4 * np.maximum(unit, 0) * spread / draws + 2 * (spread / draws) ** 2)) / unit.size
    return TabularTruth(
        psi=float(unit.mean()),
        psi_error=float(error),
        mean_effect=float(change.mean()),
        flip_rate=float((change**2).mean()),
        within_flip_rate=float(2 * outputs.var(axis=2, ddof=1).mean()),
    )


def expected_counterfactual_accuracy(factual: Floats, counterfactual: Floats) -> float:
    """ECA: share of decisions (n,) kept when the level is redrawn uniformly from both, the factual one among them."""
    return float(1 - np.mean(factual != counterfactual) / 2)


def _nearest_to_half(u: Floats, intercept: float) -> float:
    """Intercept whose share of positives is nearest to one half: minus the median, or the one there is."""
    options = (intercept, -float(np.median(u)))
    return min(options, key=lambda b: abs(float(np.mean(u + b >= 0)) - 0.5))
