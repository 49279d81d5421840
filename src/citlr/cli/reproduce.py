"""The group `citlr reproduce`: the publication's tables and figures, one verb each in a file of its own."""

from __future__ import annotations

import typer

from citlr.cli.generation import generation

reproduce = typer.Typer(help="The publication's tables and figures, made again: generation.", no_args_is_help=True)
for verb in (generation,):
    reproduce.command()(verb)
