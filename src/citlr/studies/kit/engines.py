"""Where a sweep's tasks run: this process, loky's processes, a Dask or a Ray cluster, all of them through joblib."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib

from citlr.errors import InputError, did_you_mean
from citlr.threads import threads_of_a_worker

ENGINES = ("loky", "dask", "ray")
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Engine:
    """What a sweep runs on.

    - `name`: "loky" (processes of this machine, or this one alone where `workers` is 1), "dask" or "ray".
    - `scheduler`: Address of a running cluster; without it one is started here.
    """

    name: str = "loky"
    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            known = ", ".join(ENGINES)
            raise InputError(f"There is no engine '{self.name}'; known: {known}.{did_you_mean(self.name, ENGINES)}")
        if self.workers < 1:
            raise InputError(f"workers must be at least 1, found {self.workers}.")
        if self.name == "loky" and self.scheduler is not None:
            raise InputError(
                f"The engine loky has no scheduler, found '{self.scheduler}'; choose dask or ray, or leave it out."
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make joblib use the engine while the block runs; a cluster that was started here is stopped with it.

        Examples
        --------
        >>> with Engine().running():
        ...     joblib.Parallel()(joblib.delayed(abs)(k) for k in (-1, 2))
        [1, 2]
        """
        if self.name == "loky":
            loky = {"inner_max_num_threads": threads_of_a_worker(self.workers)}
            several = self.workers > 1
            kind = "loky" if several else "sequential"
            with joblib.parallel_config(kind, n_jobs=self.workers, **(loky if several else {})):
                yield
        else:
            with (_dask if self.name == "dask" else _ray)(self.workers, self.scheduler):
                yield


@contextmanager
def _dask(workers: int, scheduler: str | None) -> Iterator[None]:
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError("The engine dask is not installed; `pip install citlr[cluster]` brings it.") from error
    if scheduler is None:
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster),
            joblib.parallel_config(backend="dask", n_jobs=-1),
        ):
            yield
        return
    try:
        client = Client(scheduler, timeout=_ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        raise _silent("dask", scheduler, "dask scheduler", error) from error
    with client, joblib.parallel_config(backend="dask", n_jobs=-1):
        yield


@contextmanager
def _ray(workers: int, scheduler: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise InputError("The engine ray is not installed; `pip install citlr[cluster]` brings it.") from error
    settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if scheduler is None:
            ray.init(num_cpus=workers, **settings)
        else:
            ray.init(address=scheduler, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _silent("ray", scheduler or "this machine", "ray start --head", error) from error
    try:
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()


def _silent(engine: str, address: str, command: str, error: Exception) -> InputError:
    return InputError(
        f"No {engine} cluster answers at '{address}' ({type(error).__name__}); start one with `{command}`, or leave "
        "--scheduler out to start one here."
    )
