"""Networks that read: a residual stage, and a critic of two inputs."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; group norm, since batch statistics would mix joint and product pairs.

    - `inputs`, `outputs`: Channels; of more than 8, a multiple of 8.
    - `stride`: What height and width are divided by.

    >>> Residual(8, 16, stride=2)(torch.zeros(1, 8, 4, 4)).shape
    torch.Size([1, 16, 2, 2])
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(min(8, inputs), inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
            nn.GroupNorm(min(8, outputs), outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)
        # `forward` chooses the pixels, not the shortcut's stride: torch 2.14.1 (its oneDNN) writes past its memory in
        # the backward pass of a 1x1 convolution of stride 2 on fewer than 16 channels, channels last, from side 48 on.
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (n, inputs, h, w) to (n, outputs, h / stride, w / stride), rounded up."""
        every = x if self.stride == 1 else functional.avg_pool2d(x, 1, self.stride)
        out: Tensor = self.body(x) + self.shortcut(every)
        return out


class Critic(nn.Module):
    """T(z, a, h): a small residual network on the latent (ResNet-18's shape), with the held codes as planes.

    It puts out one score per level of the attribute, and T is the level's. That is as general as giving it the level as
    planes, and scores an image with every level in one pass: the product distribution needs no sampling then.

    - `inputs`: Channels of the latent and length of the held codes together.
    - `outputs`: Levels of the attribute (combinations of levels, if there are several attributes).
    - `channels`: Widths; each stage after the first halves the resolution.
    - `grid`: The features are averaged over a grid x grid raster; 1 is the usual global average, which cannot tell
      where something is and needs several times the steps to find a shadow at a fixed place.
    """

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], grid: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, channels[0], 3, padding=1)
        widths = (channels[0], *channels)
        self.stages = nn.ModuleList(
            Residual(a, b, stride=1 if k == 0 else 2) for k, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.grid = grid
        self.head = nn.Linear(channels[-1] * grid**2, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, held: Tensor) -> Tensor:
        """Score every level, (n, outputs), with latents (n, c, h, w) and held codes (n, k); c + k is `inputs`."""
        x = self.stem(torch.cat([z, held[:, :, None, None].expand(-1, -1, *z.shape[2:])], dim=1))
        for stage in self.stages:
            x = stage(x)
        score: Tensor = self.head(functional.adaptive_avg_pool2d(functional.silu(x), self.grid).flatten(1))
        return score
