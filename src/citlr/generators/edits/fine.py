"""Fine structure at fixed places, in the frame of the atlas or of the film: what no smooth edit can write.

A catheter follows the anatomy; a grid, a grain or a marker the film. The difference between levels in the two finest
bands of the mean images is kept in cells where it is shown beyond the largest of all cells under redrawn signs of
patients, and shrunk there (James and Stein 1961). It competes with the smooth kinds of change for the same evidence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citlr.generators.edits.family import hats
from citlr.generators.edits.shrinkage import TINY, Floats
from citlr.generators.edits.significance import CELLS, FINE, cell_energy, fine_bands
from citlr.generators.edits.warps import warp
from citlr.generators.effects.axes import axes, red_green_blue
from citlr.generators.effects.contrasts import Design

# Frames of fine structure, each a kind of change.
FRAMES = ("film", "atlas")
REDRAWS, LEVEL = 199, 0.99


@dataclass(frozen=True)
class Chance:
    """Energy of differences of fine structure by chance: (frames, contrasts, axes * bands, CELLS, CELLS) each.

    - `mean`: of a cell.
    - `freedom`: how many independent numbers a cell holds.
    - `limit` (frames, contrasts): of the largest of all cells, in units of its mean.
    """

    mean: Floats
    freedom: Floats
    limit: Floats

    def fit(self, differences: Floats) -> float:
        """Half the chi-square of the finest bands of differences (frames, contrasts, axes * bands, s * s)."""
        # Both frames see the same structure: each counts half.
        return float((self.freedom * self._ratio(differences))[:, :, ::FINE].sum()) / (2 * len(FRAMES))

    def shrunk(self, differences: Floats, frame: str) -> tuple[Tensor, float]:
        """Keep what is shown of differences in one frame: maps (contrasts, c * s, s), and the log of their prior."""
        number = FRAMES.index(frame)
        size = round(differences.shape[-1] ** 0.5)
        axis = hats(CELLS, size).double().numpy()
        ratio = self._ratio(differences)[number]
        share = np.where(ratio > self.limit[number][:, None, None, None], 1 - 1 / np.maximum(ratio, 1.0), 0.0)
        cost = 0.5 * float((self.freedom[number] * np.log(np.maximum(ratio, 1.0)) * (share > 0)).sum())
        weight = np.einsum("yi,kbij,xj->kbyx", axis, share, axis)
        each = weight * differences[number].reshape(*share.shape[:2], size, size)
        maps = each.reshape(len(each), -1, FINE, size, size).sum(axis=2)
        return torch.from_numpy(maps).float().flatten(1, 2), cost

    def _ratio(self, differences: Floats) -> Floats:
        cells = cell_energy(differences.reshape(-1, differences.shape[-1])).reshape(self.mean.shape)
        return cells / self.mean


def differences(images: Tensor, forth: Tensor, design: Design) -> Floats:
    """Give what levels' mean images (n, c, s, s) differ by: (frames, contrasts, axes * fine bands, s * s)."""
    seen, channels = (images, warp(images, forth)), images.shape[1]
    return np.stack([fine_bands(design.difference(axes(one).flatten(1).double().numpy()), channels) for one in seen])


def chance(images: Tensor, forth: Tensor, design: Design, random: np.random.Generator) -> Chance:
    """Find the energy of differences under the null of no difference, by redrawn signs of patients."""
    mean, freedom, limit, channels = [], [], [], images.shape[1]
    for one in (images, warp(images, forth)):
        for influences in design.influences(axes(one).flatten(1).double().numpy()):
            signs = random.choice([-1.0, 1.0], size=(REDRAWS, len(influences)))
            redrawn = fine_bands(signs @ influences, channels)
            cells = cell_energy(redrawn.reshape(-1, redrawn.shape[-1])).reshape(REDRAWS, -1, CELLS, CELLS) + TINY**2
            mean.append(cells.mean(axis=0))
            freedom.append(2 * mean[-1] ** 2 / (cells.var(axis=0) + TINY**4))
            limit.append(np.quantile((cells / mean[-1]).reshape(REDRAWS, -1).max(axis=1), LEVEL))
    shape = (len(FRAMES), len(design.weights))
    each = (channels * FINE, CELLS, CELLS)
    return Chance(np.reshape(mean, (*shape, *each)), np.reshape(freedom, (*shape, *each)), np.reshape(limit, shape))


def placed(change: Tensor, maps: dict[str, Tensor], back: Tensor) -> Tensor:
    """Carry maps (contrasts, c * s, s) to images: what a change (n, contrasts) of the levels adds (n, c, s, s)."""
    n, size = len(change), back.shape[-1]
    own = {name: torch.einsum("nc,cyx->nyx", change, one).reshape(n, -1, size, size) for name, one in maps.items()}
    return red_green_blue(own["film"] + warp(own["atlas"], back))
