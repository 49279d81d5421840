"""Images when they are needed and no sooner: sources of pixels, and a bounded pipeline of decoding threads."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from citlr.data.images import see_image
from citlr.data.pixels.shown import NOTHING, WHITE, Pixels, Seen, blank_fault
from citlr.data.pixels.square import Fit
from citlr.errors import InputError
from citlr.run.files import digest_or_missing
from citlr.text import shortened

Item = TypeVar("Item")
Result = TypeVar("Result")
Rows = npt.NDArray[np.int64]


class PixelSource(Protocol):
    """Where the pixels of a cohort come from: a folder, a cache, a data set object."""

    def read_many(self, ids: Sequence[str], paths: Sequence[str], *, size: int, fit: Fit) -> Pixels:
        """Give images (n, c, size, size) in [0, 1]; called from several threads at once."""

    def native(self, image_id: str, path: str) -> Pixels:
        """Give one image (c, H, W) in [0, 1] at its own size."""

    def fingerprint(self, ids: Sequence[str], paths: Sequence[str]) -> str:
        """Give the SHA-256 of these images' names and content: another one when any of them is another."""


@dataclass(frozen=True)
class FolderPixels:
    """Image files below one folder; `white` is the value of 16-bit images that is white."""

    root: Path
    white: int = WHITE
    channels: int = 1

    def read_many(self, ids: Sequence[str], paths: Sequence[str], *, size: int, fit: Fit) -> Pixels:
        """Decode `root / path` for every path."""
        batch = np.empty((len(paths), self.channels, size, size), dtype=np.float32)
        for position, path in enumerate(paths):
            seen = self.see(path, size=size, fit=fit)
            fault = blank_fault(str(self.root / path), seen.contrast, least=NOTHING)
            if fault:
                raise InputError(f"{fault} Leave it out of the table, or have it left out (check: decode).")
            batch[position] = seen.image
        return batch

    def native(self, image_id: str, path: str) -> Pixels:
        """Decode one image at its own size."""
        return self.see(path).image

    def see(self, path: str, *, size: int | None = None, fit: Fit = "pad") -> Seen:
        """Decode one image, and say what there is to say of it."""
        file = inside(self.root, path)
        return see_image(file, size=size, fit=fit, white=self.white, channels=self.channels)

    def fingerprint(self, ids: Sequence[str], paths: Sequence[str]) -> str:
        """Digest every file's bytes; one that is not there counts as `missing`."""
        files = (self.root / path for path in paths)
        return digest_of(ids, map_ordered(digest_or_missing, files, workers=4, ahead=64))


def inside(root: Path, path: str) -> Path:
    """Give `root / path`."""
    file = root / path
    if ".." in Path(path).parts or Path(path).is_absolute():
        raise InputError(f"{shortened(str(file))} leads out of the image folder; give a path inside it.")
    return file


def leads_out(home: Path, file: Path) -> bool:
    """Say whether a link on the way to a file leads out of the image folder, given without links."""
    # `resolve` raises at a link to itself, which the reader names.
    return not Path(os.path.realpath(file)).is_relative_to(home)


def digest_of(ids: Iterable[str], contents: Iterable[str]) -> str:
    """Give the SHA-256 of names and the digests of what they name, in order.

    >>> digest_of(["a"], ["1"]) == digest_of(["a"], ["2"])
    False
    """
    whole = hashlib.sha256()
    for name, content in zip(ids, contents, strict=True):
        # No file name holds a NUL, and no digest: two lists cannot give one text.
        whole.update(f"{name}\0{content}\0".encode())
    return whole.hexdigest()


def map_ordered(work: Callable[[Item], Result], items: Iterator[Item], *, workers: int, ahead: int) -> Iterator[Result]:
    """Run `work` in threads and give results in order, with at most `ahead` unfinished or unread ones in memory.

    >>> list(map_ordered(lambda value: value * 2, iter([1, 2, 3]), workers=2, ahead=2))
    [2, 4, 6]
    """
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="citlr-decode")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Also reached when the reader stops early: nothing is left running behind it.
        pool.shutdown(wait=True, cancel_futures=True)


def read_batches(
    read: Callable[[Rows], Pixels], rows: Rows, *, batch_size: int, workers: int
) -> Iterator[tuple[Rows, Pixels]]:
    """Read rows in order, a batch at a time, one batch per thread and one more ahead."""
    parts = (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
    yield from map_ordered(lambda part: (part, read(part)), parts, workers=workers, ahead=workers + 1)
