"""Tables that somebody else wrote: read as written or refused in a sentence, never shifted, doubled or cut."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from citlr.audit.prediction import read_responses
from citlr.data.tables.columns import pick_columns, read_table, table_columns
from citlr.errors import InputError

ROWS = [("a/1.png", "p1", "F"), ("a/2.png", "p2", "M"), ("a/3.png", "p3", "F")]
HEAD = ("path", "patient_id", "sex")
RIGHT = pd.DataFrame(ROWS, columns=list(HEAD), dtype="str")


def text(separator: str = ",", end: str = "\n", trailing: str = "", head: str = "") -> str:
    lines = [separator.join(HEAD) + head, *(separator.join(row) + trailing for row in ROWS)]
    return end.join(lines) + end


@pytest.mark.parametrize(
    "content",
    [
        text().encode(),
        text().encode("utf-8-sig"),
        text().encode("utf-16"),
        text().encode("utf-32"),
        text(end="\r\n").encode(),
        text(end="\r").encode(),
        text(";").encode(),
        text("\t").encode(),
        text("|").encode(),
        ("sep=;\n" + text(";")).encode(),
        text(trailing=",").encode(),
        text(trailing=",,,").encode(),
        text(trailing=",", head=",").encode(),
        text(head=",").encode(),
        gzip.compress(text().encode(), mtime=0),
        text().replace("F", " F ").encode(),
        text().replace("F", '"F"').encode(),
        text().replace("sex", " sex ").encode(),
        (text() + "\n\n").encode(),
        ("\n" + text()).encode(),
    ],
)
def test_what_can_be_read_is_read_as_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), RIGHT)
    assert table_columns(tmp_path / "t.csv") == list(HEAD)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text() + "a/4.png,p4,M,left\n", "4 cells in line 5 and 3 in its header"),
        (text(trailing=",x"), "4 cells in line 2 and 3 in its header"),
        # R's write.table gives rows a name and the header none.
        ("path,sex\n1,a.png,F\n2,b.png,M\n", "3 cells in line 2 and 2 in its header"),
        (text() + "a/4.png,p4\n", "2 cells in line 5 and 3 in its header: it may be cut off"),
        ("path,sex,sex\na.png,F,M\n", "the column 'sex' more than once"),
        ("path,sex, sex \na.png,F,M\n", "the column 'sex' more than once"),
        ("\ufeffpath,sex,path\na.png,F,b.png\n", "the column 'path' more than once"),
        (text().replace("p2", '"p2'), "the quote that line 3 opens is never closed"),
        ('path,note,sex\na1.png,"x,F\na2.png,y",M\na3.png,z,F\n', "in line 2 that swallows further rows"),
        (text().replace("p2", '"p"2'), "line 3 goes on behind a closing quote"),
        (text().replace("p2", "p\0"), "a NUL byte in line 3"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("path,sex\n", "has a header and no rows"),
        ("path,p\na.png,0,5\nb.png,0,25\n", "3 cells in line 2 and 2 in its header"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content, newline="")
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.csv")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_note_of_several_lines_is_no_swallowed_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('path,note,sex\na1.png,"No effusion, no mass,\nheart of normal size, clear",F\n')
    assert read_table(tmp_path / "t.csv")["note"].tolist() == ["No effusion, no mass,\nheart of normal size, clear"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,name\na.png,Müller\n".encode("latin-1"), "the byte 0xFC in line 2 .*Müller.*iconv"),
        (gzip.compress("path,name\na.png,Müller\n".encode("latin-1"), mtime=0), "the byte 0xFC in line 2"),
        (text().encode("utf-16-le"), "UTF-16 without a mark"),
        (b"PK\x03\x04 and more", "an Excel workbook"),
        (b"PAR1 and more", "a parquet file"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_table(tmp_path / "t.csv")


def test_a_table_without_its_suffix_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "study.csv").write_text(text())
    with pytest.raises(InputError, match=r"'study\.csv' stands there"):
        read_table(tmp_path / "study")
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_typed_tables_are_read_as_text_ones_are(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"t.{kind}"
    table = pd.DataFrame({"a ": [" x ", "NA", "n/a"], "b": ["1", "2", None]})
    table.to_parquet(file) if kind == "parquet" else table.to_excel(file, index=False)
    found = read_table(file)
    assert found.columns.tolist() == ["a", "b"]
    assert found["a"].isna().tolist() == [False, True, True]
    assert found["a"][0] == "x"
    double = pd.DataFrame([["F", "M"]], columns=["sex", "sex "])
    double.to_parquet(file) if kind == "parquet" else double.to_excel(file, index=False)
    with pytest.raises(InputError, match="the column 'sex' more than once"):
        read_table(file)


def workbook(file: Path, *changes: tuple[int, str, object], rows: int = 6) -> Path:
    """A workbook as a script writes it, with cells changed: the row below the header and the column."""
    names = ("path", "patient_id", "sex", "edema", "note")
    table = [[f"{row}.png", f"p{row}", "FM"[row % 2], row // 2 % 2, "x"] for row in range(rows)]
    for row, name, value in changes:
        table[row][names.index(name)] = value
    book = openpyxl.Workbook()
    for cells in ([*names], *table):
        book.active.append(cells)
    book.save(file)
    return file


WANTED = {name: name for name in ("path", "patient_id", "sex", "edema")}


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("error", ["#DIV/0!", "#REF!", "#NAME?"])
def test_the_error_of_a_formula_is_no_blank_and_no_name(tmp_path: Path, kind: str, name: str, error: str) -> None:
    file = workbook(tmp_path / "t.xlsx", (2, name, error), (4, name, error))
    if kind == "csv":
        sheet = openpyxl.load_workbook(file).active
        pd.DataFrame(sheet.values).to_csv(tmp_path / "t.csv", index=False, header=False)
        file = tmp_path / "t.csv"
    with pytest.raises(InputError) as refused:
        pick_columns(file, WANTED, source=file.name)
    assert f"{file.name}: '{name}' holds '{error}' (2 images), the error of a spreadsheet's formula" in str(
        refused.value
    )
    assert "in row 3 first" in str(refused.value)


def test_a_formula_that_was_never_calculated_is_refused_by_its_cell(tmp_path: Path) -> None:
    file = workbook(tmp_path / "t.xlsx", (2, "edema", "=1+0"), (4, "edema", '=IF(A2="",0,1)'))
    with pytest.raises(InputError, match=r"the cell D4 of the column 'edema' is a formula .* \(2 such cells\)"):
        pick_columns(file, WANTED, source=file.name)
    picked = pick_columns(file, {"path": "path", "sex": "sex"}, source=file.name)
    assert picked["sex"].tolist() == ["F", "M"] * 3


def test_what_is_blank_or_calculated_in_a_workbook_is_read(tmp_path: Path) -> None:
    file = workbook(
        tmp_path / "t.xlsx", (1, "edema", "#N/A"), (2, "edema", None), (3, "edema", "=1+0"), (5, "note", "#REF!")
    )
    sheet = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[sheet] = re.sub(rb"<f>1\+0</f><v ?/?>(</v>)?", b"<f>1+0</f><v>1</v>", parts[sheet])
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    picked = pick_columns(file, WANTED, source=file.name)
    assert picked["edema"].isna().tolist() == [False, True, True, False, False, False]
    assert picked["edema"][3] == "1"


def test_merged_cells_hold_what_they_show_in_every_row(tmp_path: Path) -> None:
    file = workbook(tmp_path / "t.xlsx", rows=9)
    book = openpyxl.load_workbook(file)
    for cells in ("B2:B4", "C5:C6", "C7:D8", "A1:A1", "E1:F1", "H2:H5", "A20:A30"):
        book.active.merge_cells(cells)
    book.save(file)
    picked = pick_columns(file, WANTED, source=file.name)
    assert picked["patient_id"].tolist() == ["p0"] * 3 + [f"p{row}" for row in range(3, 9)]
    assert picked["sex"].tolist() == ["F", "M", "F", "M", "M", "M", "M", "M", "F"]
    assert picked["edema"].tolist()[:5] + picked["edema"].tolist()[7:] == ["0", "0", "1", "1", "0", "1", "0"]


def test_a_heading_across_columns_stands_in_the_first_alone(tmp_path: Path) -> None:
    file = workbook(tmp_path / "t.xlsx", rows=6)
    book = openpyxl.load_workbook(file)
    book.active["A4"] = "Second visit"
    book.active.merge_cells("A4:D4")
    book.save(file)
    picked = pick_columns(file, WANTED, source=file.name)
    assert picked.iloc[2].dropna().to_dict() == {"path": "Second visit"}
    assert picked["sex"].dropna().tolist() == ["F", "M", "M", "F", "M"]


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_the_first_sheet_is_the_first_that_is_seen(tmp_path: Path, state: str) -> None:
    file = workbook(tmp_path / "t.xlsx", (1, "note", "#REF!"))
    book = openpyxl.load_workbook(file)
    old = book.create_sheet("<old> & 'gone'", 0)
    old.append(["path", "sex"])
    old.append(["0.png", "#REF!"])
    old.sheet_state = state
    book.active = 1
    book.save(file)
    assert table_columns(file) == ["path", "patient_id", "sex", "edema", "note"]
    assert pick_columns(file, WANTED, source=file.name)["sex"].tolist() == ["F", "M"] * 3
    with pytest.raises(InputError, match="'note' holds '#REF!'"):
        pick_columns(file, {"note": "note"}, source=file.name)


def test_columns_that_differ_by_case_and_disagree_are_refused() -> None:
    counterfactuals = pd.DataFrame({"sex": ["F", "M"], "Sex": ["F", "F"], "x": [1, 2]})
    with pytest.raises(InputError, match="'sex' and 'Sex', which disagree in 1 rows"):
        pick_columns(counterfactuals, {"sex": "sex"}, source="t.csv")
    assert pick_columns(counterfactuals.assign(Sex=counterfactuals["sex"]), {"sex": "sex"}, source="t.csv")[
        "sex"
    ].tolist() == ["F", "M"]


LONG = "image_id,patient_id,attribute,level,draw,label,probability"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f"{LONG}\na,p,sex,F,0,flu,0.1,\na,p,sex,M,0,flu,high\n", "no numbers"),
        (f"{LONG}\na,p,sex,F,0,flu,0.1,0.2\n", "8 cells in line 2 and 7 in its header"),
        (f"{LONG},probability\na,p,sex,F,0,flu,0.1,0.9\n", "the column 'probability' more than once"),
        (f"{LONG}\na,p,sex,F,first,flu,0.1\n", "no numbers"),
    ],
)
def test_answers_of_other_houses_come_through_the_same_reader(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(InputError, match=said):
        read_responses(tmp_path / "t.csv")


def nested(kind: str) -> pd.DataFrame:
    cells: dict[str, list[object]] = {
        "list": [["F"], [], ["M"]],
        "record": [{"v": "F"}, {"v": None}, {"v": "M"}],
        "array": [np.array(["F"]), np.array(["M"]), np.array(["F", "M"])],
    }
    return RIGHT.assign(boxes=pd.Series(cells[kind], dtype=object))


@pytest.mark.parametrize("kind", ["list", "record", "array"])
def test_a_table_may_have_columns_of_lists_beside_those_that_are_used(tmp_path: Path, kind: str) -> None:
    nested(kind).to_parquet(tmp_path / "t.parquet")
    assert table_columns(tmp_path / "t.parquet") == [*HEAD, "boxes"]
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), RIGHT, check_dtype=False)
    wanted = {name: name for name in HEAD}
    assert pick_columns(tmp_path / "t.parquet", wanted, source="t")["sex"].tolist() == ["F", "M", "F"]


@pytest.mark.parametrize("kind", ["list", "record", "array"])
@pytest.mark.parametrize("written", [True, False])
def test_a_column_of_lists_is_no_column_to_use(tmp_path: Path, kind: str, written: bool) -> None:
    table: Path | pd.DataFrame = nested(kind)
    if written:
        nested(kind).to_parquet(tmp_path / "t.parquet")
        table = tmp_path / "t.parquet"
    wanted = {"path": "path", "sex": "boxes"}
    with pytest.raises(InputError, match="'boxes' hold lists or records"):
        pick_columns(table, wanted, source="t")
