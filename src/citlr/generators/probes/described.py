"""Images in numbers that need no training: grey values, energies, directions and shapes of grains, place by place."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from citlr.data.pixels.colour import luminance
from citlr.generators.base import Images
from citlr.generators.edits.warps import blur, gradient

# Gaussians between the scales of a description, in 64ths of the side, and grey values that are counted.
SCALES = (0.8, 2.0, 5.0)
GREYS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
# Points along a side: of grey values, of local energies and directions, of what needs many pixels.
FINE, MIDDLE, COARSE = 16, 8, 4
EMPTY = 1e-4


def describe(images: Images) -> npt.NDArray[np.float32]:
    """Describe images (n, c, s, s) by numbers (n, width): grey values, energies, directions and shapes of grains.

    Images in colour are described by their luminance, and by what red and blue differ from it by, place by place.
    """
    if images.shape[1] > 1:
        grey = luminance(images)
        tint = functional.adaptive_avg_pool2d(torch.from_numpy(images[:, [0, 2]] - grey), MIDDLE).flatten(1)
        return np.concatenate([describe(grey), tint.numpy()], axis=1)
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), 256)
    return np.concatenate([_described(part).numpy() for part in parts])


def _described(images: Tensor) -> Tensor:
    unit, pool = images.shape[-1] / 64, functional.adaptive_avg_pool2d
    smooth = [images, *(blur(images, sigma * unit) for sigma in SCALES)]
    bands = [fine - coarse for fine, coarse in itertools.pairwise(smooth)]
    found = [pool(smooth[-1], MIDDLE), pool(bands[2], FINE), pool(bands[1], FINE)]
    found += [(pool(band**2, MIDDLE) + EMPTY).log() / 4 for band in bands]
    x, y = torch.split(gradient(smooth[1])[:, 0], 1, dim=1)
    across, along, both = pool(x * x, MIDDLE), pool(y * y, MIDDLE), pool(x * y, MIDDLE)
    steep = across + along + EMPTY / 10
    found += [(across - along) / steep, 2 * both / steep]
    for band in bands[:2]:
        energy = pool(band**2, COARSE) + EMPTY / 10
        found += [pool(band**3, COARSE) / energy**1.5, pool(band.abs(), COARSE) / energy.sqrt()]
        found += [pool(band[..., 1:] * band[..., :-1], COARSE) / energy]
        found += [pool(band[..., 1:, :] * band[..., :-1, :], COARSE) / energy]
    found += [pool(torch.sigmoid((images - grey) / 0.05), COARSE) for grey in GREYS]
    return torch.cat([one.flatten(1) for one in found], dim=1)
