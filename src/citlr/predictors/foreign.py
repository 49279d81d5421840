"""What the user brings: files that can be read or not, and code whose failures become one sentence each."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from citlr.errors import CitlrError, InputError, did_you_mean
from citlr.run.files import kind_of_path
from citlr.text import shortened, shown


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


@contextlib.contextmanager
def user_code(what: str, advice: str | Callable[[str], str] = "") -> Iterator[None]:
    """Run code of the user (a model's file, a pickle, a call of the model) so that its failures are one sentence.

    An exit (`sys.exit(0)`, `os._exit(0)`) would end an audit as if it had gone well; what is printed would stand among
    results on standard output; another folder, another type of numbers or warnings that are errors would be those of
    the whole audit: none of it outlives the code that did it. Ctrl-C stays what it is.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _no_hard_exit(), _settings_kept():
            yield
    except (CitlrError, KeyboardInterrupt):
        raise
    except BaseException as error:
        failure = one_sentence(error)
        said = advice(failure) if callable(advice) else advice
        raise InputError(f"{what}: {failure} {said}".rstrip()) from error


@contextlib.contextmanager
def _no_hard_exit() -> Iterator[None]:
    """Make `os._exit` an exception in this process; a child that the user's code makes must still end by it."""
    real, here = os._exit, os.getpid()

    def leave(status: Any = 0) -> NoReturn:
        if os.getpid() != here:
            real(status)
        raise SystemExit(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = real


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """Put back what the process has one of: working folder, settings of torch and numpy, warnings that are errors."""
    folder, kind, threads = Path.cwd(), torch.get_default_dtype(), torch.get_num_threads()
    device, strict, filters = torch.get_default_device(), torch.get_deterministic_debug_mode(), list(warnings.filters)
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()), np.errstate():
            yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(kind)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            # none is the processor, and costs nothing
            torch.set_default_device(None if device.type == "cpu" else device)
        if torch.get_deterministic_debug_mode() != strict:
            torch.set_deterministic_debug_mode(strict)
        # other filters, which libraries set as they are imported, end nothing
        kept = [one for one in warnings.filters if one[0] != "error" or one in filters]
        warnings.filters[:] = kept  # type: ignore[index]


def one_sentence(error: BaseException) -> str:
    r"""Shorten an exception to its type and its telling line.

    >>> one_sentence(ValueError("bad shape\n  at frame 1"))
    'ValueError: bad shape.'
    >>> one_sentence(SystemExit(0))
    'it ends the program (SystemExit: 0).'
    """
    kind = type(error).__name__
    try:
        given = str(error)
    except BaseException:  # an exception class of the user, too
        given = ""
    lines = [line.strip() for line in given[:20_000].splitlines() if line.strip()]
    # TorchScript puts its own traceback first and the cause last
    line = "" if not lines else lines[-1] if lines[0].startswith("The following operation failed") else lines[0]
    line = shortened(line.removeprefix(f"{kind}: "))
    if isinstance(error, SystemExit):
        return f"it ends the program ({kind}{': ' * bool(line)}{line})."
    text = f"{kind}: {line}" if line else kind
    return text if text.endswith(".") else text + "."
