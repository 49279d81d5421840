"""Decode and resize every image once, into a folder that training reads at the speed of the disk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.images import quantise
from citlr.data.pixels import shards
from citlr.data.pixels.colour import luminance
from citlr.data.pixels.shown import WHITE, Seen, blank_fault, contrast
from citlr.data.pixels.source import FolderPixels, map_ordered
from citlr.data.pixels.survey import Survey, looks_of
from citlr.errors import InputError, StateError
from citlr.run.arrays import array_file
from citlr.run.files import atomic_write, read_json, write_json
from citlr.run.lock import locked

# Images in a shard: 16 MiB at 64 x 64, 256 MiB at 256 x 256.
SHARD = 4096
# Sides that a cache may have; the larger one is above any network's input.
SIZES = (1, 4096)


def cache_name(cohort: Cohort, size: int) -> str:
    """Give the folder name of a cohort's cache: size, fit, and a mark of its images."""
    scale = "" if cohort.white == WHITE else f"-white-{cohort.white}"
    colour = "" if cohort.channels == 1 else "-rgb"
    return f"cache-{size}-{cohort.fit}{scale}{colour}-{_digest(cohort)[:8]}"


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
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"A cache of {size} pixels a side is not possible; give {SIZES[0]} to {SIZES[1]}.")
    place = Path(folder)
    plan = {
        "schema": shards.SCHEMA,
        "size": size,
        "fit": cohort.fit,
        "white": cohort.white,
        "shard_size": shard_size,
        "images": _digest(cohort),
        **({} if cohort.channels == 1 else {"channels": cohort.channels}),
    }
    with locked(place, remedy="give another folder"):
        _claim(place, plan)
        tables = _fill(_Task(cohort, place, size, workers), shard_size, max_unreadable, narrator)
        write_json(place / shards.INDEX, {**plan, "shards": len(tables), "key": shards.content_key(plan, tables)})
    return open_cache(cohort, place)


def _fill(task: _Task, shard_size: int, max_unreadable: float, narrator: Narrator) -> list[pd.DataFrame]:
    """Write the shards that are not there yet, and give the tables beside all of them."""
    total, faults = len(task.cohort), 0
    tables: list[pd.DataFrame] = []
    with narrator.progress("cache images", total=total) as tick:
        for number, start in enumerate(range(0, total, shard_size)):
            rows = range(start, min(start + shard_size, total))
            if not task.whole(number, rows):
                (task.place / shards.INDEX).unlink(missing_ok=True)
                task.write(number, rows)
            tables.append(shards.read_rows(task.place, number))
            bad = [fault for fault in tables[-1]["fault"] if fault]
            faults += len(bad)
            if faults / total > max_unreadable:
                raise InputError(
                    f"{faults} of {total} images cannot be read, more than the share "
                    f"max_unreadable={max_unreadable:g}; the last: {bad[-1]}"
                )
            tick(rows.stop, f"{faults} unreadable")
    return tables


def open_cache(cohort: Cohort, folder: str | os.PathLike[str]) -> Cohort:
    """Give the cohort that reads from an existing cache; images that could not be cached are left out and named."""
    cache = shards.OpenCache.at(folder)
    wanted = cohort.frame["image_id"]
    absent = wanted[~wanted.isin(cache.pixels.places)]
    if len(absent):
        raise InputError(f"The cache {folder} lacks {len(absent)} images of the cohort, the first: {absent.iloc[0]}.")
    cache.require_fresh(cohort.root, wanted.tolist())
    unreadable = set(cache.rows.loc[cache.rows["fault"] != "", "image_id"])
    recorder = FlowRecorder(cohort.frame, steps=cohort.flow)
    bad = wanted.isin(unreadable)
    if bad.any():
        recorder.keep(~bad, "readable", "image cannot be read", cohort.frame.loc[bad, "path"].tolist())
    seen = cache.rows[cache.rows["image_id"].isin(wanted)]
    looks = looks_of(seen["path"], seen["fault"], seen["contrast"], seen["remarks"])
    Survey(looks, scaled=False).remark(recorder)
    return replace(cohort, frame=recorder.frame, flow=tuple(recorder.steps), source=cache.pixels, fit=cache.pixels.fit)


def _digest(cohort: Cohort) -> str:
    text = "\n".join(cohort.frame["image_id"].astype(str) + "\t" + cohort.frame["path"].astype(str))
    return hashlib.sha256(text.encode()).hexdigest()


