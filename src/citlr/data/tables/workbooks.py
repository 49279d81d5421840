"""The first visible sheet of an Excel workbook: its cells, errors of formulas, and what was never calculated."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from citlr.errors import needed

_MERGED = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref=["']([A-Z]+\d+):([A-Z]+\d+)["']""")
# What a sheet without errors and formulas does not hold; most are none.
_ODD = re.compile(rb"""\st=["']e["']|<(?:\w+:)?f[\s>/]""")


def read_sheet(file: Path, *, header_only: bool) -> tuple[list[list[Any]], list[tuple[int, str]]]:
    """Give the rows of cells, and the column and name of every formula that was never calculated.

    Calamine takes a tenth of the time of openpyxl, through which pandas reads; errors it gives as blank cells, and all
    but the first of merged ones.
    """
    with needed("python-calamine", "xlsx", f"Reading {file.name}"):
        from python_calamine import CalamineWorkbook
    with zipfile.ZipFile(file) as archive:
        name, part = _first_sheet(archive)
        content = b"" if header_only else archive.read(part)
    sheet = CalamineWorkbook.from_path(str(file)).get_sheet_by_name(name)
    rows = sheet.to_python(skip_empty_area=False, nrows=1 if header_only else None)
    formulas = []
    for row, column, cell, said in _odd_cells(content):
        if not said:
            formulas.append((column, cell))
        elif row < len(rows) and column < len(rows[row]):
            rows[row][column] = said
    _fill_merged(rows, content)
    return rows, formulas


def _fill_merged(rows: list[list[Any]], content: bytes) -> None:
    """Write what merged cells show into every row of their first column: across columns they are a heading."""
    for first, last in _MERGED.findall(content):
        (top, left), (bottom, _) = (_place(name.decode(), (0, 0)) for name in (first, last))
        for row in rows[top : bottom + 1] if top and left < len(rows[0]) else ():
            row[left] = rows[top][left]


def _odd_cells(content: bytes) -> Iterator[tuple[int, int, str, str]]:
    """Give row, column, name and text of cells with an error, and of formulas without a value the empty text."""
    if not _ODD.search(content):
        return
    for place, line in enumerate(ElementTree.fromstring(content).iterfind("{*}sheetData/{*}row")):
        for beside, cell in enumerate(line.iterfind("{*}c")):
            kind, value = cell.get("t"), cell.findtext("{*}v") or ""
            # A formula whose value is the empty text is calculated, and says that it is a text.
            if kind == "e" or (cell.find("{*}f") is not None and not value and kind not in ("str", "inlineStr")):
                row, column = _place(cell.get("r"), (int(line.get("r", place + 1)) - 1, beside))
                yield row, column, cell.get("r", f"row {row + 1}, column {column + 1}"), value


def _place(name: str | None, counted: tuple[int, int]) -> tuple[int, int]:
    """Give row and column of a cell by its name, or as they were counted where it has none."""
    if name is None:
        return counted
    letters, column = name.rstrip("0123456789"), 0
    for letter in letters:
        column = 26 * column + ord(letter) - ord("A") + 1
    return int(name.removeprefix(letters)) - 1, column - 1


def _first_sheet(archive: zipfile.ZipFile) -> tuple[str, str]:
    """Give the name of the first sheet that who opens the workbook sees, and the part of the archive that it is."""
    book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    places = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    sheets = list(book.iterfind("{*}sheets/{*}sheet"))
    sheet = next((one for one in sheets if one.get("state", "visible") == "visible"), sheets[0])
    key = next(value for name, value in sheet.items() if name.endswith("}id"))
    target = next(one.get("Target", "") for one in places if one.get("Id") == key)
    return sheet.get("name", ""), target.lstrip("/") if target.startswith("/") else f"xl/{target}"
