"""Tables as they come: cells stay text, columns are found by name, paths stay inside their folder."""

import difflib
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.data.tables.printable import require_no_error, require_printable
from citlr.data.tables.text import read_text
from citlr.data.tables.workbooks import read_sheet
from citlr.errors import InputError, MissingExtraError, did_you_mean
from citlr.text import listed_few, shortened

Table = str | os.PathLike[str] | pd.DataFrame
# Blank cells, as tables out of hospitals, R and pandas write them, in lower case. Words such as "None" may be values
# and stay.
BLANKS = frozenset({"", "na", "n/a", "n.a.", "nan", "-nan", "nat", "null", "<na>", "#n/a"})
TEXT = (".csv", ".tsv", ".tab", ".txt")
WORKBOOKS = (".xlsx", ".xlsm")
PARQUET = (".parquet", ".pq")


def read_table(
    path: str | os.PathLike[str], *, columns: Collection[str] | None = None, verbatim: Collection[str] = ()
) -> pd.DataFrame:
    """Read a CSV, TSV (each also gzipped), parquet or Excel table; every cell of a text table stays text.

    Every table that somebody else wrote comes in here. Text keeps identifiers such as `00012` whole; numbers are made
    where a number is asked for; cells are stripped, and blank ones are missing. `columns` are read alone where present;
    in `verbatim` ones words such as "NA" are values, as they are among identifiers that this package handed out.
    """
    table = _read(Path(path), columns, verbatim=frozenset(verbatim))
    if table.empty:
        raise InputError(f"{path} has a header and no rows.")
    return table


def _read(
    file: Path, columns: Collection[str] | None, *, header_only: bool = False, verbatim: frozenset[str] = frozenset()
) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(f"There is no table {file}{_nearest_file(file)}")
    kind = file.with_suffix("").suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()
    try:
        table = _read_kind(file, kind, None if columns is None else set(columns), header_only, verbatim)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} cannot be read as a {kind.lstrip('.')} table ({error}).") from error
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{file} cannot be read to its end, it may be truncated ({error}); fetch it again.") from error
    return table


def table_columns(table: Table) -> list[str]:
    """Give the column names of a table, reading its header alone where that is possible."""
    if isinstance(table, pd.DataFrame):
        return _names(table.columns, "The table")
    return [str(name) for name in _read(Path(table), None, header_only=True).columns]


def _names(names: Iterable[Any], file: Path | str) -> list[str]:
    """Strip the names of columns, and refuse one that is there twice: which of the two is meant, nobody can tell."""
    plain = [str(name).strip() for name in names]
    double = [name for place, name in enumerate(plain) if name in plain[:place]]
    if double:
        raise InputError(f"{file} has the column '{double[0][:80]}' more than once; rename one, or take it out.")
    return plain


def _read_kind(
    file: Path, kind: str, wanted: set[str] | None, header_only: bool, verbatim: frozenset[str]
) -> pd.DataFrame:
    def keep(name: str) -> bool:
        return wanted is None or name in wanted

    # Without a suffix, as the table of HAM10000 comes, it is text or named by its content.
    if kind in TEXT or not kind:
        usual = "\t" if kind in (".tsv", ".tab") else ","
        header, cells = read_text(file, usual=usual, keep=keep, header_only=header_only)
        return _frame(_names(header, file), cells, verbatim)
    if kind in PARQUET:
        return _read_parquet(file, wanted, header_only, verbatim)
    if kind in WORKBOOKS:
        return _read_excel(file, keep, header_only, verbatim)
    raise InputError(f"{file} has the suffix '{kind}'; a table is .csv, .tsv, .csv.gz, .tsv.gz, .parquet or .xlsx.")


def _read_parquet(file: Path, wanted: set[str] | None, header_only: bool, verbatim: frozenset[str]) -> pd.DataFrame:
    # An open handle, not a path: Arrow would otherwise guess partitions from the folder's name.
    with file.open("rb") as stream:
        parquet = pq.ParquetFile(stream)
        schema = parquet.schema_arrow
        names = _names(schema.names, file)
        taken = [place for place, name in enumerate(names) if wanted is None or name in wanted]
        nested = [place for place in taken if pa.types.is_nested(schema.field(place).type)]
        if nested and wanted:
            raise _several_values(names[nested[0]], file)
        if not header_only:
            # A table that is looked at as a whole may have more, such as the boxes of findings.
            taken = [place for place in taken if place not in nested]
        written = [schema.names[place] for place in taken]
        table = schema.empty_table() if header_only else parquet.read(columns=written)
        # Whole numbers beside blanks stay whole: as floats, identifiers above 2**53 would be rounded.
        frame = table.select(written).to_pandas(ignore_metadata=True, integer_object_nulls=True)
        frame.columns = [names[place] for place in taken]
        return clean(frame, verbatim)


