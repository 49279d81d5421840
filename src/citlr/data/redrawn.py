"""Somebody else's redrawn images: a table of files, checked against the images that are audited."""

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image, UnidentifiedImageError

from citlr.data.cohort import Cohort
from citlr.data.images import see_image
from citlr.data.pixels.survey import Look, Survey
from citlr.data.tables.columns import read_table, refuse_unsafe_paths
from citlr.data.tables.numbers import is_number
from citlr.data.tables.redrawn import ORIGINAL, number_draws, require_every_level, require_once, row_of, short
from citlr.doses import RECORDED
from citlr.errors import InputError, require_known
from citlr.run.files import digest_or_missing

COLUMNS = ("image_id", "level", "draw", "path")


def read_redrawn(table: Path, cohort: Cohort, *, attribute: str, size: int) -> pd.DataFrame:
    """Read the table of redrawn images of a cohort: image_id, level, draw, file (absolute) and its sha256, in order.

    Paths are relative to the table and stay inside its folder. Rows with the draw -1 and rows of images that the cohort
    does not hold are left aside; levels may be written as the cohort's own table writes them.
    """
    source = str(table)
    frame = read_table(table, verbatim=("image_id", "level"))
    for name in COLUMNS:
        require_known(name, frame, f"'{source}' has no column '{name}': redrawn images need {', '.join(COLUMNS)}")
    frame = number_draws(frame[list(COLUMNS)].astype("string").astype(object).where(frame.notna(), None), source)
    known = cohort.frame.set_index(cohort.frame["image_id"].astype(str))[attribute]
    # Redrawn under its own value of a number, an image is redrawn as recorded.
    known = pd.Series(RECORDED, known.index) if is_number(known) else known.astype(str)
    drawn = frame[(frame["draw"] != ORIGINAL) & frame["image_id"].isin(known.index)].copy()
    if drawn.empty:
        raise InputError(
            f"'{source}' redraws none of the {len(known)} images of the test part ('{short(known.index[0])}' first): "
            f"its image_id has to be that of the cohort's table.{_without_zeros(known.index, frame['image_id'])}"
        )
    written = {one.raw: one.level for one in cohort.raw if one.attribute == attribute and one.level}
    # The name of a level means itself, also where a raw value of another level is written alike.
    names = {*written.values(), *known}
    drawn["level"] = drawn["level"].replace({raw: level for raw, level in written.items() if raw not in names})
    missing = known.index[~known.index.isin(drawn["image_id"])]
    if len(missing):
        raise InputError(
            f"'{source}' redraws {len(known) - len(missing)} of the {len(known)} images of the test part and not "
            f"'{short(missing[0])}': let a column of the cohort's table say which images are test (the redrawn ones) "
            "and which are train and validation (for the probes), and name it as cohort.split."
            f"{_without_zeros(missing, frame['image_id'])}"
        )
    require_once(drawn, [], source)
    require_every_level(drawn, known, source)
    _require_draws(drawn, source)
    placed = _with_files(drawn, table, size, cohort)
    _require_own_noise(placed, known, source)
    return placed.sort_values(["image_id", "level", "draw"], ignore_index=True)


def _without_zeros(missing: pd.Index, written: pd.Series) -> str:
    """Say that an image that is missing is there as a number, as a spreadsheet writes 001; empty where none is."""
    there = {*written}
    bare = next((name for name in missing if name.isdigit() and (name.lstrip("0") or "0") in there - {name}), None)
    return (
        f" There is '{short(bare.lstrip('0') or '0')}' for '{short(bare)}': export the column as text." if bare else ""
    )


def _require_draws(drawn: pd.DataFrame, source: str) -> None:
    """Ask for the same draws of every image and level, two at least."""
    draws = sorted(drawn["draw"].unique())
    counts = drawn.groupby(["image_id", "level"])["draw"].nunique()
    short_of = counts[counts < len(draws)]
    if len(short_of):
        image, level = short_of.index[0]
        raise InputError(
            f"'{source}' has {short_of.iloc[0]} of {len(draws)} draws of the image '{short(image)}' under "
            f"'{short(level)}' ({len(short_of)} such cells): every image needs the same draws under every level."
        )
    if len(draws) < 2:
        raise InputError(
            f"'{source}' has one draw per image and level: at least 2 are needed to tell the attribute's effect from "
            "generator noise (four are advised)."
        )


def _with_files(drawn: pd.DataFrame, table: Path, size: int, cohort: Cohort) -> pd.DataFrame:
    """Find every file, look at its size and kind, and digest it."""
    source = str(table)
    blank = drawn.index[drawn["path"].isna()]
    if len(blank):
        raise InputError(f"'{source}' has no path in {row_of(blank[0])} ({len(blank)} rows): fill it in.")
    paths = refuse_unsafe_paths(drawn["path"], source=source)
    twice = paths.index[paths.map(posixpath.normpath).duplicated()]
    if len(twice):
        raise InputError(
            f"'{source}' names the file '{short(paths[twice[0]])}' twice, in {row_of(twice[0])} for the second time "
            f"({len(twice)} such rows): every draw is an image of its own."
        )
    root = table.resolve().parent
    digests, deep = [], {}
    for image, (row, path) in zip(drawn["image_id"], paths.items(), strict=True):
        mode = _require_square(root / path, size, cohort.channels, f"'{source}', {row_of(row)}")
        digests.append(digest_or_missing(root / path))
        if mode.startswith("I"):
            deep[str(image)] = root / path
    _require_depth(deep, cohort, source)
    placed = drawn.assign(file=[str(root / path) for path in paths], sha256=digests).drop(columns="path")
    _require_own_pictures(placed, source)
    return placed


