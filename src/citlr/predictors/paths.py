"""A path that the user gave, as a file that can be read, or as the sentence that says what it is instead."""

from __future__ import annotations

import os
from pathlib import Path

from citlr.errors import InputError, did_you_mean
from citlr.run.files import kind_of_path
from citlr.text import shown


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


def require_same(now: str, before: str, path: Path) -> None:
    """Refuse a file that was replaced while it was read: which of the two was loaded cannot be told."""
    if now != before:
        raise InputError(f"Model file '{path}' was written while it was read: run again when it is whole.")
