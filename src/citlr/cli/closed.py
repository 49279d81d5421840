"""Verbs around an audit: closed models out and back, and the gate of a release."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Json, Quiet, RunFolder, option

AuditPlace = Annotated[str, typer.Argument(help="The run folder of an audit, or an audit.json.")]


def export(
    run: RunFolder,
    out: Annotated[Path, option("Folder for the model's owner.", "--out", "-o")],
    format: Annotated[str, option("png, jpeg or dicom.")] = "png",
    quiet: Quiet = False,
) -> None:
    """Write the redrawn images under opaque names, for a model that is run elsewhere (kind: closed)."""
    from citlr.console import Narrator
    from citlr.exchange.handover import export_run
    from citlr.run.folder import Run

    print(export_run(Run.open(run), out=out, format=format, narrator=Narrator(quiet=quiet)))


def ingest(
    run: RunFolder,
    predictions: Annotated[Path, typer.Argument(help="The CSV that the model's owner sent back.")],
    model: Annotated[str, option("Which closed model, where there are several.")] = "",
    percent: Annotated[bool, option("The numbers are percentages.", "--percent")] = False,
    quiet: Quiet = False,
) -> None:
    """Take the answers of a closed model (kind: closed, no source), and go on to test and report."""
    from citlr.cli.audits import show
    from citlr.console import Narrator
    from citlr.exchange.handover import ingest_run
    from citlr.run.folder import Run

    results = ingest_run(Run.open(run), predictions, model=model, percent=percent, narrator=Narrator(quiet=quiet))
    show(results, run / "audit.html", as_json=False)


def check(
    run: AuditPlace,
    policy: Annotated[Path | None, option("YAML with the rules; the defaults without it.")] = None,
    baseline: Annotated[
        str | None, option("An earlier run, or its audit.json; all that it tested has to be here.")
    ] = None,
    junit: Annotated[Path | None, option("Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, option("Write a Markdown summary here.")] = None,
) -> None:
    """Check a finished audit against the rules of your policy; exit 1 with one line per broken rule."""
    from dataclasses import replace

    from citlr.audit.finished import find
    from citlr.console import Narrator
    from citlr.exchange.policy import Policy, check_policy, read_policy

    rules = Policy() if policy is None else read_policy(policy)
    old = None if baseline is None else {name: one.result for name, one in find(baseline).items()}
    audits = find(run)
    found = check_policy({name: one.result for name, one in audits.items()}, rules, baseline=old)
    found = replace(found, notes=tuple(note for one in audits.values() for note in one.replaced()))
    for note in found.notes:
        Narrator(quiet=False).say(note)
    found.write(junit=junit, markdown=markdown)
    print(found)
    if not found.passed:
        raise typer.Exit(1)


def compare(
    audits: Annotated[list[str], typer.Argument(metavar="RUN[:MODEL]...", help="Run folders, or audit.json files.")],
    html: Annotated[Path | None, option("Write a page here.")] = None,
    markdown: Annotated[Path | None, option("Write a Markdown table here.")] = None,
    as_json: Json = False,
) -> None:
    """Set audits side by side: verdicts, effects, and the interval of their difference; the first is the reference."""
    import json

    from citlr.audit.finished import find
    from citlr.exchange import comparison, comparison_page
    from citlr.run.files import write_text

    series = comparison.choose([find(place, responses=True) for place in audits])
    found = [comparison.compare(one) for one in series]
    if html is not None:
        comparison_page.write_comparison(html, found)
    if markdown is not None:
        write_text(markdown, comparison_page.markdown(found))
    if as_json:
        print(json.dumps([one.to_dict() for one in found], allow_nan=False))
        return
    for one in found:
        print(one)


VERBS = (export, ingest, check, compare)
