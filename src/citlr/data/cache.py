"""Decode and resize every image once, into a folder that training reads at the speed of the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from citlr.console import Narrator
from citlr.data.checks import QUIET
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.images import Fit, quantise
from citlr.data.pixels import FolderPixels, PixelSource, map_ordered
from citlr.data.shards import (
    INDEX,
    PLAN,
    SCHEMA,
    OpenCache,
    Row,
    Stamp,
    content_key,
    pixel_digest,
    read_rows,
    rows_file,
    shard_file,
    stamps_of,
    write_rows,
)
from citlr.errors import InputError, StateError
from citlr.run.files import atomic_write, read_json, write_json

# Images in a shard: 16 MiB at 64 x 64, 256 MiB at 256 x 256.
SHARD = 4096
# Sides that a cache may have; the larger one is above any network's input.
SIZES = (1, 4096)


def cache_name(cohort: Cohort, size: int) -> str:
    """Give the folder name of a cohort's cache: size, fit, and a mark of its images.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"image_id": ["a"], "path": ["a.png"], "patient_id": ["p"]})
    >>> cache_name(Cohort(frame, Path("."), attributes=(), labels=()), 64)
    'cache-64-pad-c726d538'
    """
    return f"cache-{size}-{cohort.fit}-{_digest(cohort)[:8]}"


def write_cache(
    cohort: Cohort,
    folder: str | os.PathLike[str],
    *,
    size: int,
    max_unreadable: float = 0.01,
    workers: int = 2,
    shard_size: int = SHARD,
    narrator: Narrator = QUIET,
) -> Cohort:
    """Decode every image once, and give the cohort that reads from the cache.

    Interrupted and started again, it goes on after the last whole shard; started again on a whole cache, it decodes
    the shards with files that were changed since, and no others. Eight-bit images come out bit for bit as they are
    decoded; 16-bit and DICOM images are rounded to 256 grey values.

    Parameters
    ----------
    cohort : Cohort
        Its images.
    folder : path-like
        Where the shards go.
    size : int
        Side of the square images, in pixels; 1 to 4096.
    max_unreadable : float
        The share of images, in [0, 1], that may be unreadable; they are left out of the cohort, counted and named.
    workers : int
        Decoding threads.
    shard_size : int
        Images in a shard.
    narrator : Narrator
        Shows progress.

    Returns
    -------
    Cohort
        Without the unreadable images, with the cache as its source.

    Raises
    ------
    InputError
        If too many images are unreadable, or the size is none.
    StateError
        If the folder holds a cache of other images or another size.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"A cache of {size} pixels a side is not possible; give {SIZES[0]} to {SIZES[1]}.")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    plan = {"schema": SCHEMA, "size": size, "fit": cohort.fit, "shard_size": shard_size, "images": _digest(cohort)}
    _claim(place, plan)
    task = _Task(cohort, place, size, workers)
    total, faults = len(cohort), 0
    tables = []
    with narrator.progress("cache images", total=total) as tick:
        for number, start in enumerate(range(0, total, shard_size)):
            rows = range(start, min(start + shard_size, total))
            if not task.whole(number, rows):
                (place / INDEX).unlink(missing_ok=True)
                task.write(number, rows)
            tables.append(read_rows(place, number))
            bad = [fault for fault in tables[-1]["fault"] if fault]
            faults += len(bad)
            if faults / total > max_unreadable:
                raise InputError(
                    f"{faults} of {total} images cannot be read, more than the share "
                    f"max_unreadable={max_unreadable:g}; the last: {bad[-1]}"
                )
            tick(rows.stop, f"{faults} unreadable")
    write_json(place / INDEX, {**plan, "shards": len(tables), "key": content_key(plan, tables)})
    return open_cache(cohort, place)


