"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Do the stage again, and what follows from it.")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder of an audit.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write; started again, a run goes on.")]
