"""Rows that need not be in memory while nobody looks at them, in a file without a name that goes with them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from citlr.run.files import disk_full, disk_is_full

Chosen = slice | npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScratchRows:
    """Rows (n, width) of single precision that are read and written some at a time.

    Read, not mapped: what was read is gone with the array that it was read into.

    - `folder`: Where the file is; None where it is memory.

    >>> with scratch_rows(None, (3, 2)) as rows:
    ...     rows[0:2] = np.ones((2, 2))
    ...     rows[np.array([0, 2])] = np.float32([[1, 2], [5, 6]])
    ...     rows[:].tolist(), rows[np.array([1])].tolist()
    ([[1.0, 2.0], [1.0, 1.0], [5.0, 6.0]], [[1.0, 1.0]])
    """

    stream: BufferedRandom | BytesIO
    shape: tuple[int, int]
    folder: Path | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Chosen) -> npt.NDArray[np.float32]:
        """Read a slice, or rows (k,) in rising order: best such as lie near each other."""
        part, within = self._around(chosen)
        found = np.zeros((part.stop - part.start, self.shape[1]), dtype=np.float32)
        if found.size:
            self._go_to(part.start)
            self.stream.readinto(found.data.cast("B"))
        return found if within is None else found[within]

    def __setitem__(self, chosen: Chosen, values: npt.ArrayLike) -> None:
        """Write rows (k, width), chosen as they are read."""
        part, within = self._around(chosen)
        block = np.ascontiguousarray(values, dtype=np.float32)
        if within is not None:
            own, block = block, self[part]
            block[within] = own
        try:
            self._go_to(part.start)
            self.stream.write(block.tobytes())
            # The system says that a disk is full when it is given the bytes.
            self.stream.flush()
        except OSError as error:
            if self.folder is None or not disk_is_full(error, self.folder):
                raise
            raise disk_full(self.folder / "scratch") from error

    def _around(self, chosen: Chosen) -> tuple[slice, npt.NDArray[np.int64] | None]:
        """Give the slice that holds what was chosen, and the places in there; None for all of it."""
        if isinstance(chosen, slice):
            start, stop, _ = chosen.indices(len(self))
            return slice(start, max(start, stop)), None
        start, stop = (int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else (0, 0)
        return slice(start, stop), chosen - start

    def _go_to(self, row: int) -> None:
        self.stream.seek(row * self.shape[1] * np.dtype(np.float32).itemsize)


@contextmanager
def scratch_rows(folder: Path | None, shape: tuple[int, int]) -> Iterator[ScratchRows]:
    """Make rows in a folder, or in memory without one; every row is to be written before it is read."""
    if folder is None:
        yield ScratchRows(BytesIO(), shape)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as stream:
        yield ScratchRows(stream, shape, folder)
