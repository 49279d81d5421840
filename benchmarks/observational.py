"""Processor time of the tests without a generator against the published test, on the same data, in one run.

With --world, how often `citlr.observe` would say dependence where output and level go with Z by one function, and the
level moves the output by --direct standard deviations beside that: 0 is a true null, and the output has no noise.

Run: python benchmarks/observational.py [--images 1000] [--repetitions 5]
     python benchmarks/observational.py --world net --images 400 --numbers 16 --repetitions 30 [--direct 0.5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from citlr.invariance.observational.nuisances import Observations, fit_nuisances
from citlr.invariance.observational.published import published_cit_lr
from citlr.invariance.observational.tests import FORETOLD, OVERLAP, distilled_crt, gcm, overlap_of, rms_lower_bound
from citlr.invariance.parity import equal_opportunity
from citlr.simulators.observed import ObservedFamily

Floats = NDArray[np.float64]


def seconds(call: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def layers(z: Floats) -> Floats:
    """Give the score of a network of two layers with fixed weights."""
    first, second = (np.random.default_rng(seed).normal(size=size) for seed, size in ((99, (16, 8)), (98, 8)))
    h = np.maximum(z @ first / 4, 0) @ second
    return np.asarray((h - h.mean()) / h.std())


def deep(z: Floats) -> Floats:
    """Give the score of a network of three layers (tanh) with fixed weights."""
    rng = np.random.default_rng(5)
    h = np.tanh(z @ rng.normal(size=(z.shape[1], 16)) / 4)
    h = np.tanh(h @ rng.normal(size=(16, 8)) / 2) @ rng.normal(size=8)
    return np.asarray((h - h.mean()) / h.std())


# Score of Z (n, d) that output and level go with, and the slopes by which they do; in "mixed" a line moves the output,
# too.
WORLDS: dict[str, tuple[Callable[[Floats], Floats], float, float]] = {
    "net": (layers, 1, 1.5),
    "deep": (deep, 1, 1.5),
    "sine": (lambda z: np.sin(2 * z[:, 0]) + 0.5 * z[:, 1], 1, 1),
    "product": (lambda z: z[:, 0] * z[:, 1], 0.7, 1),
    "square": (lambda z: z[:, 0] ** 2 - 1, 0.7, 1),
    "linear": (lambda z: z[:, 0], 1, 1),
    "mixed": (lambda z: z[:, 0] * z[:, 1], 1, 1),
    "ring": (lambda z: 2 * (np.sqrt((z[:, :3] ** 2).sum(1)) - 1.6), 1, 1),
    "corner": (lambda z: 2.0 * ((z[:, 0] > -0.2) & (z[:, 1] < 0.4)) - 1, 1, 1),
}


def said(world: str, images: int, numbers: int, direct: float, seed: int) -> tuple[bool, bool]:
    """Draw a world; say whether the test is significant as fitted, and whether the verdict is dependence."""
    rng, (score, of_level, of_output) = np.random.default_rng([seed, 31]), WORLDS[world]
    z = rng.normal(size=(images, numbers))
    f = score(z)
    level = rng.random(images) < 1 / (1 + np.exp(-of_level * f))
    f = of_output * f + (z[:, 2] if world == "mixed" else 0)
    data = Observations.of(z, np.where(level, "m", "f"), 1 / (1 + np.exp(-f - direct * f.std() * level)))
    fits = fit_nuisances(data, seed=seed)
    found = distilled_crt(data, fits, redraws=199, seed=seed)
    sound = overlap_of(fits.assignment) >= OVERLAP and fits.foretold >= FORETOLD
    return found.pvalue_fitted <= 0.05, found.pvalue <= 0.05 and sound


def size_of(args: argparse.Namespace) -> None:
    """Print how often both are so, with the exact 95 % bounds of the verdict's rate."""
    counts = np.zeros(2, dtype=int)
    for seed in range(args.repetitions):
        counts += said(args.world, args.images, args.numbers, args.direct, seed)
    fitted, verdict = (int(count) for count in counts)
    bounds = stats.binomtest(verdict, args.repetitions).proportion_ci()
    print(
        f"{args.world}, {args.images} x {args.numbers}, direct {args.direct:g}: dependence {verdict} of "
        f"{args.repetitions} ({bounds.low:.0%} to {bounds.high:.0%}); as fitted {fitted}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--world", choices=sorted(WORLDS))
    parser.add_argument("--numbers", type=int, default=16)
    parser.add_argument("--direct", type=float, default=0.0)
    args = parser.parse_args()
    if args.world:
        size_of(args)
        return
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
