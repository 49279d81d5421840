"""What colour costs, and how well it is redrawn: grey and RGB of the same pictures, at equal steps.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONPATH=src:tests python benchmarks/colour.py --size 64

Prints a Markdown table: seconds of processor time to fit and to redraw, as medians over repeats, the ratio of colour to
grey, and the error of the effect map (the attribute changes the hue, and hardly the luminance).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import colours
import numpy as np

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.quality.measures import effect_map
from citlr.generators.registry import build_generator


def measure(cohort: Cohort, size: int, options: dict[str, Any]) -> tuple[float, float, np.ndarray]:
    """Fit and redraw once: seconds of both, and the change from female to male (n, c, s, s)."""
    train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
    model = build_generator(**options, size=size, hold=["mel"])
    began = time.process_time()
    model.fit(train, validation, seed=0, narrator=Narrator(quiet=True))
    fitted = time.process_time()
    images = test.pixels(size=size)
    drawn = model.generate(images, test.frame, attribute="sex", levels=["female", "male"], draws=4)
    return fitted - began, time.process_time() - fitted, drawn[:, 1].mean(axis=1) - drawn[:, 0].mean(axis=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--kind", default="dldm", choices=("dldm", "edits"))
    parser.add_argument("--steps", type=int, default=300, help="Of the networks of dldm.")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    steps = {"ae_steps": given.steps, "denoiser_steps": given.steps} if given.kind == "dldm" else {}
    with tempfile.TemporaryDirectory() as folder:
        whole = colours.cohort(Path(folder), given.images, side=given.size)
        true = np.broadcast_to(colours.TONE, (len(whole.part("test")), 3, given.size, given.size))
        seconds: dict[int, list[tuple[float, float]]] = {1: [], 3: []}
        for _ in range(given.repeats):
            for channels, found in seconds.items():
                fit, redraw, change = measure(
                    replace(whole, channels=channels), given.size, {"kind": given.kind, **steps}
                )
                found.append((fit, redraw))
                print(f"{channels} channel(s): fit {fit:.1f} s, redraw {redraw:.1f} s", flush=True)
    grey, colour = (np.median(seconds[channels], axis=0) for channels in (1, 3))
    print("\nprocessor time | grey s | colour s | ratio\n---|--:|--:|--:")
    for name, one, other in zip(("fit", "redraw"), grey, colour, strict=True):
        print(f"{name} | {one:.1f} | {other:.1f} | {other / one:.2f}")
    print(f"both | {grey.sum():.1f} | {colour.sum():.1f} | {colour.sum() / grey.sum():.2f}")
    error = effect_map(change, true)
    print(
        f"\neffect map in colour: relative error {error.relative_error:.2f}, cosine {error.cosine:.3f}, "
        f"scale {error.scale:.2f}"
    )


if __name__ == "__main__":
    main()
