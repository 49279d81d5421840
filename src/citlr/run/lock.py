"""One process in a folder at a time, on whatever machine, and no half-written file left of one that was killed."""

import errno
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from citlr.errors import StateError

# What `atomic_write` calls a file until it is whole: a download of somebody else's may be called `.a.partial`.
PARTIAL = re.compile(r"\..*\.\d+\.partial(\..*)?")
# Says who holds a folder to machines that share the disk: many network disks lock for one machine only.
HOLDER = ".holder.json"
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# A note that is torn for so long is not just being written by another machine.
_WRITING_SECONDS = 1.0


@contextmanager
def locked(folder: Path, *, remedy: str = "give another --out", deep: bool = True) -> Iterator[None]:
    """Hold a folder; the system lets go of it when the process dies, however it dies.

    What a killed process left half written is removed: in the folder, and, where `deep`, in all below it. A process of
    another machine is believed to be alive: nobody can ask it, so that whoever knows better removes its note.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StateError(f"'{folder}' is a file and not a folder: {remedy}.") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StateError(f"Another process is working in '{folder}': wait for it, or {remedy}.") from error
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        why = f"'{folder}' cannot be written to ({error.strerror})"
        raise StateError(f"{why}: correct its permissions, or {remedy}.") from error
    try:
        _note(folder / HOLDER, remedy)
        try:
            for file in (folder.rglob if deep else folder.glob)(".*.partial*"):
                if PARTIAL.fullmatch(file.name):
                    file.unlink(missing_ok=True)
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _note(file: Path, remedy: str) -> None:
    """Leave a note of this process; a note of a dead one of this machine, which held the lock, is replaced."""
    own = {"machine": platform.node(), "process": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    while True:
        try:
            # Of two machines, one makes the file, on network disks too.
            with file.open("x", encoding="utf-8") as note:
                json.dump(own, note)
        except FileExistsError:
            _require_own(file, remedy, _WRITING_SECONDS)
            file.unlink(missing_ok=True)
        else:
            return


def _require_own(file: Path, remedy: str, patience: float) -> None:
    try:
        found = json.loads(file.read_bytes())
        machine, who = str(found["machine"]), f"process {found['process']} since {found['since']}"
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError):
        if patience:
            time.sleep(patience)
            _require_own(file, remedy, 0)
        return  # torn: whoever wrote it was killed before it held the folder
    if machine != platform.node():
        raise StateError(
            f"The machine '{machine}' is working in '{file.parent}' ({who}): wait for it, or {remedy}; if nothing runs "
            f"there any more, remove '{file}' and run the same command again."
        )
