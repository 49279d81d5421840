"""`citlr calibrate`: the certificate of the statistics, reproduced by one command.

Every test is run on nulls where it must not reject, on alternatives where it should, every interval on effects whose
size is known. Finished tasks are kept in `calibration.jsonl`, so that a run that was cut off goes on where it was.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citlr.console import QUIET, Narrator
from citlr.errors import InputError, StateError
from citlr.run.engines import Engine
from citlr.run.files import write_json
from citlr.run.rows import Rows
from citlr.run.stage import code_version
from citlr.simulators.families import NULLS
from citlr.studies.calibration import measures
from citlr.studies.calibration.counts import Count, summary, total
from citlr.studies.calibration.page import write_calibration_page, write_figures
from citlr.studies.kit.sweep import SweepTask, run_sweep


def run_batch(*, seed: Sequence[int], measure: str, arguments: dict[str, Any], reps: int) -> dict[str, Any]:
    """Draw, test and count a batch of repetitions."""
    function: Callable[..., Iterable[Count]] = getattr(measures, measure)
    return {"counts": [asdict(count) for count in function(np.random.default_rng(seed), reps, **arguments)]}


@dataclass(frozen=True)
class Effort:
    """How many repetitions; `FULL` meets the project's own demands, `QUICK` shows in a minute or two that all works.

    - `published`, `published_large`: Of the published test, with at most 2000 images and with more.
    """

    default_test: int
    intervals: int
    parity: int
    observational: int
    published: int
    published_large: int
    sizes: tuple[int, ...] = (100, 500, 2000)


FULL = Effort(2000, 2000, 2000, 240, 100, 50)
QUICK = Effort(200, 200, 100, 16, 4, 2, (100, 500))

POWER_SHIFTS = (0.025, 0.05, 0.1, 0.15)
PSI_AT_ORIGINALS = (0.03, 0.1)
POWER_PSI = (0.003, 0.006, 0.012, 0.024)
# (training, test) images of the published test: equal halves, the published split, and a large test set.
PUBLISHED_SPLITS = ((100, 100), (250, 250), (500, 500), (800, 200), (1000, 1000), (800, 4000))
# A measure (a function of `measures`), its arguments, repetitions in all, and repetitions in a batch.
Spec = tuple[str, dict[str, Any], int, int]


def plan(effort: Effort, seed: int) -> list[SweepTask]:
    """List every task."""
    specs = [
        *_default_test(effort),
        *_published(effort),
        *_parity(effort),
        *_intervals(effort),
        *_observational(effort),
        *_originals(effort),
    ]
    tasks: list[SweepTask] = []
    for place, (measure, arguments, repetitions, batch) in enumerate(specs):
        for index, start in enumerate(range(0, repetitions, batch)):
            label = ",".join(f"{key}={value}" for key, value in arguments.items())
            reps = min(batch, repetitions - start)
            # All that the counts depend on beside the seed of the run: other sizes put a task at another place, with
            # another seed. Not the total: a longer run goes on from a shorter one.
            name = f"{measure}({label})#{place}.{index}:{reps}"
            batch_of = {"measure": measure, "arguments": arguments, "reps": reps}
            tasks.append(SweepTask(name, (seed, place, index), batch_of))
    return tasks


def _default_test(effort: Effort) -> Iterable[Spec]:
    for n in effort.sizes:
        for null in NULLS:
            yield "default_size", {"null": null, "n": n}, effort.default_test, 200 if n <= 500 else 50
    for n in effort.sizes:
        for family in measures.POWER_FAMILIES:
            for effect in POWER_SHIFTS if family == "uniform" else POWER_PSI:
                yield "default_power", {"family": family, "effect": effect, "n": n}, effort.default_test // 4, 100


def _intervals(effort: Effort) -> Iterable[Spec]:
    for n in (200, *(size for size in effort.sizes if size > 200)):
        for m in (1, 4):
            for case in measures.INTERVAL_CASES:
                yield "interval_coverage", {"case": case, "n": n, "images": m}, effort.intervals, 100
            for side in ("mean", "psi"):
                yield "equivalence_size", {"boundary": side, "n": n, "images": m}, effort.intervals, 100


def _originals(effort: Effort) -> Iterable[Spec]:
    for n in (200, *(size for size in effort.sizes if size > 200)):
        for m, apart in itertools.product((1, 4), (0.0, 0.1)):
            where = {"n": n, "images": m, "apart": apart}
            for psi in PSI_AT_ORIGINALS:
                yield "psi_at_originals", {"psi": psi, **where}, effort.intervals, 100
            yield "originals_equivalence_size", where, effort.intervals, 100


def _parity(effort: Effort) -> Iterable[Spec]:
    for n in effort.sizes:
        for m in (1, 4):
            yield "parity_size", {"n": n, "images": m}, effort.parity, 500
        yield "parity_power", {"n": n, "effect": 0.1}, effort.parity // 4, 250
    yield "resampled_parity_size", {"n": 200}, effort.parity, 500


def _published(effort: Effort) -> Iterable[Spec]:
    for null in ("noisy decisions", "deterministic decisions"):
        for n_train, n_test in PUBLISHED_SPLITS:
            total = effort.published if n_train + n_test <= 2000 else effort.published_large
            arguments = {"null": null, "n_train": n_train, "n_test": n_test}
            yield "published_size", arguments, total, 10


def _observational(effort: Effort) -> Iterable[Spec]:
    known, half, few = effort.observational, effort.observational // 2, effort.observational // 4
    cases = [(n, m) for n in effort.sizes for m in (1, 4) if n // m >= 100 and n * m <= 2000]
    shapes = (("uniform", 0.1), ("zero-mean", 0.2))
    for confounded in (False, True):
        for n, m in cases:
            null = {"n": n, "confounded": confounded, "images": m, "shape": "none", "effect": 0.0}
            yield "observational_known", null, known if n <= 500 else few, 25
        for shape, effect in shapes:
            world = {"n": 500, "confounded": confounded, "images": 1, "shape": shape, "effect": effect}
            yield "observational_known", world, known, 25
    for confounded in (False, True):
        for n, m in cases:
            null = {"n": n, "confounded": confounded, "images": m, "shape": "none", "effect": 0.0}
            yield "observational", null, half if n <= 500 else few // 2, 10
        for shape, effect in (("none", 0.0), *shapes):
            world = {"n": 500, "confounded": confounded, "images": 1, "shape": shape, "effect": effect}
            if shape != "none":
                yield "observational", world, few, 10
            yield "lower_bound", world, few // 2, 10


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
    chosen, narrator, folder = Engine(engine, workers, scheduler), narrator or QUIET, Path(out)
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
