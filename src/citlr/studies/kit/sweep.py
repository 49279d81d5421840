"""One runner for every study of many models: named, seeded tasks, a row each, on two cores or on a cluster.

Rows are kept as they come, so a sweep that was cut off goes on where it was, and one that is finished costs nothing.
What a task gives depends on its seed and arguments alone, not on the engine, the number of workers or the order.
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from citlr.console import QUIET, Narrator
from citlr.errors import InputError
from citlr.run.engines import Engine
from citlr.run.files import atomic_write
from citlr.run.rows import Row, Rows
from citlr.run.stage import stage_key

_GROWN = 16e6  # bytes that a task may leave to its worker before they are given back, which takes 0.15 s


@dataclass(frozen=True)
class SweepTask:
    """One task: what it is called, its seed, and further keyword arguments, which can be written as JSON."""

    name: str
    seed: int | tuple[int, ...]
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A finished sweep.

    - `frame`: A row per task, in the order of the tasks: `task`, `seed`, `error` (None, or the text), what the function
      gave, and `seconds`.
    """

    frame: pd.DataFrame

    @property
    def failed(self) -> pd.DataFrame:
        """The tasks that raised, with the text of the error."""
        return self.frame[self.frame["error"].notna()]

    @property
    def done(self) -> pd.DataFrame:
        """The tasks that did not."""
        return self.frame[self.frame["error"].isna()].drop(columns="error").reset_index(drop=True)

    def to_parquet(self, path: Path) -> None:
        """Write all rows."""
        with atomic_write(path) as temporary:
            self.frame.assign(error=self.frame["error"].astype("string")).to_parquet(temporary, index=False)


def sweep_rows(path: Path, function: Callable[..., Row], tasks: Sequence[SweepTask]) -> Rows:
    """Open the rows of a sweep; those of other tasks, another function or another version are refused."""
    named = {task.name: [task.seed, dict(task.arguments)] for task in tasks}
    key = stage_key(f"{function.__module__}.{function.__qualname__}", named)
    return Rows(path, {"key": key}, other="holds the rows of another sweep; choose another folder, or move it away.")


def run_sweep(
    function: Callable[..., Row],
    tasks: Sequence[SweepTask],
    rows: Rows | None = None,
    *,
    title: str,
    engine: Engine | None = None,
    narrator: Narrator | None = None,
) -> Sweep:
    """Run every task that has no row yet; one that failed has none, and is tried again by the next call.

    Without `rows` the tasks have to know themselves what they finished before.
    """
    narrator, engine = narrator or QUIET, engine or Engine()
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The sweep has two tasks of the name '{twice}'; names have to be unique.")
    done = {row["task"]: row for row in ([] if rows is None else rows.lines)}
    waiting = [task for task in tasks if task.name not in done]
    if len(waiting) < len(tasks):
        narrator.say(f"{title}: {len(tasks) - len(waiting)} of {len(tasks)} tasks were finished before")
    if waiting:
        with narrator.progress(title, len(tasks)) as tick:
            arrivals = engine.each(_attempt, function, waiting, narrator=narrator)
            for count, (_, row) in enumerate(arrivals, start=len(tasks) - len(waiting) + 1):
                done[row["task"]] = row
                if rows is not None and "error" not in row:
                    rows.add(row)
                tick(count, row["task"])
    frame = pd.DataFrame([{"task": task.name, "seed": task.seed, "error": None} | done[task.name] for task in tasks])
    sweep = Sweep(frame)
    if len(sweep.failed):
        first = sweep.failed.iloc[0]
        narrator.say(
            f"{title}: {len(sweep.failed)} of {len(tasks)} tasks failed; the first: {first['task']}: {first['error']}"
        )
    return sweep


def _attempt(function: Callable[..., Row], task: SweepTask) -> Row:
    start, held = time.perf_counter(), _resident()
    row: Row = {"task": task.name}
    try:
        with threadpool_limits(1):
            row |= function(seed=task.seed, **task.arguments)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    if held is None or (_resident() or 0) - held > _GROWN:
        release_memory()
    return row | {"seconds": time.perf_counter() - start}


def _resident() -> int | None:
    """Memory of this process in bytes, or None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def release_memory() -> None:
    """Give freed memory back to the system, where its C library is glibc's, which keeps it otherwise.

    A network's audit frees some 250 MB that would still count as the worker's own: the workers of a small machine would
    hold what none of them uses.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # another C library has none
            trim(0)
