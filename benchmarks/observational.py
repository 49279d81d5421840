"""Processor time of the tests without a generator against the published test, on the same data, in one run.

Run: python benchmarks/observational.py [--images 1000] [--repetitions 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from citlr.invariance.observational.nuisances import fit_nuisances
from citlr.invariance.observational.observations import Observations
from citlr.invariance.observational.published import published_cit_lr
from citlr.invariance.observational.tests import distilled_crt, gcm, rms_lower_bound
from citlr.invariance.parity import equal_opportunity
from citlr.simulators.observed import ObservedFamily


def seconds(call: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    s = ObservedFamily(effect=0.1, shape="uniform", features=32).sample(np.random.default_rng(0), args.images)
    arrays = (s.z, s.level, s.y)
    data = Observations.of(*arrays)
    calls: dict[str, Callable[[], object]] = {
        "published CIT-LR (two networks)": lambda: published_cit_lr(*arrays, train_fraction=0.8),
        "distilled test, p(A|Z) known": lambda: distilled_crt(data, fit_nuisances(data, s.propensity)),
        "distilled test, p(A|Z) estimated": lambda: distilled_crt(data, fit_nuisances(data)),
        "GCM, p(A|Z) known": lambda: gcm(data, fit_nuisances(data, s.propensity)),
        "RMS lower bound, p(A|Z) known": lambda: rms_lower_bound(data, s.propensity),
        "equal opportunity": lambda: equal_opportunity(s.y, s.level, s.outcome, s.patients, contrast=("a", "b")),
    }
    reference = None
    print(f"{args.images} images, 32 features, processor seconds, median of {args.repetitions}")
    for name, call in calls.items():
        spent = seconds(call, args.repetitions)
        reference = reference or spent
        print(f"{name:36s} {spent:8.3f} s   published / this = {reference / spent:8.2f}")


if __name__ == "__main__":
    main()
