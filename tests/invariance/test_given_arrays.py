"""Arrays, tensors, tables and names as notebooks hold them: read as what they are, or refused, at every public door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import citlr
from citlr.errors import InputError
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import smallest_share

N = 60
LEVELS = ("f", "m")


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(3).random((N, 2, 3, 2))


@pytest.fixture
def seen() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(N, 2))
    return {
        "z": z,
        "attribute": np.where(rng.random(N) < 0.5, "f", "m"),
        "prediction": 1 / (1 + np.exp(-z[:, 0])),
        "propensity": np.full(N, 0.5),
        "redraws": 39,
    }


def test_patients_of_a_tensor_are_told_by_their_numbers(values: np.ndarray, seen: dict[str, Any]) -> None:
    patients = torch.arange(N) // 2
    for given in (patients, [*patients], patients[:, None], patients.numpy()[:, None]):
        r = Responses.from_arrays(values, patients=given)
        assert r.n_patients == N // 2
        assert r.patients.tolist() == [k // 2 for k in range(N)]
        assert citlr.observe(**seen, patients=given).associations[0].n_patients == N // 2


def test_what_patients_and_levels_are_called_makes_no_difference(seen: dict[str, Any]) -> None:
    """Numbers in Python are text in a CSV: folds that were drawn in the order of names were others there."""
    rest = {name: given for name, given in seen.items() if name != "propensity"}
    numbers = np.arange(N) % 40
    one, *others = (
        citlr.observe(**rest, patients=given)
        for given in (numbers, numbers.astype(str), [f"{(7 * k) % 41:x}" for k in numbers], numbers[::1] - 5.0)
    )
    for other in others:
        assert one.assessments[0] == other.assessments[0]
    renamed = citlr.observe(**{**rest, "attribute": np.where(seen["attribute"] == "f", "1", "2")}, patients=numbers)
    assert renamed.assessments[0].pvalue_adjusted == one.assessments[0].pvalue_adjusted


def test_patients_may_be_tuples_and_of_several_kinds(values: np.ndarray, seen: dict[str, Any]) -> None:
    pairs = [("site", k // 2) for k in range(N)]
    mixed = np.array([k // 2 if k % 4 < 2 else f"p{k // 2}" for k in range(N)], dtype=object)
    for given in (pairs, pd.MultiIndex.from_tuples(pairs), mixed):
        assert Responses.from_arrays(values, patients=given).n_patients == N // 2
        assert citlr.observe(**seen, patients=given).associations[0].n_patients == N // 2


@pytest.mark.parametrize(
    "patients",
    [
        {*range(N)},
        dict.fromkeys(range(N)),
        "p" * N,
        [[k] for k in range(N)],
        np.zeros((N, 2)),
        np.ma.masked_array(np.arange(N), mask=[True] + [False] * (N - 1)),
        ["", *range(N - 1)],
    ],
    ids=["set", "mapping", "text", "lists", "matrix", "masked", "blank"],
)
def test_what_gives_no_patient_for_each_image_is_refused(
    values: np.ndarray, seen: dict[str, Any], patients: Any
) -> None:
    with pytest.raises(InputError, match="patient"):
        Responses.from_arrays(values, patients=patients)
    with pytest.raises(InputError, match="patient"):
        citlr.observe(**seen, patients=patients)


@pytest.mark.parametrize("names", [{"f", "m"}, {"f": 0, "m": 1}, "fm", ["f", None], ["f", " "]])
def test_names_without_an_order_or_without_a_name_are_refused(values: np.ndarray, names: Any) -> None:
    with pytest.raises(InputError, match=r"^levels "):
        Responses.from_arrays(values, levels=names)
    with pytest.raises(InputError, match=r"^labels "):
        Responses.from_arrays(values, labels=names)


def test_a_contrast_has_an_order(seen: dict[str, Any]) -> None:
    wrong: list[Any] = [{"f", "m"}, "mf", ("f", "m", "m")]
    for given in wrong:
        with pytest.raises(InputError, match="contrast"):
            citlr.observe(**seen, contrast=given)


def test_outputs_on_originals_are_never_reshaped_to_those_of_other_images(values: np.ndarray) -> None:
    original, own = np.random.default_rng(5).random((N, 2)), np.random.default_rng(6).random((N, 3, 2))
    ages = {"levels": ["40", "60"], "number": True}
    r = Responses.from_arrays(values, original=original, own=own, **ages)  # type: ignore[arg-type]
    assert r.original is not None
    assert r.own is not None
    assert np.array_equal(r.original, original)
    assert np.array_equal(r.own, own)
    for wrong in (original.T, original.ravel(), original[:, :1], original[:-1]):
        with pytest.raises(InputError, match=r"original has the shape .* \(60, 2\)"):
            Responses.from_arrays(values, original=wrong)
    for wrong in (own.transpose(1, 0, 2), own.ravel(), own[..., :1]):
        with pytest.raises(InputError, match="own has the shape"):
            Responses.from_arrays(values, own=wrong, **ages)  # type: ignore[arg-type]
    alone = Responses.from_arrays(values[..., 0], original=original[:, 0], own=own[..., 0], **ages)  # type: ignore[arg-type]
    assert alone.original is not None
    assert np.array_equal(alone.original[:, 0], original[:, 0])


def test_an_array_that_is_filled_anew_does_not_change_responses_made_of_it(values: np.ndarray) -> None:
    held = np.ascontiguousarray(values)
    r = Responses.from_arrays(held, original=held[:, 0, 0])
    before = r.values.copy()
    held[:] = 0.25
    assert np.array_equal(r.values, before)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x).to_sparse(),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(object),
    ],
    ids=["gradients", "sparse", "columns first", "big end first", "objects"],
)
def test_numbers_are_read_whoever_holds_them(values: np.ndarray, convert: Any) -> None:
    assert np.array_equal(Responses.from_arrays(convert(values)).values, values)


def test_numbers_of_16_bits_are_read(values: np.ndarray) -> None:
    half = torch.tensor(values).bfloat16()
    assert np.array_equal(Responses.from_arrays(half).values, half.double().numpy())


def test_what_is_no_number_is_refused_and_not_cut_down_to_one(values: np.ndarray, seen: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="values is not an array of numbers: it holds complex128"):
        Responses.from_arrays(values + 0.1j)
    with pytest.raises(InputError, match="values is not an array of numbers: it holds timedelta64"):
        Responses.from_arrays((values > 0.5).astype("timedelta64[s]"))
    days = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=N, tz="UTC")})
    for name, wrong in (
        ("z", seen["z"] + 1j),
        ("z", days.to_numpy("datetime64[ns]")),
        ("z", pd.DataFrame(seen["z"]).assign(view="PA")),
        ("prediction", ["high"] * N),
        ("propensity", ["even"] * N),
        ("outcome", ["yes"] * N),
    ):
        with pytest.raises(InputError, match=f"^{name} is not an array of numbers"):
            citlr.observe(**{**seen, name: wrong})


def test_a_missing_cell_of_a_nullable_column_is_missing(seen: dict[str, Any]) -> None:
    z = pd.DataFrame(seen["z"]).convert_dtypes()
    assert citlr.observe(**{**seen, "z": z}) == citlr.observe(**seen)
    z.iloc[7, 1] = pd.NA
    with pytest.raises(InputError, match="The representation has 1 missing"):
        citlr.observe(**{**seen, "z": z})
    masked = np.ma.masked_array(seen["propensity"], mask=[True] + [False] * (N - 1))
    with pytest.raises(InputError, match="A known propensity is missing"):
        citlr.observe(**{**seen, "propensity": masked})


def test_a_propensity_of_more_images_than_there_are_is_refused(seen: dict[str, Any]) -> None:
    more = np.r_[seen["propensity"], seen["propensity"]]
    with pytest.raises(InputError, match=r"known propensity has shape \(120,\)"):
        citlr.observe(**{**seen, "propensity": more})


def test_rows_with_one_index_in_two_orders_are_refused(values: np.ndarray, seen: dict[str, Any]) -> None:
    patients, factual = pd.Series(np.arange(N) // 2), pd.Series(np.arange(N) % 2)
    moved = patients.sample(frac=1, random_state=0)
    with pytest.raises(InputError, match="patients and factual have the same index in another order"):
        Responses.from_arrays(values, patients=moved, factual=factual)
    for one, other in ((patients, factual), (moved, factual[moved.index]), (moved.to_numpy(), factual)):
        Responses.from_arrays(values, patients=one, factual=other)
    # The part of a table that was split off, beside what was made of it: other labels, and read by place.
    Responses.from_arrays(values, patients=patients.set_axis(patients.index + 100), factual=factual)
    level = pd.Series(seen["attribute"])
    with pytest.raises(InputError, match="z and attribute have the same index in another order"):
        citlr.observe(**{**seen, "z": pd.DataFrame(seen["z"]), "attribute": level.iloc[::-1]})


def long_table(values: np.ndarray) -> pd.DataFrame:
    names = [[f"i{k}" for k in range(N)], LEVELS, range(3), ["a", "b"]]
    index = pd.MultiIndex.from_product(names, names=["image_id", "level", "draw", "label"])
    frame = pd.DataFrame({"probability": values.ravel()}, index=index).reset_index()
    return frame.assign(patient_id=frame["image_id"], attribute="sex")


def test_a_table_of_any_types_is_the_array_that_it_was_made_of(values: np.ndarray) -> None:
    frame = long_table(values)
    names = dict.fromkeys(["image_id", "patient_id", "level", "label", "attribute"], "category")
    for table in (frame.convert_dtypes(), frame.convert_dtypes(dtype_backend="pyarrow"), frame.astype(names)):
        assert np.array_equal(Responses.from_frame(table.set_axis([0] * len(table))).values, values)


def test_what_is_no_table_of_responses_is_named(values: np.ndarray) -> None:
    frame = long_table(values)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (values, {}, "frame is a ndarray; give a DataFrame"),
        (pd.concat([frame, frame[["level"]]], axis=1), {}, "the column 'level' twice"),
        (frame.assign(probability=frame["probability"] + 1j), {}, "'probability' holds complex128"),
        (frame.assign(probability=pd.Timestamp("1970-01-01")), {}, "'probability' holds datetime64"),
        (frame.replace({"level": {"f": " "}}), {}, "The column 'level' is empty in 360 rows"),
        (frame.replace({"image_id": {"i7": ""}}), {}, "The column 'image_id' is empty in 12 rows"),
        (frame, {"levels": {"f", "m"}}, "levels is a set"),
        (frame, {"labels": "ab"}, "labels is one text"),
        (frame, {"levels": ["f", "f"]}, "levels has the same name twice: f, f"),
        (frame, {"number": True}, "The levels f, m are no numbers, and `number` says they are"),
    ]
    for table, options, said in wrong:
        with pytest.raises(InputError, match=said):
            Responses.from_frame(table, **options)


def test_a_number_that_is_a_place_and_the_name_of_another_level_is_refused(values: np.ndarray) -> None:
    recorded = np.arange(N) % 2
    with pytest.raises(InputError, match="give the names as text"):
        Responses.from_arrays(values, levels=["1", "0"], factual=recorded)
    named = Responses.from_arrays(values, levels=["1", "0"], factual=recorded.astype(str)).recorded
    assert named is not None
    assert named.tolist() == recorded.astype(str).tolist()
    for levels in (["0", "1"], ["40", "60"]):
        factual = Responses.from_arrays(values, levels=levels, factual=recorded).factual
        assert factual is not None
        assert factual.tolist() == recorded.tolist()


def test_a_level_that_is_masked_out_is_no_level(values: np.ndarray) -> None:
    recorded = np.ma.masked_array(np.arange(N) % 2, mask=np.arange(N) < 3)
    with pytest.raises(InputError, match="3 images have no factual level"):
        Responses.from_arrays(values, factual=recorded)


def test_a_share_that_is_no_number_does_not_count_as_the_whole() -> None:
    for share in (float("nan"), None, "0.9"):
        with pytest.raises(InputError, match=r"carried\['m'\]"):
            smallest_share({"f": 0.9, "m": share}, LEVELS)  # type: ignore[dict-item]


def test_shares_may_come_as_a_row_of_pandas() -> None:
    """As a mean by level is one: a table's `groupby` gives it."""
    shares = pd.DataFrame({"level": ["m", "f", "m"], "share": [0.8, 1.0, 0.6]}).groupby("level")["share"].mean()
    assert smallest_share(shares, LEVELS) == pytest.approx(0.7)
    with pytest.raises(InputError, match="no share for the level 'm'"):
        smallest_share(shares.drop("m"), LEVELS)


