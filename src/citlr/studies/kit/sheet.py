"""Tables of the studies: headings and cells of text, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from citlr.run.files import atomic_write
from citlr.text import markdown

# What LaTeX reads as commands, and how it is written instead.
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "$": r"\$"}


# A cell of a row: a format string over the row's names, or a function of the row.
Cell = str | Callable[[Any], str]


def markdown_table(columns: Mapping[str, Cell], rows: Iterable[Any], align: str = "") -> list[str]:
    """Write the lines of a table: a cell for each heading, as it is, and an "l" or "r" for each column as LaTeX has it.

    >>> markdown_table({"test": "{name}", "n": lambda row: str(row["n"])}, [{"name": "t", "n": 3}], "lr")
    ['| test | n |', '|---|--:|', '| t | 3 |']
    """
    return _lines(columns, _cells(columns, rows), align)


def _cells(columns: Mapping[str, Cell], rows: Iterable[Any]) -> list[list[str]]:
    return [[cell.format(**row) if isinstance(cell, str) else cell(row) for cell in columns.values()] for row in rows]


def _lines(head: Iterable[str], cells: Iterable[Iterable[str]], align: str = "") -> list[str]:
    first, *others = [f"| {' | '.join(line)} |" for line in (head, *cells)]
    rule = "|".join("--:" if side == "r" else "---" for side in align or [""] * len(list(head)))
    return [first, f"|{rule}|", *others]


@dataclass(frozen=True)
class Sheet:
    """A finished table: a name for its files, a caption, headings, and cells as text."""

    name: str
    caption: str
    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, name: str, caption: str, columns: Mapping[str, Cell], rows: Iterable[Any]) -> Self:
        """Make a table of one line per row, a cell for each heading."""
        return cls(name, caption, tuple(columns), tuple(tuple(line) for line in _cells(columns, rows)))

    def markdown(self) -> str:
        """Write the table as Markdown, its caption above it.

        >>> print(Sheet("t", "A table", ("model", "x"), (("a", "1"),)).markdown())
        **A table**
        <BLANKLINE>
        | model | x |
        |---|---|
        | a | 1 |
        """
        head, *cells = [[*map(markdown, line)] for line in (self.head, *self.cells)]
        return "\n".join([f"**{markdown(self.caption)}**", "", *_lines(head, cells)])

    def csv(self) -> str:
        """Write the table as CSV."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.head)
        writer.writerows(self.cells)
        return stream.getvalue()

    def latex(self) -> str:
        r"""Write the table as LaTeX for the package booktabs."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join("".join(_LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

        caption = "".join(_LATEX.get(sign, sign) for sign in self.caption)
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{caption}}}\label{{tab:{self.name}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
                r"\toprule",
                line(self.head) + r" \midrule",
                *(line(cells) for cells in self.cells),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def write(self, folder: Path) -> None:
        """Write `<name>.md`, `.csv` and `.tex`."""
        for suffix, text in ((".md", self.markdown() + "\n"), (".csv", self.csv()), (".tex", self.latex())):
            with atomic_write(folder / f"{self.name}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")
