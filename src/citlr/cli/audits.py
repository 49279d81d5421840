"""Verbs of the chain: the demo, a whole audit, and each of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citlr.cli.options import Force, Json, Out, Quiet, RunFolder

if TYPE_CHECKING:
    from citlr.audit.result import AuditResult


def demo(out: Out = Path("demo"), seed: int = 0, quiet: Quiet = False, as_json: Json = False) -> None:
    """Audit one blind and one biased classifier in an embedded world: no data, no GPU, a few minutes."""
    from citlr.console import Narrator
    from citlr.experiments.demo import run_demo

    show(run_demo(out, seed=seed, narrator=Narrator(quiet=quiet)), out / "run" / "audit.html", as_json)


def audit(
    config: Annotated[Path, typer.Argument(help="The YAML configuration.")],
    out: Out = Path("run"),
    until: Annotated[str, typer.Option(help="Stop after this stage.")] = "report",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the whole chain: cohort, generator, counterfactuals, quality, responses, test, report."""
    from citlr.artifacts import Run
    from citlr.audit.pipeline import run_audit, run_stage
    from citlr.config import read_config
    from citlr.console import Narrator

    run = Run.open(out, read_config(config))
    if until != "report":
        print(run_stage(run, until, narrator=Narrator(quiet=quiet)))
        return
    show(run_audit(run, narrator=Narrator(quiet=quiet)), out / "audit.html", as_json)


def fit(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Train the generator of a run."""
    stage("fit", run, quiet, force)


def generate(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Redraw the test images of a run under every level, and measure how faithful the pictures are."""
    stage("generate", run, quiet, force)
    stage("quality", run, quiet, force)


def predict(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Run the model under audit on the redrawn images."""
    stage("predict", run, quiet, force)


def test(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:  # noqa: PT028 - a verb, not a pytest test
    """Test the responses and write audit.json."""
    stage("test", run, quiet, force)


def report(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Write audit.html."""
    stage("report", run, quiet, force)


VERBS = (demo, audit, fit, generate, predict, test, report)


def stage(name: str, folder: Path, quiet: bool, force: bool) -> None:
    """Run one stage of a run folder, and those before it that are not done; say what it left behind."""
    from citlr.artifacts import Run
    from citlr.audit.pipeline import run_stage
    from citlr.console import Narrator

    print(run_stage(Run.open(folder), name, force=force, narrator=Narrator(quiet=quiet)))


def show(results: dict[str, AuditResult], page: Path, as_json: bool) -> None:
    """Print every result, and where the page is."""
    import json

    if as_json:
        print(json.dumps({name: result.to_dict() for name, result in results.items()}, allow_nan=False))
        return
    for result in results.values():
        print(result)
        print()
    print(f"Report: {page}")
