"""Groups of a number, such as ages: cut from the same reading of it as the column itself, under names that are true."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from citlr.data.steps import to_numbers
from citlr.data.tables.vocabulary import OLDEST, age_text, open_ended, read_age
from citlr.errors import InputError

# What only an age is written as: a number of years, months, weeks or days.
_AGE_STRING = r"^[>=]*\s*\d+(?:\.\d+)?\s*(?:[YMWD]|years?|yrs?)\+?$"

# In the languages in which a column is known to hold ages, and French, which says "age" too.
_NO_YEARS = frozenset(
    (
        *("month", "months", "mo", "mths", "week", "weeks", "day", "days"),
        *("monat", "monate", "monaten", "woche", "wochen", "tage", "tagen"),
        *("meses", "semanas", "dias", "mois", "semaines", "jours"),
    )
)
# More ages than this share above the oldest anybody gets are another unit, no typing errors.
MAX_STRANGE = 0.01
# Why a stated age is no age to go by.
UNCLEAR = f"above {OLDEST:g} years, or only known to be above a bound"


def is_age(columns: Sequence[str], values: pd.Series) -> bool:
    """Tell whether a column holds ages: one of its names says so, or its cells do, such as 060Y.

    >>> is_age(["age_group", "PatientAge"], pd.Series(["60"])), is_age(["dosage"], pd.Series(["60"]))
    (True, False)
    """
    if _words_in(columns) & {"age", "ages", "patientage", "alter", "edad"}:
        return True
    return bool(age_text(values).str.match(_AGE_STRING, case=False).any())


def _words_in(names: Sequence[str]) -> set[str]:
    return {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def read_ages(values: pd.Series, *, source: str, column: str = "") -> pd.Series:
    """Read ages of somebody's own table as years, all in one unit; those above the oldest anybody gets are NaN.

    `column` is what the table calls the column.
    """
    _require_one_unit(values, column, source)
    return read_age(values, source=source, cap=None)


def _require_one_unit(raw: pd.Series, column: str, source: str) -> None:
    """Refuse ages of which nobody can say whether they are years, months or days."""
    text, name = age_text(raw), str(raw.name)
    stated = text.str.contains(r"\d\s*[YMWD]", regex=True)
    bare = (text != "") & ~stated
    other = _words_in((name, column)) & _NO_YEARS
    if other and bare.any():
        raise InputError(
            f"{source}: the name of the column '{column}' says '{min(other)}', and ages are read in years: give a "
            "column of years, or write every age with its unit, such as 030M."
        )
    if stated.any() and bare.any() and not text[stated].str.contains("Y").all():
        with_unit = text[stated & ~text.str.contains("Y")].iloc[0]
        raise InputError(
            f"{source}: '{name}' mixes ages with a unit ('{with_unit}' first, {int(stated.sum())} images) and without "
            f"('{text[bare].iloc[0]}' first, {int(bare.sum())}): write the unit of every age, such as 030M and 045Y."
        )
    numbers = pd.to_numeric(text[bare].str.extract(r"(\d+(?:\.\d+)?)")[0], errors="coerce")
    old = numbers[numbers > OLDEST]
    if len(old) > MAX_STRANGE * max(len(text), 1):
        raise InputError(
            f"{source}: '{name}' holds {len(old)} ages above {OLDEST:g} ('{old.iloc[0]:g}' first), months or days "
            "among years by their look: write every age in years, or with its unit, such as 360M, and leave blank what "
            "is not known."
        )


def numbers_of(values: pd.Series, *, source: str, ages: bool, column: str) -> pd.Series:
    """Read what is cut into groups: ages in years, or plain numbers."""
    return read_ages(values, source=source, column=column) if ages else to_numbers(values, source=source)


def cut_bins(
    values: pd.Series, edges: Sequence[float], *, source: str, ages: bool = False, column: str = ""
) -> pd.Series:
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
    numbers = numbers_of(values, source=source, ages=ages, column=column)
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
