"""A path that the user gave, as a file that can be read, or as the sentence that says what it is instead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from citlr.errors import InputError, did_you_mean
from citlr.text import shown

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def kind_of_path(path: str | os.PathLike[str]) -> str:
    """Say what is at a path: "a file", "a folder", ...; empty where nothing is, or no path can be so."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # too long for a path, or with characters that none can have
        return ""
    if stat.S_ISREG(mode):
        return "a file"
    return next((name for test, name in _KINDS.items() if test(mode)), "no file")


def require_file(path: object, what: str) -> Path:
    """Return the path of a regular file that can be opened; nothing waits for the other end of a pipe."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{what} is {shown(path)}; give a path.")
    kind = kind_of_path(path)
    if not kind:
        raise InputError(f"{what} {shown(os.fspath(path))} does not exist.{nearest(Path(path))}")
    if kind != "a file":
        raise InputError(f"{what} {shown(os.fspath(path))} is {kind}; give a file.")
    try:
        with Path(path).open("rb"):
            return Path(path)
    except OSError as error:
        raise InputError(f"{what} {shown(os.fspath(path))} cannot be opened ({error.strerror}).") from error


def nearest(path: Path) -> str:
    """Say which file of the folder has nearly that name, or that there is no such folder."""
    if kind_of_path(path.parent) != "a folder":
        return f" The folder {shown(str(path.parent))} does not exist."
    try:
        near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""
    return near if "mean" in near and near != did_you_mean(path.name, [path.name]) else ""
