"""Time of the blind export of 12,000 redrawn images, as `citlr export` writes them (issue 8: under 60 s on two cores).

Run from the repository root:  OMP_NUM_THREADS=1 python benchmarks/export.py [--size 64] [--format png]

The images are made up (smooth noise, so that they compress like radiographs and not like constants), stored as a run
stores them, and exported once per format into a new folder. Prints wall seconds, each with its ratio to the limit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Images, Plan, write_counterfactuals
from citlr.data.images import encode_png
from citlr.exchange.closed import SUFFIX, export_blind

LIMIT_SECONDS, LEVELS, DRAWS = 60.0, ("F", "M"), 4
# Two levels, four draws and the original: nine pictures per image.
IMAGES = 12_000 // (len(LEVELS) * DRAWS + 1) + 1


def make_run(root: Path, size: int) -> tuple[CounterfactualSet, Cohort]:
    rng = np.random.default_rng(0)
    base = gaussian_filter(rng.random((64, size, size)), (0, size / 32, size / 32))
    base = (base - base.min()) / (base.max() - base.min()) + rng.normal(0, 0.01, base.shape)
    names = [f"i{row:05d}" for row in range(IMAGES)]
    (root / "images").mkdir()
    for row, name in enumerate(names):
        (root / "images" / f"{name}.png").write_bytes(encode_png(base[row % 64][None].clip(0, 1).astype(np.float32)))
    sex = [LEVELS[row % 2] for row in range(IMAGES)]
    frame = pd.DataFrame(
        {"image_id": names, "path": [f"{name}.png" for name in names], "patient_id": names, "split": "test", "sex": sex}
    )
    cohort = Cohort(frame, root / "images", attributes=("sex",), labels=())
    plan = Plan("sex", LEVELS, DRAWS, tuple(names), tuple(names), tuple(sex), 32, size, True, "benchmark")

    def draw(rows: range) -> Images:
        drawn = np.stack([base[(7 * row + np.arange(8)) % 64] for row in rows])
        return drawn.reshape(len(rows), 2, 4, 1, size, size).clip(0, 1).astype(np.float32)

    return write_counterfactuals(root / "counterfactuals", plan, draw), cohort


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--format", choices=sorted(SUFFIX), help="one format; all of them without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        counterfactuals, cohort = make_run(root, options.size)
        for name in [options.format] if options.format else SUFFIX:
            start = time.monotonic()
            export = export_blind(
                [counterfactuals], cohort, key_folder=root / f"key-{name}", out=root / name, format=name
            )
            seconds = time.monotonic() - start
            print(
                f"{name}: {export.n_images} pictures of {options.size} x {options.size} in {seconds:.1f} s, "
                f"{seconds / LIMIT_SECONDS:.2f} of the limit of {LIMIT_SECONDS:g} s"
            )


if __name__ == "__main__":
    main()
