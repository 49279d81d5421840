"""A cohort on disk: one parquet file, with everything but the rows and the pixels as JSON in its metadata."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.data.pixels.shards import CachePixels, OpenCache
from citlr.data.pixels.source import PixelSource
from citlr.errors import InputError, StateError
from citlr.run.files import atomic_write

SCHEMA = "citlr.cohort/2"
_KEY = b"citlr"
_OWN = "any other table needs the folder of its images: `images` of a configuration, or `citlr prepare table --images`"


def write_frame(frame: pd.DataFrame, content: dict[str, Any], path: Path) -> None:
    """Write rows and JSON content, atomically."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    text = json.dumps({"schema": SCHEMA, **content}).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: text})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_frame(file: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read rows and content back."""
    if not file.is_file():
        raise InputError(f"There is no cohort at {file}; write one with `citlr prepare` or `citlr audit`.")
    try:
        with file.open("rb") as stream:
            table = pq.ParquetFile(stream).read()
    except (pa.ArrowException, OSError) as error:
        what = f"is not a parquet file or is damaged ({error})"
        if file.suffix.lower() not in (".parquet", ".pq"):
            what = f"is no cohort that `citlr prepare` wrote, and {_OWN}"
        raise InputError(f"{file} {what}.") from error
    content: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    if content.get("schema") != SCHEMA:
        found = content.get("schema", "no schema")
        own = "" if "schema" in content else f": another program has saved it, and {_OWN}"
        raise InputError(f"{file} is not a cohort of this version ({SCHEMA} is needed, {found} found){own}.")
    return table.to_pandas(), content


def note_cache(source: PixelSource | None, file: Path) -> dict[str, str] | None:
    """Say which cache the pixels come from: relative to the cohort's own folder where it lies in there."""
    if not isinstance(source, CachePixels):
        return None
    place, home = source.folder.absolute(), file.absolute().parent
    inside = place.is_relative_to(home)
    return {"folder": place.relative_to(home).as_posix() if inside else str(place), "key": source.key}


def find_cache(note: dict[str, str], file: Path, root: Path, ids: Sequence[str]) -> CachePixels:
    """Open the cache that `note_cache` noted, if it is still the one it was."""
    place = file.absolute().parent / note["folder"]
    remedy = "prepare the cohort again, or read the image files (cohort.cache: false)"
    if not place.is_dir():
        raise StateError(f"The cohort {file} takes its pixels from the cache {place}, which is not there: {remedy}.")
    cache = OpenCache.at(place)
    if cache.pixels.key != note["key"]:
        raise StateError(f"The cache {place} was written anew after the cohort {file}: {remedy}.")
    cache.require_fresh(root, ids)
    return cache.pixels
