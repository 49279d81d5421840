"""What a cache folder holds, and pixels out of it: memory-mapped uint8 shards, beside each the files it was made of."""

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.data.images import fit_square
from citlr.data.pixels.shown import Pixels
from citlr.data.pixels.source import digest_of
from citlr.data.pixels.square import Fit
from citlr.errors import InputError, StateError
from citlr.run.arrays import let_go
from citlr.run.files import atomic_write, read_json

SCHEMA = "citlr.cache/3"
# Written last: a folder without it holds no whole cache.
INDEX = "index.json"
PLAN = "plan.json"
_DIGEST = 16


@dataclass(frozen=True)
class CachePixels:
    """Pixels out of a cache folder; shards are mapped, not loaded, so memory holds what is being read.

    An image is compared with the digest that was noted when it was written, once in a process: a damaged disk is named.

    - `key`: Names the cache's content: image ids, size, fit, and the content of the files.
    - `places` (int, int, str): Image id to shard, row, and the digest of its pixels.
    """

    folder: Path
    size: int
    fit: Fit
    key: str
    places: dict[str, tuple[int, int, str]] = field(repr=False)
    channels: int = 1
    _maps: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)
    _whole: set[str] = field(default_factory=set, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Map the files anew in another process, rather than send pixels there."""
        there = replace(self, folder=self.folder.absolute())
        return type(self), tuple(getattr(there, one.name) for one in fields(self) if not one.name.startswith("_"))

    def read_many(self, ids: Sequence[str], paths: Sequence[str], *, size: int, fit: Fit) -> Pixels:
        """Read images (n, c, size, size); smaller sizes are made from the cached one, larger ones are refused."""
        if size > self.size or fit != self.fit:
            raise InputError(
                f"The cache {self.folder} holds images of {self.size} pixels with fit='{self.fit}', and {size} pixels "
                f"with fit='{fit}' were asked for; prepare the cohort with --cache {size}, or read the image files "
                "(cohort.cache: false)."
            )
        batch = np.empty((len(ids), self.channels, self.size, self.size), dtype=np.float32)
        flat = batch.reshape(len(ids), *shape_of(self.channels, self.size))
        for position, image_id in enumerate(ids):
            np.multiply(self._image(image_id), np.float32(1.0 / 255.0), out=flat[position])
        for shard in {self.places[image_id][0] for image_id in ids}:
            let_go(self._shard(shard))
        if size == self.size:
            return batch
        return np.stack([fit_square(image, size=size, fit="stretch") for image in batch])

    def native(self, image_id: str, path: str) -> Pixels:
        """Give one image at the cache's size: what it was before is not kept."""
        image: Pixels = self.read_many([image_id], [path], size=self.size, fit=self.fit)[0]
        return image

    def fingerprint(self, ids: Sequence[str], paths: Sequence[str]) -> str:
        """Digest the digests that were noted when the pixels were written; reading compares the pixels with them."""
        return digest_of([f"{self.size} {self.fit}", *ids], ["", *(self.places[name][2] for name in ids)])

    def _image(self, image_id: str) -> npt.NDArray[np.uint8]:
        shard, row, digest = self.places[image_id]
        image: npt.NDArray[np.uint8] = self._shard(shard)[row]
        if image_id not in self._whole:
            if pixel_digest(image) != digest:
                raise self._damaged(shard, f"the pixels of '{image_id}' are not those that were written")
            self._whole.add(image_id)
        return image

    def _shard(self, number: int) -> npt.NDArray[np.uint8]:
        with self._lock:
            if number not in self._maps:
                try:
                    self._maps[number] = np.load(shard_file(self.folder, number), mmap_mode="r", allow_pickle=False)
                except (OSError, ValueError, EOFError) as error:
                    raise self._damaged(number, f"it cannot be mapped: {error}") from error
            return self._maps[number]

    def _damaged(self, number: int, what: str) -> StateError:
        return StateError(
            f"{shard_file(self.folder, number)} is damaged ({what}); run the same `citlr prepare ... --cache "
            f"{self.size}` again, which mends it."
        )


@dataclass(frozen=True)
class Stamp:
    """What a file was when it was decoded.

    - `bytes`, `mtime_ns`, `ctime_ns`, `inode`: What the system says of it; -1 for what is no file, and for what a cache
      of an earlier version did not note.
    - `digest`: Of its content; empty for what is no file.
    """

    bytes: int = -1
    mtime_ns: int = -1
    digest: str = ""
    ctime_ns: int = -1
    inode: int = -1

    @classmethod
    def of(cls, file: Path, known: Self | None = None) -> Self:
        """Take the stamp of a file; an empty one where there is none.

        Its content is not read where the system says that the file is the `known` one. A copy can keep size and mtime,
        but no program can set ctime.
        """
        try:
            status = file.stat()
            # A named pipe would be waited for.
            if not stat.S_ISREG(status.st_mode):
                return cls()
            digest = "" if known is None else known.digest
            now = cls(status.st_size, status.st_mtime_ns, digest, status.st_ctime_ns, status.st_ino)
            if known is not None and known.ctime_ns < 0:  # of a cache of before, which knows size and time alone
                same = (now.bytes, now.mtime_ns) == (known.bytes, known.mtime_ns)
            else:
                same = now == known
            return now if same else replace(now, digest=_content_digest(file))
        except OSError:
            return cls()

    def changed(self, file: Path) -> bool:
        """Say whether the file is another one by now; one that is gone has not changed."""
        now = Stamp.of(file, self)
        return now.bytes >= 0 and now.digest != self.digest


def _content_digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=_DIGEST).hexdigest()


