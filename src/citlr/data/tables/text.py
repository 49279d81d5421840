"""Delimited text as a table: a row that does not fit its header is refused by its line, never shifted or dropped."""

import csv
import gzip
import io
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from citlr.errors import InputError

# What may stand between cells; the first is usual.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# Lines that are looked at to find out what stands between cells.
_SAMPLE = 50
# Files that are named like text and are none, by their first bytes.
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or name it .xlsx",
    b"PAR1": "a parquet file: name it .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as .xlsx or .csv",
    b"%PDF": "a PDF file: save the table as .csv",
}
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

Cells = dict[int, list[str]]
Keep = Callable[[str], bool] | None
# Rows that are taken at once where all are alike.
_BATCH = 4096


def read_text(file: Path, *, usual: str = ",", keep: Keep = None, header_only: bool = False) -> tuple[list[str], Cells]:
    """Read the header, and the cells of the columns that `keep` takes, by the place of the column."""
    try:
        return _read(file, usual, keep, header_only, _even_columns)
    except (_UnevenError, csv.Error):
        # Row by row, so that the line can be named.
        return _read(file, usual, keep, header_only, _columns)


def _read(
    file: Path, usual: str, keep: Keep, header_only: bool, columns: Callable[..., tuple[list[str], Cells]]
) -> tuple[list[str], Cells]:
    with _opened(file) as stream:
        lines = _without_nul(stream, file)
        try:
            sample = list(itertools.islice(lines, _SAMPLE))
            separator, skipped = _separator(sample, usual)
            rows = csv.reader(
                itertools.chain(sample[skipped:], lines), delimiter=separator, strict=True, skipinitialspace=True
            )
            return columns(_Records(rows, file, skipped, separator), keep, header_only)
        except UnicodeDecodeError as error:
            raise InputError(_undecodable(file, error)) from error


@contextmanager
def _opened(file: Path) -> Iterator[TextIO]:
    """Open text, gzipped or not whatever its name says, in the encoding that its first bytes tell."""
    with file.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=raw) if packed else raw), 1 << 16)
        head = stream.peek(4)
        if not head.strip(b"\xef\xbb\xbf \t\r\n") and len(head) < 1 << 10:
            raise InputError(f"{file} is empty; give a table with a header and rows.")
        for mark, what in _OTHERS.items():
            if head.startswith(mark):
                raise InputError(f"{file} is named as text and is {what}.")
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8-sig")
        yield io.TextIOWrapper(stream, encoding=encoding, newline="")


def _without_nul(stream: TextIO, file: Path) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            what = "is UTF-16 without a mark" if line.count("\0") * 3 > len(line) else "is damaged or no text"
            raise InputError(f"{file} has a NUL byte in line {number}: it {what}; save it as CSV in UTF-8.")
        yield line


def _undecodable(file: Path, error: UnicodeDecodeError) -> str:
    """Name the line that is not in the encoding; the error itself knows its place in a buffer only."""
    if error.encoding.replace("_", "-").lower() not in ("utf-8", "utf-8-sig"):
        return f"{file} is marked as {error.encoding} and cannot be read as such ({error.reason}); save it in UTF-8."
    with file.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as inner:
                byte = line[inner.start]
                shown = line[max(0, inner.start - 15) : inner.start + 15].decode("cp1252", errors="replace").strip()
                return (
                    f"{file} is not in UTF-8: the byte 0x{byte:02X} in line {number} (read as Windows-1252 it says "
                    f"'{shown}'); save it as 'CSV UTF-8', or convert it: iconv -f WINDOWS-1252 -t UTF-8."
                )
    return f"{file} is not in UTF-8 ({error.reason}); save it as 'CSV UTF-8'."


def _separator(sample: list[str], usual: str) -> tuple[str, int]:
    """Find what stands between cells, and how many lines to skip: Excel may say `sep=;` in the first."""
    said = re.fullmatch(r"\"?sep=(.)\"?\s*", sample[0].lstrip("\ufeff"), flags=re.IGNORECASE) if sample else None
    if said:
        return said.group(1), 1
    scores = {}
    # The last line of a longer file may be the first half of a cell with line breaks.
    lines = sample if len(sample) < _SAMPLE else sample[:-1]
    for separator in SEPARATORS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if any(row)]
        except csv.Error:
            continue
        width = len(_trimmed(rows[0])) if rows else 0
        fits = width > 1 and all(len(row) >= width and not any(row[width:]) for row in rows[1:])
        scores[separator] = (fits, width, separator == usual)
    best = max(scores, key=lambda one: scores[one], default=usual)
    # Where nothing fits, the usual one: the row that does not fit is then named.
    return (best if scores and (scores[best][0] or scores.get(usual, (False, 0))[1] < 2) else usual), 0


