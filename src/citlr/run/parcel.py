"""What goes to another process once, for all parts that it does: a function and what they share, in one pickle."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import cloudpickle
from threadpoolctl import threadpool_info, threadpool_limits

from citlr.errors import CitlrError, InputError, StateError
from citlr.run.stage import code_version

Result = TypeVar("Result")
# Of this process: parcels that arrived, by name, and the function and the shared things of the last one in use.
_arrived: dict[str, Parcel] = {}
_opened: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {}
_limited = threading.local()


@dataclass(frozen=True)
class Parcel:
    """A function and what it shares, on their way to other processes.

    - `content`: Both, pickled.
    - `threads`: With how many the sender computes, by "openmp" and "blas": sums come out the same then.
    - `code`: The sender's code; another one would give other numbers.
    - `name`: Of this sending alone: who is done with the same content elsewhere takes nothing away from it.
    """

    content: bytes = field(repr=False)
    threads: dict[str, int]
    code: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, function: Callable[[Any, Any], Any], shared: Any) -> Self:
        """Pack; what cannot be sent is refused in a sentence."""
        try:
            content = cloudpickle.dumps((function, shared))
        except Exception as error:  # whatever a user's object raises when it is pickled
            raise InputError(
                f"What is to be done cannot be sent to other processes ({type(error).__name__}: {error}): do it in "
                "this one, without an engine and with one worker, or load models and data sets from files."
            ) from error
        return cls(content, _threads(), code_version())

    def arrive(self) -> None:
        """Keep it in this process; called there."""
        _arrived[self.name] = self

    def unpack(self) -> tuple[Callable[[Any, Any], Any], Any]:
        """Make function and shared things, in place of those of other parcels, and give them."""
        if self.code != code_version():
            raise StateError(
                f"The worker on {platform.node()} has citlr {code_version()}, and {self.code} is asked for: install "
                "the same version on every machine."
            )
        _opened.clear()
        # Before anything is made: an ONNX session takes its threads when it is opened.
        self._limit()
        made: tuple[Callable[[Any, Any], Any], Any] = cloudpickle.loads(self.content)
        _opened[self.name] = made
        return made

    def work(self, item: Any) -> Any:
        """Do a part: the function's result of what is shared and the item."""
        # Another thread of a cluster's worker may open a parcel, or forget this one, at any moment.
        function, shared = _opened.get(self.name) or self.unpack()
        self._limit()
        return function(shared, item)

    def _limit(self) -> None:
        """Compute with as many threads as the sender, which OpenMP is told for each thread that asks."""
        torch = sys.modules.get("torch")
        if getattr(_limited, "threads", None) != (self.threads, torch is None):
            threadpool_limits(self.threads)
            if torch is not None:
                torch.set_num_threads(self.threads["openmp"])
            _limited.threads = (self.threads, torch is None)


class Missing:
    """What a process answers that the parcel has not reached yet."""


def deliver(parcel: Parcel, item: Any) -> Any:
    """Take a parcel in place of all others, and do a part; of a process that ends with the one that sent it."""
    if not _arrived:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _arrived.clear()
    return bring(parcel, item)


def bring(parcel: Parcel, item: Any) -> Any:
    """Take a parcel beside others, and do a part."""
    parcel.arrive()
    return work_on(parcel.name, item)


def _end_with(parent: int) -> None:
    """End when the process that started this one is gone: killed, it cannot say so, and might be started again."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def work_on(name: str, item: Any) -> Any:
    """Do a part where the parcel of this name has arrived, else `Missing`; errors of ours come back as values."""
    parcel = _arrived.get(name)
    if parcel is None:
        return Missing
    try:
        return parcel.work(item)
    except CitlrError as error:
        return error  # so that it arrives as it is, whatever the engine makes of exceptions


def open_parcel(result: Any) -> Any:
    """Give what `work_on` gave, or raise the error that it is."""
    if isinstance(result, CitlrError):
        raise result
    return result


def has_arrived(name: str) -> bool:
    """Say whether this process has a parcel."""
    return name in _arrived


def forget(name: str) -> None:
    """Let go of a parcel and all that was made of it."""
    _arrived.pop(name, None)
    _opened.pop(name, None)


def _threads() -> dict[str, int]:
    found = {"openmp": 1, "blas": 1}
    for library in threadpool_info():
        found[library["user_api"]] = max(found[library["user_api"]], library["num_threads"])
    torch = sys.modules.get("torch")
    return found if torch is None else found | {"openmp": torch.get_num_threads()}
