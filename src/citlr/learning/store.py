"""Arrays as long as a cohort, on disk where there is a folder: memory must not grow with the number of images.

Pixels are kept once, as 8-bit grey values, or read from the cache that a cohort was prepared with. What follows from
them by a map, such as aligned images and disentangled latents, is computed when it is read and never kept.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.data.cohort import Cohort
from citlr.data.images import quantise
from citlr.data.pixels.shards import CachePixels
from citlr.errors import InputError
from citlr.learning.devices import first
from citlr.run.arrays import array_file, let_go
from citlr.run.files import atomic_write

Chosen = npt.NDArray[np.int64] | slice
Change = Callable[[Tensor, Chosen], Tensor]
CHUNK = 256
# Images from which covariances and permutations are taken, at most; means are taken from all.
SAMPLE = 16_384


class Rows(Protocol):
    """An array (n, ...), in memory or elsewhere, of which some rows are read at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class MappedRows:
    """Rows of a `.npy` file, which is mapped; what was read does not stay in this process's memory."""

    file: Path

    @functools.cached_property
    def _mapped(self) -> npt.NDArray[Any]:
        mapped: npt.NDArray[Any] = np.load(self.file, mmap_mode="r")
        return mapped

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array in the file."""
        return self._mapped.shape

    def __len__(self) -> int:
        return len(self._mapped)

    def __getitem__(self, chosen: Chosen) -> npt.NDArray[Any]:
        """Copy rows out of the file."""
        values = np.array(self._mapped[chosen])
        let_go(self._mapped)
        return values


@dataclass(frozen=True)
class PixelRows:
    """Values (n, c, s, s) in [0, 1] of 8-bit rows (n, c, s, s)."""

    rows: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        return self.rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Chosen) -> npt.NDArray[np.float32]:
        """Give rows as float32; as `citlr.data.images.read_image` does, bit for bit."""
        return self.rows[chosen] * np.float32(1.0 / 255.0)


@dataclass(frozen=True)
class CachedRows:
    """Values (n, c, s, s) of a cohort out of the cache it was prepared with: no second copy is made."""

    cohort: Cohort
    source: CachePixels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        return (len(self.cohort), self.source.channels, self.source.size, self.source.size)

    def __len__(self) -> int:
        return len(self.cohort)

    def __getitem__(self, chosen: Chosen) -> npt.NDArray[np.float32]:
        """Read rows as float32."""
        ids = self.cohort.frame["image_id"].to_numpy()[chosen].tolist()
        return self.source.read_many(ids, ids, size=self.source.size, fit=self.source.fit)


@dataclass(frozen=True)
class Stream:
    """Rows of an array as float32 tensors, changed as they are read where there is a `change`."""

    rows: Rows
    change: Change | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Chosen) -> Tensor:
        """Give rows, where `change` leaves them; on the CPU without one."""
        values = torch.from_numpy(np.asarray(self.rows[chosen], dtype=np.float32))
        return values if self.change is None else self.change(values, chosen)


def by_codes(change: Callable[[Tensor, Tensor], Tensor], codes: Tensor, device: torch.device) -> Change:
    """Give the change of rows whose codes (n, width) are these, on a device."""

    @torch.no_grad()
    def changed(values: Tensor, rows: Chosen) -> Tensor:
        return change(values.to(device), codes[rows])

    return changed


def stored(
    file: Path | None, shape: tuple[int, ...], parts: Callable[[], Iterator[tuple[slice, Any]]], *, dtype: str
) -> Rows:
    """Fill an array part by part and map it from `file`; one that is there already is used as it is."""
    if file is None:
        memory = np.empty(shape, dtype=dtype)
        for rows, values in parts():
            memory[rows] = values
        return memory
    with first():
        if not file.exists():
            with atomic_write(file) as temporary, array_file(temporary, shape, dtype) as array:
                for rows, values in parts():
                    array.put(rows.start, values)
    return MappedRows(file)


@dataclass(frozen=True)
class Dataset:
    """The images of a split, decoded once.

    - `pixels` (n, c, size, size): Values in [0, 1], as they were decoded.
    - `suffix`, `change`: Name, and do, what is done to them as they are read.
    """

    cohort: Cohort
    pixels: Rows
    suffix: str = ""
    change: Change | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @functools.cached_property
    def mark(self) -> str:
        """Names the images, by their rows and content and the suffix: what depends on them carries it."""
        return _mark(self.cohort) + self.suffix

    def images(self, rows: Chosen) -> Tensor:
        """Give rows (k,) as float32, (k, c, size, size), where `change` leaves them; on the CPU without one."""
        return Stream(self.pixels, self.change)[rows]

    @classmethod
    def of(cls, cohort: Cohort, *, size: int, directory: Path | None) -> Self:
        """Decode a split to 8 bits, or find it decoded in `directory` or in the cache that it was prepared with."""
        source = cohort.pixel_source
        if isinstance(source, CachePixels) and (source.size, source.fit) == (size, cohort.fit):
            return cls(cohort, CachedRows(cohort, source))
        file = None if directory is None else directory / f"pixels-{size}-{_mark(cohort)}.npy"

        def parts() -> Iterator[tuple[slice, Any]]:
            for rows, values in cohort.batches(size=size, batch_size=64):
                yield slice(int(rows[0]), int(rows[-1]) + 1), quantise(values)

        return cls(cohort, PixelRows(stored(file, (len(cohort), cohort.channels, size, size), parts, dtype="uint8")))


def _mark(cohort: Cohort) -> str:
    return cohort.fingerprint()[:16]


def spans(n: int, size: int = CHUNK, begin: int = 0) -> Iterator[slice]:
    """Cut n rows, from `begin` on, into pieces of `size` rows, the last of what is left."""
    for start in range(begin, n, size):
        yield slice(start, min(n, start + size))


def sample_rows(n: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Give all rows of n, or SAMPLE of them that are drawn, in order.

    >>> sample_rows(3, np.random.default_rng(0)).tolist(), len(sample_rows(10**5, np.random.default_rng(0)))
    ([0, 1, 2], 16384)
    """
    return np.sort(random.permutation(n)[:SAMPLE])


def require_variety(data: Dataset) -> None:
    """Refuse images that are all alike: there is nothing to learn from them, and no loss would say so.

    >>> require_variety(Dataset(None, np.array([0.0, 1.0]).reshape(2, 1, 1, 1)))
    """
    first = data.images(slice(0, 1))
    if all(float((data.images(part) - first).abs().max()) < 1e-3 for part in spans(len(data))):
        raise InputError("All training images are alike: they are constant, or copies of one; check the image folder.")
