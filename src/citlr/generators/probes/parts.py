"""The parts of a probe: what it reads, the networks that read it, and the blocks that these are built of."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from citlr.generators.variables import Variable, as_level


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; group norm, since batch statistics would mix joint and product pairs.

    - `inputs`, `outputs`: Channels; of more than 8, a multiple of 8.
    - `stride`: What height and width are divided by.
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


def _stages(channels: tuple[int, ...]) -> nn.Sequential:
    """Make a block for each width; each after the first halves the resolution."""
    pairs = enumerate(itertools.pairwise((channels[0], *channels)))
    return nn.Sequential(*(Residual(a, b, stride=1 if k == 0 else 2) for k, (a, b) in pairs))


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
        self.stages = _stages(channels)
        self.grid = grid
        self.head = nn.Linear(channels[-1] * grid**2, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, held: Tensor) -> Tensor:
        """Score every level, (n, outputs), with latents (n, c, h, w) and held codes (n, k); c + k is `inputs`."""
        x = self.stem(torch.cat([z, held[:, :, None, None].expand(-1, -1, *z.shape[2:])], dim=1))
        x = functional.silu(self.stages(x))
        score: Tensor = self.head(functional.adaptive_avg_pool2d(x, self.grid).flatten(1))
        return score


# The raster that the fine probe works on, whatever the size of the images.
RASTER = 32


class ProbeNet(nn.Module):
    """Images (n, c, s, s) to features (n, d), and from these to one set of logits per target.

    - `sizes`: Number of levels of each target.
    - `channels`: Widths; each stage after the first halves the resolution.
    """

    # Channels that `prepared` gives of one channel of an image.
    inputs = 4

    def __init__(
        self, sizes: Sequence[int], channels: tuple[int, ...] = (16, 32, 64), *, image_channels: int = 1
    ) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.stem = nn.Conv2d(self.inputs * image_channels, channels[0], 3, padding=1)
        self.stages = _stages(channels)
        # Where a finding sits matters: a 4 x 4 grid of averages keeps it, a global average would not.
        self.squeeze = nn.Conv2d(channels[-1], 16, 1)
        self.mix = nn.Linear(16 * 16 + channels[-1], channels[-1])
        self.heads = nn.ModuleList(nn.Linear(channels[-1], size) for size in sizes)
        self.to(memory_format=torch.channels_last)

    def prepared(self, images: Tensor) -> Tensor:
        """Give what the first convolution sees, (n, inputs * c, h, w), of images (n, c, s, s) in [0, 1]."""
        return functional.pixel_unshuffle(images * 2 - 1, 2)

    def features(self, images: Tensor) -> Tensor:
        """Give features (n, d) of images (n, c, s, s) in [0, 1]; d is the last of the widths."""
        x = self.stem(self.prepared(images).contiguous(memory_format=torch.channels_last))
        x = functional.silu(self.stages(x))
        grid = functional.adaptive_avg_pool2d(self.squeeze(x), 4).flatten(1)
        return functional.silu(self.mix(torch.cat([grid, x.mean(dim=(2, 3))], dim=1)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Give the logits of each target, (n, levels), of images (n, c, s, s) in [0, 1]."""
        found = self.features(images)
        return [head(found) for head in self.heads]


