"""What every generator of counterfactuals can do, and images through a network in batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.console import Narrator, Ticker, silent
from citlr.data.edits import Edit
from citlr.errors import InputError

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

Images = npt.NDArray[np.float32]
# One level of one attribute, or, of a number, an array of one value for each image.
Value = str | npt.NDArray[np.floating]
# The same, or one of each of several attributes intervened on together.
Level = Value | tuple[Value, ...]
Levels = Sequence[Level]
# Of one attribute, or of several that are intervened on together.
Names = str | Sequence[str]
# Of saved generators; one more whenever weights of before would mean something else. 3: edits tell what
# both sides of a chest have alike from what they have apart.
FORMAT = 3
# What a training sample leaves open is told by this many replicates: a spread of twelve is known to a fifth, which the
# t distribution of the verdict allows for.
REPLICATES = 12


@runtime_checkable
class CounterfactualGenerator(Protocol):
    """Redraws images under each level of an attribute.

    `attributes` names what can be intervened on and its levels, the fair coin "placebo" always among them; `hold` names
    the covariates that stay at their observed values.
    """

    size: int
    hold: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What can be intervened on, and its levels; the coin "placebo" is always there."""

    def fit(
        self,
        train: Cohort,
        validation: Cohort | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        narrator: Narrator | None = None,
    ) -> Self:
        """Train; checkpoints go to `directory`, and an interrupted call with the same arguments goes on from there."""

    def generate(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: Names,
        levels: Levels,
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        tick: Ticker = silent,
    ) -> Images:
        """Give images under do(attribute = level); parameters as of `Redrawing.generate`.

        Shapes: `images` (n, c, size, size) in [0, 1]; gives (n, len(levels), draws, c, size, size) in [0, 1]. c is 1 of
        grey images and 3 of colour.
        """

    def reconstruct(self, images: Images) -> Images:
        """Give what the generator's representation keeps of each image, (n, c, size, size)."""

    def fingerprint(self) -> str:
        """Return a name that changes whenever other images would be drawn: what is kept of them is kept under it."""

    def save(self, directory: Path) -> None:
        """Write the generator as JSON and safetensors."""


@runtime_checkable
class EditingGenerator(CounterfactualGenerator, Protocol):
    """A generator whose counterfactuals are edits of the original, with nothing drawn at random.

    They are kept instead of pictures, and applied to the original at the size that the model under audit reads.
    """

    def edit(
        self, images: Images, frame: pd.DataFrame, *, attribute: Names, levels: Levels, guidance: float | None = None
    ) -> Edit:
        """Give the edits (n, len(levels), ...) of images (n, c, size, size) in [0, 1]; nothing under the own level."""


# Images at a time. Always exactly this many (the last batch is filled up), as libraries choose other arithmetic for
# other batch sizes: an image's bits must not depend on its company.
BATCH = 32


def batches(images: Images, size: int = BATCH) -> Iterator[tuple[slice, list[int], Images]]:
    """Cut images into batches of exactly `size`, the last filled up with its own last image.

    Gives where the batch belongs, its `size` rows, and its images.

    Shapes: `images` (n, c, s, s); gives (size, c, s, s).

    >>> [(part, rows, len(batch)) for part, rows, batch in batches(np.zeros((3, 1, 2, 2), np.float32), 2)]
    [(slice(0, 2, None), [0, 1], 2), (slice(2, 3, None), [2, 2], 2)]
    """
    for begin in range(0, len(images), size):
        part, rows = batch_at(begin, len(images), size)
        yield part, rows, images[rows]


def batch_at(begin: int, count: int, size: int) -> tuple[slice, list[int]]:
    """Give the place of the batch that begins at one of `count` images, and its `size` rows."""
    part = slice(begin, min(count, begin + size))
    return part, [min(row, part.stop - 1) for row in range(begin, begin + size)]


def check_images(images: Images, size: int, channels: int = 1) -> None:
    """Refuse what is no array (n, channels, size, size) of the generator's images in [0, 1]."""
    if images.ndim != 4 or images.shape[1:] != (channels, size, size):
        raise InputError(f"Images have the shape {images.shape}; the generator needs (n, {channels}, {size}, {size}).")
    if len(images) and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise InputError("Images hold NaN or values outside [0, 1]; read them with citlr.data.images.read_image.")
