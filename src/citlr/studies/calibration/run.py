"""`citlr calibrate`: the certificate of the statistics, reproduced by one command.

Every test is run on nulls where it must not reject, on alternatives where it should, every interval on effects whose
size is known. Finished tasks are kept in `calibration.jsonl`, so that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib

from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.files import write_json
from citlr.run.stage import code_version
from citlr.studies.calibration.counts import Count, summary, total
from citlr.studies.calibration.page import write_calibration_page, write_figures
from citlr.studies.calibration.tasks import FULL, QUICK, Effort, Task, plan

__all__ = ["run_calibration", "write_calibration_page"]


def run_calibration(
    *,
    quick: bool = False,
    out: str | Path,
    workers: int = 1,
    seed: int = 0,
    narrator: Narrator | None = None,
    effort: Effort | None = None,
    measures: Sequence[str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Measure size, power and coverage of every test, and write the tables, the figures and the page.

    Examples
    --------
    >>> import tempfile
    >>> tables = run_calibration(
    ...     out=tempfile.mkdtemp(), effort=Effort(20, 0, 0, 0, 0, 0, (100,)), measures=["default_size"]
    ... )
    >>> sorted(tables), tables["size"][0]["reps"]
    (['coverage', 'power', 'size'], 20)
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, found {workers}.")
    narrator, folder = narrator or Narrator(quiet=True), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = _chosen(plan(effort or (QUICK if quick else FULL), seed), measures)
    log = folder / "calibration.jsonl"
    done = _finished(log, seed)
    waiting = [task for task in tasks if task.name not in done]
    waiting.sort(key=lambda task: task.seed[-1])  # first batches first: a run cut short has something of everything
    if len(waiting) < len(tasks):
        narrator.say(f"calibrate: {len(tasks) - len(waiting)} of {len(tasks)} tasks were finished before")
    with narrator.progress("calibrate", len(tasks)) as tick, log.open("a", encoding="utf-8") as record:
        ready = len(tasks) - len(waiting)
        for name, counts, seconds in _results(waiting, workers):
            done[name] = counts
            entry = {
                "seed": seed,
                "code": code_version(),
                "task": name,
                "seconds": seconds,
                "counts": [asdict(count) for count in counts],
            }
            record.write(json.dumps(entry) + "\n")
            record.flush()
            ready += 1
            tick(ready, name.split("(")[0])
    return _write(folder, [count for task in tasks for count in done[task.name]], narrator)


def _chosen(tasks: list[Task], measures: Sequence[str] | None) -> list[Task]:
    if measures is None:
        return tasks
    known = {task.measure for task in tasks}
    for name in measures:
        if name not in known:
            raise InputError(f"There is no measure '{name}'; known: {', '.join(sorted(known))}.")
    return [task for task in tasks if task.measure in measures]


def _finished(log: Path, seed: int) -> dict[str, list[Count]]:
    """Read what earlier runs finished; a last line torn by a kill is cut off, its task is done again."""
    done: dict[str, list[Count]] = {}
    if not log.is_file():
        return done
    content = log.read_text(encoding="utf-8")
    whole = content[: content.rfind("\n") + 1]
    for line in whole.splitlines():
        entry = json.loads(line)
        if (entry["seed"], entry["code"]) != (seed, code_version()):
            raise StateError(
                f"{log} holds tasks of seed {entry['seed']} and citlr {entry['code']}, not of {seed} and "
                f"{code_version()}: give another folder, or that seed and version."
            )
        done[entry["task"]] = [Count(**{**c, "histogram": tuple(c["histogram"])}) for c in entry["counts"]]
    if len(whole) < len(content):
        with log.open("r+", encoding="utf-8") as torn:
            torn.truncate(len(whole.encode("utf-8")))
    return done


def _timed(task: Task) -> tuple[str, list[Count], float]:
    start = time.perf_counter()
    counts = task.run()
    return task.name, counts, round(time.perf_counter() - start, 3)


def _results(tasks: Iterable[Task], workers: int) -> Iterator[tuple[str, list[Count], float]]:
    """Run tasks, here or in `workers` processes, and give results as they come."""
    if workers == 1:
        yield from map(_timed, tasks)
        return
    pool = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", inner_max_num_threads=1, backend="loky")
    yield from pool(joblib.delayed(_timed)(task) for task in tasks)


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
