"""What moving an image leaves behind, and what it takes: drawn among the pixels that are read, and at the native size.

Radiographs of 256 pixels are moved by smooth displacements (RMS .5 of 64 pixels) and put back. Printed for every size
that somebody reads: the RMS change of grey values that is left, over that of the finest band of detail, and the
processor's milliseconds an image and edit. Pictures that are made larger say nothing of marks: of these only time.

    python benchmarks/drawing.py --nih ../shared/data/nih_cxr14_1000_256px

With the configuration and the folder of an audit through edits: what the recorded levels of its training images still
differ by once these are redrawn (`citlr.generators.quality.left`), drawn either way. Takes about ten minutes.

    python benchmarks/drawing.py --config examples/nih_real.yaml --run run/nih_real
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from citlr.audit.intake import audited_cohort
from citlr.audit.measures.covariates import coded
from citlr.audit.redrawing.native import Native
from citlr.config import read_config
from citlr.console import Narrator
from citlr.data.edits import Edit
from citlr.data.images import fit_square, read_image
from citlr.generators.edits.composition import compose, move_and_put_back
from citlr.generators.edits.family import bands
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.probes.linear import describe
from citlr.generators.quality.left import design_between, what_is_left
from citlr.generators.registry import load_generator

GRID = 64
Images = npt.NDArray[np.float32]


def smooth(number: int) -> Images:
    """Draw a displacement of a few waves (2, s, s), RMS .5 steps of its grid."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:GRID, 0:GRID] / GRID
    turns = rng.uniform(0, 2 * np.pi, (2, 4))
    ways = np.array([[1, 0], [0, 1], [1, 1], [2, 1]])[:, :, None, None]
    waves = np.sin(2 * np.pi * (ways[:, 0] * x + ways[:, 1] * y) + turns[..., None, None])
    way = np.einsum("kw,kwyx->kyx", rng.normal(size=(2, 4)), waves)
    return (0.5 * way / np.sqrt((way**2).mean())).astype(np.float32)


def levels_left(config: Path, run: Path) -> None:
    """Print what recorded levels still differ by, for sizes that are read and native sizes."""
    settings = read_config(config).cohort
    part = audited_cohort(settings, narrator=Narrator(), check="exists").part("train")
    generator = load_generator(run / "generator")
    assert isinstance(generator, EditGenerator)
    levels = sorted(part.frame[settings.attribute].unique())
    seen = part.pixels(range(len(part)), size=generator.size)
    edits = generator.edit(seen, part.frame, attribute=settings.attribute, levels=levels)
    recorded = np.array([levels.index(value) for value in part.frame[settings.attribute]])
    held = coded(part.frame, generator.hold)
    design = design_between(recorded, len(levels), held, part.frame["patient_id"].to_numpy())
    for size, native in ((64, 64), (64, 0), (128, 0), (224, 224), (224, 0)):
        own = part.pixels(range(len(part)), size=size)
        ways = {f"{way} {level}": own.copy() for way in ("read", "native") for level in levels}
        for row, number in product(range(len(part)), range(len(levels))):
            if number != recorded[row]:
                edit, picture = edits[row, number], own[row] if native else part.native(row)
                ways[f"read {levels[number]}"][row] = compose(own[[row]], edit[None])[0]
                ways[f"native {levels[number]}"][row] = Native.of(picture, own[row], part.fit).edited(edit)
        found = {name: describe(images) for name, images in ways.items()}
        left = what_is_left(describe(own), found, design, np.random.default_rng(0))
        told = ", ".join(f"{name} {one:.2f} ± {left.error[name]:.2f}" for name, one in left.left.items())
        print(f"read at {size}, native size {native or 'of the files'}: {told}", flush=True)


def main() -> None:
    """Print a row for each size that is read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, default=Path("../shared/data/nih_cxr14_1000_256px"))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--run", type=Path)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.run is not None:
        levels_left(wanted.config, wanted.run)
        return
    files = pd.read_csv(wanted.nih / "metadata.csv")["image"].iloc[: wanted.images]
    films = [read_image(wanted.nih / file) for file in files]
    sizes = ((64, 64), (64, 256), (128, 256), (224, 256), (224, 224), (64, 1024), (224, 1024), (512, 1024))
    for size, native in sizes:
        left: dict[str, list[float]] = {"read": [], "native": []}
        spent = {"read": 0.0, "native": 0.0}
        for number, film in enumerate(films if native <= 256 else films[:8]):
            picture = film if native == 256 else fit_square(film, size=native)
            own, way = fit_square(picture, size=size), smooth(number)
            edit = Edit(way, np.full((1, GRID, GRID), 0.01, np.float32))
            fine = Native.of(picture, own, "pad")
            detail = float(bands(torch.from_numpy(own)[None])[:, 0].square().mean().sqrt())
            backs = {"read": move_and_put_back(own[None], way[None])[0], "native": fine.put_back(way)}
            for name, back in backs.items():
                left[name].append(float(np.sqrt(np.square(back - own).mean())) / detail)
            began = time.process_time()
            compose(own[None], edit[None])
            between = time.process_time()
            Native.of(picture, own, "pad").edited(edit)
            spent["read"] += between - began
            spent["native"] += time.process_time() - between
        marks = ", ".join(f"{name} {np.mean(one):.3f}" for name, one in left.items()) if native <= 256 else "-"
        took = ", ".join(f"{name} {1000 * one / len(left['read']):.1f} ms" for name, one in spent.items())
        print(f"read at {size} of {native} pixels: left {marks}; {took}", flush=True)


if __name__ == "__main__":
    main()
