"""A folder of redrawn images is taken up for the same generator, images and settings, and for no others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from citlr.audit import stages
from citlr.audit.api import audit
from citlr.audit.gates import registry
from citlr.audit.gates.evidence import Evidence
from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.results.records import Gate
from citlr.audit.stages import Asked, predict_stage
from citlr.config import ControlsConfig, GateConfig, QualityConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError
from citlr.generators.oracle import Oracle
from citlr.predictors.loading import load_predictor
from citlr.simulators.phantom.world import PhantomWorld


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Oracle, Oracle]:
    """Test images of a phantom, its own equations, and equations of which nobody changes."""
    sample = PhantomWorld(size=32).sample(200, seed=0, images_per_patient=1)
    cohort = sample.write(tmp_path_factory.mktemp("world")).part("test")
    same = Oracle(
        lambda level, rows: sample.counterfactual("female")[rows],
        image_ids=sample.frame["image_id"],
        attribute="sex",
        levels=("female", "male"),
        size=32,
    )
    return cohort, Oracle.of(sample), same


def drawn(generator: Oracle, cohort: Cohort, out: Path, **settings: object) -> Counterfactuals:
    options = {"attribute": "sex", "draws": 2, "placebo_images": 4, **settings}
    return generate(generator, cohort, out=out, **options)  # type: ignore[arg-type]


def change(counterfactuals: Counterfactuals) -> float:
    return float(
        np.mean([np.abs(shard.drawn[:, 1] - shard.drawn[:, 0]).mean() for shard in counterfactuals.main.shards()])
    )


def test_another_generator_redraws_the_same_folder(phantom: tuple[Cohort, Oracle, Oracle], tmp_path: Path) -> None:
    cohort, own, same = phantom
    assert change(drawn(own, cohort, tmp_path)) > 0
    assert change(drawn(same, cohort, tmp_path)) == 0
    assert change(drawn(own, cohort, tmp_path)) > 0


def test_the_same_call_draws_nothing_and_another_setting_draws_again(
    phantom: tuple[Cohort, Oracle, Oracle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, own, _ = phantom
    first = drawn(own, cohort, tmp_path)
    asked: list[int] = []
    render = Oracle.generate

    def count(self: Oracle, images: np.ndarray, *arguments: object, **options: object) -> object:
        asked.append(len(images))
        return render(self, images, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Oracle, "generate", count)
    assert drawn(own, cohort, tmp_path).key == first.key
    assert asked == []
    again = drawn(own, cohort, tmp_path, placebo_images=0)
    assert sum(asked) == len(cohort)
    assert again.placebo is None  # the coin of before is not taken up


def test_what_was_drawn_anew_is_not_read_by_the_name_of_before(
    phantom: tuple[Cohort, Oracle, Oracle], tmp_path: Path
) -> None:
    cohort, own, same = phantom
    first = drawn(own, cohort, tmp_path)
    second = drawn(same, cohort, tmp_path)
    with pytest.raises(StateError, match="were drawn anew"):
        change(first)
    assert change(second) == 0
    shutil.rmtree(tmp_path)
    with pytest.raises(StateError, match="or taken away"):
        change(second)


def test_one_changed_image_draws_again(phantom: tuple[Cohort, Oracle, Oracle], tmp_path: Path) -> None:
    cohort, own, _ = phantom
    first = drawn(own, cohort, tmp_path)
    file = cohort.root / cohort.frame["path"].iloc[0]
    before = file.read_bytes()
    other = cohort.root / cohort.frame["path"].iloc[1]
    try:
        file.write_bytes(other.read_bytes())
        assert drawn(own, cohort, tmp_path).key != first.key
    finally:
        file.write_bytes(before)


def test_an_audit_is_made_anew_of_originals_that_changed_after_they_were_redrawn(tmp_path: Path) -> None:
    sample = PhantomWorld(size=32).sample(120, seed=0, images_per_patient=1)
    world = sample.write(tmp_path / "world", min_patients_per_level=1)
    train, validation, test = (world.part(name) for name in ("train", "validation", "test"))
    counterfactuals = drawn(Oracle.of(sample), test, tmp_path / "drawn")
    model = load_predictor(Brightness(), labels=["cardiomegaly"], device="cpu")
    told: list[str] = []
    narrator = Narrator(quiet=True)
    narrator.say = told.append  # type: ignore[method-assign]

    def answers(out: str) -> tuple[object, pd.DataFrame]:
        found = audit(
            model,
            counterfactuals,
            train=train,
            validation=validation,
            randomizations=99,
            gates=GateConfig(probe_steps=4),
            quality=QualityConfig(cycles=1),
            controls=ControlsConfig(bootstraps=0, planted=()),
            out=tmp_path / out,
            narrator=narrator,
        )
        assert found.provenance["config"]["test"]["threshold"] == 0.5
        # What looks wrong of a model is told in Python too, and stands in the audit.
        assert any("'Brightness' is not said to read images of one size" in note for note in found.quality.notes)
        assert any("is shown them at 32 pixels a side" in note for note in told)
        (responses,) = (tmp_path / out).glob("models/*/responses.parquet")
        return found.quality, pd.read_parquet(responses)

    quality, before = answers("kept")
    for name in test.frame["path"]:
        with Image.open(test.root / name) as image:
            turned = ImageOps.invert(image.convert("L"))
        turned.save(test.root / name)
    again, after = answers("kept")
    assert again != quality
    assert not after.equals(before)
    fresh, whole = answers("fresh")
    assert str(again) == str(fresh)  # a number that is not one equals nothing
    assert after.equals(whole)


def test_a_gate_is_handed_the_redrawn_images_and_their_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a gate on pixels is a file of its own and a line of the registry."""

    def gate_pixels(evidence: Evidence) -> Iterator[Gate]:
        pictures = evidence.counterfactuals.pictures()
        changes = [np.abs(images - pictures.originals(rows)[:, None, None]).max() for rows, images in pictures]
        yield Gate("pixels", float(max(changes)), None, False, "Pixels changed.", "generator")

    monkeypatch.setattr(registry, "GATES", (gate_pixels,))
    monkeypatch.setattr(stages, "check_on_cohort", lambda *_, images, **__: (f"{images} images look odd.",))
    sample = PhantomWorld(size=32).sample(120, seed=0, images_per_patient=1)
    world = sample.write(tmp_path / "world", min_patients_per_level=1)
    found = audit(
        load_predictor(Brightness(), labels=["cardiomegaly"], device="cpu"),
        drawn(Oracle.of(sample), world.part("test"), tmp_path / "drawn", placebo_images=0),
        train=world.part("train"),
        validation=world.part("validation"),
        randomizations=99,
        gates=GateConfig(probe_steps=4),
        quality=QualityConfig(cycles=1),
        controls=ControlsConfig(bootstraps=0, planted=()),
    )
    (gate,) = [one for one in found.quality.gates if one.name == "pixels"]
    assert gate.value > 0.01
    assert "Pixels changed." in found.tests[0].reason
    # And the result has what a whole batch shows of the model, not what the first few images do.
    assert "64 images look odd." in found.quality.notes


def test_what_a_model_does_to_a_whole_batch_is_found_before_it_is_asked_for_all(
    phantom: tuple[Cohort, Oracle, Oracle], tmp_path: Path
) -> None:
    """As a model that goes over its images by eights and mixes up the rest: four images do not show it."""
    cohort, own, _ = phantom

    def mixed(images: np.ndarray) -> np.ndarray:
        bright = images.mean(axis=(1, 2, 3))
        return np.concatenate([bright[:8], np.full_like(bright[8:], bright[8:].mean())]) if len(bright) > 8 else bright

    model = load_predictor(mixed, labels=["cardiomegaly"], name="mixed", device="cpu")
    assert len(cohort) > 8
    stage = predict_stage(
        model,
        lambda: drawn(own, cohort, tmp_path / "drawn"),
        Asked("mixed", "responses.parquet"),
        after=(),
        narrator=Narrator(quiet=True),
    )
    with pytest.raises(InputError, match="Model 'mixed' gives another answer for an image alone than in a batch"):
        stage.work(tmp_path)
    assert not (tmp_path / "responses.parquet").exists()


class Brightness(torch.nn.Module):
    """Says how bright an image is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]
