"""The family of edits: shade, contrast by scale, tone, tint and displacement, smooth over the frame of the atlas.

An edit is a vector of coefficients. Its maps lie in the atlas' frame, are carried to the image by its registration, and
act there: `x' = (x + m + sum_k (exp(g_k) - 1) band_k(x) + sum_j t_j h_j(x)) o (id + v)`, clipped to [0, 1]. So an
edit is an additive change and a displacement, and the edit of nothing is nothing. In colour x is the luminance; each of
the two opponent colours (`axes.py`) has kinds of its own, by the same formula, and all are moved together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from citlr.generators.base import REPLICATES
from citlr.generators.edits.atlas import SIDE
from citlr.generators.edits.warps import blur, gradient, warp
from citlr.generators.effects.axes import OPPONENTS, axes, red_green_blue

# Gaussians between the bands of an image, in 64ths of its side.
BANDS = (0.8, 2.0, 5.0)
# Kinds of change, and the channels of each; what moves single organs is one of its own.
LOCAL = "local displacement"
DISPLACEMENTS = ("displacement", LOCAL)
CHANNELS = {"shade": 1, "contrast": len(BANDS) + 1, "tone": 2} | dict.fromkeys(DISPLACEMENTS, 2)
# Of colour: what is added to an opponent colour, gain of its bands, and what it changes by with the grey value.
TINTS = {"tint": 1, "colour contrast": len(BANDS) + 1, "colour tone": 2}
# What adds to the values of an axis, multiplies its bands, and goes with the grey value.
SHADES, GAINS, TONES = ("shade", "tint"), ("contrast", "colour contrast"), ("tone", "colour tone")
# What a coefficient of 1 does: grey values, log gain of a band (the last is what is left below all bands), grey values
# at the middle of the scale, pixels of 64. About as much as an attribute does, so that kinds compare.
UNITS = {"shade": (0.1,), "contrast": (0.5, 0.5, 0.4, 0.1), "tone": (0.05, 0.05)} | dict.fromkeys(
    DISPLACEMENTS, (1.5, 1.5)
)
UNITS |= {"tint": (0.05,), "colour contrast": (0.5, 0.5, 0.4, 0.3), "colour tone": (0.03, 0.03)}
# Points along a side of the grids of coefficients, of each kind: what is smooth is written by few.
GRIDS = {"shade": (16, 8, 4), "contrast": (4, 1), "tone": (4, 1), "displacement": (4, 2), LOCAL: (8,)}
GRIDS |= {"tint": (8, 4), "colour contrast": (4, 1), "colour tone": (4, 1)}
# How far an edit goes at most: the logarithm of a gain, and a displacement along an axis in pixels of 64.
MOST_GAIN, MOST_DISPLACEMENT = 1.5, 6.0
# Points along a side of a block: what one variance is given to.
BLOCK = 4


@dataclass(frozen=True)
class Field:
    """One grid of coefficients: what it changes, where its coefficients stand, and the blocks they belong to.

    - `axis`: Of an image: 0 is the luminance, 1 and 2 the opponent colours.
    """

    kind: str
    channel: int
    grid: int
    start: int
    axis: int = 0

    @property
    def span(self) -> slice:
        """Its place in a vector of coefficients."""
        return slice(self.start, self.start + self.grid**2)

    @property
    def unit(self) -> float:
        """What a coefficient of 1 does."""
        return UNITS[self.kind][self.channel]

    @property
    def alike(self) -> int:
        """How many of its columns are of what both sides have alike; the rest is of what they have apart."""
        return self.grid if self.kind == LOCAL else (self.grid + 1) // 2

    def axes(self, size: int) -> tuple[Tensor, Tensor]:
        """Weights (size, grid) of its coefficients from top to bottom, and from side to side.

        A chest has two sides, and most of what an attribute does it does to both. So from side to side coefficients
        are of what both have alike, or apart; only single organs have one side.
        """
        down = hats(self.grid, size)
        return down, down if self.alike == self.grid else down @ mirrored(self.grid)


@dataclass(frozen=True)
class Family:
    """All fields of edits of images of one size."""

    size: int
    channels: int = 1

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The grids in the order of their coefficients."""
        found: list[Field] = []
        for axis, kinds in enumerate((CHANNELS, *(TINTS,) * (OPPONENTS if self.channels > 1 else 0))):
            for kind, channels in kinds.items():
                for channel in range(channels):
                    for grid in GRIDS[kind]:
                        start = found[-1].span.stop if found else 0
                        found.append(Field(kind, channel, grid, start, axis))
        return tuple(found)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of change."""
        return tuple(dict.fromkeys(field.kind for field in self.fields))

    @property
    def width(self) -> int:
        """Number of coefficients."""
        return self.fields[-1].start + self.fields[-1].grid ** 2

    @cached_property
    def blocks(self) -> Tensor:
        """The block of every coefficient (width,), counted from 0; alike on both sides and apart are never in one."""
        found, first = [], 0
        for field in self.fields:
            down, across = torch.arange(field.grid) // BLOCK, torch.arange(field.alike) // BLOCK
            across = torch.cat([across, int(across.max()) + 1 + torch.arange(field.grid - field.alike) // BLOCK])
            own = down[:, None] * (int(across.max()) + 1) + across
            found.append(own.flatten() + first)
            first += int(own.max()) + 1
        return torch.cat(found)

    def columns(self, kinds: str | tuple[str, ...]) -> Tensor:
        """Mark the coefficients (width,) of some kinds."""
        chosen = torch.zeros(self.width, dtype=torch.bool)
        for field in self.fields:
            if field.kind in kinds:
                chosen[field.span] = True
        return chosen

    def maps(self, coefficients: Tensor, axis: int = 0) -> dict[str, Tensor]:
        """Draw coefficients (n, width) of one axis as maps in the atlas' frame: by kind, (n, channels, s, s)."""
        n, unit, kinds = len(coefficients), self.size / 64, TINTS if axis else CHANNELS
        drawn = {kind: coefficients.new_zeros(n, channels, self.size, self.size) for kind, channels in kinds.items()}
        for field in self.fields:
            if field.axis != axis:
                continue
            own = coefficients[:, field.span].reshape(n, field.grid, field.grid) * field.unit
            down, across = (axis.to(own) for axis in field.axes(self.size))
            drawn[field.kind][:, field.channel] += down @ own @ across.T
        return drawn | {kind: drawn[kind] * unit for kind in DISPLACEMENTS if kind in drawn}

    def split(self, images: Tensor, coefficients: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Give the edits of images (n, c, s, s): what they add (n, c, s, s) and displacements (n, 2, s, s)."""
        maps, along, added = self.maps(coefficients), axes(images), []
        curves = tones(along[:, :1])
        for number, own in enumerate(torch.split(along, 1, dim=1)):
            of_axis = self.maps(coefficients, number) if number else maps
            shade, contrast, tone = (
                warp(of_axis[kinds[1 if number else 0]], frame.back) for kinds in (SHADES, GAINS, TONES)
            )
            gains = (contrast.clamp(-MOST_GAIN, MOST_GAIN).exp() - 1) * bands(own)
            one = shade + gains.sum(dim=1, keepdim=True)
            added.append(one + (tone * curves).sum(dim=1, keepdim=True))
        # A step in the atlas is a longer one in a larger chest: by the slope of its registration.
        slope = torch.eye(2).to(images).view(1, 2, 2, 1, 1) + gradient(frame.forth)
        pushed = torch.einsum("ncdyx,ndyx->ncyx", slope, sum(maps[kind] for kind in DISPLACEMENTS))
        most = MOST_DISPLACEMENT * self.size / 64
        return red_green_blue(torch.cat(added, dim=1)), warp(pushed, frame.back).clamp(-most, most)


@dataclass(frozen=True)
class Frame:
    """The way of images into the atlas (`forth`) and back, displacements (n, 2, s, s) in pixels each."""

    forth: Tensor
    back: Tensor


def apply(images: Tensor, added: Tensor, displacement: Tensor) -> Tensor:
    """Apply edits to images (n, c, s, s) in [0, 1]: change the values, then move them."""
    return warp(images + added, displacement).clamp(0, 1)


def bands(images: Tensor) -> Tensor:
    """Take one axis of images (n, 1, s, s) apart by scale, (n, 4, s, s): the parts add up to it."""
    unit, rest, found = images.shape[-1] / 64, images, []
    for sigma in BANDS:
        smooth = blur(images, sigma * unit)
        found.append(rest - smooth)
        rest = smooth
    return torch.cat([*found, rest], dim=1)


def tones(images: Tensor) -> Tensor:
    """Curves over grey values that leave black and white in place: two channels of images (n, 1, s, s)."""
    own = images.clamp(0, 1)
    bow = own * (1 - own)
    return torch.cat([4 * bow, 10 * bow * (1 - 2 * own)], dim=1)


@lru_cache(maxsize=32)
def hats(grid: int, size: int) -> Tensor:
    """Smooth weights of the points of a grid along an axis, (size, grid); they add up to 1 at every pixel."""
    if grid == 1:
        return torch.ones(size, 1)
    step = size / grid
    points = torch.arange(grid) * step + step / 2 - 0.5
    weights = torch.exp(-0.5 * ((torch.arange(size)[:, None] - points[None]) / (0.75 * step)) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


@lru_cache(maxsize=32)
def mirrored(grid: int) -> Tensor:
    """Orthogonal columns (grid, grid) of points along an axis: first alike on both sides of its middle, then apart."""
    half = torch.eye(grid)[:, : grid // 2]
    middle = torch.eye(grid)[:, grid // 2 : (grid + 1) // 2]
    return torch.cat([0.5**0.5 * (half + half.flip(0)), middle, 0.5**0.5 * (half - half.flip(0))], dim=1)


class Edits(nn.Module):
    """What was learnt of all attributes: one row per contrast of the attributes.

    - `atlas` (1, 2, SIDE, SIDE), `least`: the frame, and the likeness below which an image is left as it is.
    - `coefficients` (contrasts, width), `draws` (replicates, contrasts, width): edits, and what is left open of them.
    - `in_atlas`, `on_film` (contrasts, c * s, s): fine structure of either frame, the axes one below the other.
    - `aligned`: by number of the attribute, the alignment of what these leave, where it was kept.
    """

    atlas: Tensor
    least: Tensor
    coefficients: Tensor
    draws: Tensor
    in_atlas: Tensor
    on_film: Tensor

    def __init__(self, count: int, family: Family) -> None:
        super().__init__()
        self.register_buffer("atlas", torch.zeros(1, 2, SIDE, SIDE))
        self.register_buffer("least", torch.tensor(-1.0))
        self.register_buffer("coefficients", torch.zeros(count, family.width))
        self.register_buffer("draws", torch.zeros(REPLICATES, count, family.width))
        self.register_buffer("in_atlas", torch.zeros(count, family.channels * family.size, family.size))
        self.register_buffer("on_film", torch.zeros(count, family.channels * family.size, family.size))
        self.aligned = nn.ModuleDict()
