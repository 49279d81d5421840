"""Tables of the report: cells that sort by value, and notes under the table for every number that is not there."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd

from citlr.invariance.records import Estimate
from citlr.report.numerals import is_number, percent

Kind = Literal["text", "number", "verdict", "mark"]
# Numbers that were written as text, an interval or a spread beside them, and the dash of one that is not there.
_NUMBERS = re.compile(r"-|[-+]?\.?\d(?:[\d\s.,±%()\[\]+-]|e[-+]\d|\bto\b)*")


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the key it sorts by, and, when it shows nothing, why (`absent`)."""

    text: str
    key: str = ""
    absent: str = ""
    kind: Kind = "text"
    detail: str = ""  # a second line, such as the interval
    note: str = ""  # the letter of the note under the table


@dataclass(frozen=True)
class Column:
    """A column's heading, whether it is read as numbers, and an explanation for the heading."""

    name: str
    kind: Kind = "text"
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """One table of the page; the first cell of each row is its row heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[tuple[str, str], ...] = ()
    sortable: bool = True


def text(value: object) -> Cell:
    """Make a cell of text."""
    return Cell(str(value), str(value).lower())


def verdict(value: str) -> Cell:
    """Make a cell that shows a verdict's badge and sorts by severity."""
    order = {"dependence": "0", "inconclusive": "1", "equivalent": "2"}
    return Cell(value, order.get(value, "3"), kind="verdict")


def mark(passed: bool | None) -> Cell:
    """Make a cell that says whether a condition is met, or was waived."""
    if passed is None:
        return Cell("waived", "", kind="mark")
    return Cell("passed" if passed else "failed", str(int(passed)), kind="mark")


def absent(reason: str) -> Cell:
    """Make a cell for a number that is not there."""
    return Cell("n/a", "", absent=reason)


def number(value: float | None, show: Callable[[float], str], reason: str) -> Cell:
    """Make a cell of a number, or of the reason why there is none.

    >>> number(0.5, str, "not measured").text
    '0.5'
    >>> number(float("nan"), str, "not measured").absent
    'not measured'
    """
    if value is None or not is_number(value):
        return absent(reason)
    return Cell(show(value), repr(float(value)), kind="number")


def estimate(value: Estimate | None, reason: str, *, signed: bool = False) -> Cell:
    """Make a cell of an estimate with its interval, or of the reason why there is none."""
    cell = absent(reason) if value is None else number(value.estimate, partial(percent, signed=signed), reason)
    if value is None or cell.absent:
        return cell
    bounded = is_number(value.low) and is_number(value.high)
    detail = f"{percent(value.low)} to {percent(value.high)}" if bounded else "no interval"
    return Cell(cell.text, cell.key, kind="number", detail=detail)


def build(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """Put a table together; equal reasons share one note.

    >>> table = build("T", [Column("a"), Column("b")], [[text("x"), absent("not run")], [text("y"), absent("not run")]])
    >>> table.notes, table.rows[1][1].note
    ((('a', 'not run'),), 'a')
    """
    letters: dict[str, str] = {}
    marked = []
    for row in rows:
        cells = []
        for cell in row:
            if cell.absent:
                reason = cell.absent.rstrip(". ")
                letter = letters.setdefault(reason, _letter(len(letters)))
                cell = Cell("n/a", "", absent=reason, kind=cell.kind, note=letter)
            cells.append(cell)
        marked.append(tuple(cells))
    notes = tuple((letter, reason) for reason, letter in letters.items())
    return Table(caption, tuple(columns), tuple(marked), notes, len(marked) > 1)


def spreadsheet(value: object) -> object:
    """Write text into a cell of a CSV so that no spreadsheet takes it for a formula; numbers stay numbers.

    >>> spreadsheet("=1+1"), spreadsheet(" @x"), spreadsheet("edema"), spreadsheet(-0.5), spreadsheet("-0.5 (-1 to 0)")
    ("'=1+1", "' @x", 'edema', -0.5, '-0.5 (-1 to 0)')
    """
    formula = isinstance(value, str) and (value.lstrip()[:1] in set("=+-@") or value[:1] in set("\t\r\n"))
    return f"'{value}" if formula and not _NUMBERS.fullmatch(str(value)) else value


def _letter(index: int) -> str:
    """Give a, b, ... z, aa, ab, ..."""
    head, tail = divmod(index, 26)
    return (chr(96 + head) if head else "") + chr(97 + tail)


def safe_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV in which no cell is a formula to a spreadsheet."""
    named = frame.set_axis([str(spreadsheet(name)) for name in frame.columns], axis=1)
    return str(named.map(spreadsheet).to_csv(index=False))