def _trimmed(row: list[str]) -> list[str]:
    """Take empty cells off the end: a separator after the last name names no column."""
    while row and not row[-1].strip():
        row = row[:-1]
    return row


class _Records:
    """Rows with the line on which each began; what the parser cannot read is said in a sentence."""

    def __init__(self, rows: Iterator[list[str]], file: Path, skipped: int, separator: str) -> None:
        self.rows, self.file, self.skipped, self.separator = rows, file, skipped, separator
        self.line = self.last = 0

    def __iter__(self) -> Iterator[list[str]]:
        while True:
            self.line = self.last + self.skipped + 1
            try:
                row = next(self.rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"{self.file} cannot be read as a table: {self._fault(str(error))}.") from error
            self.last = self.rows.line_num  # type: ignore[attr-defined]  # a csv reader
            yield row

    def _fault(self, said: str) -> str:
        if "unexpected end" in said or "field larger" in said:
            return f"the quote that line {self.line} opens is never closed, or only far below; close it or take it out"
        if "expected after" in said:
            return f"line {self.line} goes on behind a closing quote; quotes inside of a cell are written twice"
        return f"line {self.line}: {said}"

    @property
    def several_lines(self) -> bool:
        """Whether the present row has line breaks in its cells."""
        return self.last + self.skipped > self.line


class _UnevenError(Exception):
    """A row is not like the others."""


def _even_columns(records: _Records, keep: Keep, header_only: bool) -> tuple[list[str], Cells]:
    """Read a table of which every row is one line with as many cells as the header, many rows at once."""
    rows = records.rows
    names, cells = _header(next(rows, []), keep)
    if header_only:
        return names, cells
    while batch := list(itertools.islice(rows, _BATCH)):
        if set(map(len, batch)) != {len(names)}:
            raise _UnevenError
        for place, column in cells.items():
            column.extend([row[place] for row in batch])
        records.last += len(batch)
    if rows.line_num != records.last + 1:  # type: ignore[attr-defined]  # a csv reader; one line is the header
        raise _UnevenError
    return names, cells


def _header(head: list[str], keep: Keep) -> tuple[list[str], Cells]:
    if not any(cell.strip() for cell in head):
        raise _UnevenError
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(_trimmed(head))]
    return names, {place: [] for place, name in enumerate(names) if keep is None or keep(name)}


def _columns(records: _Records, keep: Keep, header_only: bool) -> tuple[list[str], Cells]:
    rows = iter(records)
    head = next((row for row in rows if any(cell.strip() for cell in row)), None)
    if head is None:
        raise InputError(f"{records.file} is empty; give a table with a header and rows.")
    names, cells = _header(head, keep)
    width = len(names)
    if header_only:
        return names, cells
    taken = list(cells.items())
    shapes: set[str] = set()
    for row in rows:
        if len(row) != width:
            if not any(cell.strip() for cell in row) and len(row) < 2:
                continue  # a blank line
            if len(row) < width or any(cell.strip() for cell in row[width:]):
                raise InputError(_misfit(records, row, width))
        if len(shapes) < 100:
            shapes.add(_shape(row[0]))
        if records.several_lines:
            _refuse_swallowed(records, row, width, shapes)
        for place, column in taken:
            column.append(row[place])
    return names, cells


def _misfit(records: _Records, row: list[str], width: int) -> str:
    where = f"{records.file} has {len(row)} cells in line {records.line} and {width} in its header"
    if len(row) < width:
        return f"{where}: it may be cut off there, or cells may be missing; give every row a cell for every column."
    return (
        f"{where}, so that no cell is sure of its column: name every column, quote cells that hold one of the "
        f"{SEPARATORS.get(records.separator, 'separators')} between cells, and write decimal points, not commas."
    )


def _shape(cell: str) -> str:
    """Reduce a cell to its pattern: `images/p12.png` and `images/q7.png` have the same."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell))


def _refuse_swallowed(records: _Records, row: list[str], width: int, shapes: set[str]) -> None:
    """Refuse a cell with line breaks that holds what looks like further rows: its quote was meant for nothing."""
    for place, cell in enumerate(row):
        pieces = cell.splitlines()[1:]
        for number, piece in enumerate(pieces, start=1):
            inside = piece.split(records.separator)
            # Behind the closing quote, the line goes on with the cells to the right.
            whole = len(inside) + (len(row) - 1 - place if number == len(pieces) else 0)
            if 2 <= width <= whole and _shape(inside[0].strip('" ')) in shapes:
                raise InputError(
                    f"{records.file} opens a quote in line {records.line} that swallows further rows, such as "
                    f"'{piece[:80]}'; close it or take it out."
                )
