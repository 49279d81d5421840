"""Seconds and peak memory of one audit's statistics, against the limits of issue 3 (2 s on one core, 500 MB).

Run from the repository root, on one core::

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/inference.py
    python benchmarks/inference.py --units 1000000 --levels 2 --labels 1 --draws 2

Each kind of output is measured in a process of its own: the processor's seconds around `assess` (all contrasts, the
omnibus, effects, equivalence, verdicts; wall time is beside them and also holds what other processes took), its memory
as the peak resident size of the process, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

LIMIT_SECONDS, LIMIT_MB = 2.0, 500.0
KINDS = {
    "decisions, shared seeds": ("decision", True),
    "decisions, independent draws": ("decision", False),
    "probabilities, shared seeds": ("probability", True),
    "probabilities, independent draws": ("probability", False),
}


def measure(kind: str, units: int, draws: int, levels: int, labels: int, randomizations: int) -> None:
    import numpy as np

    from citlr.invariance.responses import Responses
    from citlr.invariance.verdict import assess

    outcome, shared_seeds = KINDS[kind]
    rng = np.random.default_rng(0)
    values = rng.normal(-1.0, 1.0, size=(units, 1, 1, labels)) + 0.3 * rng.normal(size=(units, levels, draws, labels))
    np.exp(-values, out=values)
    values += 1
    np.reciprocal(values, out=values)
    responses = Responses.from_arrays(values, patients=np.arange(units) // 2, factual=np.arange(units) % levels)
    del values
    wall, start = perf_counter(), process_time()
    assess(responses, margin=0.02, outcome=outcome, shared_seeds=shared_seeds, randomizations=randomizations)
    seconds, wall = process_time() - start, perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{kind:34s} {seconds:6.2f} s ({seconds / LIMIT_SECONDS:4.2f} of the limit)"
        f" {wall:6.2f} s wall {peak:6.0f} MB ({peak / LIMIT_MB:4.2f} of the limit)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--randomizations", type=int, default=5000)
    parser.add_argument("--kind", choices=KINDS, default=None)
    options = vars(parser.parse_args())
    kind = options.pop("kind")
    if kind is not None:
        measure(kind, **options)
        return
    print(", ".join(f"{name} {value}" for name, value in options.items()), flush=True)
    sizes = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    for name in KINDS:
        subprocess.run([sys.executable, Path(__file__).resolve(), "--kind", name, *sizes], check=True)


if __name__ == "__main__":
    main()
