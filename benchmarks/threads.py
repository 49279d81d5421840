"""What waiting threads cost: one convolution's training step, or a whole stage, alone and beside busy processes.

    python benchmarks/threads.py                 # the step, alone
    python benchmarks/threads.py --beside 2      # the step, beside two busy processes
    python benchmarks/threads.py --stage         # `citlr fit`, alone and beside two, in turn

The last one is the measure of the package: the same stage in its own processes, alone and beside, three times in turn,
with what OpenMP does when nobody says anything, with what the package sets itself, and with one thread. Of so many
threads beside two busy processes the scheduler gives each the same share of two cores: one thread two thirds of a core,
two threads one core in all, were there no waiting of threads for each other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SPIN = "GOMP_SPINCOUNT"
# What libgomp does by itself where there are no more threads than processors.
UNTOLD = {SPIN: "300000"}
OURS = "as citlr sets it"
SETTINGS: dict[str, dict[str, str]] = {
    "as libgomp does": UNTOLD,
    "GOMP_SPINCOUNT=5000": {SPIN: "5000"},
    "GOMP_SPINCOUNT=20000": {SPIN: "20000"},
    OURS: {},
    "GOMP_SPINCOUNT=50000": {SPIN: "50000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
STEPS, TIMES = 40, 3


def step_time() -> None:
    """Print milliseconds of wall and of processor time per step."""
    import torch
    from torch import nn

    import citlr  # noqa: F401 - says to OpenMP what it says

    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 64, 3, padding=1), nn.SiLU(), nn.GroupNorm(8, 64), nn.Conv2d(64, 16, 3, padding=1)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters())
    x = torch.randn(32, 16, 16, 16)

    def step() -> None:
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        step()
    print(f"{(time.perf_counter() - wall) / STEPS * 1e3:.0f} {(time.process_time() - cpu) / STEPS * 1e3:.0f}")


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy while the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def environment(setting: dict[str, str]) -> dict[str, str]:
    """Give this process's environment with no word to OpenMP but these."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))} | setting


def steps(beside: int) -> None:
    """Print the table of the step."""
    with busy(beside):
        print("| setting | wall ms a step | processor ms a step |\n|---|--:|--:|")
        for name, setting in SETTINGS.items():
            command = [sys.executable, __file__, "--one"]
            found = [
                subprocess.run(command, env=environment(setting), capture_output=True, text=True, check=True)
                for _ in range(TIMES)
            ]
            pairs = [one.stdout.split() for one in found]
            wall, cpu = (int(statistics.median(int(pair[k]) for pair in pairs)) for k in (0, 1))
            print(f"| {name} | {wall} | {cpu} |", flush=True)


def world(root: Path) -> Path:
    """Write a phantom and a configuration of some steps at 64 pixels; give its file."""
    import yaml

    from citlr.simulators.phantom.world import PhantomWorld

    PhantomWorld(size=64).sample(400, seed=0, images_per_patient=1).write(root / "world")
    roles = {"attribute": "sex", "labels": ["cardiomegaly"], "covariates": ["view"]}
    options = {"ae_steps": 30, "denoiser_steps": 150, "recentre": 0, "guidance": 1}
    content = {
        "cohort": {"table": "world/phantom.csv", "images": "world", **roles},
        "generator": {"size": 64, "hold": ["view"], "options": options},
        "model": {"kind": "closed", "labels": ["cardiomegaly"]},
    }
    (root / "audit.yaml").write_text(yaml.safe_dump(content))
    return root / "audit.yaml"


def stage_time(config: Path, run: Path, setting: dict[str, str]) -> float:
    """Train from nothing in a process of its own; the seconds that the stage itself says it took."""
    import json

    command = [sys.executable, "-m", "citlr", "audit", str(config), "--out", str(run), "--until", "fit", "--quiet"]
    subprocess.run(command, env=environment(setting), check=True, capture_output=True)
    return float(json.loads((run / "stages" / "fit.json").read_text())["seconds"])


def stages() -> None:
    """Print the table of a whole stage: seconds alone, beside two busy processes, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        config = world(Path(name))
        found = {key: SETTINGS[key] for key in ("as libgomp does", OURS, "one thread")}
        seconds: dict[tuple[str, int], list[float]] = {(key, many): [] for key in found for many in (0, 2)}
        for turn in range(TIMES):
            for (key, many), taken in seconds.items():
                with busy(many):
                    taken.append(
                        stage_time(config, Path(name) / f"run-{turn}-{list(found).index(key)}-{many}", found[key])
                    )
                print(f"{key}, beside {many}: {taken[-1]:.1f} s", file=sys.stderr, flush=True)
        best = statistics.median(seconds[OURS, 0])
        print("| `citlr fit` | alone, s | beside two, s | ratio | against alone as citlr sets it |")
        print("|---|--:|--:|--:|--:|")
        for key in found:
            alone, beside = (statistics.median(seconds[key, many]) for many in (0, 2))
            print(f"| {key} | {alone:.1f} | {beside:.1f} | {beside / alone:.1f} | {beside / best:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--stage", action="store_true")
    parser.add_argument("--one", action="store_true")
    options = parser.parse_args()
    if options.one:
        step_time()
    elif options.stage:
        stages()
    else:
        steps(options.beside)


if __name__ == "__main__":
    main()