def _require_own_pictures(placed: pd.DataFrame, source: str) -> None:
    """Refuse a picture that stands for two images, or twice among draws that differ: one was copied over another.

    Draws of an image and level that are all alike are those of a generator without chance, or of an image left alone.
    """
    owners = placed.groupby("sha256")["image_id"].nunique()
    shared = placed[placed["sha256"].isin(owners.index[owners > 1])]
    if len(shared):
        first = shared.iloc[0]
        other = shared[(shared["sha256"] == first["sha256"]) & (shared["image_id"] != first["image_id"])].iloc[0]
        raise InputError(
            f"'{source}' has one and the same picture for the images '{short(first['image_id'])}' and "
            f"'{short(other['image_id'])}' ({len(shared)} rows have a picture of another image): give every image its "
            "own."
        )
    cells = placed.groupby(["image_id", "level"])["sha256"].agg(["size", "nunique"])
    copied = cells[(cells["nunique"] > 1) & (cells["nunique"] < cells["size"])]
    if len(copied):
        image, level = copied.index[0]
        raise InputError(
            f"'{source}' has one and the same picture for several, and not all, draws of the image '{short(image)}' "
            f"under '{short(level)}' ({len(copied)} of {len(cells)} cells): a copied draw counts one twice, so draw "
            "them again."
        )


def _require_own_noise(placed: pd.DataFrame, known: pd.Series, source: str) -> None:
    """Refuse images whose draws differ under other levels and under their own never: those are no null interventions.

    What draws share under one side only passes for an effect of the attribute, in a model that reads noise or a blur.
    """
    pictures = placed.groupby(["image_id", "level"])["sha256"].agg(["nunique"]).reset_index()
    own = pictures["level"] == pictures["image_id"].map(known)
    alike = pictures["nunique"].eq(1)
    if alike[own].all() and alike[~own].mean() < MOSTLY_ALIKE:
        raise InputError(
            f"'{source}' has draws that are all alike of every image under its own level, and draws that differ under "
            "the others: redraw under the own level as under the others (null intervention), for the original in its "
            "place is no substitute."
        )


def _require_square(file: Path, size: int, channels: int, where: str) -> str:
    """Refuse what is no image, no square, or of another size than the one that is audited; give Pillow's mode."""
    if not file.is_file():
        raise InputError(f"{where}: there is no image '{file}'; paths are relative to the table.")
    try:
        with Image.open(file) as image:
            (width, height), mode = image.size, image.mode
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: '{file}' is no PNG or JPEG that can be read ({short(error)}).") from error
    if width != height:
        raise InputError(f"{where}: '{file}' is {width} x {height}; redrawn images are squares, as originals are read.")
    if width != size and not width > size == LARGEST:
        raise InputError(
            f"{where}: '{file}' is {width} x {width} and generator.size is {size}: set generator.size to "
            f"{min(width, LARGEST)}, or save all redrawn images at one size."
        )
    if channels > 1 and mode not in ("RGB", "P"):
        raise InputError(
            f"{where}: '{file}' is in {mode}, and the cohort is in colour: save redrawn images as 8-bit RGB, as their "
            "originals are read."
        )
    return mode


def _require_depth(deep: Mapping[str, Path], cohort: Cohort, source: str) -> None:
    """Refuse files of 16 bits, by the image that they are of, whose depth is not that of the originals."""
    some = [*deep][:: len(deep) // LOOKED_AT + 1]
    paths = cohort.frame.set_index(cohort.frame["image_id"].astype(str))["path"]
    originals = [file for file in (cohort.root / paths[image] for image in some) if file.is_file()]
    drawn, own = (_depth(files) for files in ([deep[image] for image in some], originals))
    if not originals:
        own = min(drawn, cohort.white)  # they may be gone where a cache is read
    if some and not own <= drawn <= cohort.white:
        raise InputError(
            f"'{source}': images of 16 bits such as '{deep[some[0]]}' have {drawn:,} as white by their values, and "
            f"{cohort.white:,} is white in the cohort, so that they would be {'too dark' if drawn < own else 'cut'}: "
            "write them with the values of the originals, or with 8 bits."
        )


def _depth(files: Sequence[Path]) -> int:
    return Survey([Look.at(str(file), see_image(file)) for file in files], scaled=True).white


# Images of 16 bits whose values are compared with those of their originals.
LOOKED_AT = 64
# Sides that a generator may have; larger images are read at this one, and the rest is the original's.
LARGEST = 256
# Share of images and other levels without any noise of draws, from which on a generator is taken to have none.
MOSTLY_ALIKE = 0.5
