"""Tables, pages and figures of the studies, written whole or not at all: Markdown, CSV, LaTeX, PNG, and HTML."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from citlr.report.page import environment, stylesheet
from citlr.report.tables import safe_csv
from citlr.run.files import atomic_write, write_text
from citlr.text import markdown, visible
from citlr.version import __version__

# What LaTeX reads as commands, and how it is written instead.
_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%_#${}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"},
    # In LaTeX's own encoding of fonts these are other signs: "p < 0.01" was read "p ¡ 0.01".
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    # Of mathematics, which it has in no other way.
    **{"−": "$-$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$", "∞": r"$\infty$"},
    **{"[": "{[}", "*": "{*}"},  # options of the line break before them
}
# The last of the letters that LaTeX knows without a package.
_LATIN = "\u017f"


def _latex(text: str) -> str:
    """Write a text for LaTeX; an empty line would end a paragraph, which headings and captions cannot."""
    return "".join(_LATEX.get(sign, sign) for sign in visible(" ".join(text.split())))


# A cell of a row: a format string over the row's names, or a function of the row.
Cell = str | Callable[[Any], str]


def table_lines(columns: Mapping[str, Cell], rows: Iterable[Any], align: str = "") -> list[str]:
    """Write the lines of a table: a cell for each heading, as it is, and an "l" or "r" for each column as LaTeX has it.

    >>> table_lines({"test": "{name}", "n": lambda row: str(row["n"])}, [{"name": "t", "n": 3}], "lr")
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
        return safe_csv(pd.DataFrame(self.cells, columns=self.head))

    def latex(self) -> str:
        r"""Write the table as LaTeX for the package booktabs."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(map(_latex, cells)) + r" \\"

        caption = _latex(self.caption)
        written = "\n".join(
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
        foreign = any(sign.isalpha() and sign > _LATIN for sign in written)
        return (
            f"% pdfLaTeX does not know all letters of this table: LuaLaTeX and XeLaTeX do.\n{written}"
            if foreign
            else written
        )

    def write(self, folder: Path) -> None:
        """Write `<name>.md`, `.csv` and `.tex`."""
        for suffix, text in ((".md", self.markdown() + "\n"), (".csv", self.csv()), (".tex", self.latex())):
            write_text(folder / f"{self.name}{suffix}", text)


def write_page(path: str | Path, lines: Iterable[str]) -> Path:
    """Write the lines of a Markdown page."""
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return Path(path)


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 130) -> Path:
    """Write a figure as PNG."""
    file = Path(path)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return file


@dataclass(frozen=True)
class Picture:
    """A figure: its bytes as base64, its file relative to the page, and what it shows."""

    data: str
    link: str
    caption: str

    @classmethod
    def of(cls, figure: Figure, folder: Path, name: str, caption: str) -> Self:
        """Write a figure to `figures/` beside the page."""
        path = save_figure(figure, folder / "figures" / f"{name}.png")
        return cls(base64.b64encode(path.read_bytes()).decode(), f"figures/{path.name}", caption)


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    name: str
    title: str
    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Heading:
    """What stands above the sections: the kind of study, its title, a summary, and what to read first."""

    kind: str
    title: str
    summary: str
    notes: Sequence[str]


def write_html(file: Path, heading: Heading, parts: Sequence[Part], *, fleet: str) -> None:
    """Write the page, and its tables to `tables/` beside it; `fleet` is the page of all models that it links to."""
    for part in parts:
        for sheet in part.sheets:
            sheet.write(file.parent / "tables")
    engine = environment().overlay(loader=jinja2.PackageLoader("citlr.studies.kit", "templates"))
    page = engine.get_template("study.html.j2").render(
        version=__version__, style=stylesheet(), parts=parts, fleet=fleet, **vars(heading)
    )
    write_text(file, visible(page))
