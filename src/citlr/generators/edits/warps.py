"""Blurring, moving and comparing images: what registration and edits are made of.

A displacement (n, 2, s, s) holds x and y in pixels: the moved image at p is the image at p + u(p).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

# Zeros of a sinc on either side up to which it counts.
LOBES = 6


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (n, c, s, s) by a Gaussian of `sigma` pixels; beyond the border, the border goes on."""
    # Two products of matrices: on a processor about twenty times as fast as convolutions of one channel.
    weights = _gaussian(images.shape[-1], sigma).to(images)
    return weights @ (images @ weights.T)


@lru_cache(maxsize=64)
def _gaussian(size: int, sigma: float) -> Tensor:
    """Weights (s, s) of the pixels along an axis for every blurred one."""
    reach = max(1, math.ceil(3 * sigma))
    steps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    taken = (torch.arange(size)[:, None] + steps).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, taken, (kernel / kernel.sum()).expand(size, -1))


def places(size: int, like: Tensor) -> Tensor:
    """Positions (x, y) of pixels, (2, s, s)."""
    axis = torch.arange(size).to(like)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y])


def warp(images: Tensor, displacement: Tensor, *, sharp: bool = False) -> Tensor:
    """Take every pixel of images (n, c, s, s) from where the displacement (n, 2, s, s) points to.

    Between two pixels their mean is a blur. `sharp` takes cubic weights between pixels of twice the resolution, which
    keep nearly all of the detail.
    """
    where = (places(images.shape[-1], images) + displacement).permute(0, 2, 3, 1)
    if sharp:
        images, where = finer(images), 2 * where
    scaled = (where + 0.5) * 2 / images.shape[-1] - 1
    mode = "bicubic" if sharp else "bilinear"
    return functional.grid_sample(images, scaled, mode=mode, padding_mode="border", align_corners=False)


def finer(images: Tensor) -> Tensor:
    """Give images (n, c, h, w) at twice the resolution, (n, c, 2 h, 2 w): pixels, and points half a pixel further on.

    Of these a sinc under a wider one (Duchon 1979) is taken; beyond the border, the border goes on.
    """
    for axis in (2, 3):
        count, ahead = images.shape[axis], [0] * 4
        ahead[6 - 2 * axis : 8 - 2 * axis] = [LOBES - 1, LOBES]
        wider, between = functional.pad(images, ahead, mode="replicate"), torch.zeros_like(images)
        for step, weight in enumerate(_sinc()):
            between.add_(wider.narrow(axis, step, count), alpha=weight)
        images = torch.stack([images, between], dim=axis + 1).flatten(axis, axis + 1)
    return images


@lru_cache(maxsize=1)
def _sinc() -> list[float]:
    """Weights of the pixels around a point half-way between two of them."""
    away = torch.arange(1 - LOBES, LOBES + 1).double() - 0.5
    weights = torch.sinc(away) * torch.sinc(away / LOBES)
    found: list[float] = (weights / weights.sum()).tolist()
    return found


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Give the displacement that moves by `first` and the result by `then`: warp(warp(x, first), then)."""
    return then + warp(first, then)


def inverse(displacement: Tensor, rounds: int = 12) -> Tensor:
    """Find the displacement that undoes one, by fixed-point iteration."""
    back = -displacement
    for _ in range(rounds):
        back = -warp(displacement, back)
    return back


def gradient(images: Tensor) -> Tensor:
    """Central differences of images (n, c, s, s) along x and y: (n, c, 2, s, s), zero at the border."""
    change = images.new_zeros(*images.shape[:2], 2, *images.shape[2:])
    change[:, :, 0, :, 1:-1] = (images[..., :, 2:] - images[..., :, :-2]) / 2
    change[:, :, 1, 1:-1, :] = (images[..., 2:, :] - images[..., :-2, :]) / 2
    return change


def affine_displacement(matrices: Tensor, size: int) -> Tensor:
    """Displacements of affine maps (n, 2, 3), whose coordinates run from -1 to 1 over the image."""
    scaled = (places(size, matrices) + 0.5) * 2 / size - 1
    with_one = torch.cat([scaled, torch.ones_like(scaled[:1])]).reshape(3, -1)
    return (matrices @ with_one).reshape(-1, 2, size, size) * (size / 2)


def resized(displacement: Tensor, size: int) -> Tensor:
    """Give displacements at another size, in pixels of that size."""
    factor = size / displacement.shape[-1]
    return functional.interpolate(displacement, size=(size, size), mode="bilinear", align_corners=False) * factor
