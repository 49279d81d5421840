"""Names and values that go onto pages: those with characters that do not show are refused where they come in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from citlr.errors import InputError
from citlr.text import shortened, visible


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
