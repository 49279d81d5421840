"""What is kept of redrawn images, and how who reads at another size sees them: the original, changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.measures.readings import seen_at
from citlr.audit.prediction import check_on_cohort, predict_sets
from citlr.audit.redrawing.drawing import CohortRequest, draw_sets
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.stages import Asked, predict_stage
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Plan
from citlr.data.edits import Edit
from citlr.data.images import encode_png, read_image
from citlr.doses import nearest
from citlr.errors import InputError, StateError
from citlr.exchange.closed import export_blind
from citlr.generators.oracle import EditingOracle, Oracle
from citlr.generators.request import Request
from citlr.invariance.responses import Responses
from citlr.invariance.tables import COARSE_DRAW, ORIGINAL_DRAW
from citlr.predictors.specs import InputSpec
from citlr.report.publish import _rows_for_show, choose_galleries
from citlr.run.engines import Engine
from citlr.run.stage import Stage

IDS = [f"i{n}" for n in range(7)]
LEVELS = ("F", "M")


def lighter(level: str, rows: np.ndarray) -> np.ndarray:
    """Draw the left half of flat images a quarter lighter under M."""
    drawn = np.full((len(rows), 1, 16, 16), 0.25, np.float32)
    drawn[..., :8] += 0.25 * (level == "M")
    return drawn


@pytest.fixture(params=["pad", "crop", "stretch"])
def cohort(request: pytest.FixtureRequest, tmp_path: Path) -> Cohort:
    """Images of noise, most of them no squares, of more pixels than anybody reads."""
    rng = np.random.default_rng(0)
    for n, name in enumerate(IDS):
        image = rng.uniform(0.2, 0.6, (1, 90 + 10 * n, 120))
        (tmp_path / f"{name}.png").write_bytes(encode_png(image))
    frame = pd.DataFrame(
        {
            "image_id": IDS,
            "path": [f"{name}.png" for name in IDS],
            "patient_id": IDS,
            "split": "test",
            "sex": ["F", "M"] * 3 + ["F"],
            "edema": [0.0, 1.0] * 3 + [0.0],
        }
    )
    return Cohort(frame, tmp_path, attributes=("sex",), labels=("edema",), fit=request.param)


def redrawn(kind: type[Oracle], cohort: Cohort, out: Path | None = None) -> Counterfactuals:
    oracle = kind(lighter, image_ids=IDS, attribute="sex", levels=LEVELS, size=16)
    return generate(oracle, cohort, attribute="sex", draws=3, placebo_images=3, shard=2, out=out)


class Model:
    """Answers how bright images are, and remembers the shapes of what it saw."""

    def __init__(self, size: int | None) -> None:
        self.name, self.labels, self.input = "bright", ("edema",), InputSpec(size=size)
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images.shape)
        return images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None]

    def fingerprint(self) -> str:
        return "bright"


@pytest.mark.parametrize("size", [12, 16, 16 * 3, 40, 101])
def test_under_its_own_level_an_edited_image_is_the_original_bit_for_bit(cohort: Cohort, size: int) -> None:
    counterfactuals = redrawn(EditingOracle, cohort)
    pictures, own = counterfactuals.pictures(size), cohort.pixels(size=size)
    drawn = np.concatenate([images for _, images in pictures])
    assert drawn.shape == (7, 2, 3, 1, size, size)
    level = (cohort.frame["sex"] == "M").astype(int).to_numpy()
    for draw in range(3):
        assert np.array_equal(drawn[np.arange(7), level, draw], own)
    change = (drawn[np.arange(7), 1 - level, 0] - own) * np.where(level, -1, 1)[:, None, None, None]
    left, right = slice(0, size // 2 - size // 16 - 1), slice(size // 2 + size // 16 + 1, None)
    assert np.abs(change[..., right]).max() == 0
    inside = (own[..., left] > 0.26) & (own[..., left] < 0.74)  # nothing is clipped
    np.testing.assert_allclose(change[..., left][inside], 0.25, atol=1e-4)
    # The coin has no edits at all.
    coin = np.concatenate([images for _, images in Pictures(counterfactuals.placebo, cohort, size)])
    sampled = [IDS.index(name) for name in counterfactuals.placebo.plan.image_ids]
    assert np.array_equal(coin, np.broadcast_to(own[sampled][:, None, None], coin.shape))


def test_a_picture_is_what_it_is_up_to_its_own_size_and_above_changes_the_original(cohort: Cohort) -> None:
    counterfactuals = redrawn(Oracle, cohort)
    main = counterfactuals.main
    kept = np.concatenate([shard.drawn for shard in main.shards()])
    for size in (8, 16):
        pictures = counterfactuals.pictures(size)
        assert pictures.side == 16
        assert np.array_equal(np.concatenate([images for _, images in pictures]), kept)
    own = cohort.pixels(size=48)
    large = np.concatenate([images for _, images in counterfactuals.pictures(48)])
    assert large.shape == (7, 2, 3, 1, 48, 48)
    # What is finer than the picture is the original's, and the two levels differ by what the pictures do.
    fine = own - own.reshape(7, 1, 16, 3, 16, 3).mean(axis=(3, 5)).repeat(3, axis=2).repeat(3, axis=3)
    assert np.corrcoef(fine[..., 6:-6, 6:-6].ravel(), large[:, 0, 0, :, 6:-6, 6:-6].ravel())[0, 1] > 0.7
    between = (large[:, 1, 0] - large[:, 0, 0])[..., :20]
    inside = (large[:, 0, 0, ..., :20] > 0) & (large[:, 1, 0, ..., :20] < 1)
    np.testing.assert_allclose(between[inside], 0.25, atol=1.5 / 255)


@pytest.mark.parametrize("size", [None, 8, 40])
def test_a_model_sees_its_own_size_and_is_asked_once_where_draws_are_alike(cohort: Cohort, size: int | None) -> None:
    model, other = Model(size), Model(size)
    edits, as_pictures = redrawn(EditingOracle, cohort), redrawn(Oracle, cohort)
    frame = predict_sets(model, edits.sets, cohort)
    predict_sets(other, as_pictures.sets, cohort)
    # At finer pixels than the generator's it is also asked for the originals as the generator sees them.
    sides = {16, 40} if size == 40 else {size or 16}
    assert {shape[1:] for shape in model.seen} == {(1, side, side) for side in sides}
    coarse = frame[frame["draw"] == COARSE_DRAW]
    assert (len(coarse), set(coarse["attribute"])) == ((7, {"sex"}) if size == 40 else (0, set()))
    responses = Responses.from_frame(frame, attribute="sex")
    assert (responses.coarse is None) == (size != 40)
    if responses.coarse is not None:
        seen = cohort.pixels([IDS.index(name) for name in responses.units], size=16).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(responses.take([2, 0]).coarse[:, 0], seen[[2, 0]], atol=1e-6)
    main = frame[frame["attribute"] == "sex"]
    drawn = main[main["draw"] >= 0].pivot_table(index=["image_id", "level"], columns="draw", values="probability")
    assert drawn.shape == (14, 3)
    assert (drawn.to_numpy() == drawn.to_numpy()[:, :1]).all()
    original = main[main["draw"] == ORIGINAL_DRAW].set_index(["image_id", "level"])["probability"]
    assert (drawn.loc[original.index, 0] == original).all()
    # Of 7 images and the coin's 3, two levels and three draws, it is spared two draws.
    asked, pictures = (sum(shape[0] for shape in one.seen) for one in (model, other))
    assert pictures - asked == (7 + 3) * 2 * 2 - 7  # images that were moved and put back


def test_memory_is_bounded_by_pixels_at_a_time(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    counterfactuals = redrawn(EditingOracle, cohort)
    whole = [images for _, images in counterfactuals.pictures(40)]
    monkeypatch.setattr("citlr.audit.redrawing.pictures.PIXELS", 3 * 40**2)
    parts = list(counterfactuals.pictures(40).batches(0))
    assert [len(part) for part in parts] == [3, 1]  # two images at two levels, and draws that are alike once
    assert all(np.array_equal(a, b) for (_, a), b in zip(counterfactuals.pictures(40), whole, strict=True))


def test_edits_that_were_cut_off_go_on_and_end_the_same(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    edit = EditingOracle.edit

    def stop(self: EditingOracle, images: np.ndarray, *arguments: object, **options: object) -> Edit:
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return edit(self, images, *arguments, **options)  # type: ignore[arg-type]

    redrawn(EditingOracle, cohort, tmp_path / "whole")
    monkeypatch.setattr(EditingOracle, "edit", stop)
    with pytest.raises(KeyboardInterrupt):
        redrawn(EditingOracle, cohort, tmp_path / "cut")
    redrawn(EditingOracle, cohort, tmp_path / "cut")
    assert asked == [2, 2, 2, 2, 1, 2, 1]  # the two shards that were whole are not made again
    for file in sorted((tmp_path / "whole" / "levels").glob("*.parquet")):
        assert file.read_bytes() == (tmp_path / "cut" / "levels" / file.name).read_bytes()


def test_what_lies_on_disk_and_what_another_version_wrote(cohort: Cohort, tmp_path: Path) -> None:
    redrawn(EditingOracle, cohort, tmp_path / "edits")
    table = pq.read_table(tmp_path / "edits" / "levels" / "part-00000.parquet")
    assert table.column_names == ["image_id", "patient_id", "attribute", "level", "draw", "edit"]
    assert table["draw"].to_pylist() == [0] * 4
    file = tmp_path / "edits" / "levels" / "plan.json"
    plan = json.loads(file.read_text())
    assert (plan["edits"], plan["alike"], plan["draws"]) == (True, True, 3)
    for odd in ({**plan, "depth": 3}, {name: value for name, value in plan.items() if name != "size"}):
        file.write_text(json.dumps(odd))
        with pytest.raises(StateError, match="another version"):
            CounterfactualSet.open(file.parent)
    # Pictures of before edits were kept are what they were.
    before = redrawn(Oracle, cohort, tmp_path / "pictures").main
    file = before.folder / "plan.json"
    plan = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in plan.items() if name not in ("edits", "alike")}))
    assert CounterfactualSet.open(before.folder).plan == before.plan


def test_who_cannot_run_the_model_here_hands_out_its_size(cohort: Cohort, tmp_path: Path) -> None:
    counterfactuals = redrawn(EditingOracle, cohort)
    export = export_blind(counterfactuals.sets, cohort, key_folder=tmp_path / "key", out=tmp_path / "out", size=40)
    key = pd.read_parquet(export.key)
    assert len(key) == 3 * 7 + 7 * 2 * 3 + 3 * 2 * 3
    pixels = {name: read_image(tmp_path / "out" / f"{name}.png") for name in key["id"]}
    assert {one.shape for one in pixels.values()} == {(1, 40, 40)}
    main = key[(key["attribute"] == "sex") & (key["image_id"] == "i1")].set_index(["level", "draw"])["id"]
    own = pixels[main["M", ORIGINAL_DRAW]]
    assert all(np.array_equal(pixels[main["M", draw]], own) for draw in range(3))
    assert not np.array_equal(pixels[main["F", 0]], own)
    # Also the originals without what is finer than the generator's pixels.
    coarse, seen = pixels[main["M", COARSE_DRAW]], cohort.pixels([1], size=16)
    assert np.abs(coarse - seen_at(seen, 40)[0]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(np.diff(own)).mean() > 1.3 * np.abs(np.diff(coarse)).mean()


def test_a_model_that_reads_another_size_is_asked_again(cohort: Cohort) -> None:
    counterfactuals = redrawn(EditingOracle, cohort)

    def stage(size: int | None) -> Stage:
        return predict_stage(
            Model(size),
            lambda: counterfactuals,
            Asked("m", "responses.parquet"),
            after=("k",),
            narrator=Narrator(quiet=True),
        )

    assert stage(40).key == stage(40).key
    assert len({stage(size).key for size in (None, 16, 40)}) == 3


class Choosing(EditingOracle):
    """Cannot place dark images, and leaves them as they are."""

    def change(self, images: np.ndarray, frame: pd.DataFrame, request: Request) -> Edit:
        edit = super().change(images, frame, request)
        able = np.isin(frame["image_id"], ["i1", "i4", "i5"], invert=True)[:, None]
        marks = np.broadcast_to(able, edit.shape[:2])
        weigh = able[:, :, None, None, None].astype(np.float32)
        return Edit(edit.displacement, edit.added * weigh, marks)


class Drifting(Model):
    """Answers a little more each time that it is asked, as a server that learns or cools down does."""

    step = 2e-3

    def predict(self, images: np.ndarray) -> np.ndarray:
        return super().predict(images) + self.step * max(0, len(self.seen) - 8)  # after the check, which asks alone too


@pytest.mark.parametrize("cohort", ["pad"], indirect=True)
def test_a_model_that_drifts_while_it_is_asked_is_refused_and_no_answer_of_it_is_kept(
    cohort: Cohort, tmp_path: Path
) -> None:
    """Two runs one after the other are alike; what came first and last was compared all the same."""
    counterfactuals, parts = redrawn(Oracle, cohort), tmp_path / "parts"
    drifting = Drifting(16)
    with pytest.raises(InputError, match="'bright' answers its first 7 images otherwise at the end than at the start"):
        predict_sets(drifting, counterfactuals.sets, cohort, folder=parts)
    assert not parts.exists()
    # What would not move a decision, as other sums of the same numbers, is no drift.
    drifting.step, drifting.seen = 1e-5, []
    assert len(predict_sets(drifting, counterfactuals.sets, cohort, folder=parts))
    # A server that another model took over since the call that was killed.
    other = Model(16)
    other.predict = lambda images: 1 - Model.predict(other, images)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="at the end than at the start"):
        predict_sets(other, counterfactuals.sets, cohort, folder=parts)


@pytest.mark.parametrize("cohort", ["pad"], indirect=True)
def test_who_cannot_be_placed_is_told_by_the_shards_whoever_draws_them(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Choosing(lighter, image_ids=IDS, attribute="sex", levels=LEVELS, size=16)
    request = CohortRequest("sex", draws=2, shard=2)
    key = {"key": "k", "narrator": Narrator()}
    facts = [
        draw_sets(oracle, cohort, request, tmp_path / str(workers), engine=Engine("loky", workers), **key)
        for workers in (1, 2)
    ]
    assert facts[0] == facts[1]
    assert facts[0]["remarks"] == [
        "generate: test images that cannot be brought together with the others (turned, inverted, another body part) "
        "and are left as they are: 3 of 7, i1, i4, i5"
    ]
    # One that was cut off, and goes on in a process that never saw the first images.
    (tmp_path / "1" / "levels" / "part-00002.parquet").unlink()
    again = draw_sets(oracle, cohort, request, tmp_path / "1", **key)
    assert again == facts[0]
    kept = CounterfactualSet.open(tmp_path / "1" / "levels")
    assert kept.not_placed() == ("i1", "i4", "i5")
    # Who places none has nothing to say, and that is not the same as all of them.
    assert redrawn(EditingOracle, cohort).main.not_placed() is None
    assert redrawn(Oracle, cohort).main.not_placed() is None


@pytest.mark.parametrize("cohort", ["pad"], indirect=True)
def test_every_page_says_at_what_size_its_own_model_reads(cohort: Cohort) -> None:
    sizes = {"small": 8, "own": 16, "large": 24, "huge": 40}
    edits = choose_galleries(redrawn(EditingOracle, cohort), 2, sizes, pixels=32)
    pictures = choose_galleries(redrawn(Oracle, cohort), 2, sizes, pixels=32)
    for name, size in sizes.items():
        for found in (edits[name], pictures[name]):
            side = found.strips[0].original.shape[0]
            if size == side:
                assert f"They are shown as the model reads them, at {size} pixels a side." in found.note
            elif size == 8:
                assert "They are shown at 16 pixels a side; the model reads 8." in found.note
            else:
                assert "The model reads 40 pixels a side; pictures are reduced to 32" in found.note
    assert [one.strips[0].original.shape[0] for one in edits.values()] == [8, 16, 24, 32]
    assert [one.strips[0].original.shape[0] for one in pictures.values()] == [16, 16, 24, 32]


@pytest.mark.parametrize("count", [3, 6])
def test_a_gallery_of_a_number_is_not_of_the_youngest(count: int) -> None:
    """Ages that nearly nobody shares: in turn are those recorded nearest to each age that all are redrawn at."""
    names = tuple(f"i{number}" for number in range(60))
    ages = tuple(str(20.0 + number) for number in range(60))
    plan = Plan("age", ("30", "50", "70"), 2, names, names, ages, shard=8, size=16, shared_seeds=True, key="k")
    rows, in_turn = _rows_for_show(plan, count, number=True)
    near = [plan.levels[place] for place in nearest([float(ages[row]) for row in rows], plan.levels)]
    assert sorted(near) == sorted([*plan.levels] * (count // 3))
    assert in_turn == "those recorded nearest to every level"
    levels = replace(plan, factual=("30", "70") * 30, levels=("30", "70"))
    assert sorted(levels.factual[row] for row in _rows_for_show(levels, 4, number=False)[0]) == ["30", "30", "70", "70"]


@pytest.mark.parametrize("size", [None, 24, (24, 24), (24, 32)])
def test_a_model_that_reads_no_squares_is_told_what_it_sees(cohort: Cohort, size: int | tuple[int, int] | None) -> None:
    model = Model(None)
    model.input = InputSpec() if size is None else InputSpec(size=size)
    told = [note for note in check_on_cohort(model, cohort, size=16) if "out of shape" in note]
    if size != (24, 32) or cohort.fit == "stretch":
        assert told == []
    else:
        (note,) = told
        assert note.startswith("The model reads images 24 high and 32 wide")
        assert f"cohort.fit: {cohort.fit})" in note
