"""What is measured of an image, and how edits change it.

An image's summary holds the grey values in the atlas' frame, the energy of its bands there, and its own way into the
atlas: shade, contrast and displacement show in different parts of it. More numbers say less: their error has to be
learnt from the same patients. How a summary answers to an edit is measured by editing: registration sees a part of a
displacement only, and takes shade for displacement, so that no formula knows it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from citlr.generators.edits.atlas import BATCH, register
from citlr.generators.edits.family import DISPLACEMENTS, LOCAL, Family, Frame, apply, bands, tones
from citlr.generators.edits.warps import inverse, resized, warp

# Points along a side: of grey values, of energies and displacements.
GREYS, CELLS = 16, 8
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
    """Summarise images (n, 1, s, s) whose registration at their own size is `forth`: (n, width)."""
    registered = warp(images, forth)
    greys = functional.adaptive_avg_pool2d(registered, GREYS).flatten(1)
    moved = functional.adaptive_avg_pool2d(forth * (64 / images.shape[-1]), CELLS).flatten(1)
    energies = (_energy(bands(registered)[:, :BANDS]) + EMPTY).log().flatten(1)
    return torch.cat([greys, energies, moved], dim=1)


def width() -> int:
    """Length of a summary."""
    return GREYS**2 + (BANDS + 2) * CELLS**2


def _energy(of: Tensor, other: Tensor | None = None) -> Tensor:
    """Local mean of a square, or of a product of two, in cells: (n, c, CELLS, CELLS)."""
    return functional.adaptive_avg_pool2d(of * (of if other is None else other), CELLS)


def frame_of(images: Tensor, atlas: Tensor) -> Frame:
    """Register images (n, 1, s, s), at their own size."""
    forth = resized(register(images, atlas), images.shape[-1])
    return Frame(forth, inverse(forth))


def edited(family: Family, images: Tensor, coefficients: Tensor, frame: Frame, added: Tensor | None = None) -> Tensor:
    """Edit images (n, 1, s, s) by coefficients (n, width), and what is added; nothing changes nothing."""
    if not coefficients.any() and (added is None or not added.any()):
        return images
    done = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        own = Frame(frame.forth[part], frame.back[part])
        smooth, displacement = family.split(images[part], coefficients[part], own)
        done.append(apply(images[part], smooth if added is None else smooth + added[part], displacement))
    return torch.cat(done)


def formula(family: Family, registered: Tensor) -> Tensor:
    """Give the derivative (width, coefficients) of the mean summary, if registration sees no shade."""
    table = torch.zeros(width(), family.width)
    greys, energies = slice(0, GREYS**2), slice(GREYS**2, GREYS**2 + BANDS * CELLS**2)
    own = bands(registered)
    # An energy answers by twice the product of band and change, against the energy.
    level = functional.interpolate(_energy(own[:, :BANDS]) + EMPTY, size=registered.shape[-2:], mode="nearest")
    basis = {"contrast": own, "tone": tones(registered)}
    for field in family.fields:
        bumps = field.unit * torch.einsum("yi,xj->ijyx", *field.axes(family.size))
        bumps = bumps.reshape(-1, 1, family.size, family.size)
        if field.kind in DISPLACEMENTS:
            moved = torch.zeros(len(bumps), 2, family.size, family.size)
            moved[:, field.channel] = -SEEN * bumps[:, 0]
            table[energies.stop :, field.span] = functional.adaptive_avg_pool2d(moved, CELLS).flatten(1).T
            continue
        if field.kind == "shade":
            change, answer = bumps, (own[:, :BANDS] / level).mean(dim=0, keepdim=True) * bands(bumps)[:, :BANDS]
        else:
            channel = basis[field.kind][:, [field.channel]]
            change = bumps * channel.mean(dim=0, keepdim=True)
            answer = bumps * (own[:, :BANDS] * bands(channel)[:, :BANDS] / level).mean(dim=0, keepdim=True)
        table[greys, field.span] = functional.adaptive_avg_pool2d(change, GREYS).flatten(1).T
        table[energies, field.span] = functional.adaptive_avg_pool2d(2 * answer, CELLS).flatten(1).T
    return table


def measured(family: Family, images: Tensor, frame: Frame, atlas: Tensor, *, seed: int) -> Tensor:
    """Measure the derivative (width of a summary, coefficients) on images that are edited at random, to and fro.

    Displacements of single organs are measured apart from all other kinds: their random edits would drown those.
    """
    random = torch.Generator().manual_seed(seed % 2**63)
    table = formula(family, warp(images, frame.forth))
    local = family.columns(LOCAL)
    for columns in (~local, local):
        coefficients = torch.randn(len(images), family.width, generator=random) * SPREAD * columns
        for field in family.fields:
            if field.kind == "shade":
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
        ends.append(summaries(there, resized(register(there, atlas), family.size)))
    rest = (ends[0] - ends[1]) / 2 - coefficients @ table.T
    scale = coefficients.pow(2).mean(dim=0)
    normal = coefficients.T @ coefficients / len(images) + torch.diag(TRUST * scale + 1e-6)
    change: Tensor = torch.linalg.solve(normal, coefficients.T @ rest / len(images)).T
    return change
