"""What is asked of a generator, and the way from a request to batches of redrawn images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from citlr.console import Ticker, silent
from citlr.errors import InputError
from citlr.generators.base import Images, Level, batch_at
from citlr.generators.conditions import Conditions
from citlr.learning.beside import AT_A_TIME, abreast, beside, smaller, told
from citlr.learning.store import spans
from citlr.randomness import hashed_seed


def keyed_noise(keys: Sequence[tuple[object, ...]], shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal noise that belongs to its key: the same wherever in a batch the key stands."""
    rows = torch.empty((len(keys), *shape))
    for row, key in zip(rows, keys, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(hashed_seed(*key)))
    return rows


@dataclass(frozen=True)
class Request:
    """What is asked of a generator.

    - `names`: Attributes that are intervened on together.
    - `levels`: What they are set to; with several attributes a tuple for each. An array has a value for each image.
    - `draws`, `seed`: Images per level; draw r of an image is a function of (seed, image_id, r) only.
    - `guidance`: Weight of the intervention; None for the generator's own.
    - `shared_seeds`: Whether a draw has the same noise under every level.
    - `abduction`: "noise" draws what is unknown of an image, "inversion" infers it; None for the generator's own.
    """

    names: tuple[str, ...]
    levels: tuple[Level, ...]
    draws: int = 1
    seed: int = 0
    guidance: float | None = None
    shared_seeds: bool = True
    abduction: str | None = None

    @property
    def inverts(self) -> bool:
        """Whether what is unknown of an image is inferred."""
        return self.abduction == "inversion"

    @property
    def weight(self) -> float:
        """Weight of the intervention."""
        return 1.0 if self.guidance is None else self.guidance

    def of_rows(self, rows: Sequence[int]) -> Self:
        """Give the request of some of the images, where levels have a value for each."""
        return replace(self, levels=tuple(_of_rows(level, rows) for level in self.levels))

    def requested(self, conditions: Conditions, codes: Tensor) -> list[Tensor]:
        """Give the codes (n, width) under each level, of rows with these factual ones."""
        return [conditions.intervene(codes, self.names, level) for level in self.levels]

    def noise(self, ids: Sequence[str], purpose: str, level: Level | None, shape: tuple[int, ...]) -> Tensor:
        """Draw noise (n * draws, *shape) that belongs to the image, the draw and the purpose."""
        own = [() if self.shared_seeds else (_of_rows(level, row),) for row in range(len(ids))]
        keys = [
            (self.seed, name, draw, purpose, *own[row]) for row, name in enumerate(ids) for draw in range(self.draws)
        ]
        return keyed_noise(keys, shape)


def _of_rows(level: Any, rows: Any) -> Any:
    """Take the values of some images (or one) out of the arrays of a level; names stay."""
    if isinstance(level, tuple):
        return tuple(_of_rows(one, rows) for one in level)
    return level[rows] if isinstance(level, np.ndarray) else level


def check_levels(levels: Sequence[Level], images: int) -> None:
    """Refuse arrays of another length than there are images.

    >>> check_levels(["40", np.array([40.0, 70.0]), ("M", np.array([40.0, 70.0]))], 2)
    """
    for level in levels:
        for value in level if isinstance(level, tuple) else (level,):
            if isinstance(value, np.ndarray) and value.shape != (images,):
                raise InputError(
                    f"A level is an array of the shape {value.shape}, and there are {images} images: give each a value."
                )


# (images (n, c, s, s), factual codes (n, width), image_ids, request) -> images (n, levels, draws, c, s, s)
Redraw = Callable[[Tensor, Tensor, list[str], Request], Tensor]


@dataclass(frozen=True)
class Batches:
    """How images are redrawn a batch at a time.

    - `beside`: Whether batches are redrawn beside each other, as they are on a processor.
    """

    redraw: Redraw
    conditions: Conditions
    per_batch: int
    beside: bool = True


def redraw_in_batches(
    images: Images, frame: pd.DataFrame, request: Request, batches: Batches, tick: Ticker = silent
) -> Images:
    """Redraw images (n, c, s, s) a batch at a time: (n, levels, draws, channels of `redraw`, s, s).

    A batch that memory has no room for is halved, and so are those after it: bits of an image may differ by that.
    """
    if len(frame) != len(images):
        raise InputError(f"{len(images)} images came with {len(frame)} rows; every image needs its row.")
    codes, ids = batches.conditions.encode(frame), frame["image_id"].astype(str).tolist()
    out = np.empty((0, len(request.levels), request.draws, *images.shape[1:]), dtype=np.float32)
    begin, size = 0, batches.per_batch

    @torch.no_grad()
    def redrawn(part: slice) -> Tensor:
        _, rows = batch_at(part.start, len(images), size)
        own = request.of_rows(rows)
        found = batches.redraw(torch.from_numpy(images[rows]), codes[rows], [ids[row] for row in rows], own)
        return found[: part.stop - part.start].cpu()

    while begin < len(images):
        parts = list(islice(spans(len(images), size, begin), abreast(AT_A_TIME) if batches.beside else 1))
        try:
            found = beside(redrawn, parts) if batches.beside else [redrawn(part) for part in parts]
        except (RuntimeError, MemoryError) as trouble:
            size = smaller(size, trouble)
            continue
        if not len(out):
            out = np.empty((len(images), *found[0].shape[1:]), dtype=np.float32)
        for part, one in zip(parts, found, strict=True):
            out[part] = one.numpy()
        begin = parts[-1].stop
        tick(begin, told(size, batches.per_batch))
    return out
