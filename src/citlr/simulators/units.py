"""What the units of all simulated worlds have in common: other levels, images and table on disk."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.data.cohort import Cohort
from citlr.data.images import encode_png
from citlr.data.reading import read_cohort
from citlr.errors import InputError, require_known
from citlr.run.files import atomic_write


class WorldUnits(ABC):
    """Units whose counterfactuals are exact: a `PhantomSample` or a `SemiRealSample`."""

    table: ClassVar[str]
    # Two sentences: units of another number than levels, and a level that there is not.
    counted: ClassVar[str] = "units"
    unknown: ClassVar[str] = "'{level}' is no level of {attribute}"
    world: Any

    if TYPE_CHECKING:  # a field of some, made by others

        @property
        @abstractmethod
        def frame(self) -> pd.DataFrame:
            """One row per image: image_id, patient_id, path, the attribute, labels and covariates."""

        @property
        @abstractmethod
        def level(self) -> NDArray[np.intp]:
            """Index of each unit's level, (n,)."""

    @abstractmethod
    def __len__(self) -> int:
        """Count them."""

    @abstractmethod
    def take(self, rows: ArrayLike | slice) -> Self:
        """Return the sample of some rows: positions, a slice, or a mask of shape (n,)."""

    def of_images(self, image_ids: Iterable[str]) -> Self:
        """Return the units of these images, in their order."""
        position = {name: row for row, name in enumerate(self.frame["image_id"])}
        return self.take([position[name] for name in image_ids])

    def do(self, level: str | Sequence[str]) -> Self:
        """Return the same units with the attribute set: to one level, or to one level per unit.

        >>> from citlr.simulators.phantom.world import PhantomWorld
        >>> sample = PhantomWorld(size=32).sample(2, seed=1)
        >>> back = sample.do("male").do(list(sample.frame["sex"]))
        >>> bool((back.images() == sample.images()).all())
        True
        """
        names = [level] * len(self) if isinstance(level, str) else list(level)
        if len(names) != len(self):
            raise InputError(
                f"{len(names)} levels were given for {len(self)} {self.counted}; give one, or one for each."
            )
        levels = self.world.levels
        for name in set(names):
            require_known(name, levels, self.unknown.format(attribute=self.world.attribute, level=name))
        index = np.array([levels.index(name) for name in names], dtype=np.intp)
        return replace(self, level=index)  # type: ignore[type-var]  # all units are records

    def images(self, rows: ArrayLike | None = None, *, digital: bool = True) -> NDArray[np.float32]:
        """Render images.

        Parameters
        ----------
        rows : array-like or None
            Positions or mask; all when None.
        digital : bool
            Rounded to 256 grey values (as the PNG files are, bit for bit), or continuous.

        Returns
        -------
        ndarray of shape (n, 1, size, size)
            Float32 in [0, 1].
        """
        chosen = self if rows is None else self.take(rows)
        out = np.empty((len(chosen), 1, self.world.size, self.world.size), dtype=np.float32)
        images = (image for block in chosen._blocks(digital=digital) for image in block)
        for place, image in enumerate(images):
            out[place, 0] = image
        return out

    def counterfactual(
        self, level: str | Sequence[str], rows: ArrayLike | None = None, *, digital: bool = True
    ) -> NDArray[np.float32]:
        """Render the same units, noise included, under another level; shape and range as `images`."""
        chosen = self if rows is None else self.take(rows)
        return chosen.do(level).images(digital=digital)

    @abstractmethod
    def fingerprint(self) -> str:
        """Fingerprint all that the images depend on."""

    @abstractmethod
    def read(self, directory: str | Path, **split: Any) -> Cohort:
        """Read what `write` wrote as a cohort; `split` as of `read_cohort`."""

    @abstractmethod
    def _blocks(self, *, digital: bool) -> Iterator[Iterable[NDArray[np.float32]]]:
        """Render some images (size, size) at a time."""

    def write(
        self,
        directory: str | Path,
        *,
        fractions: tuple[float, float, float] = (0.65, 0.10, 0.25),
        seed: int = 0,
        min_patients_per_level: int = 20,
    ) -> Cohort:
        """Write 8-bit PNG files and a table, and read them as a cohort, split by patient.

        Parameters
        ----------
        directory : str or Path
            Made if missing; images go to its folder `images`.
        fractions : tuple of float
            Shares of patients for training, validation and test.
        seed : int
            Seed of the split.
        min_patients_per_level : int
            Passed to `read_cohort`.

        Returns
        -------
        Cohort
            With the attribute, labels and covariates of the world. Memory holds one block of images.
        """
        images = (image for block in self._blocks(digital=True) for image in block)
        write_images(directory, self.frame, images, table=self.table)
        return self.read(directory, fractions=fractions, seed=seed, min_patients_per_level=min_patients_per_level)


def write_images(
    directory: str | Path, frame: pd.DataFrame, images: Iterable[NDArray[np.float32]], *, table: str
) -> None:
    """Write images (s, s) in [0, 1] under the paths of a table as 8-bit PNG files, and the table."""
    root = Path(directory)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for path, image in zip(frame["path"], images, strict=True):
        (root / path).write_bytes(encode_png(image))
    # The table comes last and whole: a folder without it is one whose writing was cut short.
    with atomic_write(root / table) as temporary:
        frame.to_csv(temporary, index=False)


def read_images(directory: str | Path, *, table: str, **asked: Any) -> Cohort:
    """Read what `write_images` wrote as a cohort; `asked` as of `read_cohort`."""
    return read_cohort(Path(directory) / table, images=directory, **asked)
