"""One process in a folder at a time, and no half-written file left of one that was killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from citlr.errors import StateError

# What `atomic_write` calls a file until it is whole: a download of somebody else's may be called `.a.partial`.
PARTIAL = re.compile(r"\..*\.\d+\.partial(\..*)?")


@contextmanager
def locked(folder: Path, *, remedy: str = "give another --out", deep: bool = True) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process dies, however it dies.

    What a killed process left half written is removed: in the folder, and, where `deep`, in all below it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StateError(f"Another process is working in '{folder}': wait for it, or {remedy}.") from error
    try:
        for file in (folder.rglob if deep else folder.glob)(".*.partial*"):
            if PARTIAL.fullmatch(file.name):
                file.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