def shape_of(channels: int, size: int) -> tuple[int, ...]:
    """Give the shape of one image in a shard: (size, size) of grey, (3, size, size) of colour."""
    return (size, size) if channels == 1 else (channels, size, size)


def pixel_digest(image: npt.NDArray[np.uint8]) -> str:
    """Digest one cached image, see `shape_of`."""
    return hashlib.blake2b(image.tobytes(), digest_size=_DIGEST).hexdigest()


def shard_file(folder: Path, number: int) -> Path:
    """Give the file with the pixels of a shard, uint8, see `shape_of`."""
    return folder / f"shard-{number:05d}.npy"


def rows_file(folder: Path, number: int) -> Path:
    """Give the table beside it: image id, path, fault, the stamp of the file, and the digest of the pixels."""
    return folder / f"shard-{number:05d}.parquet"


@dataclass(frozen=True)
class Row:
    """What is known of one image in a shard: its name and file, why it cannot be used, what its pixels are like."""

    image_id: str
    path: str
    fault: str
    stamp: Stamp
    pixels: str
    contrast: float
    remarks: str

    def to_dict(self) -> dict[str, Any]:
        """Give one row of the table, flat."""
        own = asdict(self)
        return {**own, **own.pop("stamp")}


def write_rows(folder: Path, number: int, rows: list[dict[Any, Any]]) -> None:
    """Write the table beside a shard, whole or not at all."""
    with atomic_write(rows_file(folder, number)) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_rows(folder: Path, number: int) -> pd.DataFrame:
    """Read the table beside a shard."""
    file = rows_file(folder, number)
    try:
        with file.open("rb") as stream:
            frame: pd.DataFrame = pq.ParquetFile(stream).read().to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise StateError(f"{file} is damaged ({error}); remove it and run the same `citlr prepare` again.") from error
    return frame


def stamps_of(rows: pd.DataFrame) -> Iterator[Stamp]:
    """Give the stamps in a table that `write_rows` wrote."""
    names = [one.name for one in fields(Stamp)]
    stated = rows.reindex(columns=names, fill_value=-1)
    for values in zip(*(stated[name] for name in names), strict=True):
        yield Stamp(*values)


def content_key(plan: dict[str, Any], tables: Sequence[pd.DataFrame]) -> str:
    """Name the content of a cache: the plan, and every image's name, file and pixels."""
    text = hashlib.blake2b(repr(sorted(plan.items())).encode(), digest_size=_DIGEST)
    for rows in tables:
        for column in ("image_id", "path", "fault", "digest", "pixels", "remarks"):
            text.update("\0".join(rows[column]).encode())
    return text.hexdigest()


@dataclass(frozen=True)
class OpenCache:
    """A whole cache: its pixels, and what each was made of: image_id, path, fault (empty where it was read), stamp."""

    pixels: CachePixels
    rows: pd.DataFrame

    @classmethod
    def at(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a folder."""
        place = Path(folder)
        if not (place / INDEX).is_file():
            raise StateError(f"{place} holds no whole cache (there is no {INDEX}); write it with `--cache`.")
        index = _read_index(place / INDEX)
        if index.get("schema") != SCHEMA:
            raise StateError(f"{place} holds a cache of another version ({index.get('schema')}); write it anew.")
        tables = [read_rows(place, number) for number in range(int(index["shards"]))]
        plan = {name: value for name, value in index.items() if name not in ("shards", "key")}
        if content_key(plan, tables) != index["key"]:
            raise StateError(
                f"The tables of the cache {place} are not those that its {INDEX} was written with; run the same "
                f"`citlr prepare ... --cache {index['size']}` again."
            )
        places = {
            name: (number, row, digest)
            for number, rows in enumerate(tables)
            for row, (name, digest) in enumerate(zip(rows["image_id"], rows["pixels"], strict=True))
        }
        known = (int(index["size"]), index["fit"], str(index["key"]), places, int(index.get("channels", 1)))
        pixels = CachePixels(place, *known)
        return cls(pixels, pd.concat(tables, ignore_index=True))

    def require_fresh(self, root: Path, ids: Sequence[str]) -> None:
        """Refuse a cache of files that were changed since; files that are gone are no reason."""
        rows = self.rows[self.rows["image_id"].isin(set(ids))]
        pairs = zip(rows["path"], stamps_of(rows), strict=True)
        changed = [path for path, stamp in pairs if stamp.changed(root / path)]
        if changed:
            raise StateError(
                f"{len(changed)} of {len(rows)} images were changed after the cache {self.pixels.folder} was written, "
                f"the first: {root / changed[0]}; run the same `citlr prepare ... --cache {self.pixels.size}` again."
            )


def _read_index(file: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = read_json(file)
        if isinstance(index, dict) and ("schema" not in index or index["schema"] != SCHEMA):
            return index
        _ = int(index["shards"]), int(index["size"]), str(index["fit"]), str(index["key"])
    except (StateError, OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"{file} is damaged ({type(error).__name__}: {error}); run the same `citlr prepare ... --cache` again."
        ) from error
    return index
