"""What smooth edits leave: fine structure at fixed places, in the frame of the atlas or of the film.

A catheter follows the anatomy, a grid or a marker the film. The difference that is left between levels is kept in cells
where it is shown beyond the largest of all cells under redrawn signs of patients, and shrunk there (James and Stein).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citlr.generators.edits.contrasts import Design
from citlr.generators.edits.family import hats
from citlr.generators.edits.shrinkage import Floats
from citlr.generators.edits.warps import warp

CELLS = 8
REDRAWS, LEVEL = 199, 0.99


@dataclass(frozen=True)
class Fine:
    """Additive maps (contrasts, s, s) of one frame, and how far they stand out (0: nothing is shown)."""

    maps: Tensor
    excess: float


def find_fine(images: Tensor, design: Design, *, random: np.random.Generator, forth: Tensor | None = None) -> Fine:
    """Find what images (n, 1, s, s), edited to the middle of the levels, still differ by, in one frame."""
    seen = images if forth is None else warp(images, forth)
    size = images.shape[-1]
    flat = seen.flatten(1).double().numpy()
    differences, found, excess = design.difference(flat), [], 0.0
    axis = hats(CELLS, size).double().numpy()
    for difference, influences in zip(differences, design.influences(flat), strict=True):
        cells = _energy(difference[None], axis)[0]
        signs = random.choice([-1.0, 1.0], size=(REDRAWS, len(influences)))
        chance = _energy(signs @ influences, axis)
        mean = chance.mean(axis=0)
        limit = np.quantile((chance / mean).max(axis=1), LEVEL)
        share = np.where(cells / mean > limit, 1 - mean / np.maximum(cells, 1e-12), 0.0)
        excess += float((share * cells / mean).sum())
        weight = axis @ share @ axis.T
        found.append(weight * difference.reshape(size, size))
    return Fine(torch.from_numpy(np.stack(found)).float(), excess)


def _energy(maps: Floats, axis: Floats) -> Floats:
    """Weighted mean square (k, CELLS, CELLS) of maps (k, s * s) in overlapping cells."""
    size = len(axis)
    squared = maps.reshape(-1, size, size) ** 2
    found: Floats = np.einsum("yi,kyx,xj->kij", axis, squared, axis)
    return found
