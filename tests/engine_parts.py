"""Parts that the tests of the engines have other processes do, which have to be able to import them."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_info

from citlr.errors import InputError
from citlr.run.engines import Engine
from citlr.run.parcel import Parcel, Result, bring, forget, open_parcel

if TYPE_CHECKING:  # no part needs torch: a process that begins without it begins ten times as fast
    from citlr.predictors.base import Predictor

NOISY = 3


class Posted(Engine):
    """Sends parts as to other processes, and opens and does them in this one: none has to begin."""

    def each(
        self, function: Callable[[Any, Any], Result], shared: Any, items: Sequence[Any], **named: object
    ) -> Iterator[tuple[int, Result]]:
        assert not self.here
        parcel = Parcel.of(function, shared)
        for position, item in reversed([*enumerate(items)]):
            yield position, open_parcel(pickle.loads(pickle.dumps(bring(parcel, pickle.loads(pickle.dumps(item))))))
        forget(parcel.name)


def square(shared: int, item: int) -> int:
    return shared + item * item


def threads(shared: None, item: int) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((one["user_api"], one["num_threads"]) for one in threadpool_info()))


def count(folder: Path, item: int) -> None:
    """Leave a file, and fail at one number."""
    if item == NOISY:
        raise InputError(f"{item} is too noisy")
    time.sleep(0.05)
    (folder / str(item)).touch()


def slow(shared: None, item: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def wait_for(folder: Path, item: str) -> str:
    """Say that an item has begun, and end when it may."""
    (folder / f"{item}.begun").touch()
    while not (folder / f"{item}.go").exists():
        time.sleep(0.01)
    return item


def die_once(log: Path, item: int) -> int:
    """Be killed at item 3, as the system does for want of memory: the first time only, where the log can be written."""
    if item == NOISY and not log.exists():
        if log.parent.is_dir():
            log.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


@dataclass(frozen=True)
class draw_once:  # noqa: N801 - a function with a memory
    """Draw noise of the rows, and be killed in the middle of a shard, the first time only."""

    log: Path

    def __call__(self, rows: range) -> np.ndarray:
        drawn = [np.random.default_rng(row).random((2, 1, 1, 8, 8), dtype=np.float32) for row in rows]
        die_once(self.log, rows.start - 1)
        return np.stack(drawn)


def variable(name: str, item: int) -> str | None:
    return os.environ.get(name)


def answers(model: Predictor, images: np.ndarray) -> list[float]:
    return [float(value) for value in model.predict(images)[:, 0]]
