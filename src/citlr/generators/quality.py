"""How faithful counterfactual images are: pure functions of arrays, and one report of them all.

Composition, effectiveness and reversibility are the axioms of Monteiro et al. (2023), minimality is Melistas et al.
(2024); drift and the effect map are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.errors import InputError
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.conditions import as_level
from citlr.generators.probe import Probes

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class EffectMap:
    """How the generated change compares with the true one, where a simulator knows it.

    Parameters
    ----------
    relative_error : float
        `||generated - true|| / ||true||` over all images and pixels; 0 is perfect, 1 is no better than no change.
    cosine : float
        Between the two changes; 1 is the right direction.
    scale : float
        Length of the generated change along the true one, as a share of it; below 1 it hides bias.
    outside : float
        Mean absolute generated change where there is no true one, in grey values.
    """

    relative_error: float
    cosine: float
    scale: float
    outside: float


def effect_map(generated: Array, true: Array) -> EffectMap:
    """Compare changes `do(a') - do(a)`, arrays of one shape.

    Examples
    --------
    >>> true = np.array([1.0, 2.0, 0.0])
    >>> found = effect_map(0.5 * true, true)
    >>> round(found.scale, 6), round(found.cosine, 6), round(found.relative_error, 6)
    (0.5, 1.0, 0.5)
    """
    if generated.shape != true.shape:
        raise InputError(f"Generated changes {generated.shape} and true ones {true.shape} differ in shape.")
    a, b = np.asarray(generated, dtype=np.float64).ravel(), np.asarray(true, dtype=np.float64).ravel()
    power = float(b @ b)
    if power == 0:
        raise InputError("The true change is zero everywhere: there is no effect to compare with.")
    untouched = b == 0
    return EffectMap(
        relative_error=float(np.sqrt(((a - b) ** 2).sum() / power)),
        cosine=float(a @ b / np.sqrt(max(float(a @ a), 1e-300) * power)),
        scale=float(a @ b / power),
        outside=float(np.abs(a[untouched]).mean()) if untouched.any() else 0.0,
    )


def composition(images: Array, null: Array) -> float:
    """Mean absolute change of images (n, 1, s, s) by the null intervention (n, draws, 1, s, s); 0 is perfect.

    Examples
    --------
    >>> composition(np.zeros((2, 1, 4, 4)), np.full((2, 3, 1, 4, 4), 0.5))
    0.5
    """
    return float(np.abs(null - images[:, None]).mean())


def minimality(null: Array, changed: Array) -> float:
    """Mean absolute change from the null intervention to another level: how much an intervention touches at all."""
    return float(np.abs(changed - null).mean())


def effectiveness(readings: Array) -> npt.NDArray[np.float64]:
    """Share of images redrawn under each level that a probe reads as that level.

    Parameters
    ----------
    readings : ndarray, shape (n, levels, draws, levels)
        Probability of each level (last axis) of images redrawn under each level (second axis).

    Returns
    -------
    ndarray, shape (levels,)
    """
    read = readings.argmax(axis=-1)
    wanted = np.arange(readings.shape[1])[None, :, None]
    shares: npt.NDArray[np.float64] = (read == wanted).mean(axis=(0, 2))
    return shares


def drift(readings: Array) -> float:
    """Largest mean shift of a probability between two levels: what moves that should have stayed.

    Parameters
    ----------
    readings : ndarray, shape (n, levels, draws, k)
        Probabilities of the k levels of something that was not intervened on.

    Returns
    -------
    float
        The shift of largest size, with its sign, over pairs of levels and, for k > 2, levels of the label; for k = 2
        that of its second level ("1").
    """
    means = readings.mean(axis=(0, 2))[:, 1:] if readings.shape[-1] == 2 else readings.mean(axis=(0, 2))
    shifts = (means[None, :, :] - means[:, None, :])[np.triu_indices(len(means), 1)].ravel()
    return float(shifts[np.abs(shifts).argmax()])


def frechet_distance(a: Array, b: Array) -> float:
    """Frechet distance of two sets of features (n, d) taken as normal (Heusel et al. 2017).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(500, 3))
    >>> round(frechet_distance(x, x + 1.0), 6)
    3.0
    """
    if min(len(a), len(b)) < 2:
        raise InputError(f"A Frechet distance needs two images on both sides, found {len(a)} and {len(b)}.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    shift = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # tr sqrt(A B) = tr sqrt(sqrt(A) B sqrt(A)), and the latter is symmetric: no complex numbers on the way.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def kernel_distance(a: Array, b: Array) -> float:
    """Kernel inception distance of two sets of features (Binkowski et al. 2018): unbiased, so it may be below 0."""
    if min(len(a), len(b)) < 2:
        raise InputError(f"A kernel distance needs two images on both sides, found {len(a)} and {len(b)}.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)

    def kernel(x: Array, y: Array) -> npt.NDArray[np.float64]:
        return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)

    own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
    return float(own[0] + own[1] - 2 * kernel(a, b).mean())


@dataclass(frozen=True)
class QualityReport:
    """What was measured; None is unknown, and `notes` says why.

    Parameters
    ----------
    n_images, draws : int
        What it rests on.
    composition : float
        Mean absolute change by the null intervention, grey values in [0, 1].
    effectiveness : dict
        Share of images redrawn under each level that the probe reads as that level; empty when unknown.
    minimality : float
        Mean absolute change between the null intervention and the others.
    drift : dict
        For each held label, and each not held, the largest mean shift of its probability; None when unknown.
    fid, kid : float or None
        Distance of redrawn from original images in the space of `fid_extractor`.
    reversibility : float or None
        Mean absolute difference between an image and itself redrawn there and back.
    cycles : dict
        Composition after so many null interventions in a row.
    notes : tuple of str
        What could not be measured, and why.
    readings : dict
        What the probe read: (n, levels, draws, k) per target.
    """

    n_images: int
    draws: int
    composition: float
    effectiveness: dict[str, float]
    minimality: float
    drift: dict[str, float | None]
    fid: float | None
    kid: float | None
    fid_extractor: str
    reversibility: float | None = None
    cycles: dict[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    readings: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict, repr=False)


class QualityMeter:
    """Collects images shard by shard and gives a report: memory grows by some numbers per image only.

    Parameters
    ----------
    probes : Probes
        Of the attribute and the labels.
    attribute : str
        What was intervened on.
    levels : sequence of str
        Levels in the order of the redrawn images.
    """

    def __init__(self, probes: Probes, *, attribute: str, levels: Sequence[str]) -> None:
        self.probes, self.attribute, self.levels = probes, attribute, tuple(levels)
        self._sums = np.zeros(2)
        self._count = 0
        self._readings: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in probes.levels}
        self._features: tuple[list[Array], list[Array]] = ([], [])

    def add(self, images: Images, generated: Images, factual: Sequence[str] | pd.Series) -> None:
        """Take in originals (n, 1, s, s), redrawn images (n, levels, draws, 1, s, s) and factual levels (n,)."""
        n, k, draws = generated.shape[:3]
        if k != len(self.levels) or len(images) != n:
            raise InputError(
                f"{n} x {k} redrawn images came for {len(images)} originals and {len(self.levels)} levels."
            )
        own = np.asarray([self.levels.index(as_level(value)) for value in factual])
        null = generated[np.arange(n), own]
        others = [np.abs(generated[row, j] - null[row]).mean() for row in range(n) for j in range(k) if j != own[row]]
        self._sums += n * np.array([composition(images, null), float(np.mean(others)) if others else 0.0])
        self._count += n
        flat = generated.reshape(-1, *generated.shape[3:])
        for name, values in self.probes.read(flat).items():
            self._readings[name].append(values.reshape(n, k, draws, -1))
        self._features[0].append(self.probes.features(images))
        # One draw per image and level: draws of one image are too alike to count as images of their own.
        self._features[1].append(self.probes.features(generated[:, :, 0].reshape(-1, *images.shape[1:])))

    def report(self, *, reversibility: float | None = None, cycles: Mapping[int, float] | None = None) -> QualityReport:
        """Give the report of all that was taken in."""
        if not self._count:
            raise InputError("No images were given, so there is no quality to report.")
        readings = {name: np.concatenate(parts) for name, parts in self._readings.items()}
        shape = next(iter(readings.values())).shape
        notes = [
            f"The probe of '{name}' reads no better than chance (mean accuracy {self.probes.accuracy[name]:.2f} on the "
            "validation split): what it says is unknown."
            for name in readings
            if not self.probes.trusted[name]
        ]
        shares: dict[str, float] = {}
        if self.probes.trusted.get(self.attribute, False):
            order = [self.probes.levels[self.attribute].index(level) for level in self.levels]
            found = effectiveness(readings[self.attribute][..., order])
            shares = {level: float(share) for level, share in zip(self.levels, found, strict=True)}
        shifts = {
            name: drift(values) if self.probes.trusted[name] else None
            for name, values in readings.items()
            if name != self.attribute
        }
        original, redrawn = (np.concatenate(parts) for parts in self._features)
        enough = len(original) > original.shape[1]
        if not enough:
            notes.append(
                f"{len(original)} images are too few for the covariance of {original.shape[1]} features: the Frechet "
                "distance is unknown."
            )
        return QualityReport(
            n_images=self._count,
            draws=shape[2],
            composition=float(self._sums[0] / self._count),
            effectiveness=shares,
            minimality=float(self._sums[1] / self._count),
            drift=shifts,
            fid=frechet_distance(original, redrawn) if enough else None,
            kid=kernel_distance(original, redrawn) if len(original) > 1 else None,
            fid_extractor=f"citlr probe, {original.shape[1]} features (compares within one run only)",
            reversibility=reversibility,
            cycles=dict(cycles or {}),
            notes=tuple(notes),
            readings=readings,
        )


def cycle_composition(
    generator: CounterfactualGenerator,
    images: Images,
    frame: pd.DataFrame,
    *,
    attribute: str,
    cycles: int = 10,
    seed: int = 0,
) -> dict[int, float]:
    """Redraw images under their factual level again and again; give the mean absolute change after each time."""
    current, found = images, {}
    for cycle in range(1, cycles + 1):
        current = redraw_as(generator, current, frame, attribute=attribute, levels=frame[attribute], seed=seed + cycle)
        found[cycle] = float(np.abs(current - images).mean())
    return found


def there_and_back(
    generator: CounterfactualGenerator, images: Images, frame: pd.DataFrame, *, attribute: str, seed: int = 0
) -> float:
    """Redraw images under another level and then back: mean absolute difference from the image itself.

    On the way back the rows say the level that the image then has, as a generator told the factual level needs it. With
    more than two levels the other level is the next one.
    """
    known = generator.attributes[attribute]
    own = frame[attribute].map(as_level)
    other = own.map({level: known[(k + 1) % len(known)] for k, level in enumerate(known)})
    there = redraw_as(generator, images, frame, attribute=attribute, levels=other, seed=seed)
    back = redraw_as(
        generator, there, frame.assign(**{attribute: other}), attribute=attribute, levels=own, seed=seed + 1
    )
    return float(np.abs(back - images).mean())


def redraw_as(
    generator: CounterfactualGenerator,
    images: Images,
    frame: pd.DataFrame,
    *,
    attribute: str,
    levels: Sequence[str] | pd.Series,
    seed: int,
) -> Images:
    """Redraw each image once, under a level of its own: (n, 1, s, s)."""
    wanted = np.asarray([as_level(level) for level in levels])
    out = np.empty_like(images)
    for level in np.unique(wanted):
        rows = np.flatnonzero(wanted == level)
        part = frame.iloc[rows].reset_index(drop=True)
        out[rows] = generator.generate(images[rows], part, attribute=attribute, levels=[level], seed=seed)[:, 0, 0]
    return out
