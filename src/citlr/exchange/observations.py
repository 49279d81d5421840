"""A table of levels and predictions beside a file of embeddings: what `citlr.observe` takes, checked row by row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.tables.columns import read_table
from citlr.data.tables.printable import require_exact, require_no_error
from citlr.data.tables.spellings import require_one_spelling
from citlr.errors import InputError, require_known
from citlr.exchange.numbers import read_numbers, short
from citlr.run.files import require_regular

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Which column of the table is what; those that are empty are not there."""

    attribute: str
    prediction: str
    patient: str = ""
    outcome: str = ""
    propensity: str = ""


def read_observations(table: Path, z: Path, columns: Columns, *, percent: bool = False) -> dict[str, Any]:
    """Return the arguments of `citlr.observe`: arrays of one entry per row of the table, and Z (n, d) in its order."""
    source = str(table)
    named = list(dict.fromkeys(name for name in vars(columns).values() if name))  # one column may be two things
    frame = read_table(table, verbatim=[name for name in (columns.attribute, columns.patient) if name])
    for name in named:
        require_known(name, frame, f"'{source}' has no column '{name}'")
    cells = frame[named].astype("string").astype(object).where(frame[named].notna(), None)
    embeddings = read_embeddings(z)
    if len(embeddings) != len(frame):
        raise InputError(
            f"'{z}' has {len(embeddings)} rows and '{source}' has {len(frame)}: give one embedding for each row of the "
            "table, in its order."
        )
    for name, what in ((columns.attribute, "level"), (columns.patient, "patient")):
        if name:
            _require_names(cells[name], source, what)

    def of(row: int) -> str:
        return f" in row {row + 1}"

    found: dict[str, Any] = {
        "z": embeddings,
        "attribute": cells[columns.attribute].to_numpy(str),
        "prediction": read_numbers({columns.prediction: cells[columns.prediction]}, of, source, percent=percent)[
            columns.prediction
        ],
    }
    if columns.patient:
        require_exact(cells[columns.patient], source=f"'{source}'", what="patients")
        found["patients"] = cells[columns.patient].to_numpy(str)
    if columns.propensity:
        found["propensity"] = read_numbers({columns.propensity: cells[columns.propensity]}, of, source)[
            columns.propensity
        ]
    if columns.outcome:
        found["outcome"] = _truths(cells[columns.outcome], source)
    return found


def _require_names(cells: pd.Series, source: str, what: str) -> None:
    """Refuse levels or patients that are missing, broken, or written in two ways."""
    require_no_error(cells, source=f"'{source}'")
    blank = np.flatnonzero(cells.isna())
    if len(blank):
        raise InputError(
            f"'{source}' has no '{cells.name}' in row {blank[0] + 1} ({len(blank)} rows): take these rows out of the "
            "table and of the embeddings."
        )
    require_one_spelling(cells, source=f"'{source}'", what=what)


def read_embeddings(path: Path) -> Floats:
    """Read a `.npy` file, float (n, d); a pickle is never opened."""
    if not require_regular(path).is_file():
        raise InputError(
            f"There are no embeddings at '{path}': give a .npy file (numpy.save) of shape (images, numbers)."
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"'{path}' cannot be read as a NumPy array ({short(error)}): write it with numpy.save, as numbers."
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        shape = getattr(array, "shape", "of several arrays")
        raise InputError(
            f"'{path}' holds {shape}, {getattr(array, 'dtype', 'npz')}: give numbers of shape (images, numbers)."
        )
    z = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
    if len(bad):
        raise InputError(
            f"'{path}' has a missing or infinite number in row {bad[0] + 1} ({len(bad)} rows): fill it in."
        )
    return z


def _truths(column: pd.Series, source: str) -> Floats:
    """Read findings of 0, 1 or blank (not known)."""
    truth = pd.to_numeric(column, errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(column.notna().to_numpy() & ~np.isin(truth, (0, 1)))
    if len(wrong):
        raise InputError(
            f"'{source}' has '{short(column.iloc[wrong[0]])}' as '{column.name}' in row {wrong[0] + 1}: a finding is 0 "
            "or 1, or blank where it is not known."
        )
    return truth
