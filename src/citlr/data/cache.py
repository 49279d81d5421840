"""Decoded, resized images on disk: memory-mapped uint8 shards with an index, read at the speed of the disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from citlr.artifacts import atomic_write, read_json, write_json
from citlr.console import Narrator
from citlr.data.checks import QUIET
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.images import Fit, Pixels, fit_square, quantise
from citlr.data.pixels import FolderPixels, PixelSource, map_ordered
from citlr.errors import InputError, StateError

SCHEMA = "citlr.cache/1"
INDEX = "index.json"
# Images in a shard: 16 MiB at 64 x 64, 256 MiB at 256 x 256.
SHARD = 4096


@dataclass(frozen=True)
class CachePixels:
    """Pixels out of a cache folder; shards are mapped, not loaded, so memory holds what is being read.

    Parameters
    ----------
    folder : Path
        The cache.
    size : int
        Side of the images in it, in pixels.
    fit : {"pad", "crop", "stretch"}
        How rectangles became squares.
    places : dict of str to (int, int)
        Image id to shard and row.
    """

    folder: Path
    size: int
    fit: Fit
    places: dict[str, tuple[int, int]] = field(repr=False)
    _maps: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def read_many(self, ids: Sequence[str], paths: Sequence[str], *, size: int, fit: Fit) -> Pixels:
        """Read images (n, 1, size, size); smaller sizes are made from the cached one, larger ones are refused."""
        if size > self.size or fit != self.fit:
            raise InputError(
                f"The cache {self.folder} holds images of {self.size} pixels with fit='{self.fit}', and {size} pixels "
                f"with fit='{fit}' were asked for; write a cache of that kind."
            )
        batch = np.empty((len(ids), 1, self.size, self.size), dtype=np.float32)
        for position, image_id in enumerate(ids):
            shard, row = self.places[image_id]
            np.multiply(self._shard(shard)[row], np.float32(1.0 / 255.0), out=batch[position, 0])
        if size == self.size:
            return batch
        return np.stack([fit_square(image, size=size, fit="stretch") for image in batch])

    def _shard(self, number: int) -> npt.NDArray[np.uint8]:
        with self._lock:
            if number not in self._maps:
                self._maps[number] = np.load(self.folder / _shard_name(number), mmap_mode="r", allow_pickle=False)
            return self._maps[number]


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

    Interrupted and started again, it goes on after the last whole shard. Eight-bit images come out bit for bit as they
    are decoded; 16-bit and DICOM images are rounded to 256 grey values.

    Parameters
    ----------
    cohort : Cohort
        Its images.
    folder : path-like
        Where the shards go.
    size : int
        Side of the square images, in pixels.
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
        If too many images are unreadable.
    StateError
        If the folder holds a cache of other images or another size.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    plan = {"schema": SCHEMA, "size": size, "fit": cohort.fit, "shard_size": shard_size, "images": _digest(cohort)}
    _claim(place, plan)
    source: PixelSource = cohort.source if cohort.source is not None else FolderPixels(cohort.root)
    ids, paths = cohort.frame["image_id"].tolist(), cohort.frame["path"].tolist()
    unreadable: dict[int, str] = {}
    with narrator.progress("cache images", total=len(ids)) as tick:
        for number, start in enumerate(range(0, len(ids), shard_size)):
            rows = range(start, min(start + shard_size, len(ids)))
            unreadable.update(_write_shard(place, number, rows, source, ids, paths, size, cohort.fit, workers))
            share = len(unreadable) / len(ids)
            if share > max_unreadable:
                first = min(unreadable)
                raise InputError(
                    f"{len(unreadable)} of {len(ids)} images cannot be read, more than the share "
                    f"max_unreadable={max_unreadable:g}; the first: {unreadable[first]}"
                )
            tick(rows.stop, f"{len(unreadable)} unreadable")
    write_json(place / INDEX, {**plan, "ids": ids, "unreadable": sorted(unreadable)})
    return open_cache(cohort, place)


def open_cache(cohort: Cohort, folder: str | os.PathLike[str]) -> Cohort:
    """Give the cohort that reads from an existing cache; images that could not be cached are left out and named.

    Raises
    ------
    StateError
        If the folder holds no whole cache.
    InputError
        If it lacks images of the cohort.
    """
    place = Path(folder)
    if not (place / INDEX).is_file():
        raise StateError(f"{place} holds no whole cache (there is no {INDEX}); write it with write_cache.")
    index = read_json(place / INDEX)
    if index.get("schema") != SCHEMA:
        raise StateError(f"{place} holds a cache of another version ({index.get('schema')}); write it anew.")
    lost = {index["ids"][row] for row in index["unreadable"]}
    places = {name: divmod(row, int(index["shard_size"])) for row, name in enumerate(index["ids"])}
    wanted = cohort.frame["image_id"]
    absent = wanted[~wanted.isin(places)]
    if len(absent):
        raise InputError(f"The cache {place} lacks {len(absent)} images of the cohort, the first: {absent.iloc[0]}.")
    recorder = FlowRecorder(cohort.frame, steps=cohort.flow)
    bad = wanted.isin(lost)
    recorder.keep(~bad, "readable", "image cannot be read", cohort.frame.loc[bad, "path"].tolist())
    source = CachePixels(place, int(index["size"]), index["fit"], places)
    return replace(cohort, frame=recorder.frame, flow=tuple(recorder.steps), source=source, fit=source.fit)


def _digest(cohort: Cohort) -> str:
    text = "\n".join(cohort.frame["image_id"].astype(str) + "\t" + cohort.frame["path"].astype(str))
    return hashlib.sha256(text.encode()).hexdigest()


def _claim(place: Path, plan: dict[str, object]) -> None:
    """Write the plan first: shards found beside the same plan are whole, since each was renamed when it was."""
    file = place / "plan.json"
    if not file.is_file():
        write_json(file, plan)
    elif read_json(file) != plan:
        raise StateError(f"{place} holds a cache of other images, another size or fit; give another folder.")


def _write_shard(
    place: Path,
    number: int,
    rows: range,
    source: PixelSource,
    ids: list[str],
    paths: list[str],
    size: int,
    fit: Fit,
    workers: int,
) -> dict[int, str]:
    """Fill one shard through a memory map; give the rows that cannot be read, each with its sentence."""
    file, faults_file = place / _shard_name(number), place / f"shard-{number:05d}.json"
    if file.is_file() and faults_file.is_file():
        return {int(row): fault for row, fault in read_json(faults_file).items()}

    def decode(row: int) -> tuple[int, npt.NDArray[np.uint8] | None, str]:
        try:
            image = source.read_many([ids[row]], [paths[row]], size=size, fit=fit)
        except InputError as error:
            return row, None, str(error)
        return row, quantise(image[0, 0]), ""

    faults: dict[int, str] = {}
    with atomic_write(file) as temporary:
        shard = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(rows), size, size))
        for row, image, fault in map_ordered(decode, iter(rows), workers=workers, ahead=8 * workers):
            if image is None:
                faults[row] = fault
            else:
                shard[row - rows.start] = image
        shard.flush()
        del shard
        write_json(faults_file, faults)
    return faults


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.npy"
