"""What moving an image leaves behind, and what it takes: drawn among the pixels that are read, and at the native size.

Radiographs of 256 pixels are moved by smooth displacements (RMS .5 of 64 pixels) and put back. Printed for every size
that somebody reads: the RMS change of grey values that is left, over that of the finest band of detail, and the
processor's milliseconds an image and edit. Pictures that are made larger say nothing of marks: of these only time.

    python benchmarks/drawing.py --nih ../shared/data/nih_cxr14_1000_256px
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from citlr.audit.redrawing.native import Native
from citlr.data.edits import Edit
from citlr.data.images import fit_square, read_image
from citlr.generators.edits.composition import compose, move_and_put_back
from citlr.generators.edits.family import bands

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


def main() -> None:
    """Print a row for each size that is read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, default=Path("../shared/data/nih_cxr14_1000_256px"))
    parser.add_argument("--images", type=int, default=40)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
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
