"""What engines cost and give: a sweep's overhead per task, and `generate` + `predict` on two workers against one.

`python benchmarks/engines.py sweep --tasks 10000 --workers 2` prints milliseconds per task; `python
benchmarks/engines.py stages --images 600` times both stages on 1 and on 2 workers, by the clock and in processor time,
with one thread a process (set OMP_NUM_THREADS=1), processes started beforehand and not. Beside other programs the clock
says little: what the busiest process has computed is about what the clock would say alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
import torch

from citlr.audit.generation import generate
from citlr.audit.prediction import predict_sets
from citlr.generators.registry import build_generator, load_generator
from citlr.predictors.loading import load_predictor
from citlr.run.engines import Engine
from citlr.simulators.phantom.world import PhantomWorld
from citlr.studies.kit.sweep import SweepTask, run_sweep


def nothing(seed: int) -> dict[str, int]:
    return {"seed": seed}


def processor() -> dict[int, float]:
    """Seconds that this process and those it has started have computed, by process."""
    own = psutil.Process()
    return {one.pid: sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True))}


def since(before: dict[int, float]) -> list[float]:
    """Give the seconds of every process since then, the largest first."""
    return sorted((spent - before.get(process, 0.0) for process, spent in processor().items()), reverse=True)


def sweep(options: argparse.Namespace) -> None:
    tasks = [SweepTask(f"task {number}", number, {}) for number in range(options.tasks)]
    engine = Engine(options.engine, options.workers)
    run_sweep(nothing, tasks[:50], title="warm", engine=engine)
    began, spent = time.perf_counter(), processor()
    assert len(run_sweep(nothing, tasks, title="tasks", engine=engine).done) == len(tasks)
    wall, used = time.perf_counter() - began, since(spent)
    print(f"{options.engine}, {options.workers} workers, {len(tasks)} tasks: {1000 * wall / len(tasks):.2f} ms a task "
          f"by the clock, {1000 * sum(used) / len(tasks):.2f} ms of processor time in all")  # fmt: skip


class Net(torch.nn.Module):
    """A classifier that costs something."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, stride=2), torch.nn.ReLU()
        )
        self.head = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give logits (n, 1) of images (n, 1, s, s)."""
        return self.head(self.body(x).mean(dim=(2, 3)))


def stages(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cohort = PhantomWorld(size=64).sample(options.images, seed=0, images_per_patient=1).write(root / "world")
        model = build_generator("dldm", size=64, preset="tiny", ae_steps=20, denoiser_steps=20, guidance=1.0)
        model.fit(cohort.part("train"), cohort.part("validation"), seed=0)
        model.save(root / "generator")
        generator, test = load_generator(root / "generator"), cohort.part("test")
        torch.manual_seed(0)
        predictor = load_predictor(Net(), labels=[cohort.labels[0]], output="logit", device="cpu")
        seconds = {}
        for workers in (1, 2, 2):  # the second time with the processes that the first has started
            began, spent = time.perf_counter(), processor()
            out = root / f"drawn-{len(seconds)}"
            # Files of 8, so that as many fall to each.
            drawn = generate(generator, test, attribute="sex", draws=4, out=out, shard=8, workers=workers)
            predict_sets(predictor, drawn.sets, test, folder=out / "answers", engine=Engine(workers=workers))
            wall = time.perf_counter() - began
            name = f"{workers} workers" + (", warm" if workers == 2 and len(seconds) == 2 else "")
            used = since(spent)
            seconds[name] = (wall, used[0])
            print(f"{name}: {wall:.1f} s by the clock, {sum(used):.1f} s computed, {used[0]:.1f} s by the busiest; "
                  f"{len(test)} images")  # fmt: skip
        for what, first in zip(("by the clock", "by the busiest process"), seconds["1 workers"], strict=True):
            ratios = (f"{name}: {first / found[what != 'by the clock']:.2f} x" for name, found in seconds.items())
            print(f"{what}: {', '.join(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sweep", "stages"))
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--engine", default="loky")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=600)
    options = parser.parse_args()
    sweep(options) if options.what == "sweep" else stages(options)


if __name__ == "__main__":
    main()