def _several_values(name: str, source: Path | str) -> InputError:
    return InputError(
        f"{source}: cells of the column '{name[:80]}' hold lists or records, where one value is due; write one row for "
        "every image, with a column for every part."
    )


def _plain(cells: Sequence[str], verbatim: bool = False) -> pd.Series:
    """Strip cells; blank ones are missing, verbatim only those with nothing in them."""
    text = pd.Series(cells, dtype="str").str.strip()
    return text.mask(text == "" if verbatim else text.str.lower().isin(BLANKS))


def _frame(names: Sequence[str], cells: Mapping[int, Sequence[str]], verbatim: Collection[str]) -> pd.DataFrame:
    """Make a table of the cells of some columns, by the place of the column."""
    frame = pd.DataFrame({place: _plain(column, names[place] in verbatim) for place, column in cells.items()})
    frame.columns = [names[place] for place in cells]
    return frame


def clean(frame: pd.DataFrame, verbatim: Collection[str] = ()) -> pd.DataFrame:
    """Treat the text of a table that knows types as that of one that does not: stripped, and blanks are missing."""
    changed = {}
    for name, column in frame.items():
        if column.dtype.kind in "OU" or isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype):
            values = column.astype(object)
            text = values.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
            if text.any():
                plain = values.to_numpy(dtype=object, copy=True)
                plain[text] = _plain(plain[text].tolist(), name in verbatim).astype(object)
                changed[name] = pd.Series(plain, index=frame.index, dtype=object).infer_objects()
    return frame.assign(**changed) if changed else frame  # type: ignore[arg-type]


def _read_excel(file: Path, keep: Any, header_only: bool, verbatim: frozenset[str]) -> pd.DataFrame:
    """Read the first sheet that is not hidden."""
    try:
        rows, formulas = read_sheet(file, header_only=header_only)
    except MissingExtraError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise InputError(f"{file} cannot be read as an Excel table ({type(error).__name__}: {error}).") from error
    if not rows:
        raise InputError(f"{file} has an empty first sheet.")
    header = _names((str(name).strip() or f"Unnamed: {place}" for place, name in enumerate(rows[0])), file)
    never = [(header[place], name) for place, name in formulas if place < len(header) and keep(header[place])]
    if never:
        raise InputError(
            f"{file}: the cell {never[0][1]} of the column '{never[0][0]}' is a formula that was never calculated "
            f"({len(never)} such cells); open the table in a spreadsheet and save it, or write values."
        )
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in header)
    cells = {place: list(map(_cell, column)) for place, column in enumerate(columns) if keep(header[place])}
    return _frame(header, cells, verbatim)


def _cell(value: Any) -> str:
    """Give a cell as the text that a CSV would hold; a workbook stores whole numbers as 50.0 as often as not.

    Above 2**53 they are rounded, and stay the floats that they are.
    """
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)


def _nearest_file(file: Path) -> str:
    """Say what would do instead of a file that is not there: one of its name with a suffix, or a similar name."""
    if file.is_dir():
        return ": it is a folder; give the file in it."
    if not file.parent.is_dir():
        return f". The folder {file.parent} is not there either."
    names = sorted(entry.name for entry in file.parent.iterdir() if entry.is_file())
    beside = [name for name in names if name.lower().startswith(f"{file.name.lower()}.")]
    if beside:
        return f", but '{beside[0]}' stands there: give the name with its suffix."
    near = difflib.get_close_matches(file.name, names, n=1, cutoff=0.6)
    return f". Did you mean '{near[0]}'?" if near else "; give the path of a table."


