"""Somebody else's generator, of which only the images are at hand: it redraws nothing that is not on the disk."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from citlr.config.kinds import IMAGES
from citlr.console import Ticker, silent
from citlr.data.images import see_image
from citlr.data.pixels.shown import WHITE
from citlr.doses import RECORDED, as_numbers
from citlr.errors import InputError, StateError
from citlr.generators.base import FORMAT, Images
from citlr.generators.redrawing import Redrawing
from citlr.generators.request import Request
from citlr.run.files import atomic_write, digest_or_missing, fingerprint, read_json, write_json


class ImagesOnDisk(Redrawing):
    """Redrawn images as files, under the protocol of all generators.

    - `index`: image_id, level, draw, file and sha256, a row per image (`citlr.data.redrawn.read_redrawn`).
    - `hold`: What the generator was told to keep: their drift is measured.
    - `white`: The value of 16-bit images that is white, as of the originals.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        *,
        attribute: str,
        size: int,
        hold: tuple[str, ...] = (),
        channels: int = 1,
        white: int = WHITE,
    ) -> None:
        self._channels, self.white = channels, white
        self.index, self.size, self.hold, self.attribute = index, size, hold, attribute
        self.draws = int(index["draw"].nunique())
        levels = sorted(str(level) for level in index["level"].unique())
        values = [level for level in levels if level != RECORDED]
        # Of a number, under the own value, which is no level; among names, one like any other.
        if RECORDED in levels and as_numbers(values) is not None:
            levels = sorted(values, key=float)
        self.attributes: dict[str, tuple[str, ...]] = {attribute: tuple(levels)}
        self.report: dict[str, Any] = {
            "images": len(index),
            "draws": self.draws,
            "images_sha256": fingerprint(index["sha256"].tolist()),
        }
        nth = index.groupby(["image_id", "level"]).cumcount()
        cells = zip(index["image_id"], index["level"], nth, strict=True)
        self._places = {(image, level, int(draw)): row for row, (image, level, draw) in enumerate(cells)}

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self._channels

    def redraw(self, images: Images, frame: pd.DataFrame, request: Request, tick: Ticker = silent) -> Images:
        """Read the images that are asked for."""
        if request.names != (self.attribute,) or request.draws > self.draws:
            raise InputError(
                f"There are {self.draws} redrawn images per level of '{self.attribute}' on the disk, and "
                f"{request.draws} of '{', '.join(request.names)}' were asked for: only what is there can be used."
            )
        shape = (self.channels, self.size, self.size)
        out = np.empty((len(frame), len(request.levels), request.draws, *shape), dtype=np.float32)
        for row, image in enumerate(frame["image_id"].astype(str)):
            for k, level in enumerate(request.levels):
                for draw in range(request.draws):
                    out[row, k, draw] = self._read(image, str(level), draw)
            tick(row + 1)
        return out

    def _read(self, image: str, level: str, draw: int) -> Images:
        place = self._places.get((image, level, draw))
        if place is None:
            raise InputError(f"The image '{image}' was not redrawn under '{level}': only what is there can be used.")
        file, digest = self.index["file"].iloc[place], self.index["sha256"].iloc[place]
        if digest_or_missing(file) != digest:
            raise StateError(f"'{file}' is not the image that was read at first: run the same command again.")
        seen = see_image(file, size=self.size, white=self.white, channels=self.channels)
        if seen.peak > self.white:
            raise InputError(
                f"'{file}' has values up to {seen.peak:,}, and in its original {self.white:,} is white: write redrawn "
                "images with the values of the originals, or with 8 bits."
            )
        return seen.image.astype(np.float32, copy=False)

    def reconstruct(self, images: Images) -> Images:
        """Refuse: what the generator's representation keeps of an image, only its owner knows."""
        raise StateError(
            "Of kind: images only the redrawn images are here: what a generator keeps of an image needs one of citlr's."
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of all files, their places and their size."""
        content = [self.size, self.attribute, self.index.drop(columns="file").to_numpy().tolist()]
        return fingerprint([*content, *self._unusual().values()])

    def save(self, directory: Path) -> None:
        """Write the index; the images stay where they are."""
        with atomic_write(directory / "index.parquet") as temporary:
            self.index.to_parquet(temporary)
        facts = {"attribute": self.attribute, "size": self.size, "hold": list(self.hold)}
        write_json(directory / "config.json", {"kind": IMAGES, "format": FORMAT, **facts, **self._unusual()})

    def _unusual(self) -> dict[str, int]:
        """Give how files are read, as far as it is not as grey images usually are."""
        return {
            **({} if self.channels == 1 else {"channels": self.channels}),
            **({} if self.white == WHITE else {"white": self.white}),
        }

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        content = read_json(directory / "config.json")
        index = pd.read_parquet(directory / "index.parquet")
        known = {name: content[name] for name in ("attribute", "size", "channels", "white") if name in content}
        return cls(index, **known, hold=tuple(content["hold"]))
