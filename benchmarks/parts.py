"""What each part of the edits adds, and whether what they leave shows anything to the DLDM's alignment.

    python benchmarks/parts.py examples/nih_findings.yaml --label pneumonia --world shadow --world spine

Worlds and draws are those of `citlr reproduce generation --kind edits`. Rows: the kinds that edits kept, one more in
each row, each time estimated anew in all training images; the alignment of a DLDM alone, which is most of what a DLDM
carries; and edits with the alignment of what they leave: of images that edits brought to the middle of the levels, so
in the coordinates that edits give. Its change is added in the original's own, and moved with it. `shown` is the share
of pixels at which training images show an effect there: nothing may be changed elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edits import arguments
from threadpoolctl import threadpool_limits
from torch import Tensor

from citlr.console import Narrator
from citlr.generators.edits import generator as edits_module
from citlr.generators.edits.choice import FIRST_STEPS, STEPS, TOGETHER
from citlr.generators.edits.composition import edited
from citlr.generators.edits.estimate import Learnt, Search
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.edits.warps import inverse, warp
from citlr.generators.effects.aligned import ALIGNMENT
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.support import find_support
from citlr.generators.quality.measures import effect_map
from citlr.learning.store import Dataset, spans
from citlr.studies.generation.worlds import EffectWorld, open_worlds

COMPONENTS = 400


class Parts(EditGenerator):
    """Edits that remember what they were estimated from."""

    asked: tuple[Any, ...]

    def fit(self, *splits: Any, **options: Any) -> Parts:
        """Train, and keep the arguments with which the first attribute's edits were found."""
        find, calls = edits_module.find, list[tuple[Any, ...]]()

        def found(*given: Any) -> Learnt:
            calls.append(given)
            return find(*given)

        edits_module.find = found
        try:
            super().fit(*splits, **options)
        finally:
            edits_module.find = find
        self.asked = calls[0]
        return self

    def prefixes(self, name: str) -> Iterator[str]:
        """Estimate with the first kind, the first two, and so on; all together are the last row."""
        report = self.report["edits"][name]
        singles = [kind for kind in report["left"] if kind not in (TOGETHER, ALIGNMENT)]
        with threadpool_limits(1, user_api="blas"):
            search = Search(*self.asked[1:4])
            if "unwritten" in report:
                search.widen(report["unwritten"])
            for count in range(1, len(singles) + 1):
                state = search.steps(search.start, singles[:count], FIRST_STEPS + STEPS)
                edit = Learnt(state.kinds, state.edit, state.shrunk, 0.0, {}, search.answers)
                self._keep(self.conditions.attributes[0], edit, np.random.default_rng(0))
                yield " + ".join(singles[:count])

    def neutral(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Bring images (n, c, s, s) to the middle of the levels; gives them and the way back (n, 2, s, s)."""
        moved, ways = [], []
        for part in spans(len(images), 64):
            frame, able = self._frame(images[part])
            edit = self._edit(images[part], -self._coded(codes[part]) * able, frame)
            moved.append(edited(images[part], edit[:, :2], edit[:, 2:]))
            ways.append(inverse(edit[:, :2]))
        return torch.cat(moved), torch.cat(ways)


class Truth:
    """Test images and their exact change from the own level to the others."""

    def __init__(self, world: EffectWorld) -> None:
        self.cohort = world.cohort.part("test")
        units = world.units.of_images(self.cohort.frame["image_id"].astype(str))
        self.images = Dataset.of(self.cohort, size=64, directory=None).images(slice(0, len(self.cohort)))
        under = np.stack([units.counterfactual(level) for level in world.levels], axis=1)
        self.others = units.level[:, None] != np.arange(len(world.levels))
        self.change = (under - under[np.arange(len(units)), units.level][:, None])[self.others]

    def row(self, world: str, name: str, made: Tensor, shown: str = "") -> None:
        """Print how images under every level (n, levels, 1, s, s) do."""
        change = (made - self.images[:, None]).numpy()[self.others]
        found = effect_map(change, self.change)
        cells = (f"{found.relative_error:.3f}", f"{found.cosine:.3f}", f"{found.scale:.2f}", shown)
        print(f"| {world} | {name} | {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def table(world: EffectWorld, seed: int) -> None:
    """Print the rows of a world."""
    model = Parts(64, hold=world.hold, attributes=(world.attribute,))
    model.fit(world.cohort.part("train"), world.cohort.part("validation"), seed=seed, narrator=Narrator(quiet=True))
    truth, whole = Truth(world), {name: part.clone() for name, part in model.edits.state_dict().items()}
    codes, requested = model.conditions.encode(truth.cohort.frame), []
    for level in world.levels:
        requested.append(model.conditions.intervene(codes, (world.attribute,), level))

    def edits() -> list[Tensor]:
        frame, able = model._frame(truth.images)
        own = model._coded(codes)
        return [model._edit(truth.images, (model._coded(one) - own) * able, frame) for one in requested]

    def made(parts: list[Tensor]) -> Tensor:
        return torch.stack([edited(truth.images, part[:, :2], part[:, 2:]) for part in parts], dim=1)

    together = TOGETHER in model.report["edits"][world.attribute]["left"]
    for name in model.prefixes(world.attribute):
        truth.row(world.name, name, made(edits()))
    model.edits.load_state_dict(whole)
    if together:
        truth.row(world.name, TOGETHER, made(edits()))
    if model.edits.aligned:
        own_size = truth.images.numpy()
        redrawn = model.generate(own_size, truth.cohort.frame, attribute=world.attribute, levels=world.levels)
        truth.row(world.name, "all that was taken, with the alignment", torch.from_numpy(redrawn[:, :, 0]))
    train = model.splits[0]
    images = Dataset.of(train, size=64, directory=None).images(slice(0, len(train)))
    own, patients = model.conditions.encode(train.frame), train.frame["patient_id"]
    still = torch.zeros(len(truth.images), 2, 64, 64)
    middle, at_middle = model.neutral(images, own)[0], model.neutral(truth.images, codes)
    for name, learnt, (seen, back), parts in (
        ("alignment alone", images, (truth.images, still), None),
        ("edits + alignment of what they leave", middle, at_middle, edits()),
    ):
        support = find_support(learnt.numpy(), own, model.conditions, seed=seed, patients=patients)[0]
        alignment = Alignment(model.conditions, (1, 64, 64), COMPONENTS)
        alignment.fit(learnt.numpy(), own, patients, seed=seed, where=support[None])
        residual = alignment(seen, codes)
        added = [
            warp((alignment.undo(residual, one) - seen) * support, back) * (one != codes).any(dim=1).view(-1, 1, 1, 1)
            for one in requested
        ]
        if parts is None:
            parts = [torch.zeros(len(seen), 3, 64, 64) for _ in requested]
        changed = [torch.cat([part[:, :2], part[:, 2:] + one], dim=1) for part, one in zip(parts, added, strict=True)]
        truth.row(world.name, name, made(changed), f"{float(support.mean()):.3f}")


def main() -> None:
    asked = arguments(__doc__)
    print("| world | parts | error | cosine | scale | shown |\n|---|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for world in open_worlds(asked, Path(folder), Narrator(quiet=True)):
            table(world, asked.source.seed)


if __name__ == "__main__":
    main()
