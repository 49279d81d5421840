"""Speed of the chest phantom on one core, against the issue's reference of 10,000 images of 64x64 in 20 s.

Run:  OMP_NUM_THREADS=1 python benchmarks/phantom.py [--images 10000] [--size 64]
      OMP_NUM_THREADS=1 python benchmarks/phantom.py --unseen

The second says what error of an effect map no generator can go below: a male phantom shows no breast, and so its image
does not tell where its breast would lie, nor how large it would be.

The first prints process time (what this process used of the core, whoever else is on the machine), the ratio to the
reference, and the peak memory of writing 1,000 and 8,000 images as a cohort, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from citlr.simulators.phantom.sample import PhantomSample
from citlr.simulators.phantom.world import PhantomWorld

REFERENCE_MS = 20_000 / 10_000
CHUNK = 1_000


def rendering(images: int, size: int) -> float:
    """Return milliseconds of process time per image, drawing included, without keeping the images."""
    start = time.process_time()
    sample = PhantomWorld(size=size).sample(images, seed=0, images_per_patient=1)
    for first in range(0, images, CHUNK):
        sample.images(slice(first, first + CHUNK))
    return 1_000 * (time.process_time() - start) / images


def _peak_of_writing(images: int, size: int, pipe: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        PhantomWorld(size=size).sample(images, seed=0, images_per_patient=1).write(folder)
    # VmHWM and not ru_maxrss: the latter starts from what the parent held when it forked.
    status = Path("/proc/self/status").read_text()
    pipe.send(int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024)


def writing(images: int, size: int) -> float:
    """Return the peak resident memory, in MiB, of a fresh process that writes a cohort."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_peak_of_writing, args=(images, size, there))
    process.start()
    peak = here.recv()
    process.join()
    return float(peak)


def unseen(anatomy: str, images: int = 400, draws: int = 40, seed: int = 5) -> float:
    """Return the least relative error of an effect map: of the mean over what male images do not show, else exact."""
    sample = PhantomWorld(size=64, anatomy=anatomy).sample(images, seed=seed, images_per_patient=1)
    random, hidden = np.random.default_rng(seed), [name for name in sample.exogenous if name.startswith("breast")]

    def effect(units: PhantomSample) -> np.ndarray:
        return units.counterfactual("female", digital=False) - units.counterfactual("male", digital=False)

    truth, mean = effect(sample), 0.0
    for _ in range(draws):
        table = sample.exogenous.copy()
        table[hidden] = table[hidden].to_numpy()[random.permutation(images)]
        mean += effect(replace(sample, exogenous=table)) / draws
    male = sample.level == sample.world.levels.index("male")
    return float(np.sqrt(((mean - truth)[male] ** 2).sum() / (truth**2).sum()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--unseen", action="store_true")
    options = parser.parse_args()
    if options.unseen:
        for anatomy in ("fixed", "varying"):
            print(f"least error of an effect map, anatomy {anatomy}: {unseen(anatomy):.3f}")
        return 0
    cost = rendering(options.images, options.size)
    reference = REFERENCE_MS * (options.size / 64) ** 2
    print(f"rendered {options.images} images of {options.size}x{options.size}: {cost:.3f} ms each, process time")
    print(f"  reference {reference:.3f} ms each; ratio {cost / reference:.2f} (below 1 is faster)")
    small, large = writing(1_000, options.size), writing(8_000, options.size)
    print(f"peak memory of writing 1,000 / 8,000 images: {small:.0f} / {large:.0f} MiB; ratio {large / small:.2f}")
    return 0 if cost < reference else 1


if __name__ == "__main__":
    sys.exit(main())
