"""Null and alternative families of model outputs under every level: what the tests are certified on.

A family draws `values[unit, level, draw, repetition]` with a known truth. "Exact" nulls are those for which the default
test's p-value is exact by construction; the others have equal means at all levels and no more symmetry than that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Outputs = Callable[[np.random.Generator, Floats, int], Floats]


@dataclass(frozen=True)
class ResponseFamily:
    """One way in which a model's outputs can come about.

    - `shared_seeds`: Whether draw r of all levels shares its generator noise.
    - `exact`: Whether the default test is exact for it by construction.
    - `images_per_patient`: Images of a patient share a part of their latent severity and the whole of their effect.
    - `draw`: `(rng, latent (units, 1, 1, repetitions), draws) -> values (units, levels, draws, repetitions)`.
    - `psi`, `mean_effect`: True effects at the contrast of the first two levels; zero for a null.
    """

    name: str
    outcome: Literal["decision", "probability"]
    shared_seeds: bool
    exact: bool
    levels: int
    images_per_patient: int
    draw: Outputs
    psi: float = 0.0
    mean_effect: float = 0.0

    def sample(self, rng: np.random.Generator, units: int, *, draws: int, repetitions: int) -> tuple[Floats, Floats]:
        """Draw independent repetitions; return values and the patient of each unit.

        Shapes: gives (units, levels, draws, repetitions).

        >>> values, patients = NULLS["noisy"].sample(np.random.default_rng(0), 10, draws=4, repetitions=3)
        >>> values.shape, patients.shape
        ((10, 2, 4, 3), (10,))
        """
        m = self.images_per_patient
        latent = _of_patients(rng.normal(size=(units // m, 1, 1, repetitions)), m, rng)
        values = self.draw(rng, latent, draws)
        return values, np.repeat(np.arange(units // m), m)


@dataclass(frozen=True)
class ScoredFamily:
    """Probabilities of a model whose draws blur its decisions, beside what it says of the originals.

    Every image has one of two levels by the toss of a coin. Half of the patients have a higher score under the other
    level and half a lower one, so that the mean effect is 0. The draws' noise has half of the scores' spread.

    - `psi`: Share of the decisions on the originals that the other level turns.
    - `images_per_patient`: They share half of the variance of the score, and the direction of the effect.
    - `apart`: Share of the noise's variance that the levels of a draw do not share.
    """

    psi: float
    images_per_patient: int = 1
    apart: float = 0.0

    def sample(
        self, rng: np.random.Generator, units: int, *, draws: int, repetitions: int
    ) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
        """Draw independent repetitions: values, originals, levels and patients of the units.

        Shapes: gives (units, 2, draws, repetitions), (units, repetitions), (units,), (units,).
        """
        m = self.images_per_patient
        patients = np.repeat(np.arange(units // m), m)
        score = 2 * _of_patients(rng.normal(size=(units // m, repetitions)), m, rng)
        # The share of a normal score between the threshold and the shift.
        shift = 2 * stats.norm.ppf(0.5 + self.psi) * rng.choice([-1.0, 1.0], size=(units // m, repetitions))[patients]
        factual = rng.integers(2, size=units)
        led_away = (np.arange(2) != factual[:, None])[:, :, None, None]
        noise = np.sqrt(1 - self.apart) * rng.normal(size=(units, 1, draws, repetitions))
        if self.apart:
            noise = noise + np.sqrt(self.apart) * rng.normal(size=(units, 2, draws, repetitions))
        drawn = score[:, None, None] + led_away * shift[:, None, None] + noise
        return sigmoid(drawn), sigmoid(score), factual, patients


def _of_patients(patient: Floats, m: int, rng: np.random.Generator) -> Floats:
    """Give every image a standard normal number, half of whose variance is its patient's where that has several."""
    latent = np.repeat(patient, m, axis=0)
    return np.asarray(np.sqrt(0.5) * (latent + rng.normal(size=latent.shape)) if m > 1 else latent)


def sigmoid(x: Floats) -> Floats:
    """Logistic function."""
    return np.asarray(1 / (1 + np.exp(-x)))


