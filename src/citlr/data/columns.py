"""Tables as they come: cells stay text, columns are found by name, paths stay inside their folder."""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.errors import InputError, MissingExtraError, did_you_mean

# Blank cells, as tables out of hospitals, R and pandas write them. Words such as "None" may be values and stay.
BLANKS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "<NA>", "#N/A"]


def read_table(path: str | os.PathLike[str], *, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Read a CSV, TSV (each also gzipped), parquet or Excel table; every cell of a text table stays text.

    Text keeps identifiers such as `00012` whole; numbers are made where a number is asked for.

    Parameters
    ----------
    path : path-like
        The file; its suffix says what it is.
    columns : collection of str, optional
        Read these alone, where present: the memory of the others is saved.

    Returns
    -------
    DataFrame

    Raises
    ------
    InputError
        If the file is missing, damaged, empty, of another kind, or has a column name twice.
    """
    table = _read(Path(path), columns)
    if table.empty:
        raise InputError(f"{path} has a header and no rows.")
    return table


def _read(file: Path, columns: Collection[str] | None, *, rows: int | None = None) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(f"There is no table {file}.{_nearest_file(file)}")
    kind = "".join(file.suffixes[-2:]).lower() if file.suffix.lower() == ".gz" else file.suffix.lower()
    try:
        table = _read_kind(file, kind, None if columns is None else set(columns), rows)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise InputError(f"{file} cannot be read as a {kind.lstrip('.')} table ({error}).") from error
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{file} cannot be read to its end, it may be truncated ({error}); fetch it again.") from error
    table.columns = [str(name).strip() for name in table.columns]
    double = table.columns[table.columns.duplicated()]
    if len(double):
        raise InputError(f"{file} has the column '{double[0]}' more than once; rename one.")
    return table


def table_columns(table: str | os.PathLike[str] | pd.DataFrame) -> list[str]:
    """Give the column names of a table, reading its header alone where that is possible."""
    if isinstance(table, pd.DataFrame):
        return [str(name) for name in table.columns]
    return [str(name) for name in _read(Path(table), None, rows=1).columns]


def _read_kind(file: Path, kind: str, wanted: set[str] | None, rows: int | None) -> pd.DataFrame:
    if kind in (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt"):
        separator = "\t" if kind.startswith(".tsv") else ","
        keep = None if wanted is None else (lambda name: str(name).strip() in wanted)
        return pd.read_csv(
            file,
            sep=separator,
            dtype=str,
            usecols=keep,
            nrows=rows,
            keep_default_na=False,
            na_values=BLANKS,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    if kind in (".parquet", ".pq"):
        # An open handle, not a path: Arrow would otherwise guess partitions from the folder's name.
        with file.open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            names = [name for name in parquet.schema_arrow.names if wanted is None or name in wanted]
            table = parquet.schema_arrow.empty_table() if rows else parquet.read(columns=names)
            frame: pd.DataFrame = table.to_pandas()
            return frame
    if kind in (".xlsx", ".xlsm"):
        return _read_excel(file, wanted, rows)
    raise InputError(f"{file} has the suffix '{kind}'; a table is .csv, .tsv, .csv.gz, .tsv.gz, .parquet or .xlsx.")


def _read_excel(file: Path, wanted: set[str] | None, limit: int | None) -> pd.DataFrame:
    """Read the first sheet; calamine takes a tenth of the time of openpyxl, through which pandas reads."""
    try:
        from python_calamine import CalamineWorkbook
    except ImportError as error:
        raise MissingExtraError("python-calamine", "xlsx", f"Reading {file.name}") from error
    try:
        sheet = CalamineWorkbook.from_path(str(file)).get_sheet_by_index(0)
        rows = sheet.to_python(skip_empty_area=False, nrows=None if limit is None else limit + 1)
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise InputError(f"{file} cannot be read as an Excel table ({type(error).__name__}: {error}).") from error
    if not rows:
        raise InputError(f"{file} has an empty first sheet.")
    header = [str(name).strip() or f"Unnamed: {place}" for place, name in enumerate(rows[0])]
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in header)
    cells = {place: column for place, column in enumerate(columns) if wanted is None or header[place] in wanted}
    frame = pd.DataFrame({place: [_cell(value) for value in column] for place, column in cells.items()}, dtype="str")
    frame.columns = [header[place] for place in cells]
    return frame


def _cell(value: Any) -> str | None:
    """Give a cell as the text that a CSV would hold; a workbook stores whole numbers as 50.0 as often as not."""
    if isinstance(value, str):
        return None if value in BLANKS else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _nearest_file(file: Path) -> str:
    if not file.parent.is_dir():
        return f" The folder {file.parent} is not there either."
    return did_you_mean(file.name, [entry.name for entry in file.parent.iterdir() if entry.is_file()][:200])


def wanted_columns(
    names: Sequence[str], columns: Mapping[str, str], *, split: str | None, optional: Collection[str] = ()
) -> dict[str, str]:
    """Map our names to the table's.

    Parameters
    ----------
    names : sequence of str
        Attributes, labels, covariates and whatever else is asked of the table.
    columns : mapping of str to str
        Our name to the table's, where they differ.
    split : str, optional
        Our name or the table's for the given split.
    optional : collection of str
        Names to take along where the table has them.

    Raises
    ------
    InputError
        If `columns` maps a name that nothing asks for: with the nearest one that something does.

    Examples
    --------
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
    table: str | os.PathLike[str] | pd.DataFrame,
    wanted: Mapping[str, str],
    *,
    source: str,
    optional: Collection[str] = (),
) -> pd.DataFrame:
    """Take columns under our names, and read no others.

    Parameters
    ----------
    table : path-like or DataFrame
        The table.
    wanted : mapping of str to str
        Our name to the table's name.
    source : str
        What the sentence of an error calls the table.
    optional : collection of str
        Our names that may be absent.

    Returns
    -------
    DataFrame
        With our names, in the order of `wanted`, and a RangeIndex.

    Raises
    ------
    InputError
        For a column that is not there: with the nearest name that is.

    Examples
    --------
    >>> pick_columns(pd.DataFrame({"Sex": ["F"]}), {"sex": "Sex"}, source="a.csv").columns.tolist()
    ['sex']
    """
    have = table_columns(table)
    taken = {ours: theirs for ours, theirs in wanted.items() if theirs in have}
    for ours, theirs in wanted.items():
        if ours not in taken and ours not in optional:
            role = "" if ours == theirs else f" (wanted as '{ours}')"
            raise InputError(f"{source} has no column '{theirs}'{role}.{did_you_mean(theirs, have)}")
    frame = table if isinstance(table, pd.DataFrame) else read_table(table, columns=[*taken.values()])
    return pd.DataFrame({ours: frame[theirs].to_numpy() for ours, theirs in taken.items()})


