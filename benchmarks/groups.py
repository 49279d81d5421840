"""How much of the difference between recorded groups a run's generator takes off: mean images of held-out patients.

    python benchmarks/groups.py examples/nih_real.yaml run/nih_real

Every image is redrawn as each level. What levels' mean images differ by, beside what is held, is squared in units of
its error, pixel by pixel, less what chance gives (1): before, and what is left of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from citlr.audit.intake import audited_cohort
from citlr.audit.measures.covariates import coded
from citlr.config import read_config
from citlr.console import Narrator
from citlr.generators.effects.contrasts import Design
from citlr.generators.quality.left import design_between
from citlr.generators.registry import load_generator


def beyond_chance(images: npt.NDArray[np.floating], design: Design) -> float:
    """Give the mean over pixels of the squared difference in units of its error, less 1, of the first contrast."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    difference, influences = design.difference(flat)[0], design.influences(flat)[0]
    error = np.sqrt((influences**2).sum(axis=0))
    seen = error > 1e-4  # what nobody varies in
    return float(((difference[seen] / error[seen]) ** 2 - 1).mean())


def main() -> None:
    """Print a row for each level and split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    settings = read_config(options.config).cohort
    cohort = audited_cohort(settings, narrator=Narrator(), check="exists")
    generator = load_generator(options.run / "generator")
    for split in ("train", "test"):
        part = cohort.part(split)
        images = part.pixels(range(len(part)), size=generator.size)
        levels = sorted(part.frame[settings.attribute].unique())
        redrawn = generator.generate(images, part.frame, attribute=settings.attribute, levels=levels)
        recorded = np.array([levels.index(value) for value in part.frame[settings.attribute]])
        held = coded(part.frame, generator.hold)
        design = design_between(recorded, len(levels), held, part.frame["patient_id"].to_numpy())
        before = beyond_chance(images, design)
        for number, level in enumerate(levels):
            left = beyond_chance(redrawn[:, number, 0], design)
            print(f"{split}: as {level}: {before:.2f} before, {left:.2f} left ({left / before:.0%})", flush=True)


if __name__ == "__main__":
    main()
