"""Numbers in somebody else's table of predictions: probabilities or decisions, told from percentages, never guessed."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.tables.spellings import is_stated
from citlr.errors import InputError
from citlr.invariance.operating_point import reaches

Floats = npt.NDArray[np.float64]
# Says which cell a row is of, for an error.
Of = Callable[[int], str]
# What a row for each answer may hold of it; where both stand, the decision is the probability's.
VALUES = ("probability", "decision")


def read_numbers(
    columns: Mapping[str, pd.Series], of: Of, file: str, *, percent: bool = False, labels: pd.Series | None = None
) -> dict[str, Floats]:
    """Read the cells of every label, text of shape (n,); `of` says which cell a row of them is, for an error.

    Percentages are noticed over the whole file, fractions among them label by label: of long tables by `labels`, the
    label of each row.
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
    if percent and not signed:
        _require_percentages(read, labels, file)
    scale = 100.0 if percent else 1.0
    return {label: _inside(numbers / scale, columns[label], of, label, file) for label, numbers in read.items()}


def _require_percentages(read: Mapping[str, Floats], labels: pd.Series | None, file: str) -> None:
    """Refuse a label whose numbers are fractions: a hundredth of them would be taken for probabilities."""
    largest = {label: float(numbers.max()) for label, numbers in read.items()}
    if labels is not None:
        numbers = pd.Series(next(iter(read.values())), index=labels.index)
        largest = {str(label): float(one) for label, one in numbers.groupby(labels).max().items()}
    small = {label: one for label, one in largest.items() if 0 < one <= 1}
    if not small:
        return
    label = next(iter(small))
    whose = f" for '{label}'" if len(largest) > 1 else ""
    raise InputError(
        f"'{file}' is said to hold percentages and its largest answer{whose} is {small[label]:g}, as of probabilities "
        "in [0, 1]: leave --percent out, and send every label's answers as probabilities."
    )


def require_same_cut(table: pd.DataFrame, cuts: Mapping[str, float], file: str, *, setting: str, percent: bool) -> None:
    """Refuse a column `threshold` that says other operating points than those that decisions are made at.

    `cuts` are those of the labels that are asked for; a blank cell says nothing, and `setting` is where they are said.
    """
    if "threshold" not in table or "threshold" in cuts:
        return
    own, column = table.get("label"), table["threshold"]
    # What a table says of labels that nobody asks for is not looked at, nor is a word for "not known".
    asked = own.isin(list(cuts)) if own is not None and own.isin(list(cuts)).any() else True
    said = _operating_points(column.where(is_stated(column) & asked), file, setting)
    for label, cut in cuts.items():
        mine = said[(own == label) if own is not None and (own == label).any() else said.notna()].dropna()
        wrong = mine[~(np.isclose(mine, cut) | (percent & np.isclose(mine, 100 * cut)))]
        if len(wrong):
            raise InputError(
                f"'{file}' says the threshold {wrong.iloc[0]:g} for '{label}', and decisions would be made at {cut:g}: "
                f"say the operating point with {setting}, or leave the column 'threshold' out."
            )


def _operating_points(column: pd.Series, file: str, setting: str) -> pd.Series:
    """Read a column of operating points; NaN where a cell is blank, and a percent sign is a hundredth."""
    text = column.astype("string").fillna("").str.strip()
    plain = text.str.removesuffix("%").str.strip().str.replace(r"^(\d*),(\d+)$", r"\1.\2", regex=True)
    numbers = pd.to_numeric(plain.replace("", None), errors="coerce").astype(float)
    odd = text[(text != "") & numbers.isna()]
    if len(odd):
        raise InputError(
            f"'{file}' has '{short(odd.iloc[0])}' in the column 'threshold', which is no number: write the operating "
            f"point of the decisions, say it with {setting}, or leave the column out."
        )
    return numbers.where(~text.str.endswith("%"), numbers / 100)


def require_decided(
    table: pd.DataFrame, of: Of, file: str, *, cuts: Mapping[str, float], setting: str, percent: bool = False
) -> None:
    """Refuse decisions that are not those of the probabilities beside them: only one of both is looked at.

    `cuts` are the operating points of the labels that are asked for, and `setting` is where they are said; a blank
    decision says nothing.
    """
    table = _as_long(table, next(iter(cuts))) if len(cuts) == 1 and "label" not in table else table
    if not all(name in table for name in (*VALUES, "label")):
        return
    numbers = read_numbers({"probability": table["probability"]}, of, file, percent=percent, labels=table["label"])
    cut = np.asarray(table["label"].map(cuts), dtype=np.float64)
    said = table["decision"].fillna("").ne("").to_numpy()
    decided = pd.to_numeric(table["decision"], errors="coerce").to_numpy(float)
    probability = numbers["probability"]
    wrong = np.flatnonzero(said & ~np.isnan(cut) & (decided != reaches(probability, cut)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"'{file}' has the decision '{short(table['decision'].iloc[row])}' beside the probability "
            f"{probability[row]:g}{of(row)}, and the threshold of '{table['label'].iloc[row]}' is {cut[row]:g} "
            f"({len(wrong)} such rows): say the decisions' operating point with {setting}, or leave out the column "
            "that is not to be audited."
        )


def _as_long(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """Give a wide table of one label as a long one where decisions stand beside its answers; words are none."""
    if label not in table or "decision" not in table or label == "decision":
        return table
    said = table["decision"].astype("string").fillna("").replace({"True": "1", "False": "0"})
    if not said.isin(["", "0", "1", "0.0", "1.0"]).all():
        return table
    return table.assign(label=label, probability=table[label], decision=said)


def short(text: object) -> str:
    """Shorten a cell that goes into an error."""
    shown = str(text)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _cells(column: pd.Series, of: Of, label: str, file: str) -> Floats:
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


def _inside(numbers: Floats, column: pd.Series, of: Of, label: str, file: str) -> Floats:
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"'{file}' has '{short(column.iloc[bad])}' for '{label}'{of(bad)}: probabilities lie in [0, 1], and "
            "decisions are 0 or 1."
        )
    return numbers
