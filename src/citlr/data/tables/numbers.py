"""An attribute that is a number, such as the age: read in one unit, redrawn at values that images show."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from citlr.data.flow import FlowRecorder
from citlr.data.steps import to_numbers
from citlr.data.tables.bins import UNCLEAR, is_age, read_ages
from citlr.data.tables.levels import Rules
from citlr.data.tables.spellings import is_stated
from citlr.data.tables.vocabulary import AGE_CAP, open_ended, raw_text
from citlr.doses import MOST_LEVELS, as_numbers, nearest
from citlr.errors import InputError

# A column of no more different values than this is a set of levels, whatever its values look like; as for generators.
MAX_CATEGORIES = 8
# Bands that counts and strata are made of, where nothing else names groups of a number.
BANDS = 4
# A value is far from all others that lies so many ranges of the middle half beyond it; Tukey's outer fence has 3.
FAR = 5.0
# Ages that stand for none where nobody else is below the second number, or as old as those of `AGE_CAP`.
NO_AGE, ADULT, UNKNOWN_AGE = (0, 1), 10, 99


def is_number(column: pd.Series) -> bool:
    """Tell whether a cohort's attribute is a number; those that are levels are kept as their names.

    >>> is_number(pd.Series([30.5, 61.0])), is_number(pd.Series(["30", "61"]))
    (True, False)
    """
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def banded(column: pd.Series) -> pd.Series:
    """Give a column as text groups: the levels as they are, and of a number its quarters.

    >>> banded(pd.Series(["F", "M"])).tolist(), banded(pd.Series([20.0, 40, 60, 80])).tolist()
    (['F', 'M'], ['up to 35', '35 to 50', '50 to 65', 'over 65'])
    """
    if not is_number(column):
        return column.astype(str)
    cuts = np.unique(column.quantile(np.arange(1, BANDS) / BANDS).to_numpy(dtype=np.float64))
    named = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    names = np.array([f"up to {cuts[0]:g}", *named, f"over {cuts[-1]:g}"], dtype=object)
    return pd.Series(names[np.searchsorted(cuts, column.to_numpy(dtype=np.float64))], index=column.index)


def recorded_levels(column: pd.Series, levels: Sequence[str] | None) -> pd.Series:
    """Name what is recorded as groups: the levels as they are, and of a number the nearest of the values asked for.

    >>> recorded_levels(pd.Series([20.0, 48.0]), ["30", "50"]).tolist()
    ['30', '50']
    """
    if not is_number(column) or levels is None:
        return column.astype(str)
    return pd.Series(np.asarray(levels, dtype=object)[nearest(column, levels)], index=column.index)


def asked_as_number(values: pd.Series, levels: Rules, *, source: str) -> bool:
    """Tell whether a raw column is to be kept as a number: its levels are, and it has more values than a set would."""
    if levels is None or not isinstance(levels, list | tuple) or raw_text(values).nunique() <= MAX_CATEGORIES:
        return False
    text = raw_text(values)
    given = text[(text != "") & is_stated(values)]
    like_numbers = float(given.str.match(r"^[>=]*\s*-?\d").mean()) > 0.9 if len(given) else False
    if not like_numbers or set(map(str, levels)) >= set(given):
        return False
    if as_numbers(levels) is None:
        strange = next(level for level in levels if as_numbers([level]) is None)
        raise InputError(
            f"{source}: '{values.name}' is a number ({given.nunique()} different values), and its level '{strange}' is "
            "none: give the values to redraw it at, such as [30, 50, 70], or cut it into groups with `bins`."
        )
    return True


def read_number(recorder: FlowRecorder, name: str, *, source: str, column: str) -> None:
    """Read an attribute that is a number, ages in years; what has no value is left out, and told."""
    raw = recorder.frame[name]
    ages = is_age((name, column), raw)
    if ages:
        age = read_ages(raw, source=source, column=column)
        recorder.frame[name] = age.mask(open_ended(raw) & (age < AGE_CAP))
        recorder.keep(recorder.frame[name].notna(), name, f"{name}: {UNCLEAR}")
    else:
        recorder.frame[name] = to_numbers(raw, source=source)
    # Nines are far from all others, which is told later.
    note_codes(recorder, name, recorder.frame[name], step=name, ages=ages, nines=False)


def require_support(
    recorder: FlowRecorder, attribute: str, levels: Sequence[str], *, source: str, minimum: int, ages: bool
) -> None:
    """Refuse values that no training image is near to, and tell in the flow those that few patients are near to."""
    frame = recorder.frame
    learnt = frame["split"] == "train"
    own = frame[learnt] if learnt.any() else frame
    wanted, train = as_numbers(levels), own[attribute]
    assert wanted is not None
    if len({*wanted}) < max(len(levels), 2):
        raise InputError(
            f"`levels` of '{attribute}' are {', '.join(levels) or 'none'}: give two different numbers or more to "
            "redraw it at, such as [30, 50, 70]."
        )
    if len(levels) > MOST_LEVELS:
        raise InputError(
            f"`levels` names {len(levels)} values of '{attribute}': at most {MOST_LEVELS} can be compared."
        )
    if train.nunique() <= MAX_CATEGORIES:
        raise InputError(
            f"{source}: '{attribute}' has {train.nunique()} different values in the training split, too few for a "
            f"number (more than {MAX_CATEGORIES} are needed): give more images, or cut groups with `bins`."
        )
    _note_far(recorder, attribute)
    low, high = float(train.min()), float(train.max())
    outside = [level for level, value in zip(levels, wanted, strict=True) if not low <= value <= high]
    if outside:
        raise InputError(
            f"{source}: no training image shows '{attribute}' = {outside[0]}, the images go from {low:g} to {high:g}: "
            "give levels within that range."
        )
    if ages and AGE_CAP <= high <= AGE_CAP + 1 and wanted.max() >= AGE_CAP:
        raise InputError(
            f"{source}: '{attribute}' ends at {high:g}, which stands for everybody older in tables without names: give "
            f"levels below {AGE_CAP:g}."
        )
    order = np.sort(wanted)
    reach = float(np.diff(order).min()) / 2
    few = []
    for level, value in zip(levels, wanted, strict=True):
        near = own.loc[(own[attribute] - value).abs() <= reach, "patient_id"].nunique()
        if near < max(minimum, 1):
            few.append(f"{level} ({near} patients within {reach:g})")
    if few:
        recorder.start(
            attribute,
            f"{attribute}: few training patients are near to {', '.join(few)}: what is drawn there leans on the others",
        )


def note_codes(
    recorder: FlowRecorder,
    name: str,
    numbers: pd.Series,
    *,
    step: str = "covariates",
    ages: bool = False,
    nines: bool = True,
) -> None:
    """Tell in the flow of a value that looks like "not known": the one below 0, or nines above all (`nines`).

    Among ages, a 0 or 1 where nobody else is a child, and a 99 where nobody else is as old.
    """
    counts = numbers.value_counts()
    values = np.sort(counts.index.to_numpy(dtype=np.float64))
    if len(values) <= MAX_CATEGORIES:
        return
    lowest, low, high, highest = (float(values[place]) for place in (0, 1, -2, -1))
    codes = {
        lowest: (re.fullmatch(r"-(1|7+|8+|9+)", f"{lowest:g}") and low >= 0)
        or (ages and lowest in NO_AGE and low >= ADULT),
        highest: (nines and re.fullmatch("9{3,}", f"{highest:.0f}") and highest > 2 * abs(high))
        or (ages and highest == UNKNOWN_AGE and high < AGE_CAP),
    }
    for code, looks_so in codes.items():
        if looks_so and counts[code] > 1:
            recorder.start(
                step,
                f"'{name}' is {code:g} in {counts[code]} images, which is taken as a number: leave blank what stands "
                "for 'not known'",
            )


def _note_far(recorder: FlowRecorder, attribute: str) -> None:
    """Tell in the flow of values that lie far from all others, as a code such as 999 for "not known" does.

    A generator stands a number on its mean and spread, and what it learns of it leans on the farthest values.
    """
    column = recorder.frame[attribute].astype(float)
    low, first, third, high = column.quantile([0.05, 0.25, 0.75, 0.95])
    # Where a quarter has one value, as a dose of 0, quartiles may coincide.
    reach = FAR * (third - first) if third > first else high - low
    far = column[(column < first - reach) | (column > third + reach)] if reach > 0 else column[:0]
    if len(far):
        seen = ", ".join(f"{value:g}: {count}" for value, count in far.value_counts().head(5).items())
        recorder.start(
            attribute,
            f"{attribute}: {len(far)} images have values far from all others ({seen}), which are taken as they are; "
            "leave blank what stands for 'not known'",
        )
