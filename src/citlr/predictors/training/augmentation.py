"""Small random changes of a radiograph that leave its findings as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Turn by up to 10 degrees, scale by up to 10 %, shift by up to 6 %, change contrast and brightness.

    Never mirrored: the heart is on the left.

    Shapes: `images` (n, c, H, W); gives (n, c, H, W).
    """

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=rng) * 2 - 1).to(images.device)

    n = len(images)
    angle, scale, shift = 0.17 * uniform(n), 1 + 0.1 * uniform(n), 0.12 * uniform(n, 2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    images = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = 1 + 0.2 * uniform(n, 1, 1, 1), 0.1 * uniform(n, 1, 1, 1)
    return ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
