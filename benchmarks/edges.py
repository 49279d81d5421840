"""Where verdicts go wrong more often than their error rate says: models whose truth is known, built to find that.

    OMP_NUM_THREADS=1 python benchmarks/edges.py [--repetitions 1000]

Every line is a world in which "equivalent" is false, as an effect lies at the margin or beyond, or in which
"dependence" is, and how often it was said at an error rate of 5 %. `docs/concepts/limits.md` has the numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit

from citlr.invariance.effects.estimates import Outcome
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess

DRAWS = 4
Random = np.random.Generator


def changed(change: np.ndarray, **known: Any) -> Responses:
    """Probabilities of which every draw shows this change (images,)."""
    pair = np.stack([0.5 - change / 2, 0.5 + change / 2], axis=1)
    return Responses.from_arrays(np.repeat(pair[:, :, None], DRAWS, axis=2), **known)


def of_few(share: float, images: int) -> Callable[[Random], Responses]:
    """Change a share of the patients, by as much as makes the root of psi .05, and nobody else."""
    return lambda rng: changed((rng.random(images) < share) * (0.05 / np.sqrt(share)))


def of_long_tails(images: int) -> Callable[[Random], Responses]:
    """Change everybody as Student's t of five degrees of freedom does, by a root mean square of .05."""
    return lambda rng: changed(np.clip(rng.standard_t(5, images) * 0.05 / np.sqrt(5 / 3), -1, 1))


def of_one_in_a_hundred(images: int) -> Callable[[Random], Responses]:
    """Move one draw in 100 up by .4455 under the second level, the others down by .0045: no image has a mean effect."""

    def world(rng: Random) -> Responses:
        jump = np.where(rng.random((images, DRAWS)) < 0.01, 0.4455, -0.0045)
        return Responses.from_arrays(np.stack([np.full(jump.shape, 0.5), 0.5 + jump], axis=1))

    return world


def of_large_patients(patients: int) -> Callable[[Random], Responses]:
    """Change all images of a quarter of the patients who have eight or more: 9.2 % of the images."""

    def world(rng: Random) -> Responses:
        sizes = rng.geometric(0.25, patients)
        who = np.repeat(np.arange(patients), sizes)
        turns = ((sizes >= 8) & (rng.random(patients) < 0.25))[who]
        decided = rng.random(len(who)) < 0.3
        pair = np.stack([decided, decided ^ turns], axis=1).astype(float)
        return Responses.from_arrays(np.repeat(pair[:, :, None], DRAWS, axis=2), patients=who)

    return world


def of_narrow_scores(images: int, noise: float, apart: float) -> Callable[[Random], Responses]:
    """Lift the scores of a tenth of the images by 1: they lie .5 below the threshold, spread by .3.

    That turns 9.03 % of all decisions. Draws have this noise, and a share of its variance is not shared.
    """

    def world(rng: Random) -> Responses:
        near = rng.random(images) < 0.1
        score = np.where(near, rng.normal(-0.5, 0.3, images), rng.choice([-15.0, 15.0], images))
        level, factual = np.outer(near, [0.0, 1.0]), rng.integers(2, size=images)
        shared, own = rng.normal(size=(images, 1, DRAWS)), rng.normal(size=(images, 2, DRAWS))
        off = noise * (np.sqrt(1 - apart) * shared + np.sqrt(apart) * own)
        original = expit(score + level[np.arange(images), factual])
        values = expit((score[:, None] + level)[:, :, None] + off)
        return Responses.from_arrays(values, factual=factual, original=original)

    return world


WORLDS: tuple[tuple[str, Callable[[Random], Responses], Outcome, float, str], ...] = (
    ("0.5 % of 100 patients change", of_few(0.005, 100), "probability", 0.05, "equivalent"),
    ("0.5 % of 400 patients change", of_few(0.005, 400), "probability", 0.05, "equivalent"),
    ("1 % of 100 patients change", of_few(0.01, 100), "probability", 0.05, "equivalent"),
    ("1 % of 400 patients change", of_few(0.01, 400), "probability", 0.05, "equivalent"),
    ("5 % of 100 patients change", of_few(0.05, 100), "probability", 0.05, "equivalent"),
    ("changes with long tails, 400 patients", of_long_tails(400), "probability", 0.05, "equivalent"),
    ("rare jumps that cancel, 60 patients", of_one_in_a_hundred(60), "probability", 0.02, "dependence"),
    ("rare jumps that cancel, 200 patients", of_one_in_a_hundred(200), "probability", 0.02, "dependence"),
    ("patients of many images change, 60 patients", of_large_patients(60), "decision", 0.0918, "equivalent"),
    ("patients of many images change, 200 patients", of_large_patients(200), "decision", 0.0918, "equivalent"),
    ("narrow scores, noise 1, 10 % apart, 600", of_narrow_scores(600, 1.0, 0.1), "decision", 0.0903, "equivalent"),
    ("narrow scores, noise 1, 45 % apart, 600", of_narrow_scores(600, 1.0, 0.45), "decision", 0.0903, "equivalent"),
    ("narrow scores, noise 3, 20 % apart, 600", of_narrow_scores(600, 3.0, 0.2), "decision", 0.0903, "equivalent"),
)


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    for name, world, outcome, margin, wrong in WORLDS:
        rng, count = np.random.default_rng(0), 0
        for seed in range(repetitions):
            found = assess(world(rng), margin=margin, outcome=outcome, randomizations=199, seed=seed)
            count += found.verdict == wrong
        low, high = stats.binomtest(count, repetitions).proportion_ci(0.999)
        print(f"{name}, margin {margin:g}: {wrong} in {count / repetitions:.1%} [{low:.1%}, {high:.1%}]", flush=True)


if __name__ == "__main__":
    main()