def refuse_unsafe_paths(paths: pd.Series, *, source: str) -> pd.Series:
    r"""Give paths with forward slashes; refuse those that are absolute or climb out of their folder.

    Raises
    ------
    InputError
        With the number of such paths and the first of them.

    Examples
    --------
    >>> refuse_unsafe_paths(pd.Series(["a\\b.png"]), source="a.csv").tolist()
    ['a/b.png']
    """
    clean = paths.astype("string").str.replace("\\", "/", regex=False)
    unsafe = clean.str.match(r"^(?:/|~|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://)") | clean.str.contains(
        r"(?:^|/)\.\.(?:/|$)|\x00"
    )
    bad = paths[unsafe.fillna(False).astype(bool)]
    if len(bad):
        raise InputError(
            f"{source} has {len(bad)} image paths that are absolute or contain '..', the first in row "
            f"{bad.index[0] + 1}: '{bad.iloc[0]}'. Paths must be relative to the image folder and stay inside it."
        )
    return clean.astype(str)


def require_unique(keys: pd.DataFrame | pd.Series, *, source: str, what: str, shown: int = 5) -> None:
    """Refuse a table in which a key occurs twice.

    Raises
    ------
    InputError
        With the number of such keys and the first of them.

    Examples
    --------
    >>> require_unique(pd.Series([1, 2]), source="a.csv", what="image ids")
    """
    double = keys[keys.duplicated(keep="first")].drop_duplicates()
    if len(double):
        listed = ", ".join(_spell(row) for row in double.head(shown).to_numpy().tolist())
        more = f" and {len(double) - shown} more" if len(double) > shown else ""
        raise InputError(f"{source} has {len(double)} {what} more than once: {listed}{more}. Keep one row of each.")


def _spell(row: Any) -> str:
    return "/".join(map(str, row)) if isinstance(row, Sequence) and not isinstance(row, str) else str(row)
