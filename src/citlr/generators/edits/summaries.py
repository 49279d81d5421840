"""What is measured of an image, and how edits change it.

An image's summary holds the grey values in the atlas' frame, the energy of its bands there, and its own way into the
atlas: shade, contrast and displacement show in different parts of it. More numbers say less: their error has to be
learnt from the same patients. How a summary answers to an edit is measured by editing: registration sees a part of a
displacement only, and takes shade for displacement, so that no formula knows it. Colour it does not see: how opponent
colours answer to their own kinds of change, the formula knows.
"""

import torch
from torch import Tensor
from torch.nn import functional

from citlr.generators.edits.atlas import BATCH, register
from citlr.generators.edits.family import (
    CHANNELS,
    DISPLACEMENTS,
    LOCAL,
    SHADES,
    TONES,
    Family,
    Frame,
    apply,
    bands,
    tones,
)
from citlr.generators.edits.warps import inverse, resized, warp
from citlr.generators.effects.axes import OPPONENTS, axes
from citlr.learning.beside import beside
from citlr.learning.store import spans

# Points along a side: of grey values, of energies and displacements; of opponent colours, which vary less from place to
# place, fewer each.
GREYS, CELLS = 16, 8
TINTS, TINT_CELLS = 8, 4
BANDS = 3
# Below this standard deviation (squared) a band is as good as empty: its logarithm says nothing of the image.
EMPTY = 2e-4
# Share of a displacement that registration is taken to see, before that is measured; and how far from the formulas
# the measured answers may go.
SEEN = 0.8
TRUST = 0.5
# Size of the random edits, and what of them is measured: finer shades are left to the formula.
SPREAD = 0.5
COARSE = 8


def summaries(images: Tensor, forth: Tensor) -> Tensor:
    """Summarise images (n, c, s, s) whose registration at their own size is `forth`: (n, width)."""
    luminance, *opponents = torch.split(axes(warp(images, forth)), 1, dim=1)
    moved = functional.adaptive_avg_pool2d(forth * (64 / images.shape[-1]), CELLS).flatten(1)
    found = [*_of_axis(luminance, GREYS, CELLS), moved]
    for own in opponents:
        found += _of_axis(own, TINTS, TINT_CELLS)
    return torch.cat(found, dim=1)


def _of_axis(registered: Tensor, points: int, cells: int) -> list[Tensor]:
    values = functional.adaptive_avg_pool2d(registered, points).flatten(1)
    return [values, (_energy(bands(registered)[:, :BANDS] ** 2, cells) + EMPTY).log().flatten(1)]


def width(channels: int = 1) -> int:
    """Length of a summary."""
    grey = GREYS**2 + (BANDS + 2) * CELLS**2
    return grey + (OPPONENTS * (TINTS**2 + BANDS * TINT_CELLS**2) if channels > 1 else 0)


def _spans(axis: int) -> tuple[slice, slice]:
    """Places in a summary of the values of an axis, and of its energies."""
    points, cells = (TINTS, TINT_CELLS) if axis else (GREYS, CELLS)
    values, energies = points**2, BANDS * cells**2
    start = width() + (axis - 1) * (values + energies) if axis else 0
    return slice(start, start + values), slice(start + values, start + values + energies)


def _energy(product: Tensor, cells: int) -> Tensor:
    """Local mean of a product in cells: (n, c, cells, cells)."""
    return functional.adaptive_avg_pool2d(product, cells)


def way_of(images: Tensor, atlas: Tensor) -> Tensor:
    """Register images (n, c, s, s): displacements (n, 2, s, s) into the atlas."""
    return resized(register(images, atlas), images.shape[-1])


def frame_of(images: Tensor, atlas: Tensor) -> Frame:
    """Register images (n, c, s, s), there and back."""
    forth = way_of(images, atlas)
    return Frame(forth, inverse(forth))


def edited(family: Family, images: Tensor, coefficients: Tensor, frame: Frame, added: Tensor | None = None) -> Tensor:
    """Edit images (n, c, s, s) by coefficients (n, width), and what is added; nothing changes nothing."""
    if not coefficients.any() and (added is None or not added.any()):
        return images

    def done(part: slice) -> Tensor:
        own = Frame(frame.forth[part], frame.back[part])
        smooth, displacement = family.split(images[part], coefficients[part], own)
        return apply(images[part], smooth if added is None else smooth + added[part], displacement)

    return torch.cat(beside(done, list(spans(len(images), BATCH))))


