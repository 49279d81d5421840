"""How much drift the gate's probes read off true counterfactuals, whose drift is zero: their own error.

Run from the repository root, on one core::

    export OMP_NUM_THREADS=1
    python benchmarks/probes.py                          # the six worlds of the pipeline calibration of seed 0
    python benchmarks/probes.py --steps 400 --probes 1   # shorter probes

In every world of `citlr calibrate --pipeline` probes learn from the training split, as an audit's do, and read the test
images' true images under both levels. Printed is the mean shift of the probability of every held label, for each probe
(and "plain", as it would be if labels were not read within levels), and for the mean of all, against the gate's limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import process_time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[800])
    parser.add_argument("--probes", type=int, default=3, help="trainings, each from a seed of its own")
    parser.add_argument("--generators", type=int, default=2, help="worlds per correlation")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration")
    options = parser.parse_args()

    import numpy as np
    import torch

    from citlr.config import GateConfig
    from citlr.generators.probes.training import ProbeSettings, fit_probes
    from citlr.randomness import hashed_seed
    from citlr.simulators.phantom.sample import read_phantom
    from citlr.studies.pipeline.study import ATTRIBUTE, FINDINGS, FULL, LEVELS, Place

    torch.set_num_threads(1)
    names = ("view", *FINDINGS)
    print(f"{'world':<34}{'steps':>6} {'probe':>6}" + "".join(f"{name:>14}" for name in names) + "  core s", flush=True)
    worst: dict[tuple[int, str], float] = {}
    for number in range(options.generators):
        for correlation in FULL.correlations:
            seed = hashed_seed("pipeline", options.seed, correlation, number) % 2**31
            place = Place(correlation, number, seed)
            with tempfile.TemporaryDirectory() as folder:
                sample = place.world(FULL.size).sample(FULL.patients, seed=seed, images_per_patient=1)
                sample.write(folder, seed=seed)
                cohort = read_phantom(folder, attribute=ATTRIBUTE, labels=FINDINGS, fractions=FULL.fractions, seed=seed)
                units = sample.of_images(cohort.part("test").frame["image_id"])
                true = [units.counterfactual(level) for level in LEVELS]
                for steps in options.steps:
                    shifts = []
                    for turn in range(options.probes):
                        start = process_time()
                        probes = fit_probes(
                            cohort.part("train"),
                            cohort.part("validation"),
                            ProbeSettings((ATTRIBUTE,), FULL.size, labels=names, steps=steps),
                            seed=seed + turn,
                            directory=Path(folder) / "probes" / f"{steps}-{turn}",
                        )
                        read = [probes.read(images, level=level) for images, level in zip(true, LEVELS, strict=True)]
                        plain = [probes.read(images) for images in true]
                        found, as_read = (
                            [float((one[1][name] - one[0][name])[:, 1].mean()) for name in names]
                            for one in (read, plain)
                        )
                        shifts.append(found)
                        _row(place.name, steps, str(turn), found, process_time() - start)
                        _row(place.name, steps, "plain", as_read, None)
                        largest = float(np.abs(shifts[-1]).max())
                        worst[steps, "single"] = max(worst.get((steps, "single"), 0.0), largest)
                    mean = np.mean(shifts, axis=0)
                    _row(place.name, steps, "mean", list(mean), None)
                    worst[steps, "mean"] = max(worst.get((steps, "mean"), 0.0), float(np.abs(mean).max()))
    limit = GateConfig().drift
    for (steps, kind), value in worst.items():
        print(f"{steps} steps, {kind}: largest shift {value:.3f}, {value / limit:.2f} of the gate's limit of {limit}")
    return 0


def _row(name: str, steps: int, probe: str, shifts: list[float], seconds: float | None) -> None:
    cells = "".join(f"{shift:>+14.3f}" for shift in shifts)
    print(f"{name:<34}{steps:>6} {probe:>6}{cells}  {'' if seconds is None else f'{seconds:.0f}'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
