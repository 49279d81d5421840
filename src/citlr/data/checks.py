"""Can every image be read? Asked of the files before anything long starts."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np

from citlr.console import Narrator
from citlr.data.flow import FlowRecorder
from citlr.data.images import read_image
from citlr.data.pixels import map_ordered
from citlr.errors import InputError, did_you_mean

Check = Literal["decode", "structure", "exists", "none"]
CHECKS: tuple[Check, ...] = get_args(Check)
QUIET = Narrator(quiet=True)
# Files looked at by one task: a task of a single stat would cost more than the stat.
_CHUNK = 64


def drop_unreadable(
    recorder: FlowRecorder,
    root: Path,
    *,
    check: Check = "decode",
    max_unreadable: float = 0.01,
    workers: int = 2,
    narrator: Narrator = QUIET,
) -> None:
    """Leave out the images that are missing or cannot be read; name them, and stop when they are too many.

    Parameters
    ----------
    recorder : FlowRecorder
        Its frame has `path`.
    root : Path
        The image folder.
    check : {"decode", "structure", "exists", "none"}
        Decode every pixel; walk the file to its end without decoding (finds truncation, not corruption); ask only
        whether the file is there; or ask nothing.
    max_unreadable : float
        The share of images, in [0, 1], above which leaving them out would change the study.
    workers : int
        Threads.
    narrator : Narrator
        Shows progress.

    Raises
    ------
    InputError
        If the folder is missing or the share is above `max_unreadable`.
    """
    if check not in CHECKS:
        raise InputError(f"check='{check}' is not known.{did_you_mean(check, CHECKS)}")
    if check == "none":
        return
    if not root.is_dir():
        raise InputError(f"There is no image folder {root}; give the folder that the table's paths are relative to.")
    paths = recorder.frame["path"].tolist()
    probe = {"decode": _decode_fault, "structure": structure_fault, "exists": _missing_fault}[check]
    faults = _faults(root, paths, probe, workers=workers, narrator=narrator)
    if not faults:
        return
    names = [paths[row] for row in sorted(faults)]
    first = sorted(faults)[0]
    share = len(faults) / len(paths)
    missing = sum(not (root / name).is_file() for name in names)
    what = f"{missing} not there, {len(names) - missing} damaged or not an image"
    if share > max_unreadable:
        raise InputError(
            f"{len(faults)} of {len(paths)} images below {root} cannot be read ({what}), more than the share "
            f"max_unreadable={max_unreadable:g}; the first: {faults[first]} Mend them, check the folder, or raise "
            "the share."
        )
    kept = np.ones(len(paths), dtype=bool)
    kept[list(faults)] = False
    recorder.keep(kept, "readable", f"image cannot be read ({what})", names)


def _faults(
    root: Path, paths: list[str], probe: Callable[[Path], str | None], *, workers: int, narrator: Narrator
) -> dict[int, str]:
    def look(start: int) -> list[tuple[int, str | None]]:
        rows = range(start, min(start + _CHUNK, len(paths)))
        return [(row, probe(root / paths[row])) for row in rows]

    faults: dict[int, str] = {}
    with narrator.progress("check images", total=len(paths)) as tick:
        starts = iter(range(0, len(paths), _CHUNK))
        for found in map_ordered(look, starts, workers=workers, ahead=4 * workers):
            faults.update({row: fault for row, fault in found if fault is not None})
            tick(found[-1][0] + 1, f"{len(faults)} unreadable")
    return faults


def _decode_fault(file: Path) -> str | None:
    try:
        read_image(file)
    except InputError as error:
        return str(error)
    return None


def _missing_fault(file: Path) -> str | None:
    return None if file.is_file() else f"{file} is not there."


def structure_fault(file: Path) -> str | None:
    """Say what is wrong with a PNG's chunks or a JPEG's ends, without decoding; None when nothing is.

    DICOM files are asked for their preamble only: their length says nothing without decoding.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(132)
            if head.startswith(b"\x89PNG\r\n\x1a\n"):
                return _png_fault(stream, file)
            if head.startswith(b"\xff\xd8\xff"):
                stream.seek(max(0, file.stat().st_size - 64))
                # Some writers pad after the end marker.
                return None if b"\xff\xd9" in stream.read() else f"{file} is a truncated JPEG."
            return None if head[128:132] == b"DICM" else f"{file} is no PNG, JPEG or DICOM image."
    except OSError as error:
        return f"{file} cannot be opened ({error})."


def _png_fault(stream: BinaryIO, file: Path) -> str | None:
    size = os.fstat(stream.fileno()).st_size
    position = 8
    while position + 12 <= size:
        stream.seek(position)
        length, kind = struct.unpack(">I4s", stream.read(8))
        position += 12 + length
        if kind == b"IEND":
            return None if position <= size else f"{file} is a truncated PNG."
    return f"{file} is a truncated PNG."