def formula(family: Family, registered: Tensor) -> Tensor:
    """Give the derivative (width, coefficients) of the mean summary, if registration sees no shade."""
    table = torch.zeros(width(family.channels), family.width)
    moves = slice(width() - 2 * CELLS**2, width())
    each = [_Axis(number, one) for number, one in enumerate(torch.split(axes(registered), 1, dim=1))]
    curves = tones(each[0].registered)
    for field in family.fields:
        bumps = field.unit * torch.einsum("yi,xj->ijyx", *field.axes(family.size))
        bumps = bumps.reshape(-1, 1, family.size, family.size)
        if field.kind in DISPLACEMENTS:
            moved = torch.zeros(len(bumps), 2, family.size, family.size)
            moved[:, field.channel] = -SEEN * bumps[:, 0]
            table[moves, field.span] = functional.adaptive_avg_pool2d(moved, CELLS).flatten(1).T
            continue
        own = each[field.axis]
        if field.kind in SHADES:
            own.answers(table[:, field.span], bumps, None)
        else:
            basis = curves if field.kind in TONES else own.bands
            own.answers(table[:, field.span], bumps, basis[:, [field.channel]])
    return table


class _Axis:
    """One axis of registered images (n, 1, s, s), and how its part of a summary answers."""

    def __init__(self, number: int, registered: Tensor) -> None:
        self.registered, self.bands = registered, bands(registered)
        self.points, self.cells = (TINTS, TINT_CELLS) if number else (GREYS, CELLS)
        self.spans = _spans(number)
        energy = _energy(self.bands[:, :BANDS] ** 2, self.cells) + EMPTY
        self.level = functional.interpolate(energy, size=registered.shape[-2:], mode="nearest")

    def answers(self, table: Tensor, bumps: Tensor, channel: Tensor | None) -> None:
        """Write into a table (width, k) what bumps (k, 1, s, s) change, of a channel (n, 1, s, s) or by themselves."""
        own = self.bands[:, :BANDS]
        # An energy answers by twice the product of band and change, against the energy.
        if channel is None:
            change, answer = bumps, (own / self.level).mean(dim=0, keepdim=True) * bands(bumps)[:, :BANDS]
        else:
            change = bumps * channel.mean(dim=0, keepdim=True)
            answer = bumps * (own * bands(channel)[:, :BANDS] / self.level).mean(dim=0, keepdim=True)
        values, energies = self.spans
        table[values] = functional.adaptive_avg_pool2d(change, self.points).flatten(1).T
        table[energies] = _energy(2 * answer, self.cells).flatten(1).T


def measured(family: Family, images: Tensor, frame: Frame, atlas: Tensor, *, seed: int) -> Tensor:
    """Measure the derivative (width of a summary, coefficients) on images that are edited at random, to and fro.

    Displacements of single organs are measured apart from all other kinds: their random edits would drown those. What
    changes opponent colours only is left to the formula.
    """
    random = torch.Generator().manual_seed(seed % 2**63)
    table = formula(family, warp(images, frame.forth))
    local = family.columns(LOCAL)
    for columns in (~local & family.columns(tuple(CHANNELS)), local):
        coefficients = torch.randn(len(images), family.width, generator=random) * SPREAD * columns
        for field in family.fields:
            if field.kind in SHADES:
                coefficients[:, field.span] *= 0.8 if field.grid <= COARSE else 0.0
        table += _correction(family, images, frame, atlas, coefficients, table)
    return table


def _correction(
    family: Family, images: Tensor, frame: Frame, atlas: Tensor, coefficients: Tensor, table: Tensor
) -> Tensor:
    """Find what a derivative lacks by random edits (n, width); columns that none of them has get nothing.

    Ridge regression of the change of summaries on the coefficients, towards the derivative that is there: as many
    images as there are coefficients, or fewer, say too little alone.
    """
    ends = []
    for way in (1, -1):
        there = edited(family, images, way * coefficients, frame)
        ends.append(summaries(there, way_of(there, atlas)))
    rest = (ends[0] - ends[1]) / 2 - coefficients @ table.T
    scale = coefficients.pow(2).mean(dim=0)
    normal = coefficients.T @ coefficients / len(images) + torch.diag(TRUST * scale + 1e-6)
    change: Tensor = torch.linalg.solve(normal, coefficients.T @ rest / len(images)).T
    return change
