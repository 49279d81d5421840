"""Rows of a stage in one file: kept as they come, shared by processes, and those of another stage refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from citlr.errors import StateError
from citlr.run.rows import Rows


def rows(path: Path, key: str = "a") -> Rows:
    return Rows(path, {"key": key}, other="holds rows of '{key}'.")


def test_what_is_added_is_read_again_as_it_was(tmp_path: Path) -> None:
    kept = rows(tmp_path / "new" / "rows.jsonl")
    kept.add({"task": "x", "count": np.int64(3), "share": np.float64(1 / 3), "flag": np.bool_(True), "none": None})
    assert kept.lines == rows(kept.path).lines
    assert kept.lines == [{"task": "x", "count": 3, "share": 1 / 3, "flag": True, "none": None}]


def test_processes_share_a_file(tmp_path: Path) -> None:
    one, two = rows(tmp_path / "rows.jsonl"), rows(tmp_path / "rows.jsonl")
    one.add({"task": "x"})
    two.add({"task": "y"})
    one.read()
    assert [line["task"] for line in one.lines] == ["x", "y"]


def test_opening_costs_no_line_that_another_process_adds_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = rows(tmp_path / "rows.jsonl"), Path.read_bytes
    kept.add({"task": "x"})

    def slowly(file: Path) -> bytes:
        content = read(file)
        kept.add({"task": "y"})
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", slowly)
        assert rows(kept.path).lines == [{"task": "x"}]
    assert rows(kept.path).lines == kept.lines == [{"task": "x"}, {"task": "y"}]


@pytest.mark.parametrize("torn", ['{"k', '{"key": "a", "ta', '{"key": "a", "task": "y"}', "\0\0\0\0"])
def test_a_line_torn_by_a_kill_is_no_row_and_costs_none(tmp_path: Path, torn: str) -> None:
    kept = rows(tmp_path / "rows.jsonl")
    kept.add({"task": "x"})
    with kept.path.open("a") as file:
        file.write(torn)
    other = rows(kept.path)
    assert other.lines == [{"task": "x"}]
    for number in range(2):
        other.add({"task": "z", "number": number})
        assert rows(kept.path).lines == other.lines
    assert len(other.lines) == 3


def test_a_torn_line_between_others_is_done_again(tmp_path: Path) -> None:
    """As a full disk left it where there was room again for the next row."""
    lines = ['{"key": "a", "task": "x"}\n', '{"key": "a", "task": "y", "no', '{"key": "a", "task": "z"}\n']
    (tmp_path / "rows.jsonl").write_text("".join([*lines, '{"key": "a", "task": "u"}\n']))
    assert rows(tmp_path / "rows.jsonl").lines == [{"task": "x"}, {"task": "u"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"key": "b"}', "holds rows of 'b'"),
        ("{}", "cannot be read"),
        ("?", "cannot be read"),
        ("3", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"key": "b", "ta', "cannot be read"),
    ],
)
def test_other_lines_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"key": "a"}\n' + content + "\n")
    with pytest.raises(StateError, match=said):
        rows(tmp_path / "rows.jsonl")
