"""Can every image be read? Asked of the files before anything long starts."""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.flow import FlowRecorder
from citlr.data.images import DICOM_SUFFIXES, MODES, is_dicom, require_openable
from citlr.data.pixels.png import SIGNATURE, jpeg_is_damaged
from citlr.data.pixels.shown import WHITE, Remark
from citlr.data.pixels.source import FolderPixels, inside, leads_out, map_ordered
from citlr.data.pixels.survey import KIND, SIZES, Look, Survey
from citlr.errors import InputError, require_known
from citlr.run.files import digest_or_missing, kind_of_path, require_regular
from citlr.text import shortened
from citlr.values import Share, check_value

Check = Literal["decode", "structure", "exists", "none"]
CHECKS: tuple[Check, ...] = get_args(Check)
# Files looked at by one task: a task of a single stat would cost more than the stat.
_CHUNK = 64
# What `digest_or_missing` says of a file that cannot be read.
MISSING = "missing"
# Bytes from the middle of files of one size, by which most of them differ.
_PIECE = 1024
# JPEG that the strict decoder knows; it takes CMYK for damaged.
_JPEGS = {f"{kind}, {MODES[mode]}" for kind in ("JPEG", "MPO") for mode in ("L", "RGB")}
# Images decoded where the check decodes none.
_SAMPLE = 16


def drop_unreadable(
    recorder: FlowRecorder,
    root: Path,
    *,
    check: Check = "decode",
    max_unreadable: float = 0.01,
    workers: int = 2,
    narrator: Narrator = QUIET,
    channels: int = 1,
) -> int:
    """Leave out the images that are missing, unreadable or show nothing; name them, and stop when they are too many."""
    require_known(check, CHECKS, f"check='{check}' is not known")
    # Of a percentage no image would be one too many.
    max_unreadable = check_value("max_unreadable", max_unreadable, Share)
    if check == "none":
        return WHITE
    if not root.is_dir():
        raise InputError(f"There is no image folder {root}; give the folder that the table's paths are relative to.")
    paths: list[str] = recorder.frame["path"].tolist()
    decoded = partial(_decoded, channels=channels)
    probes: dict[Check, Callable[[Path, str], Look]]
    probes = {"decode": decoded, "structure": _structure, "exists": _exists}
    looks = _look_at(root, paths, probes[check], workers=workers, narrator=narrator)
    if check != "decode":
        looks = _with_pictures(root, looks, workers=workers, narrator=narrator)
    survey = Survey(looks, scaled=check == "decode")
    before = len(recorder.steps)
    # A column of the table with such a name is the table's.
    for column in {*SIZES, KIND}.difference(recorder.frame) if check == "decode" else ():
        # As objects: beside a file that could not be read, numbers would become fractions.
        found = [one.marks.get(column) for one in survey.looks]
        recorder.frame[column] = pd.Series(found, index=recorder.frame.index, dtype=object)
    shared = survey.shared(recorder.frame["patient_id"].tolist())
    _leave_out(recorder, root, survey, max_unreadable=max_unreadable)
    survey.remark(recorder)
    _tell_of_shared(recorder, shared)
    if check != "decode":
        _sample(recorder, root, decoded)
    for step in recorder.steps[before:]:
        if step.step == "remark":
            narrator.say(f"images: {step.reason}")
    return survey.white


def _leave_out(recorder: FlowRecorder, root: Path, survey: Survey, *, max_unreadable: float) -> None:
    faults = survey.faults()
    if not faults:
        return
    names = [survey.looks[row].name for row in faults]
    share = len(faults) / len(survey.looks)
    missing = sum(not kind_of_path(root / name) for name in names)
    blank = sum(not survey.looks[row].fault for row in faults)
    damaged = len(names) - missing - blank
    what = f"{missing} not there, {damaged} damaged or not an image, {blank} showing nothing"
    if share > max_unreadable:
        raise InputError(
            f"{len(faults)} of {len(survey.looks)} images below {root} cannot be read ({what}), more than the share "
            f"max_unreadable={max_unreadable:g}; the first: {faults[min(faults)]}{_instead(root, names[0])} Mend them, "
            "check the folder, or raise the share."
        )
    kept = np.ones(len(survey.looks), dtype=bool)
    kept[list(faults)] = False
    recorder.keep(kept, "readable", f"image cannot be read ({what})", names)


def _instead(root: Path, name: str) -> str:
    """Say what is there instead of a file that is not: below a folder above, or under nearly the same name."""
    file = root.absolute() / name
    if kind_of_path(file):
        return ""
    above = next((one for one in root.absolute().parents if kind_of_path(one / name) == "a file"), None)
    if above is not None:
        return f" It is below {above}: give that folder."
    try:
        beside = sorted(one.name for one in file.parent.iterdir())
    except (OSError, ValueError):
        return ""
    alike = [one for one in beside if one.casefold() == file.name.casefold()]
    alike += [one for one in beside if Path(one).stem.casefold() == file.stem.casefold()]
    return f" '{shortened(alike[0])}' stands in that folder." if alike else ""


def _tell_of_shared(recorder: FlowRecorder, names: list[str]) -> None:
    if names:
        recorder.remark(
            f"{len(names)} images are the very picture of another patient too: they count as several observations, and "
            "intervals come out too narrow; keep one row of each picture, under the patient whose it is",
            names,
        )


