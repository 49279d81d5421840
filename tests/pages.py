"""What a page of documentation says to type: its commands, and its Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(page: str) -> list[list[str]]:
    """The commands of a page, in its order: lines that are indented by four blanks and begin with citlr."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (citlr .*)$", text, re.MULTILINE)]


def python(page: str) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


# Pages that people wrote; the others of the site are made from the code.
SITE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def marked(page: Path) -> list[str]:
    """The commands below a line `<!-- runs -->`: quick ones, which need nothing but the examples."""
    found = re.findall(r"^<!-- runs -->\n\n((?: {4}.*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.strip() for block in found for line in block.splitlines() if line.strip().startswith("citlr ")]
