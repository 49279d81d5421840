"""A simulator's own equations as a generator: the exact counterfactuals, under the protocol of all the others.

As pictures, or as edits of the original, which leave in place what the equations do not know of.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.console import Ticker, silent
from citlr.data.edits import Edit
from citlr.errors import InputError, StateError, require_known
from citlr.generators.base import Images
from citlr.generators.redrawing import Editing, Redrawing
from citlr.generators.request import Request
from citlr.randomness import COIN, PLACEBO
from citlr.run.files import fingerprint

# (level, rows) -> images (n, 1, s, s) of these units under do(attribute = level), by the same random variables.
Render = Callable[[str, npt.NDArray[np.int64]], Images]


class Oracle(Redrawing):
    """Redraws a simulator's units exactly; the coin changes nothing.

    - `render`: `render(level, rows)`, such as `sample.counterfactual` of a phantom.
    - `image_ids`: The units' names, in the order of `rows`.
    """

    def __init__(
        self, render: Render, *, image_ids: Sequence[str], attribute: str, levels: Sequence[str], size: int
    ) -> None:
        self.size = size
        self.hold: tuple[str, ...] = ()
        self.attributes: dict[str, tuple[str, ...]] = {attribute: tuple(levels), PLACEBO: COIN}
        self._render = render
        self._rows = {str(name): row for row, name in enumerate(image_ids)}

    @classmethod
    def of(cls, sample: object) -> Self:
        """Take a `PhantomSample`."""
        world, frame = sample.world, sample.frame  # type: ignore[attr-defined]
        return cls(
            sample.counterfactual,  # type: ignore[attr-defined]
            image_ids=frame["image_id"],
            attribute=world.attribute,
            levels=world.levels,
            size=world.size,
        )

    def redraw(self, images: Images, frame: pd.DataFrame, request: Request, tick: Ticker = silent) -> Images:
        """Render the named units under each level; all draws of one level are the same image."""
        name, levels, draws = ",".join(request.names), request.levels, request.draws
        require_known(name, self.attributes, f"The simulator cannot intervene on '{name}'")
        for level in levels:
            require_known(level, self.attributes[name], f"'{level}' is no level of '{name}'")
        missing = [key for key in frame["image_id"].astype(str) if key not in self._rows]
        if missing:
            raise InputError(f"The simulator did not draw the image '{missing[0]}'; use its own sample.")
        rows = np.asarray([self._rows[key] for key in frame["image_id"].astype(str)], dtype=np.int64)
        out = np.empty((len(rows), len(levels), draws, *images.shape[1:]), dtype=np.float32)
        for k, level in enumerate(levels):
            drawn = images if name == PLACEBO else self._render(str(level), rows)
            out[:, k] = drawn[:, None]
        tick(len(rows))
        return out

    def reconstruct(self, images: Images) -> Images:
        """Give the images themselves."""
        return images

    def fingerprint(self) -> str:
        """Return the SHA-256 of the units' names and of what the equations draw of the first of them."""
        first = np.zeros(min(1, len(self._rows)), dtype=np.int64)
        drawn = [
            hashlib.sha256(self._render(level, first).tobytes()).hexdigest()
            for name, levels in self.attributes.items()
            for level in (levels if name != PLACEBO else ())
        ]
        return fingerprint([self.attributes, self.size, list(self._rows), drawn])

    def save(self, directory: Path) -> None:
        """Refuse: what a simulator drew is not in its parameters alone."""
        raise StateError("An oracle is a simulator's sample, not weights, and cannot be saved; keep the sample's seed.")


class EditingOracle(Editing, Oracle):
    """The exact change at the generator's size as an edit of the original: nothing under the own level."""

    def change(self, images: Images, frame: pd.DataFrame, request: Request) -> Edit:
        """Give the edits (n, levels, ...), which add and do not move; the coin has none."""
        drawn, name = self.redraw(images, frame, request)[:, :, 0], ",".join(request.names)
        own = images[:, None]
        if name != PLACEBO:
            every = self.attributes[name]
            level = np.asarray([every.index(str(value)) for value in frame[name]])
            factual = self.redraw(images, frame, replace(request, levels=every))[:, :, 0]
            own = factual[np.arange(len(frame)), level][:, None]
        return Edit(np.zeros((*drawn.shape[:2], 2, self.size, self.size), np.float32), drawn - own)
