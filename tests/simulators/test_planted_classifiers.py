"""Classifiers for semi-real worlds: blind to the bit, biased at the rates asked for, and what the others are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from citlr.errors import InputError
from citlr.simulators import semireal
from citlr.simulators.phantom import PhantomWorld, true_effect
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.planted.classifiers import FrozenFeatures, Trainer
from citlr.simulators.planted.world import SemiRealSample

LEVELS = ("less", "more")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, SemiRealSample]:
    """A world on images that stand for real ones, and the units that no classifier learns from."""
    plain = PhantomWorld(size=32, prevalence=0.5, anatomy="varying").sample(300, seed=3, images_per_patient=1)
    cohort = plain.write(tmp_path_factory.mktemp("plain"), min_patients_per_level=1)
    sample = semireal(cohort, effects=("shadow", "shape", "tone"), correlation={"cardiomegaly": 0.8}, size=32, seed=1)
    learns = np.arange(300) < 220
    return Trainer.of(sample, learns, LEVELS), sample.take(~learns)


@pytest.mark.parametrize("width", [0, 8])
def test_a_blind_one_reads_its_finding_and_no_level_of_images_it_never_learnt_from(world, width: int) -> None:
    trainer, held_out = world
    model = trainer.blind("cardiomegaly", seed=1, width=width)
    effect = true_effect(classify(model), held_out, LEVELS)
    assert effect.flip_rate == 0
    assert effect.psi_probability < 1e-6
    before, after = (held_out.counterfactual(level) for level in LEVELS)
    assert np.abs(after - before).max() > 0.05
    assert roc_auc_score(held_out.frame["cardiomegaly"], classify(model)(held_out.images())) > 0.65
    # Not blind by being constant: another change of the same pixels moves it.
    with torch.no_grad():
        moved = model(torch.from_numpy(before)) - model(torch.from_numpy(before[:, :, :, ::-1].copy()))
    assert float(moved.abs().mean()) > 0.3


def test_biased_ones_turn_as_many_decisions_as_asked_and_indifferent_ones_few(world) -> None:
    trainer, held_out = world
    blind, detector = trainer.blind("cardiomegaly", seed=1, width=8), trainer.detector(width=8)
    before, after = (classify(detector)(held_out.counterfactual(level)) for level in LEVELS)
    assert roc_auc_score(np.repeat([0, 1], len(held_out)), np.concatenate([before, after])) > 0.8
    for rate in (0.0125, 0.1, 0.5):
        effect = true_effect(classify(trainer.biased(blind, detector, rate=rate)), held_out, LEVELS)
        assert effect.flip_rate == pytest.approx(rate, abs=0.02)
        assert effect.mean_effect > 0
    against = trainer.biased(blind, detector, rate=0.2, sign=-1)
    assert true_effect(classify(against), held_out, LEVELS).mean_effect < 0


def test_a_shortcut_learns_the_attribute_where_it_goes_with_the_label(world) -> None:
    trainer, held_out = world
    effect = true_effect(classify(trainer.shortcut("cardiomegaly", seed=1, width=8)), held_out, LEVELS)
    assert effect.flip_rate > 0.05
    assert effect.mean_effect > 0


def test_classifiers_are_the_same_twice_and_differ_by_seed(world) -> None:
    trainer, _ = world
    one, other, third = (trainer.blind("cardiomegaly", seed=seed, width=4) for seed in (1, 1, 2))
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, third.weight)
    assert FrozenFeatures(width=0, seed=0)(torch.zeros(2, 1, 48, 48)).shape == (2, 1024)


def test_what_cannot_be_trained_is_refused_in_a_sentence(world) -> None:
    trainer, held_out = world
    with pytest.raises(InputError, match="Did you mean 'cardiomegaly'"):
        trainer.blind("cardiomegali", seed=0)
    with pytest.raises(InputError, match="the same cardiomegaly"):
        Trainer(trainer.units, trainer.units.frame["cardiomegaly"].to_numpy() > 0, trainer.levels).shortcut(
            "cardiomegaly", seed=0
        )
    with pytest.raises(InputError, match="others to set their scale"):
        Trainer.of(held_out, np.ones(len(held_out), bool), LEVELS)
    with pytest.raises(InputError, match="nothing a classifier could be biased by"):
        Trainer.of(semireal(held_out.cohort, effects=(), size=32, seed=0), np.arange(len(held_out)) < 9, LEVELS)
