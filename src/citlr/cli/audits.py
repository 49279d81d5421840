"""Verbs of the chain: the demo, a whole audit, and each of its stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citlr.cli.checking import show_plan, trusting
from citlr.cli.options import (
    EngineName,
    Force,
    Json,
    Out,
    Quiet,
    RunFolder,
    Scheduler,
    Seed,
    Texts,
    Trust,
    Workers,
    count,
    engine_of,
    option,
    side,
)

if TYPE_CHECKING:
    from citlr.audit.results.result import AuditResult
    from citlr.run.engines import Engine


def demo(out: Out = Path("demo"), seed: Seed = 0, quiet: Quiet = False, as_json: Json = False) -> None:
    """Audit one blind and one biased classifier in an embedded world: no data, no GPU, a few minutes."""
    from citlr.console import Narrator
    from citlr.studies.demo import run_demo

    show(run_demo(out, seed=seed, narrator=Narrator(quiet=quiet)), out / "run" / "audit.html", as_json)


def audit(
    config: Annotated[Path, typer.Argument(help="The YAML configuration.")],
    out: Out = Path("run"),
    until: Annotated[str, option("Stop after cohort, fit, generate, quality, predict, test or report.")] = "report",
    dry_run: Annotated[bool, option("Check and plan only, as `citlr plan` does.", "--dry-run")] = False,
    trust: Trust = False,
    engine: EngineName = "loky",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the whole chain: cohort, generator, counterfactuals, quality, responses, test, report.

    A model that only its owner can run is one of kind: closed, without a source: the chain stops before the responses,
    `citlr export` writes the images for the owner, and `citlr ingest` takes the answers and goes on to the report.
    """
    from citlr.config import read_config

    settings = trusting(read_config(config), trust)
    if dry_run:
        show_plan(settings, out, None, quiet)
        return
    # After the configuration: torch takes seconds to import, and a typing error is told at once.
    from citlr.console import Narrator
    from citlr.report.publish import run_audit, run_stage
    from citlr.run.folder import Run

    run, power = Run.open(out, settings), engine_of(engine, workers, scheduler)
    if until != "report":
        print(run_stage(run, until, narrator=Narrator(quiet=quiet), engine=power))
        return
    show(run_audit(run, narrator=Narrator(quiet=quiet), engine=power), out / "audit.html", as_json)


def fit(run: RunFolder, quiet: Quiet = False, force: Force = False) -> None:
    """Train the generator of a run."""
    stage("fit", run, quiet, force)


def _verb(text: str, *stages: str) -> Callable[..., None]:
    """Make the verb of a stage that an engine may share out, and of those that go with it."""

    def verb(
        run: RunFolder,
        engine: EngineName = "loky",
        workers: Workers = 1,
        scheduler: Scheduler = None,
        quiet: Quiet = False,
        force: Force = False,
    ) -> None:
        power = engine_of(engine, workers, scheduler)
        for one in stages:
            stage(one, run, quiet, force, power)

    verb.__name__, verb.__doc__ = stages[0], text
    return verb


generate = _verb(
    "Redraw the test images of a run under every level, and measure how faithful the pictures are.",
    "generate",
    "quality",
)
predict = _verb("Run the model under audit on the redrawn images.", "predict")
test = _verb("Test whether the model's answers change with the attribute, and write audit.json.", "test")


def report(
    run: RunFolder,
    form: Annotated[Texts, option("html, pdf, json, md or csv; may be repeated.", "--format")] = None,
    out: Annotated[Path | None, option("Folder to write to; the run without it.", "--out", "-o")] = None,
    images: Annotated[int | None, count("Counterfactual strips to show.", least=0)] = None,
    pixels: Annotated[int | None, side("Longest side of a picture.")] = None,
    no_burnt_in_text: Annotated[
        bool, option("Confirm that you looked: no text is burnt into the pictures.", "--no-burnt-in-text")
    ] = False,
    mask_below: Annotated[int | None, count("Mask cells with fewer patients; 1 masks nothing.")] = None,
    pdf_engine: Annotated[str, option("weasyprint or chromium.")] = "weasyprint",
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Write the report: audit.html, or with --format also a PDF, JSON and CSV without small cells, a model card."""
    given = {"gallery": images, "gallery_pixels": pixels, "mask_below": mask_below}
    changed = {name: value for name, value in given.items() if value is not None}
    if no_burnt_in_text:
        changed["no_burnt_in_text"] = True
    if form is None and out is None and not changed:
        stage("report", run, quiet, force)
        return
    from citlr.config import ReportConfig, parse_section
    from citlr.exchange.deliver import deliver
    from citlr.run.folder import Run

    opened = Run.open(run)
    settings = {**opened.config.report.model_dump(), **changed}
    shown = parse_section(ReportConfig, settings, "The report cannot be made")
    for path in deliver(opened, tuple(form or ["html"]), out=out, report=shown, engine=pdf_engine):
        print(path)


VERBS = (demo, audit, fit, generate, predict, test, report)


def stage(name: str, folder: Path, quiet: bool, force: bool, engine: Engine | None = None) -> None:
    """Run one stage of a run folder, and those before it that are not done; say what it left behind."""
    from citlr.console import Narrator
    from citlr.report.publish import run_stage
    from citlr.run.folder import Run

    print(run_stage(Run.open(folder), name, force=force, narrator=Narrator(quiet=quiet), engine=engine))


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
