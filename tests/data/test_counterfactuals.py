"""Shards of redrawn images: readable by pandas, resumed without a difference, never mixed."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.counterfactuals import CounterfactualSet, Images, Plan, write_counterfactuals
from citlr.errors import InputError, StateError

PLAN = Plan(
    attribute="sex",
    levels=("F", "M"),
    draws=2,
    image_ids=tuple(f"i{n}" for n in range(5)),
    patient_ids=tuple(f"p{n // 2}" for n in range(5)),
    factual=("F", "M", "F", "M", "F"),
    shard=2,
    size=8,
    shared_seeds=True,
    key="k",
)


def draw(rows: range) -> Images:
    return np.stack([np.random.default_rng(row).random((2, 2, 1, 8, 8), dtype=np.float32) for row in rows])


def test_round_trip_within_half_a_grey_level(tmp_path: Path) -> None:
    write_counterfactuals(tmp_path, PLAN, draw)
    counterfactuals = CounterfactualSet.open(tmp_path)
    assert counterfactuals.plan == PLAN
    images = np.concatenate([shard.drawn for shard in counterfactuals.shards()])
    assert np.abs(images - draw(range(5))).max() <= 0.5 / 255 + 1e-6


def test_pandas_reads_a_shard_as_pictures(tmp_path: Path) -> None:
    write_counterfactuals(tmp_path, PLAN, draw)
    frame = pd.read_parquet(tmp_path / "part-00000.parquet")
    assert list(frame.columns) == ["image_id", "patient_id", "attribute", "level", "draw", "image"]
    assert frame["level"].tolist() == ["F", "F", "M", "M"] * 2
    picture = Image.open(io.BytesIO(frame["image"][0]["bytes"]))
    assert (picture.size, picture.mode, picture.format) == ((8, 8), "L", "PNG")


def test_a_folder_that_was_cut_off_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    def stop_at_the_second(rows: range) -> Images:
        if rows.start >= 2:
            raise KeyboardInterrupt
        return draw(rows)

    with pytest.raises(KeyboardInterrupt):
        write_counterfactuals(tmp_path / "cut", PLAN, stop_at_the_second)
    with pytest.raises(StateError, match="lacks 2 of 3 shards"):
        CounterfactualSet.open(tmp_path / "cut")
    asked: list[range] = []

    def record(rows: range) -> Images:
        asked.append(rows)
        return draw(rows)

    write_counterfactuals(tmp_path / "cut", PLAN, record)
    assert asked == [range(2, 4), range(4, 5)]
    write_counterfactuals(tmp_path / "whole", PLAN, draw)
    for number in range(3):
        name = f"part-{number:05d}.parquet"
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_shards_of_another_plan_are_drawn_again(tmp_path: Path) -> None:
    write_counterfactuals(tmp_path, PLAN, draw)
    asked: list[range] = []

    def record(rows: range) -> Images:
        asked.append(rows)
        return draw(rows)

    write_counterfactuals(tmp_path, replace(PLAN, key="other"), record)
    assert len(asked) == 3


def test_wrong_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="shape"):
        write_counterfactuals(tmp_path, PLAN, lambda rows: draw(rows)[:, :1])
    assert not (tmp_path / "part-00000.parquet").exists()
    with pytest.raises(StateError, match=r"grey values from 0 to 255, and they lie in \[0, 1\]"):
        write_counterfactuals(tmp_path, PLAN, lambda rows: 255 * np.round(draw(rows)))
    with pytest.raises(StateError, match="not finite"):
        write_counterfactuals(tmp_path, PLAN, lambda rows: draw(rows) * np.nan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grey_values_that_leave_the_scale_by_rounding_are_taken(tmp_path: Path, dtype: type) -> None:
    """As after a resize: the last bit, and less than half of one of 256 steps, which no file would show."""
    for number, off in enumerate((1e-7, 0.0019)):
        write_counterfactuals(
            tmp_path / str(number),
            PLAN,
            lambda rows, off=off: (np.round(draw(rows)) * (1 + 2 * off) - off).astype(dtype),
        )
        found = np.concatenate([shard.drawn for shard in CounterfactualSet.open(tmp_path / str(number)).shards()])
        assert np.array_equal(np.unique(found), [0, 1])
    with pytest.raises(StateError, match=r"grey values from 0 to 1\.003, and they lie in \[0, 1\]"):
        write_counterfactuals(tmp_path, PLAN, lambda rows: np.round(draw(rows)) * 1.003)


def test_a_shard_that_was_tampered_with_is_noticed(tmp_path: Path) -> None:
    write_counterfactuals(tmp_path, PLAN, draw)
    (tmp_path / "part-00000.parquet").write_bytes((tmp_path / "part-00001.parquet").read_bytes())
    with pytest.raises(StateError, match="does not hold the images of its plan"):
        CounterfactualSet.open(tmp_path).read(0)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="citlr generate"):
        CounterfactualSet.open(tmp_path / "none")