def _coin(rng: np.random.Generator, chance: Floats, draws: int, levels: int) -> Floats:
    """Independent decisions with the same chance at every level."""
    n, _, _, reps = chance.shape
    return np.asarray(rng.random((n, levels, draws, reps)) < chance, dtype=np.float64)


def _threshold(noise: float, shared: float = 0.7) -> Outputs:
    """Latent severity plus generator noise, of which a share belongs to the seed and the rest to the level."""

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        n, reps = m.shape[0], m.shape[3]
        seed = rng.normal(size=(n, 1, draws, reps))
        level = rng.normal(size=(n, 2, draws, reps))
        return np.asarray(m + noise * (np.sqrt(shared) * seed + np.sqrt(1 - shared) * level) > 0, dtype=np.float64)

    return draw


def _smooth(levels: int) -> Outputs:
    """Probabilities whose levels are exchangeable given the seed."""

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        n, reps = m.shape[0], m.shape[3]
        seed, level = rng.normal(size=(n, 1, draws, reps)), rng.normal(size=(n, levels, draws, reps))
        return sigmoid(m + 0.5 * seed + 0.3 * level)

    return draw


def _skewed_independent(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
    """Probabilities with a long upper tail, the same at both levels, drawn independently."""
    n, reps = m.shape[0], m.shape[3]
    return np.asarray(sigmoid(m - 2) * rng.random((n, 2, draws, reps)) ** 4)


def _asymmetric(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
    """Equal means, but rare large outputs at one level only: D is not symmetric, the test is not exact."""
    n, reps = m.shape[0], m.shape[3]
    out = np.empty((n, 2, draws, reps))
    base = 0.2 + 0.3 * sigmoid(m)
    out[:, 0] = (base + rng.uniform(-0.05, 0.05, (n, 1, draws, reps)))[:, 0]
    burst = (rng.random((n, draws, reps)) < 0.1).astype(float)
    out[:, 1] = base[:, 0] - 0.04 + 0.4 * burst
    return out


def _imbalanced(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
    """Ten factual women to a man, whose disease is commoner: confounded, and invariant."""
    factual = rng.random(m.shape) < 1 / 11
    return _coin(rng, sigmoid(2 * m + 2.5 * factual - 1), draws, 2)


def _beta(a: float, b: float) -> Outputs:
    return lambda rng, m, draws: _coin(rng, rng.beta(a, b, m.shape), draws, 2)


def _null(name: str, draw: Outputs, **settings: object) -> ResponseFamily:
    base: dict[str, object] = {
        "outcome": "decision",
        "shared_seeds": False,
        "exact": True,
        "levels": 2,
        "images_per_patient": 1,
    }
    return ResponseFamily(name=name, draw=draw, **(base | settings))  # type: ignore[arg-type]


NULLS: dict[str, ResponseFamily] = {
    family.name: family
    for family in (
        _null("deterministic", lambda rng, m, draws: np.repeat(np.repeat(m > 0, 2, 1), draws, 2).astype(float)),
        _null("noisy", lambda rng, m, draws: _coin(rng, sigmoid(3 * m), draws, 2)),
        _null("rare 3 %", _beta(0.3, 9.7)),
        _null("rare 1 %", _beta(0.1, 9.9)),
        _null("near-constant", lambda rng, m, draws: _coin(rng, np.full(m.shape, 0.998), draws, 2)),
        _null("probability, shared seeds", _smooth(2), outcome="probability", shared_seeds=True),
        _null("probability, independent draws", _skewed_independent, outcome="probability"),
        _null("4 images per patient", lambda rng, m, draws: _coin(rng, sigmoid(3 * m), draws, 2), images_per_patient=4),
        _null("3 levels", lambda rng, m, draws: _coin(rng, sigmoid(3 * m), draws, 3), levels=3),
        _null("3 levels, probability", _smooth(3), levels=3, outcome="probability", shared_seeds=True),
        _null("imbalanced 10:1", _imbalanced),
        _null("small generator noise", _threshold(0.1), shared_seeds=True),
        _null("large generator noise", _threshold(2.0), shared_seeds=True),
        _null("asymmetric probability", _asymmetric, outcome="probability", shared_seeds=True, exact=False),
    )
}


def uniform_shift(effect: float, *, images_per_patient: int = 1) -> ResponseFamily:
    """Decisions whose chance is `effect` higher at the second level, for everybody; draws independent.

    >>> uniform_shift(0.1).mean_effect, round(uniform_shift(0.1).psi, 4)
    (0.1, 0.01)
    """

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        low = (1 - effect) * sigmoid(3 * m)
        return _coin(rng, np.concatenate([low, low + effect], axis=1), draws, 2)

    return ResponseFamily("uniform shift", "decision", False, False, 2, images_per_patient, draw, effect**2, effect)


def zero_mean(
    psi: float, *, images_per_patient: int = 1, steepness: float = 3.0, shared: float = 0.0
) -> ResponseFamily:
    """Decisions whose chance moves by plus or minus sqrt(psi), half of the patients each way.

    >>> zero_mean(0.012).mean_effect
    0.0
    """
    size = float(np.sqrt(psi))

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        low = (1 - size) * sigmoid(steepness * m)
        up = _per_patient(rng, m, images_per_patient) < 0.5
        pair = np.concatenate([np.where(up, low, low + size), np.where(up, low + size, low)], axis=1)
        return _coin(rng, pair, draws, 2) if shared == 0 else _paired_coin(rng, pair, draws, shared)

    name = "zero-mean effect"
    if steepness != 3:
        name += ", quieter"
    if shared:
        name += ", shared seeds"
    return ResponseFamily(name, "decision", shared > 0, False, 2, images_per_patient, draw, psi, 0.0)


def _paired_coin(rng: np.random.Generator, chance: Floats, draws: int, shared: float) -> Floats:
    """Decisions that compare the chances at both levels with one number in a share of the draws, else with two."""
    n, reps = chance.shape[0], chance.shape[3]
    common, own = rng.random((n, 1, draws, reps)), rng.random((n, 2, draws, reps))
    mixed = np.where(rng.random((n, 1, draws, reps)) < shared, common, own)
    return np.asarray(mixed < chance, dtype=np.float64)


def subgroup(share: float, effect: float, *, images_per_patient: int = 1) -> ResponseFamily:
    """Decisions whose chance rises by `effect` in a share of the patients and stays in the others; seeds shared.

    Both levels of a draw compare their chances with one uniform number, half of the time, and with two of their own
    otherwise: shared seeds make the levels alike without making them equal.

    >>> family = subgroup(0.1, 0.5)
    >>> family.psi, family.mean_effect
    (0.025, 0.05)
    """

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        low = (1 - effect) * sigmoid(3 * m)
        hit = _per_patient(rng, m, images_per_patient) < share
        pair = np.concatenate([low, low + effect * hit], axis=1)
        return _paired_coin(rng, pair, draws, 0.5)

    name, psi = f"{share:.0%} of patients", share * effect**2
    return ResponseFamily(name, "decision", True, False, 2, images_per_patient, draw, psi, share * effect)


def graded(size: float, *, images_per_patient: int = 1) -> ResponseFamily:
    """Probabilities that rise by a patient's own effect, uniform on [0, 2 size], with noise at each level.

    >>> round(graded(0.03).psi, 6), graded(0.03).mean_effect
    (0.0012, 0.03)
    """

    def draw(rng: np.random.Generator, m: Floats, draws: int) -> Floats:
        n, reps = m.shape[0], m.shape[3]
        base = 0.2 + 0.5 * sigmoid(m) + 0.05 * rng.uniform(-1, 1, (n, 1, draws, reps))
        rise = 2 * size * _per_patient(rng, m, images_per_patient)
        noise = 0.05 * rng.uniform(-1, 1, (n, 2, draws, reps))
        return np.asarray(np.concatenate([base, base + rise], axis=1) + noise)

    psi = 4 * size**2 / 3
    return ResponseFamily("graded probability", "probability", True, False, 2, images_per_patient, draw, psi, size)


def _per_patient(rng: np.random.Generator, m: Floats, images_per_patient: int) -> Floats:
    """Uniform numbers, one per patient and repetition, spread over the patient's images."""
    n, _, _, reps = m.shape
    return np.repeat(rng.random((n // images_per_patient, 1, 1, reps)), images_per_patient, axis=0)
