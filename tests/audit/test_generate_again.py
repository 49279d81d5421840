"""A folder of redrawn images is taken up for the same generator, images and settings, and for no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from citlr.audit.generation import Counterfactuals, generate
from citlr.data.cohort import Cohort
from citlr.generators.oracle import Oracle
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
