"""The command line: verbs only; results on standard output, progress on standard error, heavy imports inside a verb."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from citlr.errors import CitlrError

app = typer.Typer(
    name="citlr",
    help="Does a medical-image classifier depend on a sensitive attribute beyond what the rest of the image says?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Do the stage again, and what follows from it.")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder of an audit.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write; started again, a run goes on.")]


def main() -> None:
    """Run the command line: exit 0 done, 1 a gate said no, 2 bad input or usage, 130 interrupted."""
    try:
        app()
    except CitlrError as error:
        print(f"citlr: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("citlr: interrupted; run the same command again, it goes on where it was.", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from citlr import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


@app.command()
def demo(out: Out = Path("demo"), seed: int = 0, quiet: Quiet = False, as_json: Json = False) -> None:
    """Audit one blind and one biased classifier in an embedded world: no data, no GPU, a few minutes."""
    from citlr.console import Narrator
    from citlr.experiments.demo import run_demo

    _show(run_demo(out, seed=seed, narrator=Narrator(quiet=quiet)), out, as_json)


@app.command()
def audit(
    config: Annotated[Path, typer.Argument(help="The YAML configuration.")],
    out: Out = Path("run"),
    until: Annotated[str, typer.Option(help="Stop after this stage.")] = "report",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the whole chain: cohort, generator, counterfactuals, responses, test, report."""
    from citlr.artifacts import Run
    from citlr.audit.pipeline import run_audit, run_stage
    from citlr.config import read_config
    from citlr.console import Narrator

    run = Run.open(out, read_config(config))
    if until != "report":
        print(run_stage(run, until, narrator=Narrator(quiet=quiet)))
        return
    _show(run_audit(run, narrator=Narrator(quiet=quiet)), out, as_json)


def _stage(name: str, folder: Path, quiet: bool, force: bool) -> None:
    """Run one stage of a run folder, and those before it that are not done."""
    from citlr.artifacts import Run
    from citlr.audit.pipeline import run_stage
    from citlr.console import Narrator

    print(run_stage(Run.open(folder), name, force=force, narrator=Narrator(quiet=quiet)))


@app.command()
def fit(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Train the generator of a run."""
    _stage("fit", run, quiet, force)


@app.command()
def generate(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Redraw the test images of a run under every level, and measure how faithful the pictures are."""
    _stage("generate", run, quiet, force)


@app.command()
def predict(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Run the model under audit on the redrawn images."""
    _stage("predict", run, quiet, force)


@app.command()
def test(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Test the responses and write audit.json."""
    _stage("test", run, quiet, force)


@app.command()
def report(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Write audit.html."""
    _stage("report", run, quiet, force)


def _show(results: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print every result, and where its page is."""
    import json

    if as_json:
        print(json.dumps({name: result.to_dict() for name, result in results.items()}, allow_nan=False))
        return
    for result in results.values():
        print(result)
        print()
    print(f"Report: {out / 'audit.html'}")
