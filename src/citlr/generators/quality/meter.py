"""One report of how faithful redrawn images are, collected shard by shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.errors import InputError
from citlr.generators.base import Images
from citlr.generators.probes.linear import describe
from citlr.generators.probes.parts import Target
from citlr.generators.probes.probe import Probes
from citlr.generators.quality.cycles import Cycle
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.left import put_in
from citlr.generators.quality.measures import (
    Array,
    composition,
    drift,
    effectiveness,
    frechet_distance,
    kernel_distance,
    level_auroc,
    level_error,
    similarity,
)
from citlr.generators.variables import as_level

Readings = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class QualityReport:
    """What was measured; None is unknown, and `notes` says why.

    - `composition`: Mean absolute change by the null intervention, grey values in [0, 1]; None where the factual level
      is not among the redrawn ones (a continuous attribute).
    - `similarity`: Structural similarity of images and their null interventions.
    - `effectiveness`: Share of images redrawn under each level that the probe reads as that level (nearest to that
      level, of a continuous attribute); empty when unknown.
    - `auroc`: AUROC of the probe's probability of each level, between images redrawn under it and under the others; of
      levels only.
    - `error`: Mean absolute error of the probe's reading at each level, of a continuous attribute only.
    - `minimality`: Mean absolute change between the null intervention and the others (between the levels, where there
      is none; Melistas et al. 2024).
    - `drift`: For each held label, and each not held, the largest mean shift of its probability; None when unknown.
    - `fid`, `kid`: Distance of redrawn from original images in the space of `fid_extractor`.
    - `reversibility`: Mean absolute difference between an image and itself redrawn there and back.
    - `cycles`: What is left after so many null interventions in a row.
    - `notes`: What could not be measured, and why.
    - `readings`: What the probe read: (n, levels, draws, k) per target.
    - `attribute_readings` (n, levels, draws, levels): Probability of each redrawn level; of a continuous attribute, 1
      at the nearest.
    - `real_readings` (n, levels): The same of the originals.
    - `numbers`: What the probe reads of a continuous attribute, off originals (n,) and redrawn images (n, levels,
      draws); None of one with levels.
    - `described` (k, levels, width): What the first draw of each level changes, put into the originals, in numbers that
      no generator is fitted to; of the images that were chosen for it.
    """

    n_images: int
    draws: int
    composition: float | None
    effectiveness: dict[str, float]
    minimality: float
    drift: dict[str, float | None]
    fid: float | None
    kid: float | None
    fid_extractor: str
    similarity: float | None = None
    auroc: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    reversibility: float | None = None
    cycles: dict[int, Cycle] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    readings: dict[str, Readings] = field(default_factory=dict, repr=False)
    attribute_readings: Readings | None = field(default=None, repr=False, compare=False)
    real_readings: Readings | None = field(default=None, repr=False, compare=False)
    numbers: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = field(
        default=None, repr=False, compare=False
    )
    described: Readings | None = field(default=None, repr=False, compare=False)


# With fewer images than this, and no more than there are features, a Frechet distance is not given at all.
FEWEST = 100


@dataclass(frozen=True)
class ShardReadings:
    """What a shard adds to a report.

    - `sums`: Of the null intervention's change and similarity, and of the change by the others, over its images.
    - `null`, `count`: Images whose own level was redrawn, and all.
    - `read` (n, levels, draws, k): By target, what the probes read of redrawn images.
    - `real` (n, k): What they read of the attribute in the originals.
    - `features`: Of originals and of redrawn images.
    - `described` (k, levels, width): See `QualityReport`.
    """

    sums: npt.NDArray[np.float64]
    null: int
    count: int
    read: dict[str, Readings]
    real: Readings
    features: tuple[Array, Array]
    described: Readings


class QualityMeter:
    """Collects images shard by shard and gives a report: memory grows by some numbers per image only.

    Shards may be read in other processes (`read`), and are taken in in their order (`take`); `add` does both.

    - `levels`: Levels in the order of the redrawn images; numbers, of a continuous attribute.
    - `extractor`: Network that FID and KID are computed with; the probe's own features without it.
    """

    def __init__(
        self, probes: Probes, *, attribute: str, levels: Sequence[str], extractor: Extractor | None = None
    ) -> None:
        self.probes, self.attribute, self.levels, self.extractor = probes, attribute, tuple(levels), extractor
        self.target = probes.target(attribute)
        unknown = [] if self.target.centres else [level for level in self.levels if level not in self.target.levels]
        if unknown:
            raise InputError(f"The probe of '{attribute}' does not know the level '{unknown[0]}'.")
        self._shards: list[ShardReadings] = []

    def add(self, images: Images, generated: Images, factual: Sequence[str] | pd.Series) -> None:
        """Read a shard and take it in, see `read`."""
        self.take(self.read(images, generated, factual))

    def take(self, shard: ShardReadings) -> None:
        """Take in what was read of the next shard."""
        self._shards.append(shard)

    def read(
        self, images: Images, generated: Images, factual: Sequence[str] | pd.Series, described: Mask | None = None
    ) -> ShardReadings:
        """Read a shard, and change nothing.

        Shapes: `images` (n, c, s, s) in [0, 1], `generated` (n, levels, draws, c, s, s) in [0, 1], `described` (n,),
        which images are described besides: all without it.
        """
        n, k, draws = generated.shape[:3]
        if k != len(self.levels) or len(images) != n:
            raise InputError(
                f"{n} x {k} redrawn images came for {len(images)} originals and {len(self.levels)} levels."
            )
        known = [as_level(value) for value in factual]
        own = np.asarray([self.levels.index(value) if value in self.levels else -1 for value in known])
        if (own < 0).any() and not self.target.centres:
            raise InputError(f"'{known[int((own < 0).argmax())]}' is no level that images were redrawn under.")
        rows, sums = np.flatnonzero(own >= 0), np.zeros(3)
        if len(rows):
            null = generated[rows, own[rows]]
            found = [composition(images[rows], null), similarity(images[rows], null)]
            sums[:2] = len(rows) * np.asarray(found)
        base = generated[np.arange(n), np.maximum(own, 0)]
        others = [np.abs(generated[r, j] - base[r]).mean() for r in range(n) for j in range(k) if j != max(own[r], 0)]
        sums[2] = n * (float(np.mean(others)) if others else 0.0)
        read = [
            self.probes.read(generated[:, j].reshape(-1, *generated.shape[3:]), level=level)
            for j, level in enumerate(self.levels)
        ]
        chosen = slice(None) if described is None else described
        shown = put_in(images[chosen], generated[chosen, :, 0], np.maximum(own, 0)[chosen])
        features = self.extractor or self.probes.features
        return ShardReadings(
            sums=sums,
            null=len(rows),
            count=n,
            read={
                name: np.stack([part[name].reshape(n, draws, -1) for part in read], axis=1)
                for name in self.probes.levels
            },
            real=self.probes.read(images)[self.attribute],
            # One draw per image and level: draws of one image are too alike to count as images of their own.
            features=(features(images), features(generated[:, :, 0].reshape(-1, *images.shape[1:]))),
            described=np.stack([describe(shown[:, j]) for j in range(k)], axis=1),
        )

    def report(self, *, reversibility: float | None = None, cycles: Mapping[int, Cycle] | None = None) -> QualityReport:
        """Give the report of all that was taken in; what is passed goes into it as it is."""
        shards = self._shards
        if not shards:
            raise InputError("No images were given, so there is no quality to report.")
        readings = {name: np.concatenate([one.read[name] for one in shards]) for name in self.probes.levels}
        sums = sum((one.sums for one in shards), np.zeros(3))
        null, count = sum(one.null for one in shards), sum(one.count for one in shards)
        notes = [
            f"The probe of '{name}' reads no better than chance (mean accuracy {self.probes.accuracy[name]:.2f} on the "
            "validation split): what it says is unknown."
            for name in readings
            if not self.probes.trusted[name]
        ]
        notes += [
            f"'{name}' is read by a regression on described images (mean accuracy {self.probes.accuracy[name]:.2f} on "
            "other patients): a network reads it no better than chance."
            for name in self.probes.linear
        ]
        numbers = self.target.numbers(readings[self.attribute]) if self.target.centres else None
        read = over_levels(self.target, readings[self.attribute], self.levels)
        trusted = self.probes.trusted[self.attribute]
        named = bool(trusted and not self.target.centres)
        shifts = {
            name: drift(values) if self.probes.trusted[name] else None
            for name, values in readings.items()
            if name != self.attribute
        }
        original, redrawn = (np.concatenate([one.features[k] for one in shards]) for k in (0, 1))
        enough, note = _enough(*original.shape)
        notes += note
        real = np.concatenate([one.real for one in shards])
        wanted = [] if numbers is None else [float(level) for level in self.levels]
        own = f"citlr probe ({self.probes.architecture}), {original.shape[1]} features (compares within one run only)"
        return QualityReport(
            n_images=count,
            draws=read.shape[2],
            composition=float(sums[0] / null) if null else None,
            similarity=float(sums[1] / null) if null else None,
            effectiveness=self._named(effectiveness(read)) if trusted else {},
            auroc=self._named(level_auroc(read)) if named and len(self.levels) > 1 else {},
            error=self._named(level_error(numbers, np.asarray(wanted))) if trusted and numbers is not None else {},
            minimality=float(sums[2] / count),
            drift=shifts,
            fid=frechet_distance(original, redrawn) if enough else None,
            kid=kernel_distance(original, redrawn) if len(original) > 1 else None,
            fid_extractor=own if self.extractor is None else self.extractor.name,
            reversibility=reversibility,
            cycles=dict(cycles or {}),
            notes=tuple(notes),
            readings=readings,
            attribute_readings=read,
            real_readings=over_levels(self.target, real, self.levels),
            numbers=None if numbers is None else (self.target.numbers(real), numbers),
            described=np.concatenate([one.described for one in shards]),
        )

    def _named(self, values: npt.NDArray[np.float64]) -> dict[str, float]:
        return {level: float(value) for level, value in zip(self.levels, values, strict=True)}


def over_levels(target: Target, readings: Readings, levels: Sequence[str]) -> Readings:
    """Give readings (..., k) of an attribute over the redrawn levels (..., levels); of a number, 1 at the nearest."""
    if not target.centres:
        return np.ascontiguousarray(readings[..., [target.levels.index(level) for level in levels]])
    wanted = np.asarray([float(level) for level in levels])
    nearest = np.abs(target.numbers(readings)[..., None] - wanted).argmin(axis=-1)
    return np.asarray(np.eye(len(wanted), dtype=np.float32)[nearest])


def _enough(images: int, features: int) -> tuple[bool, list[str]]:
    """Say whether a Frechet distance is given, and what is to be known of it where images are few."""
    if images > features:
        return True, []
    few = f"{images} images are too few for the covariance of {features} features: the Frechet distance is "
    if images < FEWEST:
        return False, [few + "unknown."]
    return True, [few + "too large, and compares at this number of images only."]
