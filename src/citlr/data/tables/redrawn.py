"""Tables of redrawn images: every image under every level, its own too, and once for each draw."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from citlr.data.tables.printable import require_exact, require_no_error, require_printable
from citlr.data.tables.spellings import require_one_spelling
from citlr.errors import InputError
from citlr.text import listed, shortened

# The draw of an image as it came.
ORIGINAL = -1


def short(cell: object) -> str:
    """Shorten a cell that goes into an error."""
    return shortened(str(cell), 40)


def row_of(index: object) -> str:
    """Name a row of a table, counted from 1 without its header."""
    return f"row {int(str(index)) + 1}"


def number_draws(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Make the draws numbers; -1 is an image as it came, and so is a row with neither draw nor level."""
    for name in [name for name in ("image_id", "patient_id") if name in table]:
        blank = table.index[table[name].isna()]
        if len(blank):
            raise InputError(f"'{source}' has no '{name}' in {row_of(blank[0])} ({len(blank)} rows): fill it in.")
        require_printable(table[name].unique(), f"'{source}': a cell of '{name}'")
        require_no_error(table[name], source=f"'{source}'")
        require_exact(table[name], source=f"'{source}'", what=f"cells of '{name}'")
    if "patient_id" in table:
        require_one_spelling(table["patient_id"], source=f"'{source}'", what="patient")
    require_no_error(table["level"], source=f"'{source}'")
    original = table["draw"].isna() & table["level"].isna()
    draw = pd.to_numeric(table["draw"].where(~original, str(ORIGINAL)), errors="coerce")
    wrong = table.index[~(draw >= ORIGINAL) | (draw != np.floor(draw))]
    if len(wrong):
        raise InputError(
            f"'{source}' has '{short(table.loc[wrong[0], 'draw'] or '')}' as draw in {row_of(wrong[0])}: number the "
            "draws of a level 0, 1, 2, ..., and write -1 for the image as it came."
        )
    unnamed = table.index[(draw != ORIGINAL) & table["level"].isna()]
    if len(unnamed):
        raise InputError(
            f"'{source}' has no level in {row_of(unnamed[0])}, a redrawn image (draw {draw[unnamed[0]]:g}): write the "
            "level that it was redrawn under; an image as it came has the draw -1."
        )
    return table.assign(draw=draw.astype(int))


def require_attribute(table: pd.DataFrame, source: str) -> None:
    """Ask every row for its attribute, spelt one way: rows of another one are left aside."""
    blank = table.index[table["attribute"].isna()]
    if len(blank):
        raise InputError(
            f"'{source}' has no attribute in {row_of(blank[0])} ({len(blank)} rows): write in every row, originals "
            "too, which attribute it is of, or leave the column out."
        )
    alike: dict[str, str] = {}
    for name in map(str, table["attribute"].unique()):
        first = alike.setdefault(name.casefold(), name)
        if first != name:
            raise InputError(
                f"'{source}' has the attributes '{short(first)}' and '{short(name)}': write one attribute one way."
            )


def require_once(table: pd.DataFrame, besides: list[str], source: str) -> None:
    """Refuse two rows for one image, level and draw (and for what `besides` names)."""
    key = ["image_id", "level", "draw", *besides]
    original = table["draw"] == ORIGINAL
    cells = table[key].assign(level=table["level"].mask(original, ""))
    twice = table.index[cells.duplicated()]
    if len(twice):
        same = cells.index[(cells == cells.loc[twice[0]]).all(axis=1)][0]
        what = (
            "original"
            if original[twice[0]]
            else f"level {table.loc[twice[0], 'level']}, draw {table.loc[twice[0], 'draw']}"
        )
        raise InputError(
            f"'{source}' has the image '{short(table.loc[twice[0], 'image_id'])}' ({what}) twice, in {row_of(same)} "
            f"and {row_of(twice[0])} ({len(twice)} such rows): keep one row of each."
        )


def require_every_level(generated: pd.DataFrame, recorded: pd.Series, source: str) -> None:
    """Ask for images redrawn under their own level, and for the same levels of every image."""
    levels = sorted(generated["level"].unique())
    found: dict[str, set[str]] = {}
    for image, level in generated[["image_id", "level"]].drop_duplicates().itertuples(index=False):
        found.setdefault(str(image), set()).add(str(level))
    own = {str(image): str(level) for image, level in recorded.items() if image in found}
    for image, level in own.items():
        if level not in levels:
            raise InputError(
                f"'{source}' records the level '{short(level)}' of '{short(image)}', and images were redrawn "
                f"under {listed(levels)}: redraw all under it too, or write one level one way."
            )
    _require_own(found, own, levels, source)
    kinds = Counter(tuple(sorted(of)) for of in found.values()).most_common()
    if len(kinds) > 1:
        (usual, count), (odd, _) = kinds[0], kinds[-1]
        image = next(image for image, of in found.items() if of == set(odd))
        raise InputError(
            f"'{source}' has the image '{short(image)}' under the levels {listed(odd)} and {count} of {len(found)} "
            f"images under {listed(usual)}: every image needs every level, spelt alike."
        )


def _require_own(found: Mapping[str, set[str]], own: Mapping[str, str], levels: Sequence[str], source: str) -> None:
    """Refuse images that are not redrawn under their own level, or all seem so where that is not known."""
    lacks = {image: level for image, level in own.items() if level not in found[image]}
    each_lacks_one = all(len(of) == len(levels) - 1 for of in found.values())
    if not own and each_lacks_one and set().union(*found.values()) == set(levels):
        lacks = {image: next(level for level in levels if level not in of) for image, of in found.items()}
    if lacks:
        image, level = next(iter(lacks.items()))
        whose = "its own level" if own else "the level"
        raise InputError(
            f"'{source}' has nothing for the image '{short(image)}' redrawn under {whose} '{short(level)}' "
            f"({len(lacks)} of {len(found)} images lack theirs): redraw every image under its own level too, as often "
            "as under the others (null intervention); the original is no substitute, since redrawing alone changes an "
            "image."
        )
