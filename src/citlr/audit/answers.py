"""The answers of a closed model's owner: checked whole, then put beside the images they belong to."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.closed import KEY_COLUMNS
from citlr.audit.prediction import COLUMNS, ORIGINAL
from citlr.errors import InputError, StateError


def ingest(file: str | Path, *, key_folder: Path, labels: Sequence[str], percent: bool = False) -> pd.DataFrame:
    """Read the answers of a model's owner, wide or long, and put image, level and draw back beside them.

    Parameters
    ----------
    file : path-like
        CSV with a column `id` and either one column per label, or `label` and `probability`.
    key_folder : Path
        Where the sealed key is.
    labels : sequence of str
        The labels to audit.
    percent : bool
        Whether the numbers are percentages.

    Returns
    -------
    DataFrame
        Long responses of every set that was exported.

    Raises
    ------
    InputError
        If ids are missing, unknown or given twice, a column is missing, or a number is not a probability. Nothing is
        changed anywhere before the whole file has been accepted.
    """
    if not (key_folder / "key.parquet").is_file():
        raise StateError("Nothing was exported from this run: run `citlr export` first.")
    key = pd.read_parquet(key_folder / "key.parquet")
    table = _read_answers(Path(file))
    wide = _wide(table, labels, str(file))
    _check_ids(wide, key, str(file))
    values = {label: _numbers(wide[label], str(file), label, percent) for label in labels}
    answered = wide[["id"]].assign(**values)
    joined = key.merge(answered, on="id", how="left", validate="one_to_one")
    # The order of the stages' own responses: images, levels and draws as they were drawn, labels innermost.
    joined["original"] = (joined["draw"] != ORIGINAL).astype(int)
    long = joined.melt(
        id_vars=[*KEY_COLUMNS, "original"], value_vars=list(labels), var_name="label", value_name="probability"
    )
    order = ["attribute", "original", "image_id", "level", "draw", "label"]
    return long.sort_values(order, ignore_index=True)[list(COLUMNS)]


def _read_answers(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(f"No predictions at '{file}': give the CSV that the model's owner sent back.")
    try:
        text = file.read_text(encoding="utf-8-sig")
        dialect = csv.Sniffer().sniff(text[:4096], delimiters=",;\t") if text.strip() else None
        table = pd.read_csv(io.StringIO(text), sep=dialect.delimiter if dialect else ",", dtype=str)
    except (UnicodeDecodeError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"'{file}' is not a CSV table: {' '.join(str(error).split())}.") from error
    return table.rename(columns=lambda name: str(name).strip())


def _wide(table: pd.DataFrame, labels: Sequence[str], file: str) -> pd.DataFrame:
    """Bring long answers to one row per id."""
    if "id" not in table:
        raise InputError(f"'{file}' has no column 'id' (found {list(table.columns)}): keep the ids of manifest.csv.")
    if "label" in table and "probability" in table:
        twice = table.duplicated(["id", "label"])
        if twice.any():
            raise InputError(f"'{file}' answers the id '{table.loc[twice, 'id'].iloc[0]}' twice for one label.")
        table = table.pivot_table(index="id", columns="label", values="probability", aggfunc="first").reset_index()
    missing = [label for label in labels if label not in table]
    if missing:
        raise InputError(
            f"'{file}' has no column {missing}: give one column per label {list(labels)}, or 'label' and 'probability'."
        )
    return table


def _check_ids(table: pd.DataFrame, key: pd.DataFrame, file: str) -> None:
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise InputError(f"'{file}' has the id '{twice.iloc[0]}' twice ({len(twice)} ids are): one answer per id.")
    unknown = sorted(set(table["id"].astype(str)) - set(key["id"]))
    if unknown:
        raise InputError(
            f"'{file}' has {len(unknown)} ids that this run did not hand out ('{unknown[0]}' first): another run's?"
        )
    missing = sorted(set(key["id"]) - set(table["id"]))
    if missing:
        raise InputError(
            f"'{file}' lacks {len(missing)} of {len(key)} ids ('{missing[0]}' first): every id needs an answer."
        )


def _numbers(column: pd.Series[str], file: str, label: str, percent: bool) -> npt.NDArray[np.float64]:
    text = column.fillna("").str.strip()
    if text.str.fullmatch(r"-?\d+,\d+").any():
        example = text[text.str.fullmatch(r"-?\d+,\d+")].iloc[0]
        raise InputError(f"'{file}' has decimal commas in '{label}' ('{example}'): write decimal points.")
    numbers = pd.to_numeric(text.str.removesuffix("%"), errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        bad = int(np.flatnonzero(np.isnan(numbers))[0])
        raise InputError(f"'{file}' has {text.iloc[bad]!r} for '{label}' in row {bad + 2}: a number is needed there.")
    signs = text.str.endswith("%").any()
    if not percent and (signs or (numbers.max() > 1 and numbers.min() >= 0 and numbers.max() <= 100)):
        raise InputError(
            f"'{file}' seems to hold percentages in '{label}' (largest {numbers.max():g}): say --percent if so, "
            "else send probabilities in [0, 1]."
        )
    numbers = numbers / 100 if percent else numbers
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        raise InputError(f"'{file}' has {text.iloc[bad]} for '{label}' in row {bad + 2}: probabilities lie in [0, 1].")
    return numbers
