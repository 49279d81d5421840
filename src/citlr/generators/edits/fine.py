"""Fine structure at fixed places, in the frame of the atlas or of the film: what no smooth edit can write.

A catheter follows the anatomy; a grid, a grain or a marker the film. The difference between levels in the two finest
bands of the mean images is kept in cells where it is shown beyond the largest of all cells under redrawn signs of
patients, and shrunk there (James and Stein 1961). It competes with the smooth kinds of change for the same evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citlr.generators.edits.family import hats
from citlr.generators.edits.shrinkage import TINY, Floats
from citlr.generators.edits.significance import CELLS, FINE, cell_energy, fine_bands
from citlr.generators.edits.warps import warp
from citlr.generators.effects.contrasts import Design

# Frames of fine structure, each a kind of change.
FRAMES = ("film", "atlas")
REDRAWS, LEVEL = 199, 0.99


@dataclass(frozen=True)
class Chance:
    """Energy of differences of fine structure by chance: (frames, contrasts, bands, CELLS, CELLS) each.

    - `mean`: of a cell.
    - `freedom`: how many independent numbers a cell holds.
    - `limit` (frames, contrasts): of the largest of all cells, in units of its mean.
    """

    mean: Floats
    freedom: Floats
    limit: Floats

    def fit(self, differences: Floats) -> float:
        """Half the chi-square of the finest band of differences (frames, contrasts, bands, s * s)."""
        # Both frames see the same structure: each counts half.
        return float((self.freedom * self._ratio(differences))[:, :, 0].sum()) / (2 * len(FRAMES))

    def shrunk(self, differences: Floats, frame: str) -> tuple[Tensor, float]:
        """Keep what is shown of differences in one frame: maps (contrasts, s, s), and the log of their prior."""
        number = FRAMES.index(frame)
        size = round(differences.shape[-1] ** 0.5)
        axis = hats(CELLS, size).double().numpy()
        ratio = self._ratio(differences)[number]
        share = np.where(ratio > self.limit[number][:, None, None, None], 1 - 1 / np.maximum(ratio, 1.0), 0.0)
        cost = 0.5 * float((self.freedom[number] * np.log(np.maximum(ratio, 1.0)) * (share > 0)).sum())
        weight = np.einsum("yi,kbij,xj->kbyx", axis, share, axis)
        maps = (weight * differences[number].reshape(*share.shape[:2], size, size)).sum(axis=1)
        return torch.from_numpy(maps).float(), cost

    def _ratio(self, differences: Floats) -> Floats:
        cells = cell_energy(differences.reshape(-1, differences.shape[-1])).reshape(self.mean.shape)
        found: Floats = cells / self.mean
        return found


def differences(images: Tensor, forth: Tensor, design: Design) -> Floats:
    """Give what levels' mean images (n, 1, s, s) differ by, fine bands only: (frames, contrasts, bands, s * s)."""
    seen = (images, warp(images, forth))
    return np.stack([fine_bands(design.difference(one.flatten(1).double().numpy())) for one in seen])


def chance(images: Tensor, forth: Tensor, design: Design, random: np.random.Generator) -> Chance:
    """Find the energy of differences under the null of no difference, by redrawn signs of patients."""
    mean, freedom, limit = [], [], []
    for one in (images, warp(images, forth)):
        for influences in design.influences(one.flatten(1).double().numpy()):
            signs = random.choice([-1.0, 1.0], size=(REDRAWS, len(influences)))
            redrawn = fine_bands(signs @ influences)
            cells = cell_energy(redrawn.reshape(-1, redrawn.shape[-1])).reshape(REDRAWS, FINE, CELLS, CELLS) + TINY**2
            mean.append(cells.mean(axis=0))
            freedom.append(2 * mean[-1] ** 2 / (cells.var(axis=0) + TINY**4))
            limit.append(np.quantile((cells / mean[-1]).reshape(REDRAWS, -1).max(axis=1), LEVEL))
    shape = (len(FRAMES), len(design.weights))
    each = (FINE, CELLS, CELLS)
    return Chance(np.reshape(mean, (*shape, *each)), np.reshape(freedom, (*shape, *each)), np.reshape(limit, shape))


def placed(change: Tensor, maps: dict[str, Tensor], back: Tensor) -> Tensor:
    """Carry maps (contrasts, s, s) by frame to images: what a change (n, contrasts) of the levels adds (n, 1, s, s)."""
    own = {frame: torch.einsum("nc,cyx->nyx", change, maps[frame])[:, None] for frame in maps}
    return own["film"] + warp(own["atlas"], back)
