"""What `fit` takes beside its training steps: processor time by part, disk and peak memory, a process each.

    OMP_NUM_THREADS=1 python benchmarks/fit.py --images 3600 --size 128 [--reference ../main/src] [--steps 20]
    OMP_NUM_THREADS=1 python benchmarks/fit.py --images 1000 8000 32000 --size 64 --preset tiny

Trains on the phantom for a few steps only, as the quality is not what is measured. A child process each for the sources
beside this file and, where given, for those of the reference. `beside_steps` is the processor time of everything that
is no training step, the ten validations of each network among it, as many as a whole training has (from 10 steps on);
`disk` what the folder of the training held at most, in bytes a pixel of both splits.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

# The function, by file and name, whose processor time with all that it calls is a part; files and names of before too.
PARTS = {
    "build": [("ldm.py", "build"), ("loop.py", "__post_init__")],
    "decode": [("store.py", "of"), ("store.py", "require_variety")],
    "support": [("support.py", "find_support")],
    "alignments": [("alignment.py", "fit")],
    "aligned": [("alignment.py", "aligned"), ("fitting.py", "_each")],
    "autoencoder": [("parts.py", "train_autoencoder")],
    "latents": [("parts.py", "latents")],
    "denoiser": [("parts.py", "train_denoiser")],
    "deviations": [("uncertainty.py", "find_deviations")],
    "guidance": [("fitting.py", "_guidance")],
    "recentring": [("fitting.py", "_recentre")],
    "edits": [("generator.py", "learn")],
    "save": [("learnt.py", "save")],
    "steps": [("loop.py", "make_step"), ("loop.py", "_step")],
    "validations": [("loop.py", "validate")],
}


def train(world: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Fit in this process, and print what it took as JSON."""
    import resource

    from citlr.generators.registry import build_generator
    from citlr.simulators.phantom.sample import read_phantom

    cohort = read_phantom(world, attribute="sex")
    aside = cohort.take(range(min(200, len(cohort) // 10)))
    rest = cohort.take(range(len(aside), len(cohort)))
    options = {"ae_steps": arguments.steps, "denoiser_steps": arguments.steps} if arguments.kind != "edits" else {}
    generator = build_generator(arguments.kind, size=arguments.size, hold=["view"], preset=arguments.preset, **options)
    profile = cProfile.Profile(time.process_time)
    began = time.process_time()
    profile.enable()
    generator.fit(rest, aside, seed=0, directory=folder)
    generator.save(folder.parent / "generator")
    profile.disable()
    whole = time.process_time() - began
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {name: sum(_seconds(stats, *one) for one in named) for name, named in PARTS.items()}
    # Every step is followed by its validation where one is due.
    steps = found.pop("steps") - found["validations"]
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
    parts = {name: round(value, 1) for name, value in found.items() if value >= 0.05}
    said = {
        "images": len(rest),
        "aside": len(aside),
        "size": arguments.size,
        "kind": arguments.kind,
        "cpu": round(whole, 1),
    }
    print(
        json.dumps(
            {**said, "steps": round(steps, 1), "beside_steps": round(whole - steps, 1), **parts, "mb": round(peak)}
        )
    )


def _seconds(stats: dict[Any, Any], file: str, name: str) -> float:
    """Seconds with all that is called, of a function of the package."""
    return sum(row[3] for (path, _, own), row in stats.items() if own == name and Path(path).name == file)


def measure(world: Path, sources: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit in a child process with these sources; the numbers, and the most that its folder held."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "training"
        environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(world), str(folder)]
        most, over = [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                most[0] = max(most[0], _bytes(folder))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        finally:
            over.set()
            watcher.join()
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {
        **found,
        "disk_mb": round(most[0] / 1e6),
        "disk": round(most[0] / (found["images"] + found["aside"]) / found["size"] ** 2, 2),
    }


def _bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # renamed meanwhile
            continue
    return total


def main() -> None:
    """Write a phantom, and fit on it with both sources."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[3600])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kind", default="dldm")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--child", nargs=2, type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        train(*arguments.child, arguments)
        return
    own = Path(__file__).resolve().parents[1] / "src"
    sys.path.insert(0, str(own))
    from citlr.simulators.phantom.world import PhantomWorld

    # Bytecode is written once, as it is where a package is installed.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / "citlr-benchmark-bytecode"))
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as name:
            world = Path(name) / "world"
            PhantomWorld(size=arguments.size).sample(-(-images // 2), seed=0, images_per_patient=2).write(world)
            for sources in filter(None, [arguments.reference, own]):
                print(json.dumps({"sources": sources.parent.name, **measure(world, sources, arguments)}), flush=True)


if __name__ == "__main__":
    main()
