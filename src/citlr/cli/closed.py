"""Verbs around an audit: closed models out and back, and the gate of a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Quiet, RunFolder


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model's owner.")],
    format: Annotated[str, typer.Option(help="png, jpeg or dicom.")] = "png",
    quiet: Quiet = False,
) -> None:
    """Write the redrawn images under opaque names, for a model that is run elsewhere."""
    from citlr.artifacts import Run
    from citlr.audit.handover import export_run
    from citlr.console import Narrator

    print(export_run(Run.open(run), out=out, format=format, narrator=Narrator(quiet=quiet)))


def ingest(
    run: RunFolder,
    predictions: Annotated[Path, typer.Argument(help="The CSV that the model's owner sent back.")],
    model: Annotated[str, typer.Option(help="Which closed model, where there are several.")] = "",
    percent: Annotated[bool, typer.Option("--percent", help="The numbers are percentages.")] = False,
    quiet: Quiet = False,
) -> None:
    """Take the answers of a closed model, and go on to test and report."""
    from citlr.artifacts import Run
    from citlr.audit.handover import ingest_run
    from citlr.cli.audits import show
    from citlr.console import Narrator

    results = ingest_run(Run.open(run), predictions, model=model, percent=percent, narrator=Narrator(quiet=quiet))
    show(results, run / "audit.html", as_json=False)


def check(
    run: RunFolder,
    policy: Annotated[Path | None, typer.Option(help="YAML with the rules; the defaults without it.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="An earlier run to compare with.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
) -> None:
    """Hold an audit against a policy; exit 1 with one line per breach."""
    from citlr.artifacts import Run
    from citlr.audit.pipeline import read_results
    from citlr.audit.policy import Policy, check_policy, read_policy

    rules = Policy() if policy is None else read_policy(policy)
    old = None if baseline is None else read_results(Run.open(baseline))
    found = check_policy(read_results(Run.open(run)), rules, baseline=old)
    found.write(junit=junit, markdown=markdown)
    print(found)
    if not found.passed:
        raise typer.Exit(1)


VERBS = (export, ingest, check)
