from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from citlr.errors import InputError
from citlr.simulators.phantom import PhantomSample, PhantomWorld, true_effect
from citlr.simulators.phantom.classifiers import (
    BiasedClassifier,
    MaskedNet,
    analytic_blind,
    analytic_indifferent,
    attribute_detector,
    classify,
    train_blind,
    train_sighted,
)

SEX = ("female", "male")
DOSES = (0.0, 1.0, 4.0)


@pytest.fixture(scope="module")
def test_units() -> PhantomSample:
    return PhantomWorld(size=64).sample(150, seed=2)


@pytest.fixture(scope="module")
def blind() -> MaskedNet:
    return train_blind(PhantomWorld(size=64).sample(400, seed=1), "effusion", seed=0, epochs=12)


def test_a_blind_network_reads_its_finding(blind: MaskedNet, test_units: PhantomSample) -> None:
    auroc = roc_auc_score(test_units.frame["effusion"], classify(blind)(test_units.images()))
    assert auroc > 0.85


def test_a_blind_network_gives_the_same_bits_under_every_level(blind: MaskedNet, test_units: PhantomSample) -> None:
    for digital in (True, False):
        first, last = (torch.from_numpy(test_units.counterfactual(level, digital=digital)) for level in SEX)
        assert not torch.equal(first, last)
        with torch.no_grad():
            assert torch.equal(blind(first), blind(last))
    effect = true_effect(classify(blind), test_units, SEX)
    assert (effect.psi, effect.flip_rate, effect.psi_probability, effect.mean_effect_probability) == (0, 0, 0, 0)


def test_nothing_inside_the_support_reaches_a_blind_network(blind: MaskedNet, test_units: PhantomSample) -> None:
    images = torch.from_numpy(test_units.images(np.arange(4))).requires_grad_()
    blind(images).sum().backward()
    support = torch.from_numpy(test_units.world.support())
    assert images.grad is not None
    assert (images.grad[:, 0, support] == 0).all()
    assert (images.grad[:, 0, ~support] != 0).float().mean() > 0.5


@pytest.mark.parametrize(("finding", "levels"), [("cardiomegaly", SEX), ("effusion", ("a", "b", "c"))])
def test_an_analytic_classifier_is_blind_and_reads_its_finding(finding: str, levels: tuple[str, ...]) -> None:
    world = PhantomWorld(size=64, levels=levels)
    model, units = analytic_blind(world, finding), world.sample(150, seed=9)
    assert roc_auc_score(units.frame[finding], classify(model)(units.images())) > 0.85
    assert true_effect(classify(model), units, (levels[0], levels[-1])).psi_probability == 0


@pytest.mark.parametrize(
    ("size", "levels", "contrast"),
    [
        (32, SEX, None),
        (64, SEX, None),
        (100, SEX, None),
        (64, ("a", "b", "c"), None),
        (64, ("a", "b", "c"), ("b", "c")),
    ],
)
def test_the_detector_knows_the_attribute(size: int, levels: tuple[str, ...], contrast: tuple[str, str] | None) -> None:
    world = PhantomWorld(size=size, levels=levels)
    units = world.sample(60, seed=4)
    score = classify(attribute_detector(world, contrast=contrast, n_patients=200))
    low, high = contrast or (levels[0], levels[-1])
    before, after = score(units.counterfactual(low)), score(units.counterfactual(high))
    truth = np.repeat([0, 1], len(units))
    assert roc_auc_score(truth, np.concatenate([before, after])) > 0.99


def test_the_true_flip_rate_grows_with_the_dose(blind: MaskedNet, test_units: PhantomSample) -> None:
    detector = attribute_detector(test_units.world, n_patients=200)
    effects = [
        true_effect(classify(BiasedClassifier(blind, detector, strength=dose)), test_units, SEX) for dose in DOSES
    ]
    flips = [effect.flip_rate for effect in effects]
    assert flips[0] == 0
    assert all(small < large for small, large in itertools.pairwise(flips))
    assert flips[-1] > 0.15
    assert all(effect.mean_effect >= 0 for effect in effects)
    reverse = true_effect(classify(BiasedClassifier(blind, detector, strength=-4.0)), test_units.take(slice(100)), SEX)
    assert reverse.mean_effect < 0


def test_the_dose_is_in_logits(blind: MaskedNet, test_units: PhantomSample) -> None:
    model = BiasedClassifier(blind, attribute_detector(test_units.world, n_patients=200), strength=1.5)
    with torch.no_grad():
        first, last = (model(torch.from_numpy(test_units.counterfactual(level))) for level in SEX)
    assert (last - first).median() == pytest.approx(1.5, abs=0.05)
    assert (last - first).max() <= 1.5 + 1e-4


