"""Files that are whole or not there: atomic writing, JSON, digests and fingerprints."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from citlr.errors import CitlrError, InputError, StateError

_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
_SYSTEM = re.compile(r"\bos error (\d+)\b")
# Bytes: less than any writer's buffer.
_NO_ROOM = 65536
# SHA-256 of files that were read, by a mark of their path and of what the system says of them. Both are bytes: a third
# of what names and numbers would take for each image of a cohort.
_digests: dict[bytes, bytes] = {}
_MOST_DIGESTS = 2**20
_KINDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, remove it when not.

    A reader, or a run started again after SIGKILL, sees the old file or the whole new one, never half of it.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: give the path of the file to write.")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except Exception as error:
        if disk_is_full(error, target.parent):
            raise disk_full(target) from error
        refused = _refused(error, target)
        if refused is None:
            raise
        raise refused from error
    finally:
        temporary.unlink(missing_ok=True)


def _refused(error: Exception, file: Path) -> Exception | None:
    """Say that the system refused to take more of a file, where the error is none that a command says; None of others.

    A SafetensorError carries the system's words; it is no OSError, and names no file.
    """
    found = None if isinstance(error, OSError | CitlrError) else _SYSTEM.search(str(error))
    number = getattr(error, "errno", None) if found is None else int(found[1])
    if number == errno.EFBIG:
        return StateError(
            f"'{file}' became larger than the system lets a file be: raise that limit (`ulimit -f`), or write to "
            "another disk, and run the same command again to go on."
        )
    return None if found is None else OSError(number, os.strerror(int(found[1])), os.fspath(file))


def disk_full(file: Path) -> StateError:
    """Say that there was no room for a file."""
    return StateError(
        f"The disk is full while writing '{file}': free some space and run the same command again to go on."
    )


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Say whether an error means that there is no room left in a folder; libraries say it in ways of their own.

    >>> disk_is_full(OSError(errno.ENOSPC, "full"), Path()), disk_is_full(KeyError("a"), Path())
    (True, False)
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # A SafetensorError and Arrow's errors carry the system's words; torch.save fails with a RuntimeError that does not.
    if any(f"os error {number}" in str(error) or os.strerror(number) in str(error) for number in _FULL):
        return True
    return type(error) is RuntimeError and shutil.disk_usage(folder).free < _NO_ROOM


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused rather than written as non-JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"'{path}' is damaged ({error}): restore it, or delete it and run the same command again."
        ) from error


def kind_of_path(path: str | os.PathLike[str]) -> str:
    """Say what is at a path: "a file", "a folder", ...; empty where nothing is, or no path can be so."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # too long for a path, or with characters that none can have
        return ""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def require_regular(path: str | os.PathLike[str]) -> Path:
    """Give the path, unless something lies there that is no file: a named pipe would be waited for without end."""
    kind = kind_of_path(path)
    if kind not in ("", "a file"):
        raise InputError(f"{Path(path)} is {kind} and not a file; give the path of a file.")
    return Path(path)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_or_missing(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, or `missing` where there is no file that can be read.

    A file is read once in a process as long as the system says that it was not changed (its `ctime` cannot be set).
    """
    try:
        status = Path(path).stat()
        # A named pipe would be waited for, and has no content to compare.
        if not stat.S_ISREG(status.st_mode):
            return "missing"
        known = (os.fspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        mark = hashlib.blake2b(repr(known).encode(), digest_size=16).digest()
        found = _digests.get(mark)
        if found is None:
            found = bytes.fromhex(sha256(path))
            if len(_digests) >= _MOST_DIGESTS:
                _digests.clear()
            _digests[mark] = found
        return found.hex()
    except OSError:
        return "missing"


def fingerprint(content: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `content`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
