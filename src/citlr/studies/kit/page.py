"""How studies write pages and figures, whole or not at all: Markdown, PNG, and an HTML page that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from citlr.report.page import environment, stylesheet
from citlr.run.files import atomic_write
from citlr.studies.kit.sheet import Sheet
from citlr.text import visible
from citlr.version import __version__


def write_page(path: str | Path, lines: Iterable[str]) -> Path:
    """Write the lines of a Markdown page."""
    file = Path(path)
    with atomic_write(file) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return file


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
    def of(cls, figure: Figure, folder: Path, name: str, caption: str) -> Picture:
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
    with atomic_write(file) as temporary:
        temporary.write_text(visible(page), encoding="utf-8")
