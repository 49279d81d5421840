"""A model that cannot be run here: its owner gets pictures under opaque names and sends back numbers."""

import errno
import hmac
import io
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from citlr.audit.measures.readings import seen_at
from citlr.audit.redrawing.pictures import Pictures
from citlr.console import Ticker, silent
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.data.images import interleaved
from citlr.errors import InputError, StateError
from citlr.exchange.secondary_capture import secondary_capture
from citlr.invariance.tables import COARSE_DRAW, ORIGINAL_DRAW, PUT_BACK_DRAW
from citlr.run.files import atomic_write, read_json, write_json, write_text

Format = Literal["png", "jpeg", "dicom"]
SUFFIX: dict[str, str] = {"png": ".png", "jpeg": ".jpg", "dicom": ".dcm"}
_PICTURES = b"citlr.pictures"  # of the sealed key: which pictures it opens
_NO_TIME = 315532800  # 1980-01-01, the first day that an archive can hold
KEY_COLUMNS = ("id", "image_id", "patient_id", "attribute", "level", "draw")


@dataclass(frozen=True)
class Export:
    """What was handed out: a folder of pictures and `manifest.csv`, and the sealed key, which stays in the run."""

    folder: Path
    key: Path
    n_images: int

    def __str__(self) -> str:
        """Say what to hand over and what to keep."""
        return (
            f"{self.n_images} pictures and manifest.csv in {self.folder}: hand these over. The key {self.key} stays "
            "here; bring the answers back with `citlr ingest`."
        )


def export_blind(
    sets: Sequence[CounterfactualSet],
    cohort: Cohort,
    *,
    key_folder: Path,
    out: Path,
    format: Format = "png",
    size: int | None = None,
    tick: Ticker = silent,
) -> Export:
    """Write every redrawn image, and the images as they came, under opaque and shuffled names.

    `size` is the side that the model reads; the generator's own without it. What edits draw alike is written once, for
    who counted equal pictures could tell originals, which are their own null interventions.
    """
    if format not in SUFFIX:
        raise InputError(f"The format '{format}' is not known: use {', '.join(SUFFIX)}.")
    drawn = [Pictures(part, cohort, sets[0].plan.size if size is None else size) for part in sets]
    mark = _mark(sets[0], drawn[0].size)
    secret = _secret(key_folder, mark)
    named = _by_content(secret, drawn) if sets[0].plan.edits else (opaque_id(secret, row) for row in _rows(drawn))
    rows = [{"id": name, **row} for name, row in zip(named, _rows(drawn), strict=True)]
    _require_own_folder(out, {f"{row['id']}{SUFFIX[format]}" for row in rows})
    out.mkdir(parents=True, exist_ok=True)
    written = set[str]()
    for done, (picture, row) in enumerate(zip(_pictures(drawn), rows, strict=True), start=1):
        if row["id"] not in written:
            _write_picture(out / f"{row['id']}{SUFFIX[format]}", encode(picture, row["id"], format))
            written.add(row["id"])
        tick(done)
    os.sync()  # once for all pictures, before the key says that they are there
    key = pd.DataFrame(rows, columns=list(KEY_COLUMNS)).sort_values("id", ignore_index=True)
    table = pa.Table.from_pandas(key, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _PICTURES: mark.encode()})
    with atomic_write(key_folder / "key.parquet") as temporary:
        pq.write_table(table, temporary)
    (key_folder / "key.parquet").chmod(0o600)
    write_text(out / "manifest.csv", "id\n" + "".join(f"{name}\n" for name in key["id"].unique()))
    os.utime(out / "manifest.csv", (_NO_TIME, _NO_TIME))
    return Export(out, key_folder / "key.parquet", len(written))


