"""Names that go onto pages: characters that nobody sees are refused where a name comes in, markup is escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from citlr.errors import InputError

# Joiners that Persian and Indian scripts need inside of words.
_JOINERS = "\u200c\u200d"
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "\\": "\\\\", "`": "\\`", "*": "\\*",
             "[": "\\[", "]": "\\]", "@": "&#64;", "\n": " ", "\r": " "}  # fmt: skip


def unprintable(text: str) -> str:
    """Give the first character that does not show, or that turns the direction of others; empty where there is none.

    Examples
    --------
    >>> unprintable("fe\u202emale") == "\u202e", unprintable("weiß, Ärztin")
    (True, '')
    """
    hidden = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return next((c for c in text if unicodedata.category(c) in hidden and c not in _JOINERS), "")


def require_printable(values: Iterable[object], what: str) -> None:
    """Refuse names with characters that do not show, once for everything that is made of them."""
    for value in values:
        text = str(value)
        hidden = unprintable(text)
        if hidden:
            shown = printable(text)[:200]
            name = unicodedata.name(hidden, "control character").lower()
            raise InputError(
                f"{what} holds a character that does not show (U+{ord(hidden):04X}, {name}): '{shown}'; take it out."
            )


def printable(text: str) -> str:
    r"""Write characters that do not show as their codes.

    Examples
    --------
    >>> print(printable("fe\u202emale"))
    fe\u202emale
    """
    return "".join(f"\\u{ord(c):04x}" if c != "\n" and unprintable(c) else c for c in text)


def markdown(value: object) -> str:
    r"""Write text into a cell of a Markdown table: what would be markup, a link or a mention stays text.

    Examples
    --------
    >>> print(markdown("a|b <script> [x](y)"))
    a\|b &lt;script&gt; \[x\](y)
    """
    text = "".join(_MARKDOWN.get(character, character) for character in printable(str(value)))
    # Inside of a word an underscore is no markup: age_group stays readable on a terminal.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
