"""The group `citlr reproduce`: published tables and figures, one verb each in a file of its own."""

from __future__ import annotations

import typer

from citlr.cli.reproducing.generation import generation
from citlr.cli.reproducing.imaging import imaging
from citlr.cli.reproducing.morphomnist import morphomnist
from citlr.cli.reproducing.synthetic import synthetic

reproduce = typer.Typer(
    help="Make published tables and figures again: generation, imaging, morphomnist, synthetic.", no_args_is_help=True
)
for verb in (generation, imaging, morphomnist, synthetic):
    reproduce.command()(verb)