def wanted_columns(
    names: Sequence[str], columns: Mapping[str, str], *, split: str | None, optional: Collection[str] = ()
) -> dict[str, str]:
    """Map our names to the table's.

    >>> wanted_columns(["sex"], {"path": "file"}, split=None)
    {'path': 'file', 'patient_id': 'patient_id', 'sex': 'sex'}
    """
    ours = list(dict.fromkeys(["path", "patient_id", *names, *optional]))
    for name in columns:
        if name not in (*ours, "image_id", "split", "age", "view"):
            raise InputError(f"`columns` maps '{name}', which nothing asks for.{did_you_mean(name, [*ours, 'split'])}")
    wanted = {name: columns.get(name, name) for name in ours}
    if split is not None:
        wanted["split"] = columns.get(split, columns.get("split", split)) if split in ("split", *columns) else split
    return wanted


def pick_columns(
    table: Table, wanted: Mapping[str, str], *, source: str, optional: Collection[str] = ()
) -> pd.DataFrame:
    """Take columns under our names, and read no others."""
    have = table_columns(table)
    taken = {ours: theirs for ours, theirs in wanted.items() if theirs in have}
    for ours, theirs in wanted.items():
        if ours not in taken and ours not in optional:
            role = "" if ours == theirs else f" (wanted as '{ours}')"
            raise InputError(f"{source} has no column '{theirs}'{role}.{did_you_mean(theirs, have)}")
    require_printable([*taken, *taken.values()], f"{source} has a column whose name")
    lookalikes = {name: other for name in taken.values() for other in have if other != name and _same(other, name)}
    if isinstance(table, pd.DataFrame):
        frame = clean(table.set_axis(have, axis=1)[list(dict.fromkeys([*taken.values(), *lookalikes.values()]))])
    else:
        frame = read_table(table, columns=[*taken.values(), *lookalikes.values()])
    for name, other in lookalikes.items():
        differ = np.flatnonzero((_text(frame[name]) != _text(frame[other])).to_numpy())
        if len(differ):
            raise InputError(
                f"{source} has the columns '{name}' and '{other}', which disagree in {len(differ)} rows (row "
                f"{differ[0] + 1} first); rename or take out the one that is not meant."
            )
    picked = pd.DataFrame({ours: frame[theirs].to_numpy() for ours, theirs in taken.items()})
    for name, theirs in taken.items():
        if picked[name].dtype == object and picked[name].map(pd.api.types.is_list_like).any():
            raise _several_values(theirs, source)
        require_no_error(picked[name], source=source)
    return picked


def _same(one: str, other: str) -> bool:
    """Tell names that differ by case or blanks only."""
    return "".join(one.split()).casefold() == "".join(other.split()).casefold()


def _text(values: pd.Series) -> pd.Series:
    return values.astype("string").fillna("")


# What an image path must not be, in the words of an error, and how it is recognised.
_UNSAFE = {
    "with the character NUL": r"\x00",
    "that is an address (URL)": r"^[A-Za-z][A-Za-z0-9+.-]*://",
    "that begins with a drive": r"^[A-Za-z]:",
    "that begins with a home folder (~)": r"^~",
    "that is absolute": r"^/",
    "that leaves the image folder ('..')": r"(?:^|/)\.\.(?:/|$)",
}


def refuse_unsafe_paths(paths: pd.Series, *, source: str) -> pd.Series:
    r"""Give paths with forward slashes; refuse those that are absolute or climb out of their folder."""
    clean = paths.astype("string").str.replace("\\", "/", regex=False)
    for what, pattern in _UNSAFE.items():
        bad = paths[clean.str.contains(pattern, regex=True).fillna(False).astype(bool)]
        if len(bad):
            where = f"in {len(bad)} {'row' if len(bad) == 1 else 'rows'}, the first in row {bad.index[0] + 1}"
            raise InputError(
                f"{source} has an image path {what} {where}: '{shortened(str(bad.iloc[0]))}'. Write paths that start "
                "in the image folder and stay inside it, such as 'patient1/image1.png'."
            )
    return clean.astype(str)


def require_unique(keys: pd.DataFrame | pd.Series, *, source: str, what: str) -> None:
    """Refuse a table in which a key occurs twice."""
    double = keys[keys.duplicated(keep="first")].drop_duplicates()
    if len(double):
        listed = listed_few(map(_spell, double.to_numpy().tolist()))
        raise InputError(f"{source} has {len(double)} {what} more than once: {listed}. Keep one row of each.")


def _spell(row: Any) -> str:
    return "/".join(map(str, row)) if isinstance(row, Sequence) and not isinstance(row, str) else str(row)
