"""What was redrawn at the generator's size, put into the original at the size that somebody reads.

An edit (Trouvé and Younes 2005) is applied to the original itself, so that the edit of nothing leaves it bit for bit.
Of a picture, what redrawing changed is added: what is finer than the picture stays that of the original.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from citlr.data.edits import Edit
from citlr.generators.base import Images
from citlr.generators.edits.warps import inverse, resized, warp
from citlr.generators.effects.aligned import Aligned


def edited(images: Tensor, displacement: Tensor, added: Tensor) -> Tensor:
    """Apply edits on a grid (n, 2, s, s) and (n, c, s, s) to images (n, c, S, S) of any size, in [0, 1]."""
    return _moved(images + resampled(added, images.shape[-1]), resized(displacement, images.shape[-1])).clamp(0, 1)


def _moved(images: Tensor, way: Tensor) -> Tensor:
    """Move images by a displacement of their own size.

    Interpolation rounds: a pixel that does not move is not interpolated. One that moves keeps its detail: beside the
    original, which nobody moved, a model that reads a blur would pass for one that reads the attribute.
    """
    still = (way == 0).all(dim=1, keepdim=True)
    return torch.where(still, images, warp(images, way, sharp=True))


@torch.no_grad()
def compose(originals: Images, edit: Edit) -> Images:
    """Edit originals (n, c, S, S), one edit each."""
    parts = (np.ascontiguousarray(part) for part in (originals, edit.displacement, edit.added))
    return edited(*(torch.from_numpy(part) for part in parts)).numpy()


@torch.no_grad()
def move_and_put_back(originals: Images, displacement: Images) -> Images:
    """Move originals (n, c, S, S) by displacements (n, 2, s, s), and back: what is left differs by marks of moving."""
    images = torch.from_numpy(originals)
    way = resized(torch.from_numpy(np.ascontiguousarray(displacement)), images.shape[-1])
    return _moved(_moved(images, way).clamp(0, 1), inverse(way)).clamp(0, 1).numpy()


@torch.no_grad()
def compose_change(originals: Images, pictures: Images, seen: Images) -> Images:
    """Add to originals (n, c, S, S) what pictures differ by from the images `seen`, (n, c, s, s) both, in [0, 1]."""
    change = resampled(torch.from_numpy(pictures - seen), originals.shape[-1])
    return (torch.from_numpy(originals) + change).clamp(0, 1).numpy()


def resampled(maps: Tensor, size: int) -> Tensor:
    """Resample maps (n, c, s, s) as images are for a model."""
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Middle:
    """Images at the middle of the levels of an attribute, and the alignment of what still differs there.

    - `columns`: Of its conditions, among those of the generator.
    - `images` (n, c, s, s), `codes` (n, width): at the middle, and their own.
    - `back` (n, 2, s, s): the way from there to the images as they are.
    - `share`: What is taken of it, where edits have the rest.
    """

    aligned: Aligned
    columns: list[int]
    images: Tensor
    codes: Tensor
    back: Tensor
    share: float = 1.0

    def change(self, requested: Tensor) -> Tensor:
        """Give what the alignment adds to the images as they are, for codes (n, width) that are asked for."""
        return self.share * warp(self.aligned.change(self.images, self.codes, requested[:, self.columns]), self.back)

    def errors(self, requested: Tensor, first: Tensor) -> Tensor:
        """Give what replicates of that are off by against the first level: (n, replicates, c, s, s).

        The same patients tell the edits, so both err alike in part. Edits are drawn by the root of their share and this
        by that of its own, apart: no less than what the average of both errs by, however alike (Jensen).
        """
        each = self.aligned.errors(requested[:, self.columns], first[:, self.columns])
        return torch.stack([self.share**0.5 * warp(draw, self.back) for draw in each], dim=1)
