"""Options that several verbs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from citlr.run.engines import Engine


def option(text: str, *names: str, **limits: int) -> Any:
    """Return an option with this help."""
    return typer.Option(*names, help=text, **limits)  # type: ignore[arg-type]


Texts = list[str] | None
Quiet = Annotated[bool, option("No progress, only results.", "--quiet", "-q")]
Json = Annotated[bool, option("Print the result as JSON.", "--json")]
Trust = Annotated[bool, option("Read pickles and MONAI bundles too; they can run any code.", "--trust")]
Force = Annotated[bool, option("Run this stage and all later ones again.", "--force")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder of an audit.")]
Out = Annotated[Path, option("The folder to write; started again, a run goes on.", "--out", "-o")]
Seed = Annotated[int, option("The same seed gives the same numbers, bit for bit.", min=0, max=2**32 - 1)]
Workers = Annotated[int, option("Processes to start on this machine.", min=1, max=1024)]
EngineName = Annotated[str, option("Where the work runs: loky (processes here), dask or ray (clusters).", "--engine")]
Scheduler = Annotated[str | None, option("Address of a running Dask or Ray cluster.")]
Map = Annotated[Texts, option("NAME=COLUMN, which of your columns is which, such as path=file; may be repeated.")]
Label = Annotated[Texts, option("Label, a column of a wide table; may be repeated.")]
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
    """Read options of the form NAME=VALUE; the sign of a value such as `>=65` is no end of it."""
    from citlr.errors import InputError

    found = []
    for entry in entries or []:
        parts = re.split("(?<![<>])=", entry, maxsplit=1)
        ours, theirs = parts if len(parts) == 2 else (entry, "")
        if not (ours and theirs):
            raise InputError(f"{option} '{entry}' is not of the form {form}.")
        found.append((ours, theirs))
    return found


def mapping(option: str, entries: list[str] | None, form: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE where a name has one value."""
    from citlr.errors import InputError

    found: dict[str, str] = {}
    for ours, theirs in pairs(option, entries, form):
        if found.setdefault(ours, theirs) != theirs:
            raise InputError(f"{option} gives '{ours}' twice, as '{found[ours]}' and as '{theirs}'; leave one out.")
    return found
