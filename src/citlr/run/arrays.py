"""Arrays larger than memory, written as plain files: a full disk is then an error and not the end of the process.

Writing through a memory map, the system learns that a disk is full when a page is to be stored, and kills the process
with SIGBUS; there is nothing to catch.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ArrayFile:
    """A `.npy` file of a known shape, filled by rows of its first axis."""

    stream: BinaryIO
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    def put(self, row: int, values: npt.ArrayLike) -> None:
        """Write the rows from `row` on: (k, *shape[1:])."""
        block = np.ascontiguousarray(values, dtype=self.dtype)
        if block.shape[1:] != self.shape[1:] or row + len(block) > self.shape[0]:
            raise ValueError(f"rows {row} to {row + len(block)} of shape {block.shape[1:]} in an array {self.shape}")
        self.stream.seek(self.start + row * self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64)))
        self.stream.write(block.tobytes())


@contextmanager
def array_file(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[ArrayFile]:
    """Make a `.npy` file that is to be filled; it can be mapped when the block has ended.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.npy"
    >>> with array_file(target, (3, 2), "uint8") as rows:
    ...     rows.put(2, [[5, 6]])
    ...     rows.put(0, [[1, 2], [3, 4]])
    >>> np.load(target, mmap_mode="r").tolist()
    [[1, 2], [3, 4], [5, 6]]
    """
    kind = np.dtype(dtype)
    with path.open("wb") as stream:
        descr = np.lib.format.dtype_to_descr(kind)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        yield ArrayFile(stream, shape, kind, start)
        # Rows that were never put are zeros, and the file is as long as its header says.
        stream.truncate(start + kind.itemsize * int(np.prod(shape, dtype=np.int64)))


def let_go(mapped: npt.NDArray[Any]) -> None:
    """Give the pages of a mapped array back; the system keeps them as long as it has room, and reads them again.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.npy"
    >>> np.save(file, np.arange(3))
    >>> array = np.load(file, mmap_mode="r")
    >>> let_go(array)
    >>> array.tolist()
    [0, 1, 2]
    """
    pages = mapped.base
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        pages.madvise(mmap.MADV_DONTNEED)
