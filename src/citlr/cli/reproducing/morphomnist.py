"""The verb `citlr reproduce morphomnist`: the peer benchmark of the field."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Out, Quiet, Seed


def morphomnist(
    mnist: Annotated[
        Path, typer.Argument(help="MNIST: a folder of the IDX files (.gz or not) or of PNG files, or an .npz.")
    ],
    preset: Annotated[str, typer.Option(help="smoke (seconds, shows that all works) or full.")] = "full",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    features: Annotated[
        str, typer.Option(help="For FID and minimality: probe (this run's reader) or inception_v3:FILE.")
    ] = "probe",
    out: Out = Path("morphomnist"),
    page: Annotated[Path | None, typer.Option(help="Also write the Markdown page here, its picture beside it.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Digits redrawn to another thickness or intensity: our generators by the published protocol, and the truth."""
    from citlr.console import Narrator
    from citlr.studies.morphomnist.run import run_morphomnist

    narrator = Narrator(quiet=quiet)
    for path in run_morphomnist(
        mnist, out, preset=preset, models=model or (), features=features, into=page, seed=seed, narrator=narrator
    ):
        print(path)
