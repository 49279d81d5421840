"""The long table of responses to dense arrays: every cell is looked for, and what is missing is said."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.doses import RECORDED, as_numbers, nearest
from citlr.errors import InputError, require_kind, require_known
from citlr.invariance.arrays import ordered

COLUMNS = ("image_id", "patient_id", "attribute", "level", "draw", "label", "probability")
# Draws that are none: the image as it came, the same without what is finer than the generator's pixels, and the same
# moved as an edit moves it and put back.
ORIGINAL_DRAW, COARSE_DRAW, PUT_BACK_DRAW = -1, -2, -3


def read_long(
    frame: pd.DataFrame,
    *,
    attribute: str | None,
    levels: Sequence[str] | None,
    labels: Sequence[str] | None,
    number: bool = False,
) -> dict[str, Any]:
    """Return the keyword arguments of `Responses` for one attribute of a long table; see `Responses.from_frame`."""
    table, name = _select(frame, attribute)
    # Masks, for the index of a table may hold a number twice.
    drawn = (table["draw"] >= 0).to_numpy(dtype=bool)
    recorded = drawn & number & (table["level"] == RECORDED).to_numpy(dtype=bool)
    named = drawn & ~recorded
    generated = table[named]
    if generated.empty:
        raise InputError(f"The table has no generated image of '{name}' (no row with draw 0 or more).")
    unit, units = pd.factorize(table["image_id"])
    level_names = sorted(generated["level"].unique()) if levels is None else _chosen(levels, "levels")
    if number:
        require_numbers(level_names)
        level_names = level_names if levels is not None else sorted(level_names, key=float)
    label_names = list(generated["label"].unique()) if labels is None else _chosen(labels, "labels")
    draws = sorted(generated["draw"].unique())
    axes = {"level": level_names, "draw": draws, "label": label_names}
    values = _dense(generated, unit[named], units, axes)
    own = None
    if recorded.any():
        of = {**axes, "level": [RECORDED]}
        own = _dense(table[recorded], unit[recorded], units, of)[:, 0]
    if number:
        table = with_nearest(table, level_names)
    original, factual = _originals(table, unit, units, level_names, label_names)
    coarse, _ = _originals(table, unit, units, level_names, label_names, draw=COARSE_DRAW)
    put_back, _ = _originals(table, unit, units, level_names, label_names, draw=PUT_BACK_DRAW)
    return {
        "values": values,
        "patients": _patients(table, unit, units),
        "units": np.asarray(units, dtype=object),
        "levels": tuple(level_names),
        "labels": tuple(label_names),
        "attribute": name,
        "factual": factual,
        "original": original,
        "coarse": coarse,
        "put_back": put_back,
        "number": number,
        "own": own,
    }


def _chosen(names: Sequence[str], what: str) -> list[str]:
    """Give the names that were asked for, in their order."""
    chosen = [str(name) for name in ordered(names, what)]
    if not chosen:
        raise InputError(f"{what} is empty; name one at least, or leave it out for all that the table has.")
    require_different(chosen, what)
    return chosen


def require_numbers(levels: Sequence[str]) -> None:
    """Refuse levels that are no numbers where they are said to be."""
    if as_numbers(levels) is None:
        raise InputError(f"The levels {', '.join(levels)} are no numbers, and `number` says they are.")


def require_different(names: Sequence[str], what: str) -> None:
    """Refuse a name that stands for two places along an axis."""
    if len(set(names)) != len(names):
        raise InputError(f"{what} has the same name twice: {', '.join(names)}.")


def with_nearest(table: pd.DataFrame, levels: list[str]) -> pd.DataFrame:
    """Record an image as it came with the level that is nearest to its own value of a number."""
    own = table["draw"] < 0
    numbers = pd.to_numeric(table.loc[own, "level"], errors="coerce")
    if numbers.isna().any():
        strange = table.loc[numbers.index[numbers.isna()][0]]
        raise InputError(
            f"The original image '{strange['image_id']}' is recorded with '{strange['level']}', and '"
            f"{strange['attribute']}' is a number."
        )
    named = np.asarray(levels, dtype=object)[nearest(numbers.to_numpy(), levels)]
    return table.assign(level=table["level"].mask(own, pd.Series(named, index=numbers.index)))


def _select(frame: pd.DataFrame, attribute: str | None) -> tuple[pd.DataFrame, str]:
    require_kind(frame, pd.DataFrame, "frame", "a DataFrame, or an array to Responses.from_arrays")
    for column in COLUMNS:
        require_known(
            column, frame.columns, f"The responses table has no column '{column}' (it needs {', '.join(COLUMNS)})"
        )
        if not isinstance(frame[column], pd.Series):
            raise InputError(f"The responses table has the column '{column}' twice; name every column once.")
    present = [str(a) for a in frame["attribute"].dropna().unique()]
    if attribute is None:
        if len(present) != 1:
            raise InputError(f"The table holds {len(present)} attributes ({', '.join(present)}): say which one.")
        attribute = present[0]
    require_known(attribute, present, f"The table holds no responses for '{attribute}'")
    table = frame.loc[frame["attribute"].astype(str) == attribute, list(COLUMNS)].copy()
    for column in ("image_id", "patient_id", "level", "label", "draw"):
        blank = [one for one in pd.unique(table[column]) if isinstance(one, str) and not one.strip()]
        empty = int((table[column].isna() | table[column].isin(blank)).sum())
        if empty:
            raise InputError(f"The column '{column}' is empty in {empty} rows of '{attribute}'.")
    table["level"] = table["level"].astype(str)
    table["label"] = table["label"].astype(str)
    draw = pd.to_numeric(table["draw"], errors="coerce").to_numpy(dtype=np.float64)
    if not bool(np.all(np.isfinite(draw) & (draw == np.floor(draw)) & (draw >= PUT_BACK_DRAW))):
        raise InputError("The column 'draw' holds something other than -1 (the original image), -2, -3 or 0, 1, 2, ...")
    table["draw"] = draw.astype(np.int64)
    if table["probability"].dtype.kind in "cmM":  # a date or a complex number would become another number
        raise InputError(f"The column 'probability' holds {table['probability'].dtype}; give probabilities.")
    numbers = pd.to_numeric(table["probability"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(numbers)
    if bool(bad.any()):
        rows = ", ".join(_cell(row) for row in table[bad].head(3).to_dict("records"))
        raise InputError(f"{int(bad.sum())} probabilities of '{attribute}' are missing or not numbers: {rows}.")
    table["probability"] = numbers
    return table, attribute


def _cell(row: dict[Any, Any]) -> str:
    return f"(image {row['image_id']}, level {row['level']}, draw {row['draw']}, label {row['label']})"


def _dense(
    generated: pd.DataFrame, unit: NDArray[np.intp], units: pd.Index, axes: dict[str, list[Any]]
) -> NDArray[np.float64]:
    shape = (len(units), *(len(names) for names in axes.values()))
    codes = [np.asarray(unit)]
    keep = np.ones(len(generated), dtype=bool)
    for column, names in axes.items():
        code = pd.Index(names).get_indexer(generated[column])
        keep &= code >= 0  # a level or label that the caller left out on purpose
        codes.append(code)
    flat = np.ravel_multi_index(tuple(code[keep] for code in codes), shape)
    times = np.bincount(flat, minlength=int(np.prod(shape)))
    if bool((times > 1).any()):
        raise InputError(
            f"{int((times > 1).sum())} cells are there more than once, first {_where(times > 1, units, axes)}."
        )
    missing = times == 0
    if bool(missing.any()):
        raise InputError(
            f"{int(missing.sum())} of {missing.size} cells are missing (every image needs every level, draw and "
            f"label): {_where(missing, units, axes)}."
        )
    values = np.empty(int(np.prod(shape)))
    values[flat] = generated["probability"].to_numpy(dtype=np.float64)[keep]
    return values.reshape(shape)


def _where(mask: NDArray[np.bool_], units: pd.Index, axes: dict[str, list[Any]], first: int = 3) -> str:
    shape = (len(units), *(len(names) for names in axes.values()))
    cells = []
    for flat in np.flatnonzero(mask)[:first]:
        u, a, r, k = np.unravel_index(int(flat), shape)
        row = {
            "image_id": units[int(u)],
            "level": axes["level"][int(a)],
            "draw": axes["draw"][int(r)],
            "label": axes["label"][int(k)],
        }
        cells.append(_cell(row))
    return ", ".join(cells) + (", ..." if int(mask.sum()) > first else "")


def _patients(table: pd.DataFrame, unit: NDArray[np.intp], units: pd.Index) -> NDArray[np.object_]:
    patient, names = pd.factorize(table["patient_id"])
    low = np.full(len(units), len(names), dtype=np.int64)
    high = np.full(len(units), -1, dtype=np.int64)
    np.minimum.at(low, unit, patient)
    np.maximum.at(high, unit, patient)
    if bool((low != high).any()):
        raise InputError(f"The image '{units[int(np.argmax(low != high))]}' is given to more than one patient.")
    return np.asarray(names, dtype=object)[low]


def _originals(
    table: pd.DataFrame,
    unit: NDArray[np.intp],
    units: pd.Index,
    levels: list[str],
    labels: list[str],
    *,
    draw: int = ORIGINAL_DRAW,
) -> tuple[NDArray[np.float64] | None, NDArray[np.intp] | None]:
    mask = (table["draw"] == draw).to_numpy() & table["label"].isin(labels).to_numpy()
    if not mask.any():
        return None, None
    rows, owner = table[mask], unit[mask]
    label = pd.Index(labels).get_indexer(pd.Index(rows["label"]))
    shape = (len(units), len(labels))
    times = np.zeros(shape, dtype=np.int64)
    np.add.at(times, (owner, label), 1)
    if bool((times != 1).any()):
        u, k = (int(i) for i in np.argwhere(times != 1)[0])
        raise InputError(
            f"{int((times != 1).sum())} original outputs (draw {draw}) are missing or there twice, first image "
            f"{units[int(u)]}, label {labels[k]}: give one for every image and label, or none at all."
        )
    values = np.empty(shape)
    values[owner, label] = rows["probability"].to_numpy(dtype=np.float64)
    level = pd.Index(levels).get_indexer(pd.Index(rows["level"]))
    if bool((level < 0).any()):
        odd = rows["level"].to_numpy()[level < 0][0]
        raise InputError(f"The factual level '{odd}' of an original image is none of the levels that were redrawn.")
    factual = np.empty(len(units), dtype=np.intp)
    factual[owner] = level
    if bool((factual[owner] != level).any()):
        u = int(owner[np.argmax(factual[owner] != level)])
        raise InputError(f"The original image '{units[int(u)]}' has more than one factual level.")
    return values, factual
