"""A model that reads what interpolation leaves of a moved image is not called dependent; one that reads levels is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import gate_put_back
from citlr.audit.gates.registry import withhold
from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.measures.put_back import measure_put_back
from citlr.audit.prediction import predict_sets
from citlr.audit.results.records import Carried
from citlr.audit.results.statistics import schema_rows
from citlr.config import GateConfig, TestConfig
from citlr.data.cohort import Cohort
from citlr.data.edits import Edit
from citlr.data.images import encode_png
from citlr.errors import InputError
from citlr.exchange.closed import export_blind
from citlr.generators.edits.composition import move_and_put_back
from citlr.generators.oracle import EditingOracle, Oracle
from citlr.invariance.generator_error import Replicates
from citlr.invariance.responses import Responses
from citlr.invariance.tables import PUT_BACK_DRAW
from citlr.invariance.verdict import assess
from citlr.predictors.specs import InputSpec

COUNT, SIDE = 120, 32
IDS = [f"i{n:03d}" for n in range(COUNT)]
LEVELS = ("F", "M")
SETTINGS = TestConfig(margin=0.05, randomizations=199)


class Moving(EditingOracle):
    """Moves what it leads to another level by a smooth half-pixel, and makes the left half lighter under M."""

    def edit(self, images: np.ndarray, frame: pd.DataFrame, **asked: Any) -> Edit:
        edit = super().edit(images, frame, **asked)
        changed = (np.abs(edit.added).max(axis=(2, 3, 4)) > 0)[:, :, None, None, None]
        line = np.linspace(0, np.pi, SIDE)
        way = 0.5 * np.stack([np.outer(np.sin(line), np.ones(SIDE)), np.outer(np.ones(SIDE), np.sin(line))])
        return replace(edit, displacement=(changed * way).astype(np.float32))


def lighter(level: str, rows: np.ndarray) -> np.ndarray:
    drawn = np.full((len(rows), 1, SIDE, SIDE), 0.25, np.float32)
    drawn[..., : SIDE // 2] += 0.1 * (level == "M")
    return drawn


class Model:
    """Decides by one number of an image."""

    labels = ("edema",)

    def __init__(self, name: str) -> None:
        self.name, self.input = name, InputSpec(size=None)

    def predict(self, images: np.ndarray) -> np.ndarray:
        if self.name == "grain":
            read = np.abs(np.diff(images, axis=-1)).mean(axis=(1, 2, 3)) - 0.128
        else:
            half = images.shape[-1] // 2
            read = (images[..., :half].mean(axis=(1, 2, 3)) - images[..., half:].mean(axis=(1, 2, 3))) - 0.05
        return (read > 0).astype(float)[:, None]

    def fingerprint(self) -> str:
        return self.name


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Images of grain around a grey of their own."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    sex = np.array(["F", "M"] * (COUNT // 2))
    for n, name in enumerate(IDS):
        image = rng.uniform(0.25, 0.75, (1, SIDE, SIDE)) * rng.uniform(0.7, 1.1)
        image[..., : SIDE // 2] += 0.1 * (sex[n] == "M")
        (folder / f"{name}.png").write_bytes(encode_png(np.clip(image, 0, 1)))
    frame = pd.DataFrame(
        {"image_id": IDS, "path": [f"{name}.png" for name in IDS], "patient_id": IDS, "split": "test", "sex": sex}
    ).assign(edema=0.0)
    return Cohort(frame, folder, attributes=("sex",), labels=("edema",))


def redrawn(kind: type[Oracle], cohort: Cohort) -> Counterfactuals:
    oracle = kind(lighter, image_ids=IDS, attribute="sex", levels=LEVELS, size=SIDE)
    return generate(oracle, cohort, attribute="sex", draws=2, placebo_images=0, shard=50)


@pytest.fixture(scope="module")
def moving(cohort: Cohort) -> Counterfactuals:
    return redrawn(Moving, cohort)


def answers(name: str, counterfactuals: Counterfactuals, cohort: Cohort) -> Responses:
    return Responses.from_frame(predict_sets(Model(name), counterfactuals.sets, cohort), attribute="sex")


def judged(responses: Responses, limits: GateConfig | None = None) -> tuple[str, str, str]:
    """Give the verdict without and with the gate, and the reason."""
    exact = Replicates(np.arange(COUNT), np.repeat(responses.values[:, 1:, :1], 4, axis=2))
    rows = schema_rows(assess(responses, **SETTINGS.model_dump(), replicates=exact))
    evidence = Evidence(
        limits=limits or GateConfig(),
        faithfulness=None,  # type: ignore[arg-type]  # this gate does not look at the images
        carried=Carried(SIDE, {}, ""),
        rows=rows,
        put_back=measure_put_back(responses, settings=SETTINGS, replicates=exact),
    )
    after = withhold(rows, tuple(gate_put_back(evidence)))
    return rows[0].verdict, after[0].verdict, after[0].reason


def test_a_model_that_reads_the_marks_of_moving_is_not_called_dependent(
    moving: Counterfactuals, cohort: Cohort
) -> None:
    before, after, reason = judged(answers("grain", moving, cohort))
    assert (before, after) == ("dependence", "inconclusive")
    assert "put back on edema" in reason
    assert "may read what interpolation leaves" in reason
    limits = GateConfig()
    rows = schema_rows(assess(answers("grain", moving, cohort), **SETTINGS.model_dump() | {"margin": 0.9}))
    found = measure_put_back(answers("grain", moving, cohort), settings=SETTINGS, replicates=None)
    small = tuple(replace(row, margin=0.05) for row in rows)
    evidence = Evidence(limits, None, Carried(SIDE, {}, ""), rows=small, put_back=found)  # type: ignore[arg-type]
    (gate,) = gate_put_back(evidence)
    assert gate.passed
    assert gate.text.endswith("That may pass for a dependence. None is claimed.")
    # Who waives the gate gets the verdict.
    assert judged(answers("grain", moving, cohort), GateConfig(put_back=False))[1] == "dependence"


def test_a_model_that_reads_the_level_is_called_dependent(moving: Counterfactuals, cohort: Cohort) -> None:
    responses = answers("left", moving, cohort)
    assert judged(responses)[:2] == ("dependence", "dependence")
    (found,) = measure_put_back(responses, settings=SETTINGS, replicates=None)
    assert found.turned.estimate < 0.05
    assert found.psi.low > 0.5
    assert found.mean_effect.low > 0.5


def test_what_moving_does_not_change_needs_no_margin(cohort: Cohort) -> None:
    """Edits that add and do not move: a small dependence is not laid to marks that are not there."""
    still = redrawn(EditingOracle, cohort)
    responses = answers("left", still, cohort)
    values = responses.values.copy()
    values[8:] = values[8:, :1]  # eight images of 120 depend
    exact = replace(responses, values=values)
    rows = schema_rows(assess(exact, **SETTINGS.model_dump()))
    (found,) = measure_put_back(exact, settings=SETTINGS, replicates=None)
    assert (rows[0].verdict, found.turned.estimate) == ("dependence", 0.0)
    assert not rows[0].beyond(found.psi, found.mean_effect)
    evidence = Evidence(GateConfig(), None, Carried(SIDE, {}, ""), rows=rows, put_back=(found,))  # type: ignore[arg-type]
    assert [gate.passed for gate in gate_put_back(evidence)] == [True]


def test_images_that_are_put_back_are_answered_once_and_only_for_edits(
    moving: Counterfactuals, cohort: Cohort, tmp_path: Path
) -> None:
    frame = predict_sets(Model("grain"), moving.sets, cohort)
    rows = frame[frame["draw"] == PUT_BACK_DRAW].set_index("image_id")
    assert sorted(rows.index) == IDS
    assert (rows["level"] == cohort.frame.set_index("image_id")["sex"].loc[rows.index]).all()
    responses = Responses.from_frame(frame, attribute="sex")
    assert responses.put_back is not None
    assert np.array_equal(responses.take([3, 1]).put_back, responses.put_back[[3, 1]])
    as_pictures = redrawn(Oracle, cohort)
    pictures = predict_sets(Model("grain"), as_pictures.sets, cohort)
    assert not (pictures["draw"] == PUT_BACK_DRAW).any()
    assert measure_put_back(Responses.from_frame(pictures), settings=SETTINGS, replicates=None) == ()
    # A closed model's owner is handed them, too.
    (tmp_path / "key").mkdir()
    export_blind(moving.sets, cohort, key_folder=tmp_path / "key", out=tmp_path / "out")
    key = pd.read_parquet(tmp_path / "key" / "key.parquet")
    assert (key["draw"] == PUT_BACK_DRAW).sum() == COUNT


def test_what_is_put_back_has_its_anatomy_and_lost_its_grain() -> None:
    rng = np.random.default_rng(1)
    grain = rng.uniform(0, 1, (3, 1, 64, 64)).astype(np.float32)
    line = np.sin(np.linspace(0, 3, 64))
    smooth = (0.5 + 0.4 * np.outer(line, line)).astype(np.float32)[None, None].repeat(3, axis=0)
    way = (1.6 * np.stack([np.outer(line, line), -np.outer(line, line**2)])).astype(np.float32)[None].repeat(3, axis=0)
    inside = (..., slice(4, -4), slice(4, -4))
    assert np.abs(move_and_put_back(smooth, way) - smooth)[inside].max() < 2e-3
    left = move_and_put_back(grain, way)[inside].var() / grain[inside].var()
    assert 0.6 < left < 0.9
    assert np.array_equal(move_and_put_back(grain, np.zeros_like(way)), grain)


class Adapting(Model):
    """Takes a little over of every batch, so little that the same images asked twice in a row do not show it."""

    seen = 0.0

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images) * 2e-8
        return images.mean(axis=(1, 2, 3))[:, None] * (1 + self.seen * 500 * (self.seen > 5e-6))


def test_a_model_that_adapts_to_what_it_is_asked_is_refused(moving: Counterfactuals, cohort: Cohort) -> None:
    with pytest.raises(InputError, match=r"other answers for the same 4 images once it was asked for others .* 0\.00"):
        predict_sets(Adapting("adapting"), moving.sets, cohort)
