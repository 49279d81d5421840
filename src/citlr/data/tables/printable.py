"""Names and values as they come in: refused with characters that do not show; what a program broke."""

import re
import unicodedata
from collections.abc import Iterable

import pandas as pd

from citlr.errors import InputError
from citlr.text import shortened, visible

# A number of more digits than a program kept of it: as a power of ten, or with the .0 of a float above 2**53.
_ROUNDED = r"(?:\d(?:[.,]\d+)?[eE]\+|\d[.,]\d+[eE])\d+|(?:9\d{15}|\d{17,})\.0+"


def require_printable(values: Iterable[object], what: str) -> None:
    """Refuse names with characters that do not show or turn others around, once for everything that is made of them."""
    for value in values:
        text = str(value)
        if visible(text) != text or "\n" in text or "\t" in text:
            hidden = next(c for c in text if c in "\n\t" or visible(c) != c)
            name = unicodedata.name(hidden, "control character").lower()
            raise InputError(
                f"{what} holds a character that does not show (U+{ord(hidden):04X}, {name}): '{shortened(text)}'; take "
                "it out."
            )


def require_exact(identifiers: pd.Series, *, source: str, what: str) -> None:
    """Refuse identifiers that were rounded as numbers: several would be one."""
    rounded = identifiers[identifiers.astype(str).str.fullmatch(_ROUNDED)]
    if len(rounded):
        raise InputError(
            f"{source} has {len(rounded)} {what} such as '{rounded.iloc[0]}', which a spreadsheet has rounded, or "
            "another program that takes them for numbers, so that several may be one; export the column as text."
        )


def require_no_error(cells: pd.Series, *, source: str) -> None:
    """Refuse what a spreadsheet writes where a formula fails, such as `#REF!`."""
    for value in cells.dropna().unique():
        if isinstance(value, str) and re.fullmatch(r"#[A-Z/0]+[!?]", value):
            rows = cells.index[cells == value]
            raise InputError(
                f"{source}: '{cells.name}' holds '{value}' ({len(rows)} images), the error of a spreadsheet's formula, "
                f"in row {rows[0] + 1} first; mend the formula, and save the table again."
            )
