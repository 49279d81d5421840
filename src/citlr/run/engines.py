"""Where work that falls into parts is done: this process, processes of this machine, a Dask or a Ray cluster."""

import os
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loky import get_reusable_executor

from citlr.console import Narrator
from citlr.errors import InputError, did_you_mean
from citlr.run.clusters import ATTEMPTS, died, on_dask, on_ray
from citlr.run.files import digest_or_missing, fingerprint
from citlr.run.parcel import Missing, Parcel, Result, deliver, open_parcel, work_on

ENGINES = ("loky", "dask", "ray")
# Parts that each process has at hand: the next one without waiting for this process to send it.
_AT_HAND = 2
# Processes that nobody has asked for anything so long end.
_IDLE_SECONDS = 60


@dataclass(frozen=True)
class Engine:
    """What parts are done on; their results are the same whatever it is.

    - `name`: "loky" (processes of this machine, or this one alone where `workers` is 1), "dask" or "ray".
    - `workers`: Processes to start on this machine.
    - `scheduler`: Address of a running cluster; without it one is started here.
    - `narrator`: Says that a worker died, or that a cluster has none, where no other narrator is given.

    Processes compute with as many threads as this one does: results depend on it in their last bits.
    """

    name: str = "loky"
    workers: int = 1
    scheduler: str | None = None
    narrator: Narrator = field(default_factory=Narrator, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            known = ", ".join(ENGINES)
            raise InputError(f"There is no engine '{self.name}'; known: {known}.{did_you_mean(self.name, ENGINES)}")
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            raise InputError(f"workers must be a whole number of at least 1, found {self.workers}.")
        if self.name == "loky" and self.scheduler is not None:
            raise InputError(
                f"The engine loky has no scheduler, found '{self.scheduler}'; choose dask or ray, or leave it out."
            )

    @property
    def here(self) -> bool:
        """Whether all is done in this process."""
        return self.name == "loky" and self.workers == 1

    def each(
        self,
        function: Callable[[Any, Any], Result],
        shared: Any,
        items: Sequence[Any],
        *,
        narrator: Narrator | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Give the position and `function(shared, item)` of every item as they come, in any order.

        `shared` goes to every process once. A process that dies is replaced, and what it had under way is done again;
        what is asked of one item too often is an error. An error of `function` ends the work.
        """
        if self.here:
            yield from ((position, function(shared, item)) for position, item in enumerate(items))
        elif items:
            parcel, narrator = Parcel.of(function, shared), narrator or self.narrator
            if self.name == "loky":
                yield from _on_loky(parcel, items, self.workers, narrator)
            elif self.name == "dask":
                yield from on_dask(parcel, items, self.workers, self.scheduler, narrator)
            else:
                yield from on_ray(parcel, items, self.workers, self.scheduler)


def _on_loky(parcel: Parcel, items: Sequence[Any], workers: int, narrator: Narrator) -> Iterator[tuple[int, Any]]:
    """Have processes of this machine do parts: one that is killed takes the others with it, and all are replaced."""
    waiting, deaths = deque(enumerate(items)), [0] * len(items)
    while waiting:
        under_way: dict[Future[Any], tuple[int, Any]] = {}
        pool, whole = _processes(parcel, workers), False
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _AT_HAND * workers:
                    under_way[pool.submit(work_on, parcel.name, waiting[0][1])] = waiting[0]
                    waiting.popleft()
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    if result is Missing:
                        # Asked for again before it is taken out: processes that have died meanwhile refuse it.
                        again = pool.submit(deliver, parcel, under_way[future][1])
                        under_way[again] = under_way.pop(future)
                    else:
                        yield under_way.pop(future)[0], open_parcel(result)
            whole = True
        except BrokenExecutor as error:
            waiting.extendleft(reversed(under_way.values()))
            for position, _ in under_way.values():
                deaths[position] += 1
            if max(deaths) >= ATTEMPTS:
                raise died(ATTEMPTS) from error
            narrator.say("A worker died, often for want of memory: it is replaced, and its part is done again.")
        finally:
            if not whole:
                pool.shutdown(wait=True, kill_workers=True)


def _processes(parcel: Parcel, workers: int) -> Any:
    """Give processes that the last stage has left, or new ones where they would know another environment or code."""
    settings = {f"{name}_NUM_THREADS": str(parcel.threads["openmp"]) for name in ("OMP", "MKL")}
    settings["OPENBLAS_NUM_THREADS"] = str(parcel.threads["blas"])
    # A process that has loaded a network is none that leaks, for which loky would take it and start another.
    settings["LOKY_MAX_MEMORY_LEAK_SIZE"] = "1e12"
    # loky starts others where an argument is another one
    return get_reusable_executor(workers, timeout=_IDLE_SECONDS, env=settings, initargs=(_surroundings(),))


def _surroundings() -> str:
    """Digest what a process takes from this one when it starts, and keeps: environment, folders, the user's modules."""
    files = {str(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    own = {file: digest_or_missing(Path(file)) for file in files if not _installed(Path(file))}
    return fingerprint([dict(os.environ), str(Path.cwd()), sys.path, own])


def _installed(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(place) for place in (sysconfig.get_path("stdlib"), Path(__file__).parents[1]))
