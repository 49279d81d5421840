"""Text that came from outside, written so that it can be read: no hidden characters, no endless values, no markup."""

import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from decimal import Decimal

LONGEST_VALUE, LONGEST_MESSAGE = 200, 1000

# Control characters but line feed and tab, surrogates, and what turns or hides text: the direction marks, zero-width
# spaces, line separators and tags. The joiners U+200C and U+200D stay: words of some scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = {"\\": "\\\\", "|": "\\|", "&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "\\`", "*": "\\*", "~": "\\~",
             "[": "\\[", "]": "\\]", "@": "&#64;", "\n": " ", "\r": " "}  # fmt: skip


def visible(text: str) -> str:
    r"""Write characters that nobody sees, or that turn the text around, as escapes; line feeds and tabs stay."""
    return _HIDDEN.sub(lambda found: ascii(found.group())[1:-1], text)


def shortened(text: str, most: int = LONGEST_VALUE) -> str:
    """Cut a text in one line down to so many characters; the end stays, where a sentence says what would do."""
    line = " ".join(visible(text).split("\n"))
    if len(line) <= most:
        return line
    tail = most // 3 - 3
    return f"{line[: most - tail - 5]} ... {line[-tail:] if tail > 0 else ''}"


def shown(value: object) -> str:
    r"""Write a value as Python does, at most 200 characters of it, whatever its size and depth."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = LONGEST_VALUE
    brief.maxlevel = 4
    return shortened(brief.repr(value))


def listed(names: Iterable[str]) -> str:
    """List names; where one has a comma itself, as a level of sex and age together, by semicolons.

    >>> listed(["F", "M"]), listed(["F, 0-59", "F, 60+"])
    ('F, M', 'F, 0-59; F, 60+')
    """
    every = list(names)
    return ("; " if any(", " in name for name in every) else ", ").join(every)


def joined(names: Iterable[str], last: str = "and") -> str:
    """Join names as a sentence does.

    >>> joined(["a", "b", "c"]), joined(["a"])
    ('a, b and c', 'a')
    """
    every = list(names)
    return f"{listed(every[:-1])} {last} {every[-1]}" if len(every) > 1 else "".join(every)


def listed_few(names: Iterable[object], most: int = 5) -> str:
    """List names, and count those beyond `most`.

    >>> listed_few("abcdefgh", 3), listed_few(["f", "m"])
    ('a, b, c and 5 more', 'f, m')
    """
    every = [shortened(str(name), 60) for name in names]
    return listed(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def beside(value: float, limit: float, digits: int, form: str = "f") -> str:
    """Write a number beside its limit: with more digits where it would look on the other side of it, or on it.

    >>> beside(5.04, 5, 1), beside(4.9, 5, 1), beside(100 * 0.29, 29, 1), beside(0.0496, 0.05, 2, "g")
    ('5.04', '4.9', '29.0', '0.0496')
    """
    alike = math.isclose(value, limit, rel_tol=1e-9)  # but for rounding
    for more in range(digits, digits + 6):
        text = f"{value:{form[:-1]}.{more}{form[-1]}}"
        if alike or (float(text) < limit, float(text) > limit) == (value < limit, value > limit):
            break
    return text


def as_set(value: float, digits: int) -> str:
    """Write a number that somebody set: with so many decimals, and more where they would round it.

    >>> as_set(5, 1), as_set(100 * 0.07, 1), as_set(80.5, 0), as_set(1.25, 1), as_set(0.00005, 3), as_set(1 / 0.7, 3)
    ('5.0', '7.0', '80.5', '1.25', '0.00005', '1.42857')
    """
    text, whole = f"{value:.{digits}f}", f"{value:.6g}"
    return text if float(text) == float(whole) else f"{Decimal(whole):f}"


def markdown(value: str) -> str:
    r"""Write text into Markdown, a cell of a table too: what would be markup, a link or a mention stays text."""
    text = "".join(_MARKDOWN.get(character, character) for character in visible(value))
    # Inside of a word an underscore is no markup: age_group stays readable on a terminal.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: int = 0) -> str:
    r"""Write a table in Markdown; its last `right` columns are numbers.

    >>> print(markdown_table(["name", "count"], [["a|b", 3]], right=1))
    | name | count |
    |---|---:|
    | a\|b | 3 |
    """
    named, *others = (f"| {' | '.join(markdown(str(cell)) for cell in row)} |" for row in (head, *rows))
    marks = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join([named, f"|{'|'.join(marks)}|", *others])