def test_a_sighted_network_learns_the_shortcut_of_a_correlated_sample() -> None:
    world = PhantomWorld(size=32, correlation=0.9, prevalence=0.5)
    training, units = world.sample(300, seed=1), world.sample(100, seed=2)
    sighted = train_sighted(training, "atelectasis", seed=0, epochs=6)
    assert true_effect(classify(sighted), units, SEX).flip_rate > 0.08
    assert true_effect(classify(train_blind(training, "atelectasis", seed=0, epochs=2)), units, SEX).flip_rate == 0


def test_training_is_the_same_twice_and_leaves_the_global_generator_alone() -> None:
    units = PhantomWorld(size=32).sample(60, seed=1)
    state = torch.random.get_rng_state()
    first = train_blind(units, "cardiomegaly", seed=5, epochs=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    second = train_blind(units, "cardiomegaly", seed=5, epochs=2)
    third = train_blind(units, "cardiomegaly", seed=6, epochs=2)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(first.head[1].weight, third.head[1].weight)


def test_classifiers_survive_torchscript(blind: MaskedNet, test_units: PhantomSample, tmp_path: Path) -> None:
    images = torch.from_numpy(test_units.images(np.arange(7)))
    world = test_units.world
    biased = BiasedClassifier(blind, attribute_detector(world, n_patients=50), strength=2.0)
    for name, module in {
        "blind": blind,
        "biased": biased,
        "analytic": analytic_blind(world, "effusion", n_patients=50),
    }.items():
        with warnings.catch_warnings(), torch.no_grad():
            # Deprecated in torch 2.14 in favour of torch.export; the archive is still what clinics hand over.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
            torch.jit.trace(module, images[:2]).save(str(tmp_path / name))
            loaded = torch.jit.load(str(tmp_path / name))
            scripted = torch.jit.script(module)
            assert torch.allclose(loaded(images), module(images), atol=1e-6)
            assert torch.allclose(scripted(images), module(images), atol=1e-6)
            assert module(images).shape == (7, 1)


def test_large_images_are_masked_before_they_are_shrunk() -> None:
    units = PhantomWorld(size=100).sample(30, seed=0)
    net = train_blind(units, "edema", seed=0, epochs=1)
    effect = true_effect(classify(net), units, SEX)
    assert effect.psi_probability == 0


def test_a_sample_without_the_finding_cannot_train() -> None:
    units = PhantomWorld(size=32).sample(5, seed=0).with_severity("edema", 0.0)
    with pytest.raises(InputError, match="same label for edema"):
        train_blind(units, "edema", seed=0)
    with pytest.raises(InputError, match="no finding 'oedema'"):
        train_blind(units, "oedema", seed=0)


def test_an_indifferent_one_looks_where_sex_acts_and_does_not_use_it(test_units: PhantomSample) -> None:
    """Its logit hardly moves with what sex does, and much with anything else that is done to the same pixels."""
    world = PhantomWorld(size=64)
    model = analytic_indifferent(world, "cardiomegaly", n_patients=600)
    weights = model.template[0, 0].abs()
    inside = torch.from_numpy(world.support())
    assert float(weights[inside].sum() / weights.sum()) > 0.3
    female, male = (torch.from_numpy(test_units.counterfactual(level)) for level in SEX)
    spread = float(model(female).std())
    whole = float((model(male) - model(female)).abs().mean())
    assert whole < 0.03 * spread
    # To half of what sex does, in place, it is not indifferent.
    half = female + (male - female) * (torch.arange(64) < 32)
    assert float((model(half) - model(female)).abs().mean()) > 4 * whole
    assert true_effect(classify(model), test_units, SEX).flip_rate < 0.02
    assert roc_auc_score(test_units.frame["cardiomegaly"], classify(model)(test_units.images())) > 0.8


def test_where_anatomy_varies_blind_ones_stay_blind_and_detectors_and_doses_work() -> None:
    world = PhantomWorld(size=48, anatomy="varying", prevalence=0.5)
    units = world.sample(200, seed=9, images_per_patient=1)
    model, detector = analytic_blind(world, "cardiomegaly"), attribute_detector(world)
    assert true_effect(classify(model), units, SEX).psi_probability == 0
    assert roc_auc_score(units.frame["cardiomegaly"], classify(model)(units.images())) > 0.75
    trained = train_blind(world.sample(60, seed=1), "cardiomegaly", seed=0, epochs=1)
    assert true_effect(classify(trained), units, SEX).psi_probability == 0
    before, after = (classify(detector)(units.counterfactual(level)) for level in SEX)
    assert roc_auc_score(np.repeat([0, 1], len(units)), np.concatenate([before, after])) > 0.85
    flips = [
        true_effect(classify(BiasedClassifier(model, detector, strength=dose)), units, SEX).flip_rate
        for dose in (0.25, 1.0, 6.0)
    ]
    assert 0 < flips[0] < flips[1] < flips[2]
    assert flips[-1] > 0.3
    indifferent = analytic_indifferent(world, "cardiomegaly")
    assert true_effect(classify(indifferent), units, SEX).flip_rate <= 0.03
