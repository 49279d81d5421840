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


def test_a_line_torn_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    kept = rows(tmp_path / "rows.jsonl")
    kept.add({"task": "x"})
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole + b'{"key": "a", "ta')
    kept.read()  # another process may be writing it just now
    assert kept.path.read_bytes() != whole
    assert rows(kept.path).lines == kept.lines == [{"task": "x"}]
    assert kept.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "said"), [('{"key": "b"}', "holds rows of 'b'"), ("{}", "cannot be read"), ("?", "cannot be read")]
)
def test_other_lines_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content + "\n")
    with pytest.raises(StateError, match=said):
        rows(tmp_path / "rows.jsonl")
