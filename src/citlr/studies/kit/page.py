"""How studies write their pages and figures: whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from citlr.run.files import atomic_write


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
