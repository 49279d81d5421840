from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.prediction import predict_sets
from citlr.audit.redrawing.replicates import REPLICATE, replicates_of
from citlr.data.cohort import Cohort
from citlr.generators.base import REPLICATES
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.ldm import DLDM, LatentDiffusion
from citlr.generators.effects.uncertainty import find_deviations
from citlr.generators.oracle import Oracle
from citlr.generators.registry import load_generator
from citlr.invariance.responses import Responses
from citlr.learning.store import Dataset
from citlr.predictors.loading import load_predictor
from citlr.simulators.phantom import PhantomSample, PhantomWorld
from citlr.simulators.phantom.classifiers import analytic_blind, analytic_indifferent

LEVELS = ["female", "male"]
WORLD = PhantomWorld(size=32)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhantomSample, Cohort]:
    sample = WORLD.sample(300, seed=0)
    return sample, sample.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def fitted(sampled: tuple[PhantomSample, Cohort]) -> LatentDiffusion:
    cohort = sampled[1]
    options = {"ae_steps": 20, "denoiser_steps": 20, "information_steps": 3, "guidance": 1.0, "recentre": 50}
    model = DLDM(size=32, hold=["view"], preset="tiny", **options)
    return model.fit(cohort.part("train"), cohort.part("validation"), seed=1)


@pytest.fixture(scope="module")
def counterfactuals(
    sampled: tuple[PhantomSample, Cohort], fitted: LatentDiffusion, tmp_path_factory
) -> Counterfactuals:
    test, out = sampled[1].part("test"), tmp_path_factory.mktemp("counterfactuals")
    return generate(
        fitted, test, attribute="sex", draws=2, placebo_images=0, replicate_images=30, seed=0, out=out, shard=20
    )


def test_replicates_spread_as_the_standard_error_of_clustered_images(sampled: tuple[PhantomSample, Cohort]) -> None:
    train = sampled[1].part("train")
    conditions = Conditions.of(train.frame, attributes=("sex",), hold=("view",), coin_seed=0)
    codes = conditions.encode(train.frame)
    pixels = Dataset.of(train, size=32, directory=None).pixels
    found = find_deviations(pixels, train.frame["patient_id"], codes, conditions, seed=0)
    contrast = (found[:, 1] - found[:, 0]).flatten(1).double().numpy()
    assert contrast.shape == (REPLICATES, 32 * 32)
    # Sandwich errors of the same regression, clustered by patient (Liang and Zeger 1986).
    pixels = train.pixels(size=32).reshape(len(train), -1).astype(float)
    columns = [np.ones(len(train)), train.frame["sex"] == "male", train.frame["view"] == "PA"]
    design = np.column_stack(columns).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    rest = pixels - design @ (inverse @ design.T @ pixels)
    scores = (design @ inverse)[:, 1, None] * rest
    _, patients = np.unique(train.frame["patient_id"], return_inverse=True)
    sums = np.zeros((patients.max() + 1, scores.shape[1]))
    np.add.at(sums, patients, scores)
    expected = np.sqrt((sums**2).sum(axis=0))
    ratio = np.sqrt((contrast**2).mean(axis=0)) / expected
    assert 0.85 < np.median(ratio) < 1.15


def test_nothing_moves_where_the_attribute_does_not_act(fitted: LatentDiffusion, tmp_path: Path) -> None:
    found = fitted.mean_replicates("sex", LEVELS)
    assert found.shape == (REPLICATES, 2, 1, 32, 32)
    support = fitted.sampler.support.of(["sex"])[0, 0, 0].numpy()
    assert 0 < support.mean() < 1
    assert not found[..., support == 0].any()
    assert (found[..., support > 0] != 0).all()
    fitted.save(tmp_path)
    kept = load_generator(tmp_path)
    assert isinstance(kept, LatentDiffusion)
    assert np.array_equal(kept.mean_replicates("sex", LEVELS), found)


def test_the_first_draw_is_moved_and_filed_apart(fitted: LatentDiffusion, counterfactuals: Counterfactuals) -> None:
    moved = counterfactuals.replicates
    assert moved is not None
    plan = moved.plan
    assert (plan.attribute, plan.levels, plan.draws, len(moved)) == (REPLICATE, ("male",), REPLICATES, 30)
    place = {name: row for row, name in enumerate(counterfactuals.main.plan.image_ids)}
    drawn = np.concatenate([shard.drawn for shard in counterfactuals.main.shards()])
    maps = fitted.mean_replicates("sex", LEVELS)
    for shard in moved.shards():
        first = drawn[[place[plan.image_ids[row]] for row in shard.rows], 1, 0]
        expected = np.clip(first[:, None] + (maps[:, 1] - maps[:, 0])[None], 0, 1)
        np.testing.assert_allclose(shard.drawn[:, 0], expected, atol=1.01 / 255)


def test_models_are_moved_that_look_where_the_attribute_acts(counterfactuals: Counterfactuals) -> None:
    spreads = {}
    for name, module in (
        ("blind", analytic_blind(WORLD, "effusion", n_patients=200)),
        ("indifferent", analytic_indifferent(WORLD, "effusion", n_patients=200)),
    ):
        predictor = load_predictor(module, labels=["effusion"], input={"size": 32}, output="logit", device="cpu")
        frame = predict_sets(predictor, counterfactuals.sets, counterfactuals.cohort)
        responses = Responses.from_frame(frame, attribute="sex", levels=LEVELS)
        found = replicates_of(frame, responses)
        assert found is not None
        assert found.values.shape == (30, 1, REPLICATES, 1)
        spreads[name] = np.abs(found.values - responses.values[found.rows][:, 1:, :1]).max()
    assert spreads["blind"] < 1e-6
    assert spreads["indifferent"] > 1e-3


def test_another_call_without_them_leaves_none_behind(
    sampled: tuple[PhantomSample, Cohort], fitted: LatentDiffusion, tmp_path: Path
) -> None:
    test = sampled[1].part("test").take(range(4))
    options = {"attribute": "sex", "draws": 2, "placebo_images": 2, "seed": 0, "out": tmp_path}
    assert len(generate(fitted, test, replicate_images=2, **options).sets) == 3
    assert len(Counterfactuals.open(tmp_path, test, fitted).sets) == 3
    generate(fitted, test, replicate_images=0, **{**options, "placebo_images": 0})
    assert len(Counterfactuals.open(tmp_path, test, fitted).sets) == 1


def test_a_generator_that_does_not_know_its_error_has_none(sampled: tuple[PhantomSample, Cohort]) -> None:
    sample, cohort = sampled
    drawn = generate(
        Oracle.of(sample), cohort.part("test").take(range(4)), attribute="sex", draws=2, placebo_images=0, seed=0
    )
    assert drawn.replicates is None


def test_a_missing_level_moves_nothing(fitted: LatentDiffusion) -> None:
    sampler = fitted.sampler
    nothing = sampler.conditions.nothing(1)
    assert not torch.count_nonzero(sampler.uncertainty.of(nothing))
