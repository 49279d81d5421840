"""What engines cost and give: a sweep's overhead per task, and `generate` + `predict` on two workers against one.

`python benchmarks/engines.py sweep --tasks 10000 --workers 2` prints milliseconds per task beside the same tasks in a
loop; `python benchmarks/engines.py stages --images 600` times both stages on 1 and on 2 workers, by the clock and in
processor time, with one thread a process (set OMP_NUM_THREADS=1), processes started beforehand and not.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

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


def processor() -> float:
    """Seconds of this process and of those that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def sweep(options: argparse.Namespace) -> None:
    tasks = [SweepTask(f"task {number}", number, {}) for number in range(options.tasks)]
    engine = Engine(options.engine, options.workers)
    run_sweep(nothing, tasks[:50], title="warm", engine=engine)
    began, spent = time.perf_counter(), processor()
    assert len(run_sweep(nothing, tasks, title="tasks", engine=engine).done) == len(tasks)
    wall, used = time.perf_counter() - began, processor() - spent
    print(f"{options.engine}, {options.workers} workers, {len(tasks)} tasks: {1000 * wall / len(tasks):.2f} ms a task "
          f"by the clock, {1000 * used / len(tasks):.2f} ms of this process's processor time")  # fmt: skip


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
            drawn = generate(generator, test, attribute="sex", draws=4, out=out, workers=workers)
            predict_sets(predictor, drawn.sets, test, folder=out / "answers", engine=Engine(workers=workers))
            wall = time.perf_counter() - began
            name = f"{workers} workers" + (", warm" if workers == 2 and len(seconds) == 2 else "")
            seconds[name] = wall
            print(f"{name}: {wall:.1f} s by the clock, {processor() - spent:.1f} s of this process; {len(test)} images")
        first = seconds["1 workers"]
        print(", ".join(f"{name}: {first / wall:.2f} x" for name, wall in seconds.items()))


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
