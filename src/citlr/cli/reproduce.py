"""The group `citlr reproduce`: the publication's tables and figures, one verb each in a file of its own."""

from __future__ import annotations

import typer

from citlr.cli.generation import generation
from citlr.cli.imaging import imaging
from citlr.cli.synthetic import synthetic

reproduce = typer.Typer(
    help="The publication's tables and figures, made again: generation, imaging, synthetic.", no_args_is_help=True
)
for verb in (generation, imaging, synthetic):
    reproduce.command()(verb)
