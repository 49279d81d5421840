"""A common frame for images of one kind of anatomy: a mean image of structure, and every image's way into it.

Images are compared by locally normalised structure (contrast and shading taken off), first by an affine map found by
Gauss-Newton steps, then by demons (Thirion 1998; Vercauteren 2009), at 32 pixels: enough for the place of organs.
The atlas is the mean of the registered structure, drawn sharper in every round, with the mean displacement taken off
(Guimond 2000), so that no image is its frame.
"""

import torch
from torch import Tensor
from torch.nn import functional

from citlr.generators.edits.warps import affine_displacement, blur, compose, gradient, inverse, places, warp
from citlr.generators.effects.axes import grey
from citlr.learning.beside import beside

SIDE = 32
BATCH = 128
# Rounds of the atlas, and the steps of demons in each: places first, shapes last.
ROUNDS = (0, 0, 0, 0, 8, 15)
DEMONS = 15
# Gaussians that keep a displacement smooth, in pixels of SIDE: of each step, and of the whole.
FLUID, ELASTIC = 1.2, 0.6
LONGEST = 1.5


def structure(images: Tensor) -> Tensor:
    """Take shading and contrast off the luminance of images (n, c, s, s): two kinds of detail (n, 2, SIDE, SIDE)."""
    unit, own = images.shape[-1] / 64, grey(images)
    channels = [_normalised(own, fine * unit, broad * unit) for fine, broad in ((0.8, 5.0), (2.0, 12.0))]
    return functional.adaptive_avg_pool2d(torch.cat(channels, dim=1), SIDE)


def _normalised(images: Tensor, fine: float, broad: float, floor: float = 0.02) -> Tensor:
    smooth = blur(images, fine)
    rest = smooth - blur(smooth, broad)
    return rest / (blur(rest * rest, broad) + floor**2).sqrt()


def parts_of(images: Tensor) -> list[Tensor]:
    """Cut images into pieces that are worked on together."""
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def build_atlas(images: Tensor) -> Tensor:
    """Find the mean structure (1, 2, SIDE, SIDE) of images (n, c, s, s) that brings them together."""
    found = torch.cat([structure(part) for part in parts_of(images)])
    atlas = found.mean(dim=0, keepdim=True)
    affine = found.new_zeros(len(found), 2, 3)
    for number, demons in enumerate(ROUNDS):
        parts = zip(parts_of(found), parts_of(affine), strict=True)
        affine = torch.cat([_affine(part, atlas, start, 4 if number == 0 else 2) for part, start in parts])
        affine = affine - affine.mean(dim=0, keepdim=True)
        starts = affine_displacement(affine, SIDE)
        moved = [_bent(part, atlas, u, demons) for part, u in zip(parts_of(found), parts_of(starts), strict=True)]
        back = inverse(torch.cat(moved).mean(dim=0, keepdim=True))
        drawn = [
            warp(part, compose(u, back.expand(len(u), -1, -1, -1)))
            for part, u in zip(parts_of(found), moved, strict=True)
        ]
        atlas = torch.cat(drawn).mean(dim=0, keepdim=True)
    return atlas


def register(images: Tensor, atlas: Tensor) -> Tensor:
    """Find the displacements (n, 2, SIDE, SIDE), in pixels of SIDE, that bring images (n, c, s, s) to the atlas."""

    def registered(part: Tensor) -> Tensor:
        own = structure(part)
        affine = _affine(own, atlas, own.new_zeros(len(own), 2, 3), 4)
        return _bent(own, atlas, affine_displacement(affine, SIDE), DEMONS)

    return torch.cat(beside(registered, parts_of(images)))


def likeness(images: Tensor, atlas: Tensor, displacement: Tensor) -> Tensor:
    """Correlation (n,) of every image's registered structure with the atlas: 1 is the same."""
    own = warp(structure(images), displacement).flatten(1)
    mean = atlas.flatten(1)
    own, mean = own - own.mean(dim=1, keepdim=True), mean - mean.mean(dim=1, keepdim=True)
    found: Tensor = (own * mean).sum(dim=1) / (own.norm(dim=1) * mean.norm(dim=1)).clamp_min(1e-9)
    return found


def _affine(own: Tensor, atlas: Tensor, start: Tensor, rounds: int) -> Tensor:
    """Improve affine maps (n, 2, 3): first between blurred structures, then between sharp ones."""
    coarse = _affine_steps(blur(own, 1.2), blur(atlas, 1.2), start, rounds)
    return _affine_steps(own, atlas, coarse, rounds)


def _affine_steps(own: Tensor, atlas: Tensor, matrices: Tensor, rounds: int) -> Tensor:
    n, c, size, _ = own.shape
    scaled = (places(size, own) + 0.5) * 2 / size - 1
    with_one = torch.cat([scaled, torch.ones_like(scaled[:1])]).reshape(3, -1)
    pairs = (with_one[:, None] * with_one[None]).reshape(9, -1).T
    for _ in range(rounds):
        moved = warp(own, affine_displacement(matrices, size))
        slopes = ((gradient(moved) + gradient(atlas)) * (size / 4)).reshape(n, c, 2, -1)
        # A pixel's row of the design is its slope times its place: products of slopes first, and the places once.
        squares = (slopes[:, :, :, None] * slopes[:, :, None]).sum(dim=1).reshape(n, 4, -1) @ pairs
        normal = squares.reshape(n, 2, 2, 3, 3).transpose(2, 3).reshape(n, 6, 6)
        rest = (atlas - moved).reshape(n, c, 1, -1)
        aim = ((slopes * rest).sum(dim=1) @ with_one.T).reshape(n, 6, 1)
        # A little of the mean curvature: an image that is all alike moves nowhere.
        ridge = 0.02 * normal.diagonal(dim1=1, dim2=2).mean(dim=1).view(-1, 1, 1) + 1e-6
        step = torch.linalg.solve(normal + ridge * torch.eye(6).to(own), aim)
        matrices = (matrices + step.reshape(n, 2, 3)).clamp(-0.45, 0.45)
    return matrices


def _bent(own: Tensor, atlas: Tensor, start: Tensor, steps: int) -> Tensor:
    """Add a smooth displacement to one that is there already."""
    if not steps:
        return start
    placed, bend = warp(own, start), torch.zeros_like(start)
    for _ in range(steps):
        moved = warp(placed, bend)
        rest, slope = atlas - moved, (gradient(moved) + gradient(atlas)) / 2
        push = (rest.unsqueeze(2) * slope).sum(dim=1)
        size = (slope**2).sum(dim=(1, 2)).unsqueeze(1) + (rest**2).sum(dim=1, keepdim=True)
        step = push / (size + 1e-3)
        longest = (step * step).sum(dim=1, keepdim=True).sqrt().clamp_min(LONGEST)
        step = step * (LONGEST / longest)
        bend = blur(compose(bend, blur(step, FLUID)), ELASTIC)
    return compose(start, bend)
