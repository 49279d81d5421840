"""A training on several devices: a process each, started here, that take equal shares of every batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

from citlr.errors import CitlrError, InputError, StateError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = TypeVar("Result")
# What the processes of this one's group share; empty in a process that is alone.
_group: list[Fabric] = []


def fabric_of(accelerator: str, precision: str) -> Fabric:
    """Give this process's device: its own in the group, or one that it has alone."""
    if _group:
        return _group[0]
    # Here, for it takes 2 s, of which only a training has need.
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def is_alone() -> bool:
    """Say whether this process is none of a group."""
    return not _group


@contextmanager
def first() -> Iterator[None]:
    """Let the group's first process do something before the others, which then find it done."""
    if not _group:
        yield
        return
    with _group[0].rank_zero_first():
        yield


def on_devices(
    devices: int, accelerator: str, precision: str, function: Callable[..., Result], *arguments: Any
) -> Result:
    """Call a function in a process for each device, and give what it returns in the first.

    Nothing is shared but a folder; function and arguments have to be such as can be pickled.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    # The first may decode for hours while the others wait.
    strategy = DDPStrategy(start_method="spawn", timeout=timedelta(days=7))
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision, strategy=strategy)  # type: ignore[arg-type]
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(f"There are no {devices} devices of kind '{accelerator}' here ({error}).") from error
    with tempfile.TemporaryDirectory(prefix="citlr-") as folder:
        said = Path(folder) / "said"
        try:
            begin: Any = _begin
            # As bytes: Fabric looks into what it is given, and stumbles over frozen dataclasses.
            found: Result = cloudpickle.loads(fabric.launch(begin, said, cloudpickle.dumps((function, arguments))))
        except ProcessRaisedException as error:
            if not said.is_file():
                raise
            kind, _, text = said.read_text(encoding="utf-8").partition(": ")
            raise (InputError if kind == "InputError" else StateError)(text) from error
        except ProcessExitedException as error:
            raise StateError(
                f"A process of the training died ({error}), often for want of memory: what was trained up to the last "
                "checkpoint is kept; run the same command again, with a smaller batch or fewer devices."
            ) from error
    return found


def _begin(fabric: Fabric, said: Path, content: bytes) -> bytes:
    """Be one of the group; an error's sentence is left for the process that started it."""
    _group.append(fabric)
    try:
        function, arguments = cloudpickle.loads(content)
        result: bytes = cloudpickle.dumps(function(*arguments))
        return result
    except CitlrError as error:
        own = said.with_suffix(f".{fabric.global_rank}")
        own.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        own.replace(said)
        raise
