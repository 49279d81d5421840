"""What `citlr calibrate` measures: a list of named, seeded tasks, each a batch of independent repetitions.

Every repetition draws new data and refits whatever is fitted. A task gives back counts alone, so that a run can be cut
off and taken up again at any task, on any number of workers, with the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from citlr.simulators.families import NULLS
from citlr.studies.calibration import measures
from citlr.studies.calibration.counts import Count
from citlr.studies.kit.sweep import SweepTask


def run_batch(*, seed: Sequence[int], measure: str, arguments: dict[str, Any], reps: int) -> dict[str, Any]:
    """Draw, test and count a batch of repetitions."""
    function: Callable[..., Iterable[Count]] = getattr(measures, measure)
    return {"counts": [asdict(count) for count in function(np.random.default_rng(seed), reps, **arguments)]}


@dataclass(frozen=True)
class Effort:
    """How many repetitions; `FULL` meets the project's own demands, `QUICK` shows in a minute or two that all works."""

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


def plan(effort: Effort, seed: int) -> list[SweepTask]:
    """List every task.

    >>> tasks = plan(QUICK, seed=0)
    >>> len({task.name for task in tasks}) == len(tasks)
    True
    """
    specs = [
        *_default_test(effort),
        *_published(effort),
        *_parity(effort),
        *_intervals(effort),
        *_observational(effort),
        *_originals(effort),
    ]
    tasks: list[SweepTask] = []
    for place, (measure, arguments, total, batch) in enumerate(specs):
        for index, start in enumerate(range(0, total, batch)):
            label = ",".join(f"{key}={value}" for key, value in arguments.items())
            reps = min(batch, total - start)
            # All that the counts depend on beside the seed of the run: other sizes put a task at another place, with
            # another seed. Not the total: a longer run goes on from a shorter one.
            name = f"{measure}({label})#{place}.{index}:{reps}"
            batch_of = {"measure": measure, "arguments": arguments, "reps": reps}
            tasks.append(SweepTask(name, (seed, place, index), batch_of))
    return tasks


Spec = tuple[str, dict[str, Any], int, int]


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