def open_cache(cohort: Cohort, folder: str | os.PathLike[str]) -> Cohort:
    """Give the cohort that reads from an existing cache; images that could not be cached are left out and named.

    Raises
    ------
    StateError
        If the folder holds no whole cache, or one of files that were changed since.
    InputError
        If it lacks images of the cohort.
    """
    cache = OpenCache.at(folder)
    wanted = cohort.frame["image_id"]
    absent = wanted[~wanted.isin(cache.pixels.places)]
    if len(absent):
        raise InputError(f"The cache {folder} lacks {len(absent)} images of the cohort, the first: {absent.iloc[0]}.")
    cache.require_fresh(cohort.root, wanted.tolist())
    lost = set(cache.rows.loc[cache.rows["fault"] != "", "image_id"])
    recorder = FlowRecorder(cohort.frame, steps=cohort.flow)
    bad = wanted.isin(lost)
    if bad.any():
        recorder.keep(~bad, "readable", "image cannot be read", cohort.frame.loc[bad, "path"].tolist())
    return replace(cohort, frame=recorder.frame, flow=tuple(recorder.steps), source=cache.pixels, fit=cache.pixels.fit)


def _digest(cohort: Cohort) -> str:
    text = "\n".join(cohort.frame["image_id"].astype(str) + "\t" + cohort.frame["path"].astype(str))
    return hashlib.sha256(text.encode()).hexdigest()


def _claim(place: Path, plan: dict[str, Any]) -> None:
    """Write the plan first: shards found beside the same plan are whole, since each was renamed when it was."""
    file = place / PLAN
    if not file.is_file():
        write_json(file, plan)
    elif read_json(file) != plan:
        raise StateError(f"{place} holds a cache of other images, another size or fit; give another folder.")


@dataclass(frozen=True)
class _Task:
    """Shards to be written: from where, to where, how large."""

    cohort: Cohort
    place: Path
    size: int
    workers: int

    def whole(self, number: int, rows: range) -> bool:
        """Say whether a shard is there, undamaged, and none of its files was changed since."""
        try:
            table = read_rows(self.place, number)
            shard = np.load(shard_file(self.place, number), mmap_mode="r", allow_pickle=False)
        except (StateError, OSError, ValueError, EOFError):
            return False
        if len(table) != len(rows) or shard.shape != (len(rows), self.size, self.size):
            return False
        pairs = zip(table["path"], stamps_of(table), strict=True)
        if any(stamp.changed(self.cohort.root / path) for path, stamp in pairs):
            return False
        return all(pixel_digest(image) == digest for image, digest in zip(shard, table["pixels"], strict=True))

    def write(self, number: int, rows: range) -> None:
        """Fill one shard through a memory map; the table beside it is written last and says that it is whole."""
        cohort, size, fit = self.cohort, self.size, self.cohort.fit
        source: PixelSource = cohort.source if cohort.source is not None else FolderPixels(cohort.root)
        files = cohort.source is None
        part = cohort.frame.iloc[rows.start : rows.stop]
        ids, paths = part["image_id"].tolist(), part["path"].tolist()

        def decode(row: int) -> tuple[npt.NDArray[np.uint8], Row]:
            stamp = Stamp.of(cohort.root / paths[row]) if files else Stamp()
            image, fault = _decoded(source, ids[row], paths[row], size, fit)
            return image, Row(ids[row], paths[row], fault, stamp, pixel_digest(image))

        rows_file(self.place, number).unlink(missing_ok=True)
        known: list[Row] = []
        with atomic_write(shard_file(self.place, number)) as temporary:
            shape = (len(ids), size, size)
            shard = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            done = map_ordered(decode, iter(range(len(ids))), workers=self.workers, ahead=8 * self.workers)
            for place, (image, row) in enumerate(done):
                shard[place] = image
                known.append(row)
            shard.flush()
            del shard
        write_rows(self.place, number, known)


def _decoded(source: PixelSource, image_id: str, path: str, size: int, fit: Fit) -> tuple[npt.NDArray[np.uint8], str]:
    """Give one image and no fault, or nothing but black and a fault."""
    names: Sequence[str] = [image_id]
    try:
        return quantise(source.read_many(names, [path], size=size, fit=fit)[0, 0]), ""
    except InputError as error:
        return np.zeros((size, size), np.uint8), str(error)
