"""Planted worlds in colour whose counterfactuals are exact: how near a generator comes to them.

    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/colour_worlds.py ../shared/data/nih_cxr14_1000_256px

Without a folder (`metadata.csv` with `image` and `patient_id`, and the images), only the worlds of skin are run.
Radiographs are given a tint of their own, one for dark and one for bright places; skins are drawn: a tone, a mole
somewhere near the middle, hairs. A level is drawn by a coin per patient. Prints a Markdown table over test images: the
change to the other level against the true one. In `nothing` both levels look alike, and nothing may be changed.

`--axes` prints instead how well a world shows in red, green and blue, and along the axes in which edits are estimated
(luminance, red and blue less it): the difference of levels, in all of a picture or in its spot, over the spread of
pictures of one level.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.images import encode_png
from citlr.data.pixels.colour import luminance
from citlr.generators.effects.axes import axes
from citlr.generators.quality.measures import effect_map
from citlr.generators.registry import build_generator
from citlr.simulators.planted.effects import EFFECTS, grid, locate

Picture = NDArray[np.float32]
# A change of hue with hardly any luminance, and what pigment takes away; in red, green and blue.
HUE, PIGMENT = (np.reshape(one, (3, 1, 1)) for one in ((0.10, -0.06, 0.04), (-0.12, -0.20, -0.18)))
# What bright places of a radiograph are given on average.
WARM = (0.1, 0.0, -0.1)
LEVELS = ("a", "b")


@dataclass(frozen=True)
class Case:
    """One picture before anything is planted, and where its own structure lies: a soft map, 0 to 1."""

    picture: Picture
    patient: str
    spot: NDArray[np.float64]


def radiographs(folder: Path, size: int, random: np.random.Generator) -> Iterator[Case]:
    """Colour radiographs; the spot is the heart."""
    for row in pd.read_csv(folder / "metadata.csv").itertuples():
        grey = np.asarray(Image.open(folder / row.image).convert("L").resize((size, size), Image.Resampling.BOX))
        own = grey.astype(np.float32) / 255
        ground, ink = random.normal(0, 0.05, (3, 1, 1)), random.normal(np.reshape(WARM, (3, 1, 1)), 0.08)
        anatomy, (x, y) = locate(own), grid(size)
        width = float(anatomy.centre[1, 0] - anatomy.centre[0, 0])
        far = ((x - anatomy.heart[0]) ** 2 + (y - anatomy.heart[1]) ** 2) / (0.3 * width) ** 2
        noise = random.normal(0, 0.01, (3, size, size))
        coloured = 0.08 + 0.84 * own + ground * (1 - own) + ink * own + noise
        yield Case(coloured.clip(0, 1).astype(np.float32), str(row.patient_id), np.exp(-far / 2))


def skins(size: int, random: np.random.Generator, count: int = 600) -> Iterator[Case]:
    """Draw pictures of skin; the spot is the mole."""
    x, y = grid(size)
    for number in range(count):
        base = np.reshape([0.72, 0.55, 0.45], (3, 1, 1)) * random.uniform(0.7, 1.1) + random.normal(0, 0.02, (3, 1, 1))
        shade = 0.08 * np.cos(3 * x + random.uniform(0, 6)) * np.sin(2 * y + random.uniform(0, 6))
        dx, dy = x - random.normal(0.5, 0.05), y - random.normal(0.5, 0.05)
        angle, (wide, high) = random.uniform(0, np.pi), random.uniform(0.08, 0.16, 2)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        spot = 1 / (1 + np.exp(8 * (np.hypot(along / wide, across / high) - 1)))
        hairs = ndimage.gaussian_filter(random.normal(0, 1, (size, size)) > 2.3, (2.0, 0.4)) * 0.5
        picture = base + shade - hairs - 0.2 * spot * np.reshape([0.7, 1.0, 0.9], (3, 1, 1))
        picture = picture + random.normal(0, 0.01, (3, size, size))
        yield Case(picture.clip(0, 1).astype(np.float32), str(number), spot)


def by_channel(kind: str, channels: tuple[int, ...], case: Case, amount: float) -> Picture:
    """Do to some channels what a planted effect does to a grey image, where the anatomy of the luminance is."""
    anatomy, out = locate(luminance(case.picture)[0]), case.picture.copy()
    for channel in channels:
        out[channel] = EFFECTS[kind](case.picture[channel], anatomy, amount)
    return out


def saturated(case: Case, amount: float) -> Picture:
    """Draw colours away from the luminance, or to it."""
    own = luminance(case.picture)
    return own + (case.picture - own) * np.float32(np.exp(amount))


World = Callable[[Case, float], Picture]
# What amounts of -0.5 and 0.5 do; the grain is there or not there.
WORLDS: dict[str, World] = {
    "nothing": lambda case, amount: case.picture,
    "hue": lambda case, amount: case.picture + amount * HUE,
    "stain": lambda case, amount: case.picture + amount * case.spot * 2.5 * HUE,
    "saturation": saturated,
    "lesion": lambda case, amount: case.picture + amount * case.spot * PIGMENT,
    "shape": lambda case, amount: by_channel("shape", (0, 1, 2), case, amount),
    "blue grain": lambda case, amount: by_channel("texture", (2,), case, amount + 0.5),
}
LOCAL = ("stain", "lesion")
OF_SKIN = ("nothing", "hue", "stain", "saturation", "lesion")


def run(world: World, cases: list[Case], kind: str, options: dict[str, str], seed: int) -> str:
    """Plant, fit and compare; give the cells of a row."""
    random = np.random.default_rng([seed, 1])
    names = sorted({case.patient for case in cases})
    turn = dict(zip(names, random.permutation(len(names)) / len(names), strict=True))
    coin = dict(zip(names, random.permutation(len(names)) % 2, strict=True))
    rows, under = [], np.stack([[world(case, sign).clip(0, 1) for sign in (-0.5, 0.5)] for case in cases])
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            level, place = coin[case.patient], turn[case.patient]
            Path(folder, f"{number}.png").write_bytes(encode_png(under[number, level].astype(np.float32)))
            split = "train" if place < 0.7 else "validation" if place < 0.75 else "test"
            rows.append((str(number), f"{number}.png", case.patient, LEVELS[level], float(number % 3 == 0), split))
        frame = pd.DataFrame(rows, columns=["image_id", "path", "patient_id", "sex", "mel", "split"])
        cohort = Cohort(frame, Path(folder), attributes=("sex",), labels=("mel",), channels=3)
        size, began = cases[0].picture.shape[-1], time.process_time()
        model = build_generator(kind, size=size, hold=["mel"], **options)
        model.fit(cohort.part("train"), cohort.part("validation"), seed=seed, narrator=Narrator(quiet=True))
        spent, test = time.process_time() - began, cohort.part("test")
        own = np.asarray([coin[name] for name in test.frame["patient_id"]])
        images, each = test.pixels(size=size), np.arange(len(own))
        draws = 1 if kind == "edits" else 4
        drawn = model.generate(images, test.frame, attribute="sex", levels=LEVELS, draws=draws).mean(axis=2)
    made = drawn[each, 1 - own] - drawn[each, own]
    pair = under[test.frame["image_id"].astype(int)]
    true = pair[each, 1 - own] - pair[each, own]
    kinds = " and ".join(model.report.get("edits", {}).get("sex", {}).get("kinds", ())) or "-"
    if not true.any():
        return f"{kinds} | changed by {np.abs(made).mean():.4f} | | | {spent:.0f}"
    found = effect_map(made, true)
    return f"{kinds} | {found.relative_error:.2f} | {found.cosine:.2f} | {found.scale:.2f} | {spent:.0f}"


def shown(world: World, cases: list[Case], local: bool) -> str:
    """Give the differences of levels by channel and by axis, in standard deviations."""
    level = np.arange(len(cases)) % 2
    drawn = np.stack([world(case, one - 0.5).clip(0, 1) for case, one in zip(cases, level, strict=True)])
    images = torch.from_numpy(drawn.astype(np.float32))
    where = np.stack([case.spot if local else np.ones_like(case.spot) for case in cases])[:, None]
    cells = []
    for seen in (images, axes(images)):
        value = (seen.numpy() * where).sum(axis=(2, 3)) / where.sum(axis=(2, 3))
        change = value[level == 1].mean(axis=0) - value[level == 0].mean(axis=0)
        cells.append(", ".join(f"{one:.1f}" for one in change / value[level == 0].std(axis=0)))
    return " | ".join(cells)


def main() -> None:
    """Run the worlds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("radiographs", nargs="?", type=Path)
    parser.add_argument("--world", action="append", choices=WORLDS)
    parser.add_argument("--kind", default="edits")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--axes", action="store_true")
    given = parser.parse_args()
    asked = given.world or list(WORLDS)
    sources = {"skin": list(skins(given.size, np.random.default_rng([given.seed, 2])))}
    if given.radiographs is not None:
        random = np.random.default_rng([given.seed, 3])
        sources = {"radiographs": list(radiographs(given.radiographs, given.size, random)), **sources}
    if given.axes:
        print("| images | world | red, green, blue | luminance, red less it, blue less it |\n|---|---|---|---|")
        for source, cases in sources.items():
            for name in OF_SKIN[1:]:
                print(f"| {source} | {name} | {shown(WORLDS[name], cases, name in LOCAL)} |", flush=True)
        return
    print("| images | world | kinds of change | error | cosine | scale | fit, core s |\n|---|---|---|--:|--:|--:|--:|")
    for source, cases in sources.items():
        for name in asked:
            if source == "radiographs" or name in OF_SKIN:
                row = run(WORLDS[name], cases, given.kind, {"preset": given.preset}, given.seed)
                print(f"| {source} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
