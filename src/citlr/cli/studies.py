"""Verbs of evidence: calibration of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Out, Quiet


def calibrate(
    out: Out = Path("calibration"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions: minutes instead of an hour.")] = False,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    seed: int = 0,
    page: Annotated[Path | None, typer.Option(help="Also write the Markdown page here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure size, power and coverage of every test on worlds where the truth is known."""
    from citlr.console import Narrator
    from citlr.experiments.calibration import run_calibration

    run_calibration(quick=quick, out=out, workers=workers, seed=seed, narrator=Narrator(quiet=quiet))
    print(out / "calibration.json")
    if page is not None:
        from citlr.experiments.calibration_page import write_calibration_page

        write_calibration_page(out / "calibration.json", page)
        print(page)


VERBS = (calibrate,)
