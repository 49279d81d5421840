"""Numbers in somebody else's table of predictions: probabilities or decisions, told from percentages, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.errors import InputError
from citlr.invariance.operating_point import reaches

Floats = npt.NDArray[np.float64]
# What a row for each answer may hold of it; where both stand, the decision is the probability's.
VALUES = ("probability", "decision")


def read_numbers(
    columns: Mapping[str, pd.Series], of: Callable[[int], str], file: str, *, percent: bool = False
) -> dict[str, Floats]:
    """Read the cells of every label, text of shape (n,); `of` says which cell a row of them is, for an error.

    Fractions and percentages are told apart over the whole file.
    """
    read = {label: _cells(text, of, label, file) for label, text in columns.items()}
    signs = {label: text.fillna("").str.endswith("%") for label, text in columns.items()}
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
    return {label: _inside(numbers / scale, columns[label], of, label, file) for label, numbers in read.items()}


def require_decided(
    table: pd.DataFrame,
    of: Callable[[int], str],
    file: str,
    *,
    cuts: Mapping[str, float],
    setting: str,
    percent: bool = False,
) -> None:
    """Refuse decisions of a long table that are not those of the probabilities beside them: only one is looked at.

    `cuts` are the operating points of the labels that are asked for, and `setting` is where they are said; a blank
    decision says nothing.
    """
    if not all(name in table for name in VALUES):
        return
    numbers = read_numbers({"probability": table["probability"]}, of, file, percent=percent)["probability"]
    cut = np.asarray(table["label"].map(cuts), dtype=np.float64)
    said = table["decision"].fillna("").ne("").to_numpy()
    decided = pd.to_numeric(table["decision"], errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(said & ~np.isnan(cut) & (decided != reaches(numbers, cut)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"'{file}' has the decision '{short(table['decision'].iloc[row])}' beside the probability "
            f"{numbers[row]:g}{of(row)}, and the threshold of '{table['label'].iloc[row]}' is {cut[row]:g} "
            f"({len(wrong)} such rows): say the decisions' operating point with {setting}, or leave out the column "
            "that is not to be audited."
        )


def short(text: object) -> str:
    """Shorten a cell that goes into an error."""
    shown = str(text)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _cells(column: pd.Series, of: Callable[[int], str], label: str, file: str) -> Floats:
    text = column.fillna("")
    commas = text.str.fullmatch(r"-?\d+,\d+%?")
    if commas.any():
        raise InputError(f"'{file}' has decimal commas in '{label}' ('{text[commas].iloc[0]}'): write decimal points.")
    numbers = pd.to_numeric(text.str.removesuffix("%").str.strip(), errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        bad = int(np.flatnonzero(np.isnan(numbers))[0])
        raise InputError(
            f"'{file}' has '{short(text.iloc[bad])}' for '{label}'{of(bad)}: a number is needed there (a decision is 0 "
            "or 1)."
        )
    return numbers


def _inside(numbers: Floats, column: pd.Series, of: Callable[[int], str], label: str, file: str) -> Floats:
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"'{file}' has '{short(column.iloc[bad])}' for '{label}'{of(bad)}: probabilities lie in [0, 1], and "
            "decisions are 0 or 1."
        )
    return numbers
