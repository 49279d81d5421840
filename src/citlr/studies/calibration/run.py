"""`citlr calibrate`: the certificate of the statistics, reproduced by one command.

Every test is run on nulls where it must not reject, on alternatives where it should, every interval on effects whose
size is known. Finished tasks are kept in `calibration.jsonl`, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.engines import Engine
from citlr.run.files import write_json
from citlr.run.rows import Rows
from citlr.run.stage import code_version
from citlr.studies.calibration.counts import Count, summary, total
from citlr.studies.calibration.page import write_calibration_page, write_figures
from citlr.studies.calibration.tasks import FULL, QUICK, Effort, plan, run_batch
from citlr.studies.kit.sweep import SweepTask, run_sweep

__all__ = ["run_calibration", "write_calibration_page"]


def run_calibration(
    *,
    quick: bool = False,
    out: str | Path,
    engine: str = "loky",
    workers: int = 1,
    scheduler: str | None = None,
    seed: int = 0,
    narrator: Narrator | None = None,
    effort: Effort | None = None,
    measures: Sequence[str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Measure size, power and coverage of every test, and write the tables, the figures and the page."""
    chosen, narrator, folder = Engine(engine, workers, scheduler), narrator or Narrator(quiet=True), Path(out)
    planned = _chosen(plan(effort or (QUICK if quick else FULL), seed), measures)
    # First batches first: a run cut short has something of everything.
    tasks = sorted(planned, key=lambda task: int(np.ravel(task.seed)[-1]))
    code = code_version()
    other = (
        f"holds tasks of seed {{seed}} and citlr {{code}}, not of {seed} and {code}: give another folder, or that seed"
    )
    rows = Rows(folder / "calibration.jsonl", {"seed": seed, "code": code}, other=f"{other} and version.")
    sweep = run_sweep(run_batch, tasks, rows, title="calibrate", engine=chosen, narrator=narrator)
    if len(sweep.failed):
        raise StateError(f"A task failed and is tried again by the next call: {sweep.failed['error'].iloc[0]}.")
    done = dict(zip(sweep.done["task"], sweep.done["counts"], strict=True))
    return _write(folder, [Count(**one) for task in planned for one in done[task.name]], narrator)


def _chosen(tasks: list[SweepTask], measures: Sequence[str] | None) -> list[SweepTask]:
    known = {task.arguments["measure"] for task in tasks}
    for name in measures or ():
        if name not in known:
            raise InputError(f"There is no measure '{name}'; known: {', '.join(sorted(known))}.")
    return tasks if measures is None else [task for task in tasks if task.arguments["measure"] in measures]


def _write(folder: Path, counts: list[Count], narrator: Narrator) -> dict[str, list[dict[str, Any]]]:
    """Write tables, histograms, figures and the page."""
    rows = total(counts)
    tables = summary(rows)
    write_json(folder / "calibration.json", tables)
    histograms = [
        {"test": row.subject, "null": row.scenario, "n": row.n, "clusters": row.clusters, "counts": list(row.histogram)}
        for row in rows
        if row.section == "size" and row.subject.startswith("default test")
    ]
    write_json(folder / "calibration_details.json", {"bins": len(rows[0].histogram), "pvalues": histograms})
    write_figures(folder / "calibration.json", folder)
    write_calibration_page(folder / "calibration.json", folder / "calibration.md")
    narrator.say(f"calibrate: {len(rows)} rows in {folder / 'calibration.json'}")
    return tables
