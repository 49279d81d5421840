"""Parts done on a Dask or a Ray cluster, which replace workers that die and do their parts again by themselves."""

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.parcel import Missing, Parcel, bring, forget, has_arrived, open_parcel, work_on

# A part whose worker died so often is not tried again: it asks for more than a worker has.
ATTEMPTS = 3
_ANSWER_SECONDS = 10


def died(attempts: int) -> StateError:
    """Say that a part killed every worker that tried it."""
    return StateError(
        f"Workers died {attempts} times at the same part, often for want of memory; what was finished is kept: start "
        "again with fewer workers, or on a machine with more memory."
    )


def on_dask(
    parcel: Parcel, items: Sequence[Any], workers: int, scheduler: str | None, narrator: Narrator
) -> Iterator[tuple[int, Any]]:
    """Do parts on a Dask cluster; a worker that comes later gets the parcel as well."""
    with _dask_client(workers, scheduler) as client:
        from distributed import KilledWorker, WorkerPlugin, as_completed

        if not client.nthreads():
            narrator.say(f"The Dask cluster has no worker yet, and the work waits for one: `dask worker {scheduler}`.")

        class Delivery(WorkerPlugin):
            """Brings the parcel to every worker."""

            name = f"citlr-{parcel.name}"

            def setup(self, worker: object) -> None:
                parcel.arrive()

            def teardown(self, worker: object) -> None:
                forget(parcel.name)

        client.register_plugin(Delivery())
        futures: dict[Any, int] = {}
        try:
            futures |= {client.submit(work_on, parcel.name, item, pure=False): row for row, item in enumerate(items)}
            coming = as_completed(list(futures))
            for future in coming:
                row, result = futures.pop(future), future.result()
                if result is Missing:
                    again = client.submit(bring, parcel, items[row], pure=False)
                    futures[again] = row
                    coming.add(again)
                else:
                    yield row, open_parcel(result)
                future.release()
        except KilledWorker as error:
            raise died(ATTEMPTS) from error
        finally:
            client.cancel(list(futures))
            client.unregister_worker_plugin(Delivery.name)


@contextmanager
def _dask_client(workers: int, scheduler: str | None) -> Iterator[Any]:
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError("The engine dask is not installed; `pip install citlr[cluster]` brings it.") from error
    if scheduler is None:
        with (
            config.set({"distributed.scheduler.allowed-failures": ATTEMPTS - 1}),
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=_ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        raise _silent("dask", scheduler, "dask scheduler", error) from error
    with client:
        yield client


def on_ray(parcel: Parcel, items: Sequence[Any], workers: int, scheduler: str | None) -> Iterator[tuple[int, Any]]:
    """Do parts on a Ray cluster."""
    with _ray_client(workers, scheduler) as ray:
        content = ray.put(parcel)
        # In a list, so that Ray hands on the name of the content and not the content: it is read once a process.
        task = ray.remote(_work_on_ray).options(max_retries=ATTEMPTS - 1)
        waiting = {task.remote(parcel.name, [content], item): row for row, item in enumerate(items)}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for future in done:
                try:
                    result = ray.get(future)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                    raise died(ATTEMPTS) from error
                yield waiting.pop(future), open_parcel(result)


def _work_on_ray(name: str, content: list[Any], item: Any) -> Any:
    if not has_arrived(name):
        import ray

        ray.get(content[0]).arrive()
    return work_on(name, item)


@contextmanager
def _ray_client(workers: int, scheduler: str | None) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise InputError("The engine ray is not installed; `pip install citlr[cluster]` brings it.") from error
    where: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        _knock(scheduler)
        ray.init(
            log_to_driver=False, logging_level=logging.ERROR, **(where if scheduler is None else {"address": scheduler})
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise _silent("ray", scheduler or "this machine", "ray start --head", error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray itself would ask for minutes. An address may also be a word, or a URL."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


def _silent(engine: str, address: str, command: str, error: Exception) -> InputError:
    return InputError(
        f"No {engine} cluster answers at '{address}' ({type(error).__name__}); start one with `{command}`, or leave "
        "--scheduler out to start one here."
    )
