"""Where an intervention may act, and what of the image every level keeps: no training in the first part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.ndimage import gaussian_filter

from citlr.console import Narrator
from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.fitting import Fitting
from citlr.generators.diffusion.ldm import DLDM, LatentDiffusion
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.effects.support import Support, find_support
from citlr.generators.quality.measures import effect_map
from citlr.generators.registry import load_generator
from citlr.learning.store import Dataset
from citlr.simulators.phantom.world import PhantomWorld

SEX = {"attribute": "sex", "levels": ["female", "male"]}
FEW = {
    "preset": "tiny",
    "unet_channels": (16, 16),
    "ae_channels": (8,),
    "phi_channels": (8, 8),
    "critic_channels": (8, 8),
    "ae_steps": 4,
    "denoiser_steps": 6,
    "phi_steps": 2,
    "information_steps": 2,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def correlated(tmp_path_factory: pytest.TempPathFactory):
    world = PhantomWorld(size=32, correlation={"cardiomegaly": 0.6}, prevalence={"cardiomegaly": 0.5})
    sample = world.sample(700, seed=0, images_per_patient=1)
    return world, sample.write(tmp_path_factory.mktemp("world"), fractions=(0.8, 0.1, 0.1))


def shown(train, hold: tuple[str, ...], seed: int = 0) -> np.ndarray:
    conditions = Conditions.of(train.frame, attributes=("sex",), hold=hold, coin_seed=0)
    data = Dataset.of(train, size=32, directory=None)
    codes, patients = conditions.encode(train.frame), train.frame["patient_id"]
    return find_support(data.pixels, codes, conditions, seed=seed, patients=patients)[0].numpy()


def test_the_support_lies_where_the_attribute_acts_and_not_where_a_held_finding_does(correlated) -> None:
    world, cohort = correlated
    train, true = cohort.part("train"), world.support()
    heart = world.region("cardiomegaly") & ~true
    held = shown(train, ("view", "cardiomegaly"))
    assert set(np.unique(held)) <= {0, 1}
    assert held[true].mean() > 0.4
    assert held[heart].mean() < 0.02
    # A blind model sees every pixel that sex cannot touch: the windows' reach over the edge is taken off.
    assert held[~true].sum() <= 2
    # Nothing held, and the sick hearts of one sex are taken for an effect of sex.
    assert shown(train, ("view",))[heart].mean() > 0.05


def test_an_attribute_without_effect_shows_nothing_in_19_of_20_samples() -> None:
    frame = PhantomWorld(size=32, correlation=0.4).sample(100, seed=0, images_per_patient=1).frame
    hold = ("view", "cardiomegaly", "effusion")
    conditions = Conditions.of(frame, attributes=("sex",), hold=hold, coin_seed=0)
    codes = conditions.encode(frame)
    anything = 0
    for seed in range(40):
        pixels = np.random.default_rng(seed).normal(size=(len(frame), 1, 16, 16))
        pixels += pixels.mean(axis=3, keepdims=True) * 4  # neighbours go together
        pixels += codes[:, conditions.span("cardiomegaly")][:, :1].numpy()[:, :, None, None]  # a held one acts
        anything += bool(find_support(pixels, codes, conditions, seed=seed, patients=frame["patient_id"]).any())
    assert stats.binom.sf(anything - 1, 40, 0.05) > 0.001


def test_images_of_one_patient_are_no_witnesses_each() -> None:
    """Eight images of every patient, all alike: who is permuted image by image sees an effect in every sample."""
    patient, anything = np.repeat(np.arange(100), 8), 0
    where = np.zeros((16, 16))
    where[4:12, 4:12] = 1
    for seed in range(20):
        random = np.random.default_rng(seed)
        frame = pd.DataFrame({"patient_id": patient, "sex": np.array(["F", "M"])[random.integers(0, 2, 100)][patient]})
        conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        bodies = gaussian_filter(random.standard_normal((100, 16, 16)), (0, 2, 2))
        pixels = (bodies[patient] + 0.05 * random.standard_normal((800, 16, 16)))[:, None]
        codes = conditions.encode(frame)
        anything += bool(find_support(pixels, codes, conditions, seed=seed, patients=patient).any())
        pixels += 0.3 * where * codes[:, 1].numpy()[:, None, None, None]
        acts = find_support(pixels, codes, conditions, seed=seed, patients=patient)[0].numpy()
        assert acts[6:10, 6:10].mean() > acts[where == 0].mean() + 0.5
    assert stats.binom.sf(anything - 1, 20, 0.05) > 0.001


def test_the_coin_may_act_wherever_an_attribute_may() -> None:
    frame = PhantomWorld(size=32).sample(40, seed=0).frame
    frame["race"] = np.tile(["a", "b"], len(frame) // 2)
    support = Support(Conditions.of(frame, attributes=("sex", "race"), hold=(), coin_seed=0), 2)
    assert bool((support.weights == 1).all())
    support.weights.copy_(torch.tensor([[[1.0, 0], [0, 0]], [[0, 0], [0, 0.5]]]))
    assert support.of(["sex"]).flatten().tolist() == [1, 0, 0, 0]
    assert support.of(["race", "sex"]).flatten().tolist() == [1, 0, 0, 0.5]
    assert support.of(["placebo"]).flatten().tolist() == [1, 0, 0, 0.5]


@pytest.fixture(scope="module")
def fitted(correlated) -> LatentDiffusion:
    cohort = correlated[1]
    model = DLDM(size=32, hold=["view", "cardiomegaly"], guidance=1.0, **FEW)
    return model.fit(cohort.part("train"), cohort.part("validation"), seed=1)


def redrawn(model: LatentDiffusion, cohort, attribute: dict | None = None, draws: int = 3, **changes):
    part = cohort.part("test").take(range(8))
    other = LatentDiffusion(config=dataclasses.replace(model.config, **changes))
    other._sampler = dataclasses.replace(model.sampler, config=other.config)
    other._conditions = model.conditions
    images = part.pixels(size=32)
    own = np.array([SEX["levels"].index(level) for level in part.frame["sex"]])
    return images, own, other.generate(images, part.frame, **(attribute or SEX), draws=draws, seed=3)


def test_a_diffusion_model_asks_its_patients_where_the_attribute_acts(tmp_path: Path) -> None:
    """Not each of their images: of six of a patient, chance would show more than it may."""
    sample = PhantomWorld(size=32).sample(60, seed=2, images_per_patient=6)
    cohort = sample.write(tmp_path, fractions=(0.8, 0.1, 0.1), min_patients_per_level=1)
    train = Dataset.of(cohort.part("train"), size=32, directory=None)
    conditions = Conditions.of(train.cohort.frame, attributes=("sex",), hold=(), coin_seed=0)
    codes, patients = conditions.encode(train.cohort.frame), train.cohort.frame["patient_id"]
    sampler = SimpleNamespace(config=LatentDiffusion(size=32).config, support=Support(conditions, 32))
    session = SimpleNamespace(seed=0, narrator=Narrator(quiet=True))
    prepared = SimpleNamespace(session=session, sets=(train, train), codes=(codes, codes), conditions=conditions)
    Fitting(sampler, prepared)._find_support()  # type: ignore[arg-type]
    by_patient, by_image = (
        find_support(train.pixels, codes, conditions, seed=0, patients=whose) for whose in (patients, range(len(codes)))
    )
    assert torch.equal(sampler.support.weights, by_patient)
    assert not torch.equal(by_image, by_patient)


def test_nothing_changes_where_nothing_was_shown(correlated, fitted, tmp_path: Path) -> None:
    cohort = correlated[1]
    outside = fitted.sampler.support.weights[0].numpy() == 0
    assert 0.2 < outside.mean() < 0.95
    assert fitted.report["support"]["sex"] == pytest.approx(float(fitted.sampler.support.weights.mean()))
    for attribute in (SEX, {"attribute": "placebo", "levels": ["heads", "tails"]}):
        _, _, out = redrawn(fitted, cohort, attribute)
        assert np.array_equal(out[:, 0][..., outside], out[:, 1][..., outside])
        assert np.abs(out[:, 0][..., ~outside] - out[:, 1][..., ~outside]).max() > 1e-4
    _, _, free = redrawn(fitted, cohort, support="everywhere")
    assert np.abs(free[:, 0][..., outside] - free[:, 1][..., outside]).max() > 1e-4
    # One level alone is changed as it is in company: the null intervention is walked for it.
    images, _, both = redrawn(fitted, cohort)
    _, _, male = redrawn(fitted, cohort, {"attribute": "sex", "levels": ["male"]})
    np.testing.assert_allclose(male[:, 0], both[:, 1], atol=1e-6)
    fitted.save(tmp_path)
    part = cohort.part("test").take(range(8))
    again = load_generator(tmp_path).generate(images, part.frame, **SEX, draws=3, seed=3)
    assert np.array_equal(again, both)


def test_the_null_intervention_lies_around_the_image_with_the_noise_that_is_kept(correlated, fitted) -> None:
    cohort, rows = correlated[1], np.arange(8)
    width = {}
    for spread in (0.0, 0.5, 1.0):
        images, own, out = redrawn(fitted, cohort, spread=spread, draws=8)
        inside = (images[:, None] > 0.2) & (images[:, None] < 0.8)  # away from the clamp
        width[spread] = np.abs(out[rows, own] - images[:, None])[np.broadcast_to(inside, out[rows, own].shape)].mean()
    assert width[0.0] == pytest.approx(0, abs=1e-6)
    assert width[0.5] == pytest.approx(width[1.0] / 2, rel=0.05)
    # The intervention is the same on average, whatever noise is kept around the image.
    both = [redrawn(fitted, cohort, spread=spread, draws=8)[2] for spread in (0.25, 0.5)]
    effects = [out[:, 1].mean(axis=(0, 1)) - out[:, 0].mean(axis=(0, 1)) for out in both]
    assert np.abs(effects[1]).max() > 0.02
    assert np.abs(effects[0] - effects[1]).mean() < 0.05 * np.abs(effects[1]).max()


def test_alignment_gives_the_true_effect_its_size_before_a_denoiser_has_learnt_anything(correlated, fitted) -> None:
    world, cohort = correlated
    sample = world.sample(700, seed=0, images_per_patient=1)
    part = cohort.part("test")
    images = part.pixels(size=32)
    place = {name: row for row, name in enumerate(sample.frame["image_id"])}
    rows = [place[name] for name in part.frame["image_id"]]
    true = sample.counterfactual("male", rows) - sample.counterfactual("female", rows)
    out = fitted.generate(images, part.frame, **SEX, draws=1, seed=0)
    found = effect_map(out[:, 1, 0] - out[:, 0, 0], true)
    assert found.relative_error < 0.5
    assert found.cosine > 0.85
    assert 0.7 < found.scale < 1.1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("support", "showed", "Did you mean 'shown'"),
        ("detail", "averge", "'average'"),
        ("alignment", "gausian", "'gaussian'"),
        ("components", 0, "greater than or equal to 1"),
        ("spread", 1.5, "less than or equal to 1"),
    ],
)
def test_bad_settings_are_named(field: str, value: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        LDMConfig(**{field: value})  # type: ignore[arg-type]
