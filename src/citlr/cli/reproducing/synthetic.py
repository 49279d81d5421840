"""The verb `citlr reproduce synthetic`: the publication's Fig. 2, corrected."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import EngineName, Out, Quiet, Scheduler, Seed, Workers, count, engine_of


def synthetic(
    sets: Annotated[
        list[str] | None,
        typer.Option(help="linear, quadratic, exponential, interactive, log-scale, sin; all without it."),
    ] = None,
    models: Annotated[int, count("Per set, a multiple of ten; the graded pool has 40 beside.")] = 100,
    n_train: Annotated[int, count("Training units of every model.")] = 800,
    n_test: Annotated[int, count("Test units of every model.")] = 200,
    balanced: Annotated[bool, typer.Option("--balanced", help="Half of the units positive in every set.")] = False,
    engine: EngineName = "loky",
    workers: Workers = 2,
    scheduler: Scheduler = None,
    out: Out = Path("synthetic"),
    page: Annotated[Path | None, typer.Option(help="Also write the Markdown page here.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Six synthetic sets, 100 models and a graded pool on each: six tests against ECA and against the true psi."""
    from citlr.console import Narrator
    from citlr.errors import StateError
    from citlr.simulators.tabular import SETS
    from citlr.studies.synthetic.page import write_synthetic
    from citlr.studies.synthetic.run import run_synthetic

    sweep = run_synthetic(
        out,
        sets=sets or SETS,
        models=models,
        n_train=n_train,
        n_test=n_test,
        balanced=balanced,
        engine=engine_of(engine, workers, scheduler),
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    if not len(sweep.done):
        raise StateError(f"All {len(sweep.failed)} models failed; the first: {sweep.failed['error'].iloc[0]}")
    print(out / "synthetic.parquet")
    for path in write_synthetic(sweep.done, out, page=page, failed=len(sweep.failed)):
        print(path)
