"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from citlr.run.engines import Engine

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Trust = Annotated[bool, typer.Option("--trust", help="Read pickles and MONAI bundles too; they can run any code.")]
Force = Annotated[bool, typer.Option("--force", help="Run this stage and all later ones again.")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder of an audit.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write; started again, a run goes on.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same numbers, bit for bit.")]
Workers = Annotated[int, typer.Option(min=1, max=1024, help="Processes to start on this machine.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="Where the work runs: loky (processes here), dask or ray (clusters).")
]
Scheduler = Annotated[str | None, typer.Option(help="Address of a running Dask or Ray cluster.")]
Map = Annotated[
    list[str] | None,
    typer.Option(help="NAME=COLUMN, which of your columns is which, such as path=file; may be repeated."),
]
Label = Annotated[list[str] | None, typer.Option(help="Label, a column of a wide table; may be repeated.")]
# Limits of counts: larger ones are typing errors, and would fill the memory before anybody notices.
LARGEST_COUNT, LARGEST_SIDE = 100_000_000, 8192


def count(text: str, *, least: int = 1) -> Any:
    """Return an option that counts something."""
    return typer.Option(min=least, max=LARGEST_COUNT, help=text)


def side(text: str) -> Any:
    """Return an option that is a side of images, in pixels."""
    return typer.Option(min=1, max=LARGEST_SIDE, help=text)


def engine_of(name: str, workers: int, scheduler: str | None) -> Engine:
    """Make the engine of the options that verbs share."""
    from citlr.run.engines import Engine

    return Engine(name, workers, scheduler)


def pairs(option: str, entries: list[str] | None, form: str) -> list[tuple[str, str]]:
    """Read options of the form NAME=VALUE."""
    from citlr.errors import InputError

    found = []
    for entry in entries or []:
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"{option} '{entry}' is not of the form {form}.")
        found.append((ours, theirs))
    return found