def test_what_is_no_responses_is_named(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="responses is a ndarray; give Responses"):
        citlr.assess(values, margin=0.02)  # type: ignore[arg-type]


def test_numbers_that_are_names_of_levels_and_no_places_are_names() -> None:
    values, recorded = np.random.default_rng(3).random((4, 2, 2, 1)), [60, 40, 60, 40]
    ages = citlr.Responses.from_arrays(values, levels=[40, 60], factual=recorded, number=True)
    assert ages.factual is not None
    assert ages.factual.tolist() == [1, 0, 1, 0]
    groups = citlr.Responses.from_arrays(values, levels=[1, 2], factual=np.array([2, 1, 1, 2]))
    assert groups.factual is not None
    assert groups.factual.tolist() == [1, 0, 0, 1]
    with pytest.raises(InputError, match="names of the levels"):
        citlr.Responses.from_arrays(values, levels=[1, 0], factual=[1, 0, 1, 0])


def test_a_patient_who_is_a_number_in_one_row_and_text_in_another_is_one() -> None:
    rng = np.random.default_rng(5)
    patients: list[Any] = [k // 2 if k % 2 else str(k // 2) for k in range(N)]
    values = rng.random((N, 2, 2, 1))
    assert Responses.from_arrays(values, patients=patients).n_patients == N // 2
    z, level = rng.normal(size=(N, 2)), np.where(np.arange(N) % 4 < 2, "f", "m")
    mixed, text = (citlr.observe(z, level, values[:, 0, 0, 0], patients=who, redraws=99).to_frame()
                   for who in (patients, [str(one) for one in patients]))  # fmt: skip
    pd.testing.assert_frame_equal(mixed, text)
    assert mixed["n_patients"].max() == N // 2


def test_an_empty_choice_of_a_table_is_not_all_that_it_has() -> None:
    levels, draws = ["f", "m"] * 2 * N, [0, 0, 1, 1] * N
    ids = [str(k // 4) for k in range(4 * N)]
    frame = pd.DataFrame({"image_id": ids, "patient_id": ids, "level": levels, "draw": draws, "probability": 0.5})
    frame = frame.assign(attribute="sex", label="flu")
    assert Responses.from_frame(frame).levels == LEVELS
    for name in ("levels", "labels"):
        none: dict[str, Any] = {name: []}
        with pytest.raises(InputError, match=f"{name} is empty"):
            Responses.from_frame(frame, **none)


def test_one_number_in_the_place_of_a_list_is_named() -> None:
    values = np.full((12, 2, 2, 1), 0.5)
    for what in ("patients", "units", "levels", "labels"):
        with pytest.raises(InputError, match=f"{what} is a int; give a list, one entry after the other"):
            Responses.from_arrays(values, **{"patients": range(12), "levels": ["F", "M"], "labels": ["a"], what: 3})
    with pytest.raises(InputError, match="There are 40 images and 39 patients"):
        citlr.observe(np.eye(40), ["F", "M"] * 20, np.full(40, 0.5), patients=range(39))


class Column:
    """A column of a table as some libraries have it: entries by place, and nothing else."""

    def __init__(self, entries: Any) -> None:
        self.entries = list(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, place: int) -> Any:
        return self.entries[place]


def test_what_gives_its_entries_by_place_is_a_list(values: np.ndarray) -> None:
    names: dict[str, Any] = {"levels": LEVELS, "labels": ["a", "b"], "patients": range(N), "factual": LEVELS * (N // 2)}
    known = Responses.from_arrays(values, **names)
    found = Responses.from_arrays(values, **{name: Column(one) for name, one in names.items()})
    assert (found.levels, found.labels) == (known.levels, known.labels)
    assert np.array_equal(found.patients, known.patients)
    assert np.array_equal(found.factual, known.factual)  # type: ignore[arg-type]
