"""Arrays as long as a cohort, on disk where there is a folder: memory must not grow with the number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.errors import InputError
from citlr.run.arrays import array_file
from citlr.run.files import atomic_write

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

Rows = npt.NDArray[Any]
CHUNK = 256


def stored(
    file: Path | None, shape: tuple[int, ...], parts: Callable[[], Iterator[tuple[slice, Rows]]], *, dtype: str
) -> Rows:
    """Fill an array part by part and map it from `file`; one that is there already is used as it is.

    Examples
    --------
    >>> parts = lambda: ((rows, np.full(rows.stop - rows.start, rows.start)) for rows in spans(5, 3))
    >>> stored(None, (5,), parts, dtype="float32").tolist()
    [0.0, 0.0, 0.0, 3.0, 3.0]
    """
    if file is None:
        memory = np.empty(shape, dtype=dtype)
        for rows, values in parts():
            memory[rows] = values
        return memory
    if not file.exists():
        with atomic_write(file) as temporary, array_file(temporary, shape, dtype) as array:
            for rows, values in parts():
                array.put(rows.start, values)
    mapped: Rows = np.load(file, mmap_mode="r")
    return mapped


@dataclass(frozen=True)
class Dataset:
    """The pixels of a split, decoded once.

    - `pixels` (n, 1, size, size): Grey values in [0, 1]; half precision keeps more than the 8 bits of a PNG.
    - `suffix`: Names what was done to them since they were decoded.
    """

    cohort: Cohort
    pixels: Rows
    suffix: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def mark(self) -> str:
        """Names the images, by their rows and content and the suffix: what depends on them carries it."""
        return _mark(self.cohort) + self.suffix

    def images(self, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        """Give rows (k,) as float32, (k, 1, size, size), on the CPU."""
        return torch.from_numpy(np.asarray(self.pixels[rows], dtype=np.float32))

    @classmethod
    def of(cls, cohort: Cohort, *, size: int, directory: Path | None) -> Dataset:
        """Decode a split, or find it decoded in `directory`."""
        file = None if directory is None else directory / f"pixels-{size}-{_mark(cohort)}.npy"

        def parts() -> Iterator[tuple[slice, Rows]]:
            for rows, values in cohort.batches(size=size, batch_size=64):
                yield slice(int(rows[0]), int(rows[-1]) + 1), values.astype(np.float16)

        return cls(cohort, stored(file, (len(cohort), 1, size, size), parts, dtype="float16"))


def _mark(cohort: Cohort) -> str:
    return cohort.fingerprint()[:16]


def spans(n: int, size: int = CHUNK) -> Iterator[slice]:
    """Cut n rows into pieces of `size` rows, the last of what is left.

    Examples
    --------
    >>> list(spans(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def require_variety(data: Dataset) -> None:
    """Refuse images that are all alike: there is nothing to learn from them, and no loss would say so.

    Examples
    --------
    >>> require_variety(Dataset(None, np.array([0.0, 1.0]).reshape(2, 1, 1, 1)))
    """
    darkest, brightest = data.images(slice(0, 1)), data.images(slice(0, 1))
    for part in spans(len(data)):
        images = data.images(part)
        darkest = torch.minimum(darkest, images.amin(dim=0))
        brightest = torch.maximum(brightest, images.amax(dim=0))
    if float((brightest - darkest).max()) < 1e-3:
        raise InputError("All training images are alike: they are constant, or copies of one; check the image folder.")
