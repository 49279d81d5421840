"""Every verb of the command line under one name."""

from typing import Annotated

import typer

from citlr.cli import audits, checking, closed, cohorts, starting, studies, tables
from citlr.cli.reproducing import generation, imaging, morphomnist, synthetic

reproduce = typer.Typer(
    help="Make published tables and figures again: generation, imaging, morphomnist, synthetic.", no_args_is_help=True
)
for study in (generation, imaging, morphomnist, synthetic):
    reproduce.command()(study)

app = typer.Typer(
    name="citlr",
    help="Does a medical-image classifier depend on a sensitive attribute beyond what the rest of the image says?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cohorts.prepare, name="prepare")
app.add_typer(reproduce, name="reproduce")
for verbs in (starting.VERBS, checking.VERBS, audits.VERBS, closed.VERBS, tables.VERBS, cohorts.VERBS, studies.VERBS):
    for verb in verbs:
        app.command()(verb)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from citlr.version import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)