def _claim(place: Path, plan: dict[str, Any]) -> None:
    """Write the plan first: shards found beside the same plan are whole, since each was renamed when it was."""
    file = place / shards.PLAN
    try:
        stored = read_json(file) if file.is_file() else None
    except (OSError, StateError):
        stored = None
    if stored is not None and stored != plan:
        raise StateError(f"{place} holds a cache of other images, another size or fit; give another folder.")
    if stored is None:
        # A plan cut short by a damaged disk does not say what the shards beside it were made of.
        for table in place.glob("shard-*.parquet"):
            table.unlink()
        write_json(file, plan)


@dataclass(frozen=True)
class _Task:
    """Shards to be written: from where, to where, how large."""

    cohort: Cohort
    place: Path
    size: int
    workers: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image in a shard: (size, size), or (3, size, size) in colour."""
        return shards.shape_of(self.cohort.channels, self.size)

    def whole(self, number: int, rows: range) -> bool:
        """Say whether a shard is there, undamaged, and none of its files was changed since."""
        try:
            table = shards.read_rows(self.place, number)
            shard = np.load(shards.shard_file(self.place, number), mmap_mode="r", allow_pickle=False)
        except (StateError, OSError, ValueError, EOFError):
            return False
        if len(table) != len(rows) or shard.shape != (len(rows), *self.shape):
            return False
        known = list(shards.stamps_of(table))
        now = list(map(self._stamp, table["image_id"], table["path"], known))
        if [stamp.digest for stamp in now] != [stamp.digest for stamp in known]:
            return False
        if now != known:
            # The same content in other files, as after a move: noted, so that it is not read at every opening.
            shards.write_rows(self.place, number, table.assign(**pd.DataFrame(now)).to_dict("records"))
        return all(shards.pixel_digest(image) == digest for image, digest in zip(shard, table["pixels"], strict=True))

    def write(self, number: int, rows: range) -> None:
        """Fill one shard through a memory map; the table beside it is written last and says that it is whole."""
        part = self.cohort.frame.iloc[rows.start : rows.stop]
        ids, paths = part["image_id"].tolist(), part["path"].tolist()
        shards.rows_file(self.place, number).unlink(missing_ok=True)
        known: list[shards.Row] = []
        with (
            atomic_write(shards.shard_file(self.place, number)) as temporary,
            array_file(temporary, (len(ids), *self.shape), np.uint8) as shard,
        ):
            pairs = zip(ids, paths, strict=True)
            done = map_ordered(self._decoded, pairs, workers=self.workers, ahead=8 * self.workers)
            for place, (image, row) in enumerate(done):
                shard.put(place, image[None])
                known.append(row)
        shards.write_rows(self.place, number, [row.to_dict() for row in known])

    def _decoded(self, named: tuple[str, str]) -> tuple[npt.NDArray[np.uint8], shards.Row]:
        """Give one image and what is known of it; black where it cannot be read or shows nothing."""
        image_id, path = named
        cohort, source = self.cohort, self.cohort.pixel_source
        stamp = self._stamp(image_id, path)
        try:
            if isinstance(source, FolderPixels):
                seen = source.see(path, size=self.size, fit=cohort.fit)
            else:
                image = source.read_many([image_id], [path], size=self.size, fit=cohort.fit)[0]
                seen = Seen(image, contrast(luminance(image)))
            fault = blank_fault(str(cohort.root / path), seen.contrast) or ""
        except InputError as error:
            seen, fault = Seen(np.zeros((cohort.channels, self.size, self.size), np.float32), 0.0), str(error)
        pixels = quantise(np.zeros_like(seen.image) if fault else seen.image).reshape(self.shape)
        remarks = ",".join(remark.name for remark in seen.remarks)
        return pixels, shards.Row(image_id, path, fault, stamp, shards.pixel_digest(pixels), seen.contrast, remarks)

    def _stamp(self, image_id: str, path: str, known: shards.Stamp | None = None) -> shards.Stamp:
        """Say what an image is by now; what is no file says so itself."""
        source = self.cohort.pixel_source
        if isinstance(source, FolderPixels):
            return shards.Stamp.of(self.cohort.root / path, known)
        return shards.Stamp(digest=source.fingerprint([image_id], [path]))
