"""One engine for every study of many models: named, seeded tasks, a row each, on two cores or on a cluster.

Rows are kept as they come, so a sweep that was cut off goes on where it was, and one that is finished costs nothing.
What a task gives depends on its seed and arguments alone, not on the engine, the number of workers or the order.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.files import atomic_write, fingerprint
from citlr.run.stage import code_version
from citlr.studies.kit.engines import engine_of

Row = Mapping[str, Any]
_MARK = b"citlr.sweep"
_GROWN = 16e6  # bytes that a task may leave to its worker before they are given back, which takes 0.15 s
_PATIENCE = 2.0  # seconds between two writes: what a kill can cost at most, beside the tasks under way


@dataclass(frozen=True)
class SweepTask:
    """One task: what it is called, its seed and its arguments.

    - `name`: Unique in the sweep.
    - `seed`: Handed to the function.
    - `arguments`: Further keyword arguments, which can be written as JSON.
    """

    name: str
    seed: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A finished sweep.

    - `frame`: A row per task, in the order of the tasks: `task`, `seed`, what the function gave, `seconds`, and `error`
      (None, or the text).
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


def run_sweep(
    function: Callable[..., Row],
    tasks: Sequence[SweepTask],
    out: str | Path,
    *,
    engine: str = "loky",
    workers: int = 1,
    scheduler: str | None = None,
    retry: bool = False,
    narrator: Narrator | None = None,
) -> Sweep:
    """Run every task that has no row yet, and write a parquet file of all rows.

    Examples
    --------
    >>> import tempfile
    >>> tasks = [SweepTask(f"n={n}", seed=n, arguments={"numerator": 6}) for n in (0, 2)]
    >>> def divide(seed: int, numerator: int) -> dict[str, float]:
    ...     return {"ratio": numerator // seed}
    >>> sweep = run_sweep(divide, tasks, Path(tempfile.mkdtemp()) / "ratios.parquet")
    >>> sweep.done["ratio"].tolist(), sweep.failed["error"].tolist()
    ([3.0], ['ZeroDivisionError: integer division or modulo by zero'])
    """
    narrator, file = narrator or Narrator(quiet=True), Path(out)
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The sweep has two tasks of the name '{twice}'; names have to be unique.")
    key = sweep_key(function, tasks)
    kept = _Kept(file, key)
    known = {name: row for name, row in kept.rows.items() if not (retry and row["error"] is not None)}
    waiting = [task for task in tasks if task.name not in known]
    if known:
        narrator.say(f"{file.stem}: {len(known)} of {len(tasks)} tasks were finished before")
    if waiting:
        with engine_of(engine, workers=workers, scheduler=scheduler), narrator.progress(file.stem, len(tasks)) as tick:
            try:
                for count, row in enumerate(_arrivals(function, waiting), start=len(known) + 1):
                    kept.add(row)
                    tick(count, row["task"])
            except BrokenExecutor as error:
                raise StateError(
                    f"A worker of the sweep {file.stem} died, often for want of memory; what was finished is kept: "
                    "start again with fewer workers."
                ) from error
            finally:
                kept.flush()
    sweep = Sweep(kept.finish(names))
    if len(sweep.failed):
        first = sweep.failed.iloc[0]
        narrator.say(
            f"{file.stem}: {len(sweep.failed)} of {len(tasks)} tasks failed; the first: {first['task']}: "
            f"{first['error']}"
        )
    return sweep


def sweep_key(function: Callable[..., Row], tasks: Sequence[SweepTask]) -> str:
    """Fingerprint of the code, of the function's name and of every task, whatever their order."""
    content = sorted([task.name, task.seed, json.dumps(dict(task.arguments), sort_keys=True)] for task in tasks)
    return fingerprint([code_version(), function.__module__, function.__qualname__, content])


def _arrivals(function: Callable[..., Row], tasks: Sequence[SweepTask]) -> Iterator[dict[str, Any]]:
    """Give each row as it comes, in any order; Ray's backend gives lists only, so there it is a few tasks at a time."""
    backend, workers = get_active_backend()
    if backend.supports_return_generator:
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        yield from parallel(joblib.delayed(_attempt)(function, task) for task in tasks)
        return
    step = 4 * max(1, backend.effective_n_jobs(workers))
    for start in range(0, len(tasks), step):
        yield from joblib.Parallel(batch_size=1)(
            joblib.delayed(_attempt)(function, task) for task in tasks[start : start + step]
        )


def _attempt(function: Callable[..., Row], task: SweepTask) -> dict[str, Any]:
    start, held = time.perf_counter(), _resident()
    row: dict[str, Any] = {"task": task.name, "seed": task.seed, "error": None}
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

    A network's audit frees some 250 MB that would still count as the worker's own. loky takes such a worker for one
    that leaks, stops it and warns; and the workers of a small machine would hold what none of them uses.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # another C library has none
            trim(0)


class _Kept:
    """The rows on disk: the finished file, and parts that were written since."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.parts, self.key = file, file.with_suffix(".parts"), key
        self.rows: dict[str, dict[str, Any]] = {}
        self.fresh: list[dict[str, Any]] = []
        self.written = time.monotonic()
        for path in [file, *sorted(self.parts.glob("*.parquet"))]:
            if path.is_file():
                self.rows |= {row["task"]: row for row in _read(path, key).to_dict("records")}

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["task"]] = row
        self.fresh.append(row)
        if time.monotonic() - self.written > _PATIENCE:
            self.flush()

    def flush(self) -> None:
        if self.fresh:
            self.parts.mkdir(parents=True, exist_ok=True)
            number = len(list(self.parts.glob("*.parquet")))
            _write(pd.DataFrame(self.fresh), self.parts / f"{number:06d}.parquet", self.key)
            self.fresh, self.written = [], time.monotonic()

    def finish(self, names: Sequence[str]) -> pd.DataFrame:
        frame = pd.DataFrame([self.rows[name] for name in names])
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.fresh or self.parts.is_dir() or not self.file.is_file():
            _write(frame, self.file, self.key)
        for path in self.parts.glob("*"):
            path.unlink()
        if self.parts.is_dir():
            self.parts.rmdir()
        return frame


def _read(path: Path, key: str) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise StateError(f"{path} cannot be read as parquet ({error}); move it away and start again.") from error
    if (table.schema.metadata or {}).get(_MARK, b"").decode() != key:
        raise StateError(f"{path} holds the rows of another sweep; choose another folder, or move it away.")
    frame: pd.DataFrame = table.to_pandas()
    frame["error"] = frame["error"].astype(object).where(frame["error"].notna(), None)
    return frame


def _write(frame: pd.DataFrame, path: Path, key: str) -> None:
    frame = frame.assign(error=frame["error"].astype("string"))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _MARK: key.encode()})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
