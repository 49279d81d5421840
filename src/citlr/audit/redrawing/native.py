"""Edits drawn into pictures at their native size, and read as every picture is.

Moving a picture between the pixels that are read leaves marks of interpolation, which a model may read; among finer
ones they are hardly there. The edge of the film stays, and so do bars beside a picture.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from citlr.data.edits import Edit
from citlr.data.images import fit_square
from citlr.data.pixels.square import Fit, Region
from citlr.generators.base import Images
from citlr.generators.edits.composition import resampled
from citlr.generators.edits.warps import finer, inverse

# How many times as fine as they are read pictures are at most; finer ones are shrunk first.
MOST = 4.0
# Points along a side of a displacement, enough to turn it round up to its edges; so many of them at the edge stay: a
# film's black frame would be smeared over the picture, or lost. Inside, none goes farther than this share of the way.
FIELD, RIM, SHARE = 128, 2, 0.5


@dataclass(frozen=True)
class Native:
    """A picture at its native size, and as somebody reads it.

    - `image` (1, c, H, W), `original` (c, S, S), `seen` (c, S, S): the last is the image, read anew.
    - `place`: Where it lies in the square that is read.
    """

    image: Tensor
    original: Images
    seen: Images
    place: Region
    fit: Fit

    @classmethod
    def of(cls, picture: Images, original: Images, fit: Fit) -> Self:
        """Take a picture (c, H, W), read as `original` (c, S, S)."""
        height, width = picture.shape[1:]
        place = Region.of(width, height, size=original.shape[-1], fit=fit)
        times = min(width / place.width, height / place.height)
        image = torch.from_numpy(np.ascontiguousarray(picture))[None]
        if times > MOST:
            sides = round(MOST * place.height), round(MOST * place.width)
            image = functional.interpolate(image, size=sides, mode="bilinear", antialias=True, align_corners=False)
        return cls(image, original, fit_square(image[0].numpy(), size=place.size, fit=fit), place, fit)

    def edited(self, edit: Edit) -> Images:
        """Apply one edit on a grid, (2, s, s) and (c, s, s), and read the result, (c, S, S)."""
        way = self._way(edit.displacement)
        return self._read(moved(self.image, way), self._added(edit.added, way))

    def put_back(self, displacement: Images) -> Images:
        """Move the picture by a displacement on a grid (2, s, s), and back, and read the result, (c, S, S)."""
        way = self._way(displacement)
        return self._read(moved(moved(self.image, way).clamp(0, 1), inverse(way)))

    def _added(self, added: Images, way: Tensor) -> Images:
        """Move what is added (c, s, s) where it is read, (c, S, S): drawn finer and read again, it would be blurred."""
        place, size = self.place, self.place.size
        wide = [size / place.width, 0.0, (size - 2 * place.left) / place.width - 1]
        high = [0.0, size / place.height, (size - 2 * place.top) / place.height - 1]
        grid = functional.affine_grid(torch.tensor([[wide, high]]), [1, 1, size, size], align_corners=False)
        steps = functional.grid_sample(way, grid, padding_mode="border", align_corners=False)
        steps = steps * torch.tensor([place.width / FIELD, place.height / FIELD]).view(2, 1, 1)
        fine = resampled(torch.from_numpy(np.ascontiguousarray(added))[None], size)
        drawn: Images = (moved(fine, steps) * (grid.abs() <= 1).all(dim=3))[0].numpy()
        return drawn

    def _way(self, displacement: Images) -> Tensor:
        """Give a displacement (2, s, s) on a grid over the picture alone, in steps of this grid: (1, 2, k, k)."""
        place, points = self.place, torch.from_numpy(np.ascontiguousarray(displacement))
        own = self._sampled(points * (FIELD / points.shape[-1]), (FIELD, FIELD))
        own = own * torch.tensor([place.size / place.width, place.size / place.height]).view(2, 1, 1)
        axis = torch.arange(FIELD)
        most = SHARE * (torch.minimum(axis, FIELD - 1 - axis) - RIM).clamp(min=0)
        most = torch.stack([most.expand(FIELD, FIELD), most[:, None].expand(FIELD, FIELD)])
        return own.clamp(-most, most)

    def _sampled(self, maps: Tensor, sides: tuple[int, int] | torch.Size) -> Tensor:
        """Take maps over the square (k, s, s) at `sides` points over the picture: (1, k, *sides)."""
        size, place = self.place.size, self.place
        wide = [place.width / size, 0.0, (2 * place.left + place.width) / size - 1]
        high = [0.0, place.height / size, (2 * place.top + place.height) / size - 1]
        grid = functional.affine_grid(torch.tensor([[wide, high]]), [1, len(maps), *sides], align_corners=False)
        return functional.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)

    def _read(self, drawn: Tensor, added: Images | float = 0.0) -> Images:
        """Read a picture drawn at its own size, and add to the original what differs, and what is `added`."""
        change = fit_square(drawn.clamp(0, 1)[0].numpy(), size=self.place.size, fit=self.fit) - self.seen + added
        read: Images = np.clip(self.original + change, 0, 1, dtype=np.float32)
        return read


def moved(images: Tensor, way: Tensor) -> Tensor:
    """Move images (1, c, H, W) by a displacement on a grid over them (1, 2, s, s); what stays is not interpolated."""
    if not way.any():
        return images
    height, width = images.shape[2:]
    steps = functional.interpolate(way, size=(height, width), mode="bilinear", align_corners=False)
    still = functional.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
    # Of twice as many points every second one is a pixel: half a point before where a picture so large has it.
    where = still + steps.permute(0, 2, 3, 1) * (2 / way.shape[-1]) - torch.tensor([0.5 / width, 0.5 / height])
    drawn = functional.grid_sample(finer(images), where, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.where((steps == 0).all(dim=1, keepdim=True), images, drawn)
