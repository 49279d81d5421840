"""Units of the chest phantom: their variables, and on demand their images under any level of the attribute."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.run.files import fingerprint
from citlr.simulators.phantom.anatomy import VIEWS, stream, widened
from citlr.simulators.phantom.regions import FINDINGS, Image, check_finding
from citlr.simulators.phantom.render import digitise, film, thickness
from citlr.simulators.units import WorldUnits, read_images

CHUNK_PIXELS = 2**17
"""Pixels rendered at a time: a dozen float32 planes of that size stay in the cache of one core."""


class Equations(Protocol):
    """What units are rendered by: a `PhantomWorld`."""

    @property
    def size(self) -> int:
        """Side of the images in pixels."""

    @property
    def attribute(self) -> str:
        """Name of the attribute."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Its levels."""

    @property
    def anatomy(self) -> str:
        """Whether it is "fixed" or "varying"."""

    def effects(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Relative change of bone, and path of the breast shadow, each (n_levels,)."""

    def support(self) -> NDArray[np.bool_]:
        """Pixels (size, size) that any level can touch."""


@dataclass(frozen=True)
class PhantomSample(WorldUnits):
    """Units of a phantom world: their variables, and on demand their images under any level.

    Parameters
    ----------
    world : Equations
        The equations.
    seed : int
        The seed of the film noise.
    exogenous : DataFrame
        All random variables, one row per image.
    level : ndarray of shape (n,)
        Index of each unit's level.
    ap : ndarray of shape (n,)
        Whether the view is AP.
    severity : DataFrame
        Severity of the five findings in [0, 1]; 0 is absent, present is 0.25 to 1.
    """

    table = "phantom.csv"
    counted, unknown = "phantom units", "The phantom's {attribute} has no level '{level}'"
    world: Equations
    seed: int
    exogenous: pd.DataFrame = field(repr=False)
    level: NDArray[np.intp] = field(repr=False)
    ap: NDArray[np.bool_] = field(repr=False)
    severity: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.exogenous)

    @property
    def frame(self) -> pd.DataFrame:
        """The observed variables: image_id, patient_id, path, the attribute, view, age (years), five findings 0/1."""
        patient = [f"s{self.seed}p{number:06d}" for number in self.exogenous["patient"]]
        image = [f"{name}i{number:02d}" for name, number in zip(patient, self.exogenous["image"], strict=True)]
        table: dict[str, object] = {
            "image_id": image,
            "patient_id": patient,
            "path": [f"images/{name}.png" for name in image],
            self.world.attribute: [self.world.levels[index] for index in self.level],
            "view": [VIEWS[int(flag)] for flag in self.ap],
            "age": (20 + 65 * self.exogenous["age_rank"].to_numpy()).astype(np.int64),
        }
        for name in FINDINGS:
            table[name] = (self.severity[name] > 0).to_numpy().astype(np.int64)
        return pd.DataFrame(table)

    def take(self, rows: ArrayLike | slice) -> Self:
        """Return the sample of some rows: positions, a slice, or a mask of shape (n,)."""
        index = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        return replace(
            self,
            exogenous=self.exogenous.iloc[index].reset_index(drop=True),
            level=self.level[index],
            ap=self.ap[index],
            severity=self.severity.iloc[index].reset_index(drop=True),
        )

    def with_severity(self, finding: str, severity: ArrayLike) -> Self:
        """Return the same units with one finding set to a severity in [0, 1], one for all or one per unit."""
        check_finding(finding)
        values = np.broadcast_to(np.asarray(severity, dtype=np.float32), (len(self),))
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"A severity of {finding} lies outside [0, 1].")
        return replace(self, severity=self.severity.assign(**{finding: values.copy()}))

    def _blocks(self, *, digital: bool) -> Iterator[Image]:
        """Render in blocks of about `CHUNK_PIXELS`; each is (b, size, size)."""
        step = max(1, CHUNK_PIXELS // self.world.size**2)
        for start in range(0, len(self), step):
            image = self._render(slice(start, start + step))
            yield digitise(image) if digital else image

    def _render(self, part: slice) -> Image:
        table = self.exogenous.iloc[part]
        units = {name: _column(table[name]) for name in table.columns if name not in ("patient", "image")}
        if self.world.anatomy == "varying":
            units = widened(units)
        units["ap"] = _column(self.ap[part])
        severity = {name: _column(self.severity[name].iloc[part]) for name in FINDINGS}
        bone, shadow = self.world.effects()
        level = self.level[part]
        bone_gain = _column(bone[level]) * (1 + np.float32(0.10) * units["bone_response"])
        total = thickness(self.world.size, units, severity, bone_gain, _column(shadow[level]))
        noise = np.empty_like(total)
        for row, (patient, image) in enumerate(zip(table["patient"], table["image"], strict=True)):
            stream(self.seed, int(patient), int(image), "noise").standard_normal(dtype=np.float32, out=noise[row])
        return film(total, units, noise)

    def read(self, directory: str | Path, **split: Any) -> Cohort:
        """Read it with the five findings as labels and the view as covariate."""
        return read_phantom(directory, attribute=self.world.attribute, **split)

    def fingerprint(self) -> str:
        """Fingerprint the equations, the seed and the observed variables."""
        return fingerprint([repr(self.world), self.seed, self.frame.to_dict("list")])


def read_phantom(directory: str | Path, *, attribute: str, labels: Sequence[str] = FINDINGS, **split: Any) -> Cohort:
    """Read what `PhantomSample.write` wrote: findings as labels, the view as covariate, split as `read_cohort` does."""
    asked = {"attribute": attribute, "labels": list(labels), "covariates": ("view",), **split}
    return read_images(directory, table=PhantomSample.table, **asked)


def _column(values: Iterable[float] | NDArray[np.float32]) -> Image:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)
