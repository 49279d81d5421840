"""Which values of a column are spellings of one level: by case and blanks, by number, and by the vocabulary."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from citlr.data.tables import vocabulary
from citlr.errors import InputError
from citlr.text import shortened

# The minus sign, and quotes that are set in pairs.
_SIGNS = str.maketrans("\u2212\u2018\u2019\u201c\u201d", "-''\"\"")
# Small letters, and those of which the capital looks Latin.
_CYRILLIC = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455", "abekmhopctyxijs"
)
_NUMBER = re.compile(r"([+-]?)0*(\d+?)(?:\.(\d*?)0*)?")


@dataclass(frozen=True)
class Words:
    """What one part of the vocabulary says of any table: how its columns are called, and which values mean what.

    `levels` are those that are one level each; other names ("other") gather what differs. `merged`: whether spellings
    are read as one without being asked, as sexes are: nobody means two of them.
    """

    name: str
    columns: frozenset[str]
    table: Mapping[str, str]
    levels: tuple[str, ...]
    merged: bool = False


_ETHNICITIES = {
    **vocabulary.ETHNICITY_CHEXPERT,
    "hispanic or latino": "hispanic",
    "non-hispanic": "non-hispanic",
    "non hispanic": "non-hispanic",
    "not hispanic or latino": "non-hispanic",
}
_RACES = {
    **vocabulary.RACE_MIMIC,
    **vocabulary.RACE_CHEXPERT,
    "black": "black",
    "african american": "black",
    "caucasian": "white",
    "hispanic": "other",
}
ATTRIBUTES = (
    Words("sex", frozenset({"sex", "gender", "geschlecht"}), vocabulary.SEX, vocabulary.SEXES, merged=True),
    Words("ethnicity", frozenset({"hispanic"}), _ETHNICITIES, ("hispanic", "non-hispanic"), merged=True),
    Words("race", frozenset({"race", "ethnicity", "ethnic"}), _RACES, vocabulary.STUDY_RACES),
)
VIEWS = Words("view", frozenset({"view"}), vocabulary.VIEW, ("AP", "PA", "frontal", "lateral"), merged=True)
# What says of any attribute that it is not stated.
UNSTATED = frozenset({"?", "-", "--", ".", "unknown", "missing", "not stated", "not reported", "prefer not to say"})
_TRUTH = {"true": "yes", "yes": "yes", "on": "yes", "false": "no", "no": "no", "off": "no"}


def fold(text: str) -> str:
    r"""Reduce a value to what its spellings share: case, blanks, invisible characters and `.0` do not count.

    Nor does what only looks otherwise: the dashes and quotes that a word processor makes, and Cyrillic letters in a
    value that is all Latin with them.

    >>> fold(" Female "), fold("1.0"), fold("01"), fold("White  or\u00a0Caucasian"), fold("18\u201340")
    ('female', '1', '1', 'white or caucasian', '18-40')
    """
    plain = text
    if not plain.isascii():
        plain = unicodedata.normalize("NFKC", plain)
        kinds = [(c, unicodedata.category(c)) for c in plain]
        plain = "".join("-" if kind == "Pd" else c for c, kind in kinds if kind != "Cf").translate(_SIGNS)
    plain = " ".join(plain.casefold().split())
    if not plain.isascii() and (latin := plain.translate(_CYRILLIC)).isascii():
        plain = latin
    number = _NUMBER.fullmatch(plain)
    if number is None:
        return plain
    sign, whole, rest = number.groups(default="")
    # By its digits: identifiers of 20 digits are more than a float tells apart.
    return f"{sign.replace('+', '')}{whole}{'.' + rest if rest else ''}"


def is_stated(values: pd.Series) -> pd.Series:
    """Tell which cells are no word for "not known"; blank ones are none.

    >>> is_stated(pd.Series(["60", "Unknown", "?", None])).tolist()
    [True, False, False, True]
    """
    text = vocabulary.raw_text(values)
    return ~text.isin([value for value in text.unique() if fold(value) in UNSTATED])


def require_one_spelling(names: pd.Series, *, source: str, what: str) -> None:
    """Refuse names that differ by case or a `.0` only: one patient would count as two, and stand on two sides.

    A "1.10" is the tenth of site 1 rather than a "1.1".
    """
    seen: dict[str, str] = {}
    for name in names.unique():
        plain = fold(name)
        decimal = "." in plain and _NUMBER.fullmatch(plain)
        other = seen.setdefault(name.strip() if decimal else plain, name)
        if other != name:
            raise InputError(
                f"{source} has the {what}s '{shortened(other, 40)}' and '{shortened(name, 40)}', which look like "
                f"spellings of one; write every {what} in one way."
            )


def level_text(values: pd.Series) -> pd.Series:
    """Write the values of a column as names of levels; whole numbers lose the `.0` that other columns' blanks give.

    >>> level_text(pd.Series([1.0, 0.0])).tolist(), level_text(pd.Series(["F ", "1.0"])).tolist()
    (['1', '0'], ['F', '1.0'])
    """
    text = values.astype(str).str.strip()
    distinct = text.unique()
    if all(re.fullmatch(r"[+-]?\d+\.0+", value) for value in distinct):
        return text.str.replace(r"\.0+$", "", regex=True)
    return text


def words_of(columns: Iterable[str], values: Sequence[str]) -> Words | None:
    """Find the part of the vocabulary that a column speaks: by its names, or because it knows every value."""
    tokens = {token.lower() for name in columns for token in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    folded = [fold(value) for value in values]
    for words in ATTRIBUTES:
        levels = [words.table.get(value) for value in folded]
        whole = all(level is not None for level in levels) and any(level in words.levels for level in levels)
        if whole or tokens & words.columns:
            return words
    return None


def groups(values: Sequence[str], words: Words | None) -> dict[str, list[str]]:
    """Put spellings of one level together: key to values, in the order given."""
    found: dict[str, list[str]] = {}
    # Beside true and false, 1 and 0 are what another program wrote for them.
    truth = _TRUTH | ({"1": "yes", "0": "no"} if {"true", "false"} & set(map(fold, values)) else {})
    for value in values:
        key = fold(value)
        level = None if words is None else words.table.get(key)
        known = words is not None and level in (*words.levels, vocabulary.UNKNOWN)
        key = str(level) if known else vocabulary.UNKNOWN if key in UNSTATED else truth.get(key, key)
        found.setdefault(key, []).append(value)
    return found


def only_numbers_differ(values: Sequence[str]) -> bool:
    """Tell values that are one number, such as 1 and 1.0: they are one level without being asked."""
    return all(_NUMBER.fullmatch(value) for value in values)