class ResNetProbe(nn.Module):
    """The publication's attribute classifier: ResNet-34 (He et al. 2016), one head per target."""

    def __init__(self, sizes: Sequence[int], *, image_channels: int = 1) -> None:
        super().__init__()
        self.image_channels = image_channels
        from torchvision.models import resnet34

        self.net = resnet34(weights=None)
        self.net.conv1 = nn.Conv2d(image_channels, 64, 7, stride=2, padding=3, bias=False)
        self.net.fc = nn.Identity()
        self.heads = nn.ModuleList(nn.Linear(512, size) for size in sizes)
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Give pooled features (n, 512) of images (n, c, s, s) in [0, 1]."""
        found: Tensor = self.net((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        return found

    def forward(self, images: Tensor) -> list[Tensor]:
        """Give the logits of each target, (n, levels), of images (n, c, s, s) in [0, 1]."""
        found = self.features(images)
        return [head(found) for head in self.heads]


class FineProbeNet(ProbeNet):
    """A probe that sees texture of single pixels in images of any size, at the cost of one of `RASTER` x 2 pixels.

    A network of strides and averages learns in some hundred steps what many pixels show together, and not that
    neighbours differ more in one image than in another. So it is handed that: beside the image, averaged to the raster,
    the logarithm of how strong its differences are (Haar wavelets along rows, columns and diagonals, undecimated;
    Mallat 1989) at distances of 1, 2, 4, ... pixels, in every cell of the raster.

    >>> net = FineProbeNet([2], size=96)
    >>> net.prepared(torch.zeros(1, 1, 96, 96)).shape, net(torch.zeros(1, 1, 96, 96))[0].shape
    (torch.Size([1, 7, 32, 32]), torch.Size([1, 2]))
    """

    def __init__(self, sizes: Sequence[int], *, size: int, image_channels: int = 1) -> None:
        cell = max(1, size // RASTER)
        self.reaches = tuple(2**k for k in range(cell.bit_length()) if 2**k <= max(1, cell // 2))
        self.inputs = 4 + 3 * len(self.reaches)
        super().__init__(sizes, image_channels=image_channels)

    def prepared(self, images: Tensor) -> Tensor:
        """Give the image at twice the raster, taken apart, and the strength of its differences, on the raster."""
        image = functional.adaptive_avg_pool2d(images * 2 - 1, 2 * RASTER)
        parts = [functional.pixel_unshuffle(image, 2)]
        for reach in self.reaches:
            across = images[..., reach:] - images[..., :-reach]
            down = images[..., reach:, :] - images[..., :-reach, :]
            diagonal = across[..., reach:, :] - across[..., :-reach, :]
            for one in (across, down, diagonal):
                strength = functional.adaptive_avg_pool2d(one.abs(), RASTER)
                # Film noise is about e^-4 of the grey scale: the logarithm lies around 0.
                parts.append(torch.log(strength + 1e-3) + 4)
        return torch.cat(parts, dim=1)


def make_net(architecture: str, counts: Sequence[int], size: int, image_channels: int = 1) -> ProbeNet | ResNetProbe:
    """Make an untrained network for targets of so many levels each, and images of this size and so many channels."""
    if architecture == "fine":
        return FineProbeNet(counts, size=size, image_channels=image_channels)
    kind = ResNetProbe if architecture == "resnet34" else ProbeNet
    return kind(counts, image_channels=image_channels)


# Architectures of probes, with the learning rate that each is trained with.
ARCHITECTURES: dict[str, float] = {"small": 2e-3, "fine": 2e-3, "resnet34": 5e-4}


@dataclass(frozen=True)
class Target:
    """One thing that a probe reads: a column and its levels.

    - `levels`: Its levels; of a number, its groups.
    - `cuts`: A number's inner edges; empty for a set of levels.
    - `centres`: A number's mean in each group.
    """

    name: str
    levels: tuple[str, ...]
    cuts: tuple[float, ...] = ()
    centres: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, column: pd.Series, *, groups: int = 2) -> Self:
        """Describe a column of the training split."""
        variable = Variable.of(name, column)
        if variable.levels:
            return cls(name, variable.levels)
        given = column.dropna().to_numpy(dtype=np.float64)
        cuts = np.unique(np.quantile(given, np.arange(1, groups) / groups))
        index = np.searchsorted(cuts, given, side="left")
        kept = np.unique(index)
        # A group that ties have emptied is none.
        cuts = cuts[: len(kept) - 1]
        index = np.searchsorted(cuts, given, side="left")
        centres = tuple(float(given[index == k].mean()) for k in np.unique(index))
        names = [f"at most {cut:g}" for cut in cuts] + [f"above {cuts[-1]:g}" if len(cuts) else "any"]
        return cls(name, tuple(names), tuple(float(cut) for cut in cuts), centres)

    def numbers(self, readings: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Give `sum_k p_k centre_k` of probabilities (..., levels): the expected number (...), in the column's unit."""
        expected: npt.NDArray[np.float64] = np.asarray(readings, dtype=np.float64) @ np.asarray(self.centres)
        return expected

    def code(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """Give the index (n,) of each row's level, -1 where it is missing or unknown.

        >>> Target("sex", ("F", "M")).code(pd.Series(["M", None, "F", "?"])).tolist()
        [1, -1, 0, -1]
        """
        codes = np.full(len(column), -1, dtype=np.int64)
        given = column.notna().to_numpy()
        if self.centres:
            numbers = column[given].to_numpy(dtype=np.float64)
            codes[given] = np.searchsorted(np.asarray(self.cuts), numbers, side="left")
            return codes
        # A level that the training split does not have is as good as missing.
        index = {level: k for k, level in enumerate(self.levels)}
        codes[given] = [index.get(as_level(value), -1) for value in column[given]]
        return codes
