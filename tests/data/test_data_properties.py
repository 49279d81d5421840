"""What holds for every table, image and split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citlr.data.flow import FlowRecorder
from citlr.data.images import decode_png, encode_png, fit_square
from citlr.data.pixels.square import FITS
from citlr.data.splits import SPLITS, assign_splits, require_disjoint
from citlr.data.steps import read_labels
from citlr.data.tables.bins import cut_bins
from citlr.data.tables.columns import refuse_unsafe_paths
from citlr.data.tables.vocabulary import (
    ETHNICITY_CHEXPERT,
    RACE_CHEXPERT,
    RACE_MIMIC,
    RACES,
    SEX,
    VIEW,
    read_age,
    resolve,
    translate,
)
from citlr.errors import InputError

grays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20), elements=st.floats(0, 1, width=32)
)


@given(image=grays)
def test_png_loses_at_most_half_a_step(image: np.ndarray) -> None:
    back = decode_png(encode_png(image))
    assert back.shape == (1, *image.shape)
    assert np.abs(back[0] - image).max() <= 1 / 510 + 1e-6
    assert encode_png(back) == encode_png(image)


@given(image=grays, size=st.integers(1, 24), fit=st.sampled_from(FITS))
def test_any_shape_becomes_the_square_asked_for_within_its_own_range(image: np.ndarray, size: int, fit: str) -> None:
    square = fit_square(image, size=size, fit=fit)  # type: ignore[arg-type]
    assert square.shape == (1, size, size)
    assert square.dtype == np.float32
    assert square.max() <= image.max() + 1e-5
    assert square.min() >= (min(0.0, image.min()) if fit == "pad" else image.min()) - 1e-5


@given(
    patients=st.lists(st.integers(0, 30), min_size=1, max_size=80),
    levels=st.integers(1, 4),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 5),
)
def test_splits_never_share_a_patient_and_ignore_the_order(
    patients: list[int], levels: int, cut: tuple[float, float], seed: int
) -> None:
    low, high = sorted(cut)
    fractions = (low, high - low, 1 - high)
    frame = pd.DataFrame(
        {"patient_id": [f"p{one}" for one in patients], "sex": [str(one % levels) for one in patients]}
    )
    split = assign_splits(frame, fractions=fractions, stratify="sex", seed=seed)
    assert set(split) <= set(SPLITS)
    require_disjoint(frame.assign(split=split))
    back = assign_splits(frame.iloc[::-1], fractions=fractions, stratify="sex", seed=seed)
    assert (back.sort_index() == split).all()
    # Every stratum is cut as closely as whole patients allow.
    people = frame.assign(split=split).drop_duplicates("patient_id")
    for _, stratum in people.groupby("sex"):
        for side, share in zip(SPLITS, fractions, strict=True):
            assert abs((stratum["split"] == side).sum() - share * len(stratum)) < 1 + 1e-6


@given(parts=st.lists(st.sampled_from(["a", "..", ".", "b c", "ü", "...", "..x"]), min_size=1, max_size=5))
def test_a_path_with_a_parent_step_is_refused_and_no_other(parts: list[str]) -> None:
    path = "/".join(parts)
    if ".." in parts:
        with pytest.raises(InputError):
            refuse_unsafe_paths(pd.Series([path]), source="t")
    else:
        assert refuse_unsafe_paths(pd.Series([path]), source="t").tolist() == [path]


@given(keeps=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), max_size=4))
def test_the_flow_always_adds_up(keeps: list[list[bool]]) -> None:
    recorder = FlowRecorder(pd.DataFrame({"patient_id": list("aabbccddeeff"), "row": range(12)}))
    recorder.start("table", "rows")
    for number, mask in enumerate(keeps):
        chosen = np.asarray(mask)[recorder.frame["row"]]
        if not chosen.any():
            with pytest.raises(InputError, match="leaves no image"):
                recorder.keep(chosen, str(number), "test")
            return
        recorder.keep(chosen, str(number), "test")
    for before, after in zip(recorder.steps, recorder.steps[1:], strict=False):
        assert after.n_images == before.n_images - after.excluded_images
        assert after.n_patients == before.n_patients - after.excluded_patients
    assert recorder.steps[-1].n_images == len(recorder.frame)


@given(years=st.integers(0, 120), form=st.sampled_from(["{}", "{:03d}Y", "{}.0", " {} "]))
def test_ages_in_every_form(years: int, form: str) -> None:
    (age,) = read_age(pd.Series([form.format(years)]), source="t")
    assert age == (90.0 if years > 89 else years)
    (exact,) = read_age(pd.Series([form.format(years)]), source="t", cap=None)
    assert exact == years


@given(
    age=st.floats(0, 110).map(lambda age: round(age, 2)),
    edges=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
)
def test_every_age_falls_into_the_group_that_names_it(age: float, edges: list[int]) -> None:
    (group,) = cut_bins(pd.Series([age], name="age"), edges, source="t", ages=True)
    low, _, high = str(group).rstrip("+").partition("-")
    assert float(low) <= age
    assert not high or age < float(high) + 1


@settings(max_examples=30)
@given(raw=st.sampled_from(sorted(RACE_CHEXPERT | RACE_MIMIC)), upper=st.booleans())
def test_every_word_of_the_vocabulary_is_read_whole(raw: str, upper: bool) -> None:
    table = RACE_CHEXPERT if raw in RACE_CHEXPERT else RACE_MIMIC
    word = raw.upper() if upper else raw
    assert translate(pd.Series([word, None]), table, source="t", what="race").tolist()[0] in RACES
    with pytest.raises(InputError, match=r"'x.*' \(1\)"):
        translate(pd.Series(["x" + word]), table, source="t", what="race")
    assert translate(pd.Series(["x" + word]), table, source="t", what="race", allow_unknown=True).tolist() == [
        "unknown"
    ]


def test_caucasian_is_not_asian_and_nothing_else_is_by_its_letters() -> None:
    assert RACE_CHEXPERT["white or caucasian"] == "white"
    for table in (RACE_CHEXPERT, RACE_MIMIC):
        for raw, level in table.items():
            if level in ("white", "black", "asian"):
                assert raw.startswith(level), raw
    assert set(SEX.values()) == {"female", "male", "unknown"}
    assert set(ETHNICITY_CHEXPERT.values()) == {"hispanic", "non-hispanic", "unknown"}
    assert all(raw == raw.lower() for table in (RACE_CHEXPERT, RACE_MIMIC, SEX, VIEW) for raw in table)


@given(
    records=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["white", "black", "unknown"])), min_size=1),
    policy=st.sampled_from(["drop", "first", "majority"]),
)
def test_settling_gives_one_row_each_and_never_invents(records: list[tuple[str, str]], policy: str) -> None:
    frame = pd.DataFrame(records, columns=["who", "race"])
    resolved = resolve(frame, key="who", value="race", policy=policy)  # type: ignore[arg-type]
    assert resolved["who"].tolist() == frame["who"].drop_duplicates().tolist()
    for who, value in zip(resolved["who"], resolved["race"], strict=True):
        known = [race for name, race in records if name == who and race != "unknown"]
        if not known:
            assert value == "unknown"
        elif policy == "first":
            assert value == known[0]
        elif policy == "majority":
            assert known.count(value) == max(known.count(race) for race in known)
        else:
            assert value == (known[0] if len(set(known)) == 1 else "conflicting")


def test_settling_refuses_other_policies() -> None:
    with pytest.raises(InputError, match="known: drop, first, majority"):
        resolve(pd.DataFrame({"a": [1], "b": ["x"]}), key="a", value="b", policy="last")  # type: ignore[arg-type]


@given(
    values=st.lists(st.sampled_from(["1.0", "0.0", "-1.0", "1", "0", "", None, "true", "No"]), min_size=1),
    uncertain=st.sampled_from(["ignore", "zeros", "ones"]),
    blank=st.sampled_from(["ignore", "zeros"]),
)
def test_labels_are_0_1_or_missing(values: list[str | None], uncertain: str, blank: str) -> None:
    read = read_labels(
        pd.Series(values, name="x", dtype=object),
        uncertain=uncertain,
        blank=blank,
        source="t",  # type: ignore[arg-type]
    )
    for raw, value in zip(values, read, strict=True):
        if raw in ("1.0", "1", "true"):
            assert value == 1.0
        elif raw in ("0.0", "0", "No"):
            assert value == 0.0
        elif raw == "-1.0":
            assert np.isnan(value) if uncertain == "ignore" else value == {"zeros": 0.0, "ones": 1.0}[uncertain]
        else:
            assert np.isnan(value) if blank == "ignore" else value == 0.0
