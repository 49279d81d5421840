"""Which column names the image files of a folder, and what some of the images are like."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from citlr.data.images import FORMATS, MODES, is_dicom
from citlr.data.pixels.whole import whole_only
from citlr.data.steps import SUFFIXES, files_meant
from citlr.errors import CitlrError, InputError
from citlr.text import shortened

# Rows of which the file is looked for, and images that are opened.
_ROWS, _IMAGES = 200, 40
# Every image has a file of its own; a finding of 0 and 1 does not name 0.png and 1.png.
_DISTINCT = 0.9
# A picture is in colour where a tenth of its pixels have a hue: a coloured mark and what JPEG leaves of grey are less.
_HUE, _HUED, _SIDE = 16, 0.1, 64


@dataclass(frozen=True)
class Look:
    """What some images are like.

    - `said`: In a few words, for a comment.
    - `longest`: The longest side, in pixels; 0 where none could be opened.
    - `opened`, `coloured`: How many could be opened, and how many of these are in colour.
    """

    said: str
    longest: int
    square: bool
    opened: int
    coloured: int

    @property
    def in_colour(self) -> bool:
        """Whether most are in colour."""
        return 2 * self.coloured > self.opened


def path_columns(frame: pd.DataFrame, images: Path) -> dict[str, tuple[int, int]]:
    """Give the columns that name most files below a folder: how many of the rows looked at are there, and of how many.

    A name with its suffix goes before one without.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for name in frame.columns:
        given = frame[name].dropna().astype(str)
        if given.nunique() < _DISTINCT * len(given):
            continue
        values = _some(given.tolist(), _ROWS)
        whole = sum(bool(_files(images, value, bare=False)) for value in values)
        bare = 0 if whole else sum(bool(_files(images, value, bare=True)) for value in values)
        if whole or bare:
            found[str(name)] = (whole, bare, len(values))
    best = max(((whole, bare) for whole, bare, _ in found.values()), default=(0, 0))
    return {name: (whole or bare, of) for name, (whole, bare, of) in found.items() if (whole, bare) == best}


def no_path(frame: pd.DataFrame, images: Path, table: str) -> InputError:
    """Say what would do where no column names a file of the folder."""
    for name in frame.columns:
        values = frame[name].dropna().astype(str)
        if not len(values) or not values.head(50).str.lower().str.endswith(SUFFIXES).all():
            continue
        first = values.iloc[0].replace("\\", "/")
        above = next((one for one in images.absolute().parents if _files(one, first, bare=False)), None)
        would = (
            f"they are below {above}: give --images {above}"
            if above is not None
            else "give with --images the folder that these paths start from"
        )
        return InputError(
            f"No column of {table} names files in {images}: '{name}' looks like paths ('{shortened(first, 60)}'), "
            f"and {would}."
        )
    return InputError(
        f"No column of {table} names files in {images}, with or without a suffix ({', '.join(SUFFIXES)}): add a column "
        "with each image's path below that folder, or give another folder with --images."
    )


def look_at(paths: Sequence[str], images: Path) -> Look:
    """Open the headers of some images, evenly over the table."""
    kinds: Counter[str] = Counter()
    sides: Counter[tuple[int, int]] = Counter()
    coloured = 0
    for named in _some(paths, _IMAGES):
        found = _files(images, named, bare=False) or _files(images, named, bare=True)
        if not found:
            kinds["not there"] += 1
            continue
        kind, size, hued = _header(images / found[0])
        kinds[kind] += 1
        coloured += hued
        if size != (0, 0):
            sides[size] += 1
    some = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    sizes = ", ".join(f"{width} x {height}" for (width, height), _ in sides.most_common(3))
    more = f" and {len(sides) - 3} other sizes" if len(sides) > 3 else ""
    said = f"{sum(kinds.values())} of {len(paths)} images looked at: {sizes or 'no size'}{more} pixels; {some}"
    longest = max((max(size) for size in sides), default=0)
    return Look(said, longest, all(width == height for width, height in sides), sides.total(), coloured)


def _header(file: Path) -> tuple[str, tuple[int, int], bool]:
    """Give the kind of an image, width and height, and whether it is in colour; three channels are decoded for that."""
    try:
        if is_dicom(file):
            from citlr.data.pixels.dicom import read_header

            header = read_header(file)
            return "DICOM", (header.columns, header.rows), False
        with whole_only(), Image.open(file, formats=FORMATS) as image:
            kind, size = MODES.get(image.mode, image.mode), image.size
            three = image.mode in ("RGB", "RGBA", "P", "PA")
            hued = three and _in_colour(image)
            shown = f"{kind} in colour" if hued else f"{kind}, all grey" if three else kind
            return f"{image.format}, {shown}", size, hued
    except (CitlrError, UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return "no image that can be read", (0, 0), False


def _in_colour(image: Image.Image) -> bool:
    """Whether red, green and blue differ in more than a mark of a picture."""
    image.draft("RGB", (_SIDE, _SIDE))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    pixels = np.asarray(image.convert("RGB"), dtype=np.int16)
    return bool((np.ptp(pixels, axis=2) > _HUE).mean() > _HUED)


def _files(folder: Path, path: str, *, bare: bool) -> list[str]:
    """Give the files in a folder that a relative path, with its suffix or `bare` of it, names; none outside of it."""
    plain = path.replace("\\", "/")
    if not plain or plain.startswith(("/", "~")) or ".." in plain.split("/") or "\0" in plain:
        return []
    return files_meant(folder, plain, bare)


def _some(values: Sequence[str], most: int) -> list[str]:
    """Take so many values, evenly from the first to the last."""
    if len(values) <= most:
        return [*values]
    return [values[int(place)] for place in np.linspace(0, len(values) - 1, most)]