def _write_picture(path: Path, content: bytes) -> None:
    """Write one picture, renamed when it is whole; the time of the file would tell in which order levels were drawn."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        temporary.write_bytes(content)
        os.utime(temporary, (_NO_TIME, _NO_TIME))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StateError(
            f"The disk is full while writing to '{path.parent}': free some space and run the same command again."
        ) from error


def opaque_id(secret: bytes, row: dict[str, Any]) -> str:
    """Return a name that says nothing without the secret: a letter and 15 hexadecimal digits of a keyed hash.

    The letter keeps a spreadsheet from reading a name such as 12345678e9012345 as a number.
    """
    return _opaque(secret, "\x1f".join(str(row[name]) for name in KEY_COLUMNS[1:]).encode())


def _opaque(secret: bytes, message: bytes) -> str:
    return "x" + hmac.new(secret, message, "sha256").hexdigest()[:15]


def _by_content(secret: bytes, drawn: Sequence[Pictures]) -> Iterator[str]:
    """Name every picture by what it shows; they are drawn for their names first, and again to be written."""
    for picture in _pictures(drawn):
        yield _opaque(secret, _pixels(picture).tobytes())


def _pixels(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a picture (H, W) or (c, H, W) in [0, 1] as it is written, in 256 steps."""
    return interleaved(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def encode(picture: npt.NDArray[np.float32], name: str, format: Format) -> bytes:
    """Return the bytes of one picture, float32 (H, W) or (c, H, W) in [0, 1]; they depend on it and the name only."""
    pixels = _pixels(picture)
    if format == "dicom":
        return secondary_capture(pixels, name)
    buffer = io.BytesIO()
    if format == "png":
        # Fast filters: 12,000 pictures are to be written in well under a minute.
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    else:
        # Colour at full resolution: the model is to see what was drawn.
        options = {} if pixels.ndim == 2 else {"subsampling": 0}
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def _rows(drawn: Sequence[Pictures]) -> Iterator[dict[str, Any]]:
    """Name every picture, in the order of `_pictures`."""
    first = drawn[0].part.plan
    wanted = {ORIGINAL_DRAW: True, COARSE_DRAW: drawn[0].has_coarse, PUT_BACK_DRAW: first.edits}
    for draw in (draw for draw, there in wanted.items() if there):
        for image, patient, level in zip(first.image_ids, first.patient_ids, first.factual, strict=True):
            yield _row(image, patient, first.attribute, level, draw)
    for one in drawn:
        plan = one.part.plan
        for image, patient in zip(plan.image_ids, plan.patient_ids, strict=True):
            for level in plan.levels:
                for draw in range(plan.draws):
                    yield _row(image, patient, plan.attribute, level, draw)


def _pictures(drawn: Sequence[Pictures]) -> Iterator[npt.NDArray[np.float32]]:
    """Give every picture, float32 (c, H, W) in [0, 1].

    Originals of the first set, the same as the generator sees them where pictures are larger, the same moved and put
    back where edits move them, and what was redrawn.
    """
    first, size = drawn[0], drawn[0].size
    count = len(first.part.plan.image_ids)
    for seen in (size, first.part.plan.size) if first.has_coarse else (size,):
        for start in range(0, count, 64):
            originals = first.originals(range(start, min(start + 64, count)), seen)
            yield from seen_at(originals, size)
    for number in range(first.part.plan.n_shards if first.part.plan.edits else 0):
        yield from seen_at(first.put_back(number), size)
    for one in drawn:
        plan = one.part.plan
        for number in range(plan.n_shards):
            for images in one.batches(number):
                for image in seen_at(images, size):
                    yield from (image for _ in range(plan.draws // plan.kept))


def _row(image_id: str, patient_id: str, attribute: str, level: str, draw: int) -> dict[str, Any]:
    return {"image_id": image_id, "patient_id": patient_id, "attribute": attribute, "level": level, "draw": draw}


def require_exported(key_folder: Path, main: CounterfactualSet, size: int) -> None:
    """Refuse answers to pictures that are no longer those of the run."""
    file = key_folder / "key.parquet"
    if file.is_file() and (pq.read_schema(file).metadata or {}).get(_PICTURES, b"").decode() != _mark(main, size):
        raise StateError(
            f"The pictures were drawn anew after '{file}' was written, so the answers are to other pictures: run "
            "`citlr export` again into a new folder and ask for answers to those."
        )


def _mark(main: CounterfactualSet, size: int) -> str:
    """Name pictures by what drew them and the size that they are handed out in."""
    return f"{main.plan.key} at {size}"


def _secret(folder: Path, mark: str) -> bytes:
    """Read or make the run's secret, and bind it to the pictures: names of pictures that are drawn anew are new.

    It comes from the system, not from a seed, or names could be guessed.
    """
    file = folder / "secret.json"
    if not file.is_file():
        write_json(file, {"secret": secrets.token_hex(32)})
        file.chmod(0o600)
    return hmac.new(bytes.fromhex(read_json(file)["secret"]), mark.encode(), "sha256").digest()


def _require_own_folder(out: Path, names: set[str]) -> None:
    """Refuse a folder that holds anything but this very export, so that nothing else is handed out with it."""
    if not out.exists():
        return
    if not out.is_dir():
        raise StateError(f"'{out}' is a file: give a new or an empty folder as --out.")
    leftover = [path for path in out.iterdir() if path.name.startswith(".x") and ".partial" in path.name]
    foreign = sorted({path.name for path in out.iterdir()} - names - {"manifest.csv"} - {one.name for one in leftover})
    if foreign:
        raise StateError(
            f"'{out}' holds other things ('{foreign[0]}' among them): give a new or an empty folder as --out."
        )
    for path in leftover:
        path.unlink()
