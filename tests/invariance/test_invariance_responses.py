"""Responses: every way in, and every way in which a table can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from citlr.audit.prediction import read_responses
from citlr.errors import InputError
from citlr.invariance.operating_point import thresholds
from citlr.invariance.responses import Responses


def long_table(values: np.ndarray, original: np.ndarray | None = None, attribute: str = "sex") -> pd.DataFrame:
    n, levels, draws, labels = values.shape
    index = pd.MultiIndex.from_product(
        [[f"i{u}" for u in range(n)], ["f", "m", "x"][:levels], range(draws), [f"L{k}" for k in range(labels)]],
        names=["image_id", "level", "draw", "label"],
    )
    frame = pd.DataFrame({"probability": values.reshape(-1)}, index=index).reset_index()
    if original is not None:
        rows = [
            {"image_id": f"i{u}", "level": "fm"[u % 2], "draw": -1, "label": f"L{k}", "probability": original[u, k]}
            for u in range(n)
            for k in range(labels)
        ]
        frame = pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)
    frame["patient_id"] = "p" + (frame["image_id"].str[1:].astype(int) // 2).astype(str)
    frame["attribute"] = attribute
    return frame


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).random((6, 2, 3, 2))


def test_a_shuffled_table_gives_the_array_back(values: np.ndarray) -> None:
    original = np.random.default_rng(1).random((6, 2))
    table = long_table(values, original).sample(frac=1.0, random_state=0)
    r = Responses.from_frame(table)
    order = [list(r.units).index(f"i{u}") for u in range(6)]
    labels = [r.labels.index(f"L{k}") for k in range(2)]
    assert np.array_equal(r.values[order][..., labels], values)
    assert r.original is not None
    assert r.factual is not None
    assert np.array_equal(r.original[order][:, labels], original)
    assert np.array_equal(r.factual[order], np.arange(6) % 2)
    assert [r.patients[i] for i in order] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert (r.n_units, r.n_patients, r.n_draws, r.levels, r.attribute) == (6, 3, 3, ("f", "m"), "sex")


def test_parquet_and_csv_read_the_same(values: np.ndarray, tmp_path: Path) -> None:
    table = long_table(values, values[:, 0, 0])
    table.to_parquet(tmp_path / "r.parquet")
    table.to_csv(tmp_path / "r.csv", index=False)
    one = Responses.from_parquet(tmp_path / "r.parquet")
    other = Responses.from_frame(read_responses(tmp_path / "r.csv"))
    assert np.allclose(one.values, other.values, rtol=0, atol=1e-15)
    assert list(one.patients) == list(other.patients)


def test_the_order_of_levels_and_labels_can_be_chosen(values: np.ndarray) -> None:
    r = Responses.from_frame(long_table(values), levels=["m", "f"], labels=["L1"])
    assert (r.levels, r.labels) == (("m", "f"), ("L1",))
    assert np.array_equal(r.values[:, 0, :, 0], values[:, 1, :, 1])


def test_one_attribute_of_several_is_taken(values: np.ndarray) -> None:
    both = pd.concat([long_table(values), long_table(1 - values, attribute="age")])
    assert np.array_equal(Responses.from_frame(both, attribute="age").values, 1 - values)
    with pytest.raises(InputError, match="2 attributes"):
        Responses.from_frame(both)
    with pytest.raises(InputError, match=r"'sexx'.*Did you mean 'sex'"):
        Responses.from_frame(both, attribute="sexx")


def test_missing_cells_are_counted_and_named(values: np.ndarray) -> None:
    table = long_table(values).drop(index=[0, 7, 20, 30])
    with pytest.raises(InputError, match=r"4 of 72 cells are missing .*image i0, level f, draw 0, label L0.*\.\.\."):
        Responses.from_frame(table)


def test_a_level_missing_for_one_image_is_said(values: np.ndarray) -> None:
    table = long_table(values)
    with pytest.raises(InputError, match=r"6 of 72 cells are missing .*image i3, level m"):
        Responses.from_frame(table[~((table["image_id"] == "i3") & (table["level"] == "m"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="level"), "no column 'level'"),
        (lambda t: pd.concat([t, t.head(2)]), "2 cells are there more than once"),
        (lambda t: t.assign(probability=t["probability"].where(t.index != 5)), "1 probabilities .* missing"),
        (lambda t: t.assign(probability=t["probability"] * 100), "outside"),
        (lambda t: t.assign(draw=t["draw"] + 0.5), "other than -1"),
        (lambda t: t.assign(draw=-1), "no generated image"),
        (lambda t: t.assign(patient_id="p"), "one patient"),
        (lambda t: t.assign(patient_id=np.arange(len(t))), "more than one patient"),
        (lambda t: t.assign(level="f", draw=np.arange(len(t)) // 2), "1 level|cells are missing"),
        (lambda t: t[t["draw"] == 0], "1 draw"),
        (lambda t: t.assign(image_id=t["image_id"].where(t.index != 3)), "'image_id' is empty in 1 rows"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(values: np.ndarray, change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Responses.from_frame(change(long_table(values)))  # type: ignore[operator]


def test_originals_are_all_there_or_none(values: np.ndarray) -> None:
    table = long_table(values, values[:, 0, 0])
    with pytest.raises(InputError, match="1 original outputs"):
        Responses.from_frame(table.drop(index=table.index[-1]))
    two = table.copy()
    two.loc[two.index[-1], "level"] = "f"
    with pytest.raises(InputError, match="more than one factual level"):
        Responses.from_frame(two)
    assert Responses.from_frame(table[table["draw"] >= 0]).factual is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": np.full((4, 2, 2, 1), np.nan)}, "16 entries that are not numbers"),
        ({"values": np.full((4, 2, 2, 1), 1.5)}, "outside"),
        ({"values": np.zeros((4, 1, 2, 1))}, "1 level"),
        ({"values": np.zeros((4, 2, 1, 1))}, "1 draw"),
        ({"values": np.zeros((0, 2, 2, 1))}, "nothing to test"),
        ({"values": np.zeros((4, 2))}, "2 dimensions"),
        ({"values": "abc"}, "not an array of numbers"),
        ({"patients": ["p"] * 4}, "one patient"),
        ({"patients": ["p", "q"]}, "2 entries for 4 images"),
        ({"patients": ["p", "q", None, "r"]}, "no patient"),
        ({"units": ["a", "a", "b", "c"]}, "there twice"),
        ({"levels": ["f", "f"]}, "same name twice"),
        ({"labels": ["a", "b"]}, "2 names for 1 labels"),
        ({"factual": [0, 1, 2, 0]}, "outside 0..1"),
        ({"factual": ["level0", "leve1", "level0", "level0"]}, "none of the levels"),
    ],
)
def test_bad_arrays_are_refused_in_a_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Responses.from_arrays(**({"values": np.zeros((4, 2, 2, 1))} | options))  # type: ignore[arg-type]


def test_thresholds_per_label() -> None:
    r = Responses.from_arrays(np.full((4, 2, 2, 2), 0.5), labels=["a", "b"])
    assert np.array_equal(r.decisions({"a": 0.5, "b": 0.51})[0, 0, 0], [1.0, 0.0])
    with pytest.raises(InputError, match="No threshold for the label 'b'"):
        thresholds({"a": 0.5}, r.labels)
    with pytest.raises(InputError, match=r"in \[0, 1\]; found 50"):
        thresholds(50, r.labels)


@pytest.mark.parametrize("cut", [0.7, 0.9, 0.3, 0.05])
def test_an_output_at_the_threshold_is_positive_in_single_precision_too(cut: float) -> None:
    """Ten votes of single precision, and the same as a table writes them, are decided alike."""
    votes = np.arange(11) / 10
    single = votes.astype(np.float32).astype(np.float64)
    expected = np.round(votes * 100) >= round(cut * 100)
    for values in (votes, single):
        found = Responses.from_arrays(np.tile(values[:, None, None, None], (1, 2, 2, 1))).decisions(cut)
        assert (found[:, 0, 0, 0] == expected).all()


def test_take_keeps_everything_aligned(values: np.ndarray) -> None:
    r = Responses.from_frame(long_table(values, values[:, 0, 0]))
    part = r.take(np.asarray(r.factual) == 1)
    assert list(part.units) == ["i1", "i3", "i5"]
    assert np.array_equal(part.values, r.values[[1, 3, 5]])
    assert part.original is not None
    assert len(part.original) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        Responses.from_parquet(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        Responses.from_parquet(tmp_path / "bad.parquet")