def _sample(recorder: FlowRecorder, root: Path, decoded: Callable[[Path, str], Look]) -> None:
    """Decode a few images where not all are, so that what is said of all is not left unsaid."""
    paths: list[str] = recorder.frame["path"].tolist()
    some = paths[:: len(paths) // _SAMPLE + 1]
    looks = [_fault_or(decoded, root, path) for path in some]
    Survey([one for one in looks if not one.fault], scaled=False).remark(recorder, of=f" of {len(some)} looked-at")


def _look_at(
    root: Path, paths: list[str], probe: Callable[[Path, str], Look], *, workers: int, narrator: Narrator
) -> list[Look]:
    home = root.resolve()

    def look(start: int) -> list[Look]:
        chunk = [_fault_or(probe, root, path) for path in paths[start : start + _CHUNK]]
        return [
            replace(one, remarks=(*one.remarks, Remark.LINK)) if leads_out(home, root / one.name) else one
            for one in chunk
        ]

    looks: list[Look] = []
    faults = 0
    with narrator.progress("check images", total=len(paths)) as tick:
        for chunk in map_ordered(look, iter(range(0, len(paths), _CHUNK)), workers=workers, ahead=4 * workers):
            looks += chunk
            faults += sum(bool(one.fault) for one in chunk)
            tick(len(looks), f"{faults} unreadable")
    return looks


def _with_pictures(root: Path, looks: list[Look], *, workers: int = 2, narrator: Narrator = QUIET) -> list[Look]:
    """Give files that are the same, byte by byte, one `picture`, and every other its own.

    Few are read: those as large as another, and whole those that are alike in the middle too.
    """
    groups = [[one for one in looks if not one.fault]]
    for told in (_size, _middle, digest_or_missing):
        flat = [(number, one) for number, group in enumerate(groups) for one in group]
        if not flat:
            break
        by_key: dict[tuple[int, str], list[Look]] = {}
        for (number, one), key in zip(flat, _each(told, root, flat, workers, narrator), strict=True):
            by_key.setdefault((number, key), []).append(one)
        groups = [group for (_, key), group in by_key.items() if len(group) > 1 and key != MISSING]
    first = {one.name: group[0].name for group in groups for one in group}
    return [one if one.fault else replace(one, picture=first.get(one.name, one.name)) for one in looks]


def _each(
    told: Callable[[Path], str], root: Path, flat: list[tuple[int, Look]], workers: int, narrator: Narrator
) -> Iterator[str]:
    """Say of every file what is told of it; disks of a network are slow, and asked by all workers."""

    def tell(start: int) -> list[str]:
        return [told(root / one.name) for _, one in flat[start : start + _CHUNK]]

    with narrator.progress("compare files", total=len(flat)) as tick:
        parts = map_ordered(tell, iter(range(0, len(flat), _CHUNK)), workers=workers, ahead=4 * workers)
        for done, part in enumerate(parts, start=1):
            tick(min(len(flat), done * _CHUNK))
            yield from part


def _size(file: Path) -> str:
    try:
        return str(file.stat().st_size)
    except OSError:
        return MISSING


def _middle(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _PIECE) // 2)
            # Its digest: of as many files as there are, the pieces themselves would fill the memory.
            return hashlib.sha1(stream.read(_PIECE), usedforsecurity=False).hexdigest()
    except OSError:
        return MISSING


def _decoded(root: Path, path: str, *, channels: int) -> Look:
    look = Look.at(path, FolderPixels(root, channels=channels).see(path))
    if look.marks[KIND] in _JPEGS and jpeg_is_damaged(inside(root, path).read_bytes()):
        return replace(look, remarks=(*look.remarks, Remark.DAMAGED))
    return look


def _structure(root: Path, path: str) -> Look:
    return Look(path, structure_fault(inside(root, path)) or "")


def _exists(root: Path, path: str) -> Look:
    file = require_regular(inside(root, path))
    return Look(path, "" if kind_of_path(file) else f"{file} is not there.")


def _fault_or(probe: Callable[[Path, str], Look], root: Path, path: str) -> Look:
    try:
        return probe(root, path)
    except InputError as error:
        return Look(path, str(error))


def structure_fault(file: Path) -> str | None:
    """Say what is wrong with a file, without decoding; None when nothing is.

    A PNG's chunks are walked to the end, a JPEG's last bytes and a DICOM file's header and length are looked at; what
    the reader refuses by the header is refused here.
    """
    try:
        require_regular(file)
        if is_dicom(file) or file.suffix.lower() in DICOM_SUFFIXES:
            from citlr.data.pixels.dicom import Film

            Film.of(file).require_display()
            return None
        require_openable(file)
        with file.open("rb") as stream:
            if stream.read(len(SIGNATURE)) == SIGNATURE:
                return _png_fault(stream, file)
            size = file.stat().st_size
            # Writers pad after the end marker, phones write more. A thumbnail with its own end is in the first 64 K.
            for start in (size - 64, max(size - (1 << 16), 66_000)):
                stream.seek(max(0, min(size - 64, start)))
                if b"\xff\xd9" in stream.read():
                    return None
            return f"{file} is a truncated JPEG."
    except InputError as error:
        return str(error)
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
