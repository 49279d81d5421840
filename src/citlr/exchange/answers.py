"""The answers of a closed model's owner: checked whole, then put beside the images they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.prediction import COLUMNS
from citlr.data.tables.columns import read_table
from citlr.errors import InputError, StateError
from citlr.exchange.closed import KEY_COLUMNS


def ingest(file: str | Path, *, key_folder: Path, labels: Sequence[str], percent: bool = False) -> pd.DataFrame:
    """Read the answers of a model's owner, wide or long, and put image, level and draw back beside them."""
    if not (key_folder / "key.parquet").is_file():
        raise StateError("Nothing was exported from this run: run `citlr export` first.")
    key = pd.read_parquet(key_folder / "key.parquet")
    table = _read_answers(Path(file))
    wide = _wide(table, labels, str(file))
    _check_ids(wide, key, str(file))
    values = _numbers(wide, labels, str(file), percent)
    answered = wide[["id"]].assign(**values)
    joined = key.merge(answered, on="id", how="left", validate="one_to_one")
    # The order of the stages' own responses: images, levels and draws as they were drawn, labels innermost.
    joined["original"] = (joined["draw"] >= 0).astype(int)
    long = joined.melt(
        id_vars=[*KEY_COLUMNS, "original"], value_vars=list(labels), var_name="label", value_name="probability"
    )
    order = ["attribute", "original", "image_id", "level", "draw", "label"]
    return long.sort_values(order, ignore_index=True)[list(COLUMNS)]


def _read_answers(file: Path) -> pd.DataFrame:
    """Read the cells as text; blank ones are empty text, and their id is named where a number was due."""
    if not file.is_file():
        raise InputError(f"No predictions at '{file}': give the CSV that the model's owner sent back.")
    return read_table(file).astype("string").fillna("").astype(object)


def _short(text: object) -> str:
    """Shorten a cell that goes into an error."""
    shown = str(text)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _wide(table: pd.DataFrame, labels: Sequence[str], file: str) -> pd.DataFrame:
    """Bring long answers to one row per id."""
    if "id" not in table:
        found = ", ".join(_short(name) for name in table.columns[:6])
        raise InputError(f"'{file}' has no column 'id' (found {found}): keep the ids of manifest.csv.")
    value = next((name for name in ("probability", "decision") if name in table), None)
    if "label" in table and value is not None:
        twice = table.duplicated(["id", "label"])
        if twice.any():
            raise InputError(
                f"'{file}' answers the id '{_short(table.loc[twice, 'id'].iloc[0])}' twice for one label: answer once."
            )
        undecided = ~table[value].isin(["0", "1", "0.0", "1.0"])
        if value == "decision" and undecided.any():
            raise InputError(
                f"'{file}' has '{_short(table.loc[undecided, value].iloc[0])}' in the column 'decision': a decision is "
                "0 or 1; probabilities go into a column 'probability'."
            )
        # Not pivot_table, which would average what is there twice and drop what is missing.
        table = table.set_index(["id", "label"])[value].unstack("label").reset_index()  # noqa: PD010
    missing = [label for label in labels if label not in table]
    if missing:
        raise InputError(
            f"'{file}' has no column {missing}: give one column per label {list(labels)}, or 'label' and 'probability'."
        )
    return table


def _check_ids(table: pd.DataFrame, key: pd.DataFrame, file: str) -> None:
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise InputError(f"'{file}' has the id '{_short(twice.iloc[0])}' twice ({len(twice)} ids are): answer once.")
    unknown = sorted(set(table["id"].astype(str)) - set(key["id"]))
    if unknown:
        raise InputError(
            f"'{file}' has {len(unknown)} ids that this run did not hand out ('{_short(unknown[0])}' first): another "
            "run's?"
        )
    missing = sorted(set(key["id"]) - set(table["id"]))
    if missing:
        raise InputError(
            f"'{file}' lacks {len(missing)} of {len(key)} ids ('{missing[0]}' first): every id needs an answer."
        )


def _numbers(
    table: pd.DataFrame, labels: Sequence[str], file: str, percent: bool
) -> dict[str, npt.NDArray[np.float64]]:
    """Read the answers of every label; fractions and percentages are told apart over the whole file, never guessed."""
    read = {label: _cells(table, label, file) for label in labels}
    signs = {label: table[label].fillna("").str.endswith("%") for label in labels}
    signed = any(sign.any() for sign in signs.values())
    largest = max(float(numbers.max()) for numbers in read.values())
    above = sum(int((numbers > 1).sum()) for numbers in read.values())
    negative = any((numbers < 0).any() for numbers in read.values())
    if not percent and (signed or (above > 1 and largest <= 100 and not negative)):
        raise InputError(
            f"'{file}' seems to hold percentages ({above} answers above 1, the largest {largest:g}): say --percent if "
            "so, else send probabilities in [0, 1]."
        )
    if percent and signed and not all(sign.all() for sign in signs.values()):
        raise InputError(f"'{file}' has answers with and without a percent sign: write all of them alike.")
    if percent and not signed and 0 < largest <= 1:
        raise InputError(
            f"'{file}' is said to hold percentages and its largest answer is {largest:g}, as of probabilities in "
            "[0, 1]: leave --percent out, or check what was sent."
        )
    scale = 100.0 if percent else 1.0
    return {label: _inside(numbers / scale, table, label, file) for label, numbers in read.items()}


def _cells(table: pd.DataFrame, label: str, file: str) -> npt.NDArray[np.float64]:
    text = table[label].fillna("")
    commas = text.str.fullmatch(r"-?\d+,\d+%?")
    if commas.any():
        raise InputError(f"'{file}' has decimal commas in '{label}' ('{text[commas].iloc[0]}'): write decimal points.")
    numbers = pd.to_numeric(text.str.removesuffix("%").str.strip(), errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        bad = int(np.flatnonzero(np.isnan(numbers))[0])
        raise InputError(
            f"'{file}' has '{_short(text.iloc[bad])}' for '{label}' of the id '{table['id'].iloc[bad]}': a number is "
            "needed there (a decision is 0 or 1)."
        )
    return numbers


def _inside(numbers: npt.NDArray[np.float64], table: pd.DataFrame, label: str, file: str) -> npt.NDArray[np.float64]:
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"'{file}' has '{_short(table[label].iloc[bad])}' for '{label}' of the id '{table['id'].iloc[bad]}': "
            "probabilities lie in [0, 1], and decisions are 0 or 1."
        )
    return numbers
