"""A level that is the scanner: what tells the images of one level from those of the others, beside the attribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.reading import read_cohort
from citlr.data.tables.marks import Marks

COUNT = 240
GRAY = Image.linear_gradient("L")


def table(levels: Sequence[str], **columns: Callable[[int, str], object]) -> pd.DataFrame:
    """One image of every patient; the levels take turns."""
    named = [levels[row % len(levels)] for row in range(COUNT)]
    rows = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(COUNT)],
            "patient_id": [f"p{row:03d}" for row in range(COUNT)],
            "group": named,
            "edema": [row // 6 % 2 for row in range(COUNT)],
        }
    )
    made = {name: [value(row // len(levels), named[row]) for row in range(COUNT)] for name, value in columns.items()}
    return rows.assign(**made)


def told(frame: pd.DataFrame, **changes: Any) -> list[str]:
    usual = {"images": ".", "attribute": "group", "labels": ["edema"], "check": "none", "min_patients_per_level": 1}
    cohort = read_cohort(frame, **{**usual, **changes})
    assert not {"file side", "file size", "file shape", "file kind"} & set(cohort.frame)
    return [one.reason.partition(":")[0] for one in cohort.flow if one.step == "levels"]


def of_covariate(levels: Sequence[str], value: Callable[[int, str], object]) -> list[str]:
    return told(table(levels, site=value), covariates=["site"])


def site(number: int, level: str) -> str:
    return "AB"[level == "q"]


def test_blanks_and_a_few_contrary_images_hide_no_scanner() -> None:
    assert of_covariate("pq", lambda n, level: "" if n == 3 else site(n, level)) == [
        "all 119 images of 'p' that state it have the site 'A', and 0 of the 119 others",
        "all 119 images of 'q' that state it have the site 'B', and 0 of the 119 others",
    ]
    assert of_covariate("pq", lambda n, level: site(n, "pq"[level == "p"] if n < 2 else level)) == [
        "118 of the 120 images of 'p' have the site 'A', and 2 of the 120 others",
        "118 of the 120 images of 'q' have the site 'B', and 2 of the 120 others",
    ]
    # One in ten is no few: there is something to learn from.
    assert not of_covariate("pq", lambda n, level: site(n, "pq"[level == "p"] if n % 10 == 0 else level))
    # A level whose site nobody wrote down, and one of which too little is known to say it.
    assert of_covariate("pq", lambda n, level: "" if level == "q" else "AB"[n % 2]) == [
        "all 120 images of 'p' have the site 'A' or 'B', and 0 of the 120 others",
        "all 120 images of 'q' have the site (blank), and 0 of the 120 others",
    ]
    assert not of_covariate("pq", lambda n, level: "" if n % 10 else site(n, level))


@pytest.mark.parametrize("values", [(1.0, 2.0), (False, True), (1, "a"), ("(blank)", "x")])
def test_a_value_of_any_kind_may_be_a_mark(values: tuple[object, object]) -> None:
    frame = table("pq", site=lambda n, level: None if n % 20 == 0 else values[level == "q"]).rename(
        columns={"group": "level"}
    )
    first, second = (Marks.of(frame, "level", "site").told(level) for level in "pq")
    assert str(values[0]) in first
    assert f"have the site '{values[1]}', and 0 of the" in second


def test_a_level_with_scanners_of_its_own_is_told_and_one_value_to_a_patient_is_not() -> None:
    assert of_covariate("pq", lambda n, level: level + "xyz"[n % 3]) == [
        "all 120 images of 'p' have the site 'px' or 'py' or 'pz', and 0 of the 120 others",
        "all 120 images of 'q' have the site 'qx' or 'qy' or 'qz', and 0 of the 120 others",
    ]
    assert not of_covariate("pq", lambda n, level: f"{level}{n}")
    # Two images of every device: many devices are of one level by chance.
    chance = np.random.default_rng(0).permutation(COUNT) // 2
    assert not of_covariate("pq", lambda n, level: f"d{chance[2 * n + (level == 'q')]}")
    # A number is a scale: that the ranges of two levels do not meet is told elsewhere.
    assert not of_covariate("pq", lambda n, level: n % 12 + 100 * (level == "q"))


def test_levels_that_share_a_scanner_are_told_from_those_of_another() -> None:
    found = of_covariate("pqrs", lambda n, level: "AB"[level in "rs"])
    assert found == [
        "all 60 images of 'p' have the site 'A', and 0 of the 60 of 'r'",
        "all 60 images of 'q' have the site 'A', and 0 of the 60 of 'r'",
        "all 60 images of 'r' have the site 'B', and 0 of the 60 of 'p'",
        "all 60 images of 's' have the site 'B', and 0 of the 60 of 'p'",
    ]
    assert not of_covariate("pqrs", lambda n, level: "AB"[n % 2])


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (lambda n: ((64, 48), (48, 64)), ("file size '64 x 48'", "file size '48 x 64'")),
        (lambda n: ((64, 64), (64, 40)), ("file size '64 x 64'", "file size '64 x 40'")),
        (lambda n: ((64, 40 + n % 20), (48, 40 - n % 20)), ("file side '64'", "file side '48'")),
        (lambda n: ((40 + n, 30 + n), (30 + n, 40 + n)), ("file shape 'wide'", "file shape 'upright'")),
        (lambda n: ((64 - n % 2, 32), (62 - n % 2, 32)), ("file side '64' or '63'", "file side '62' or '61'")),
        (lambda n: ((64, 32 + n % 10), (64, 42 + n % 10)), ("'64 x 35' or '64 x 36' or 5 more, and", "'64 x 42' or")),
    ],
)
def test_a_size_of_file_is_told_whichever_side_differs(tmp_path: Path, sizes: Callable, said: tuple[str, str]) -> None:
    rows = table("pq")
    for row, path in enumerate(rows["path"]):
        GRAY.resize(sizes(row // 2)[row % 2]).save(tmp_path / path)
    first, second = told(rows, images=tmp_path, check="decode")
    assert said[0] in first
    assert said[1] in second
    # The same files, dealt out to both levels.
    mixed = rows.assign(group=np.random.default_rng(1).permutation(rows["group"]))
    assert not told(mixed, images=tmp_path, check="decode")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda file: GRAY.save(file, format="JPEG"), "JPEG, grey, 8 bits"),
        (lambda file: GRAY.convert("RGB").save(file), "PNG, RGB"),
        (lambda file: Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 256).save(file), "PNG, grey, 16 bits"),
    ],
)
def test_a_kind_of_file_is_told(tmp_path: Path, write: Callable[[Path], None], said: str) -> None:
    rows = table("pq")
    for row, path in enumerate(rows["path"]):
        write(tmp_path / path) if row % 2 else GRAY.save(tmp_path / path)
    assert told(rows, images=tmp_path, check="decode") == [
        "all 120 images of 'p' have the file kind 'PNG, grey, 8 bits', and 0 of the 120 others",
        f"all 120 images of 'q' have the file kind '{said}', and 0 of the 120 others",
    ]


def test_a_column_of_the_table_with_such_a_name_stays_the_table_s(tmp_path: Path) -> None:
    rows = table("pq").assign(**{"file size": [f"{row % 4} MB" for row in range(COUNT)]})
    for path in rows["path"]:
        GRAY.resize((32, 32)).save(tmp_path / path)
    cohort = read_cohort(
        rows, images=tmp_path, attribute="group", labels=["edema"], covariates=["file size"], min_patients_per_level=1
    )
    assert cohort.frame["file size"].tolist() == rows["file size"].tolist()


def test_a_level_of_one_patient_is_nobody_to_compare_with() -> None:
    """Five images of one patient, each of another site, are five values and one patient."""
    frame = pd.DataFrame({
        "race": ["a"] * 10 + ["b"] * 10 + ["c"] * 5,
        "site": ["x"] * 20 + [f"y{k}" for k in range(5)],
        "patient_id": [f"p{k}" for k in range(20)] + ["q"] * 5,
    })  # fmt: skip
    marks = Marks.of(frame, "race", "site")
    assert marks.told("a") == ""
    assert marks.told("b") == ""
