"""Groups of a number, such as ages: cut from the same reading of it as the column itself, under names that are true."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from citlr.data.steps import to_numbers
from citlr.data.tables.vocabulary import open_ended, raw_text, read_age
from citlr.errors import InputError

# What only an age is written as: a number of years, months, weeks or days.
_AGE_STRING = r"^[>=]*\s*\d+(?:\.\d+)?\s*(?:[YMWD]|years?|yrs?)\+?$"


def is_age(columns: Sequence[str], values: pd.Series) -> bool:
    """Tell whether a column holds ages: one of its names says so, or its cells do, such as 060Y.

    >>> is_age(["age_group", "PatientAge"], pd.Series(["60"])), is_age(["dosage"], pd.Series(["60"]))
    (True, False)
    """
    tokens = {token.lower() for name in columns for token in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    if tokens & {"age", "ages", "patientage", "alter", "edad"}:
        return True
    return bool(raw_text(values).str.match(_AGE_STRING, case=False).any())


def cut_bins(values: pd.Series, edges: Sequence[float], *, source: str, ages: bool = False) -> pd.Series:
    """Turn a number into groups such as `0-39`, `40-59` and `60+`; blanks stay blank.

    `0-39` is said of whole numbers and of completed years; of other numbers it would be false between two groups, which
    are then called `under 18.5`, `18.5 to under 25` and `25+`. An age that is only known to be above a bound ("89+") is
    blank where an edge lies above that bound.
    """
    inner = sorted({float(edge) for edge in edges})
    if not inner or not all(math.isfinite(edge) for edge in inner) or (ages and inner[0] <= 0):
        least = " above 0" if ages else ""
        raise InputError(
            f"The bins of '{values.name}' are {list(edges)[:20]}; give at least one edge{least}, such as 60."
        )
    numbers = read_age(values, source=source, cap=None) if ages else to_numbers(values, source=source)
    known = numbers.notna()
    if ages:
        known &= ~(open_ended(values) & (numbers < inner[-1]))
    given = numbers[known].to_numpy()
    names = _names(inner, whole=ages or bool((given == np.floor(given)).all() and (given >= 0).all()))
    place = np.searchsorted(np.asarray(inner), numbers.to_numpy(), side="right")
    cut = np.asarray(names, dtype=object)[np.minimum(place, len(inner))]
    return pd.Series(cut, index=values.index, name=values.name).where(known)


def _names(edges: Sequence[float], *, whole: bool) -> list[str]:
    """Name the groups between edges, from below the first to above the last."""
    texts = [repr(edge).removesuffix(".0") for edge in edges]
    if whole and edges[0] > 0 and all(edge.is_integer() for edge in edges):
        starts = [0, *(int(edge) for edge in edges)]
        named = pairwise(starts)
        ranges = [f"{low}" if high - low == 1 else f"{low}-{high - 1}" for low, high in named]
        return [*ranges, f"{texts[-1]}+"]
    between = [f"{low} to under {high}" for low, high in pairwise(texts)]
    return [f"under {texts[0]}", *between, f"{texts[-1]}+"]
