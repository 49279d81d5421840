"""How well edits could do: fitted by least squares to the *true* pairs of a world, as no generator can be.

    python benchmarks/edits.py examples/nih_findings.yaml --label pneumonia --world shadow --world contrast
    python benchmarks/edits.py phantom --label cardiomegaly --world varying --patients 1200 --seed 3

Worlds, draws, registration and family of edits are those of `citlr reproduce generation --kind edits`. What the fit
misses of the test images is what the family and the registration cannot write, however many images there are.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from citlr.console import Narrator
from citlr.generators.edits.atlas import build_atlas
from citlr.generators.edits.composition import edited
from citlr.generators.edits.family import Family, Frame, apply
from citlr.generators.edits.summaries import frame_of
from citlr.generators.quality.measures import effect_map
from citlr.studies.generation.worlds import Asked, EffectWorld, open_worlds
from citlr.studies.kit.cohorts import Source

STEPS, BATCH, RATE = 300, 64, 0.03


def limit(world: EffectWorld, seed: int) -> None:
    """Fit one edit between two levels to the pairs of training images, and print how it does on test images."""
    train, test = (
        world.units.of_images(world.cohort.part(part).frame["image_id"].astype(str)) for part in ("train", "test")
    )
    rows, size = train.images().shape[0], train.images().shape[-1]
    each = torch.from_numpy(np.concatenate([train.images(), test.images()]))
    level = np.concatenate([train.level, test.level])
    under = [
        torch.from_numpy(np.concatenate([part.counterfactual(name) for part in (train, test)])) for name in world.levels
    ]
    other = torch.where(torch.from_numpy(level == 0)[:, None, None, None], under[1], under[0])
    way = torch.from_numpy(1.0 - 2.0 * level).float()[:, None]
    family, frame = Family(size), frame_of(each, build_atlas(each[:rows]))
    edit = torch.zeros(family.width, requires_grad=True)
    adam, random = torch.optim.Adam([edit], lr=RATE), np.random.default_rng(seed)
    for step in range(STEPS):
        adam.param_groups[0]["lr"] = RATE if step < 2 * STEPS // 3 else RATE / 3
        some = torch.from_numpy(random.choice(rows, BATCH, replace=False))
        added, moved = family.split(each[some], way[some] * edit, Frame(frame.forth[some], frame.back[some]))
        adam.zero_grad()
        (apply(each[some], added, moved) - other[some]).square().mean().backward()
        adam.step()
    with torch.no_grad():
        added, moved = family.split(each[rows:], way[rows:] * edit, Frame(frame.forth[rows:], frame.back[rows:]))
        made = edited(each[rows:], moved, added) - each[rows:]
    found = effect_map(made.numpy(), (other - each)[rows:].numpy())
    print(f"| {world.name} | {found.relative_error:.2f} | {found.cosine:.2f} | {found.scale:.2f} |", flush=True)


def arguments(text: str) -> Asked:
    """Read which worlds are asked for, of which cohort."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort")
    parser.add_argument("--label", action="append", required=True)
    parser.add_argument("--world", action="append", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--patients", type=int, default=6000, help="of a phantom")
    options = parser.parse_args()
    source = Source(options.cohort, labels=tuple(options.label), seed=options.seed)
    return Asked(tuple(options.world), source, patients=options.patients)


def main() -> None:
    asked = arguments(__doc__)
    print("| world | error | cosine | scale |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for world in open_worlds(asked, Path(folder), Narrator(quiet=True)):
            limit(world, asked.source.seed)


if __name__ == "__main__":
    main()
