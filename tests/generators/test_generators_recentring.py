from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.guidance import measure_errors
from citlr.generators.diffusion.ldm import CLDM, DLDM, LatentDiffusion
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.effects.recentring import MeanChanges
from citlr.generators.effects.uncertainty import Uncertainty
from citlr.generators.registry import load_generator
from citlr.generators.request import Request
from citlr.learning.session import Session
from citlr.learning.store import Dataset
from citlr.learning.trainer import Trainer
from citlr.simulators.phantom.world import PhantomWorld

TINY = {
    "preset": "tiny",
    "unet_channels": (16, 16),
    "ae_channels": (8,),
    "phi_channels": (8, 8),
    "ae_steps": 30,
    "denoiser_steps": 30,
    "denoiser_batch": 8,
    "information_steps": 3,
    "accelerator": "cpu",
    "guidance": 1.0,
}
LEVELS = ["female", "male"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    sample = PhantomWorld(size=32).sample(300, seed=0, images_per_patient=1)
    return sample.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def fitted(cohort: Cohort) -> LatentDiffusion:
    return fit(cohort)


def fit(cohort: Cohort, kind: type = DLDM, **changes) -> LatentDiffusion:
    model = kind(size=32, hold=["view"], **{**TINY, **changes})
    return model.fit(cohort.part("train"), cohort.part("validation"), seed=1)


def mean_change(model: LatentDiffusion, cohort: Cohort) -> np.ndarray:
    train = cohort.part("train")
    redrawn = model.generate(train.pixels(size=32), train.frame, attribute="sex", levels=LEVELS, draws=1, seed=3)
    return (redrawn[:, 1] - redrawn[:, 0]).mean(axis=0)[0, 0]


def observed(model: LatentDiffusion) -> np.ndarray:
    """The mean change that the alignment gives: the training split's own, where it is shown."""
    sampler = model.sampler
    effects = sampler.alignment.effects[sampler.conditions.span("sex")]
    return (effects[1] - effects[0]).reshape(32, 32).numpy() * sampler.support.of(["sex"])[0, 0, 0].numpy()


def test_interventions_do_on_average_what_the_training_split_shows(cohort: Cohort, fitted: LatentDiffusion) -> None:
    wanted = observed(fitted)
    without = fit(cohort, recentre=0)
    assert np.linalg.norm(wanted) > 0.5
    before = np.linalg.norm(mean_change(without, cohort) - wanted)
    after = np.linalg.norm(mean_change(fitted, cohort) - wanted)
    assert after < before / 2
    assert fitted.report["mean_error"] > 0
    assert "mean_error" not in without.report


def test_the_error_is_taken_off_where_a_level_is_entered_only(cohort: Cohort, fitted: LatentDiffusion) -> None:
    sampler = fitted.sampler
    frame = cohort.part("test").frame.iloc[:8]
    codes = sampler.conditions.encode(frame)
    male = sampler.recentring(codes, sampler.conditions.intervene(codes, ("sex",), "male"))[:, 0, 0]
    was_male = torch.tensor((frame["sex"] == "male").tolist())
    assert was_male.any()
    assert not was_male.all()
    assert not male[was_male].any()
    assert (male[~was_male] != 0).any()


def test_the_error_is_the_mean_over_those_who_had_another_level(cohort: Cohort, fitted: LatentDiffusion) -> None:
    sampler, train = fitted.sampler, cohort.part("train")
    few = train.take(range(5))
    small = dataclasses.replace(sampler, config=dataclasses.replace(sampler.config, recentre=5))
    session = Session(Trainer("cpu"), 1, None, Narrator(quiet=True))
    found, _ = measure_errors(small, Dataset.of(few, size=32, directory=None), session)
    request = Request(("sex",), tuple(LEVELS), guidance=sampler.guidance)
    own, changed = sampler.redraw_residuals(
        torch.from_numpy(few.pixels(size=32)), sampler.conditions.encode(few.frame), list("abcde"), request
    )
    women = torch.tensor((few.frame["sex"] == "female").tolist())
    assert women.any()
    # Other noise and the null mean move single images a little; the mean stays near.
    expected = (changed[1] - own)[women].mean(dim=0)[0, 0]
    span = sampler.conditions.span("sex")
    row = sampler.recentring.columns.index(span.start + 1)
    assert torch.corrcoef(torch.stack([found[row].flatten(), expected.flatten()]))[0, 1] > 0.8


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_changes_are_those_of_redrawing_each_attribute_on_its_own(
    cohort: Cohort, fitted: LatentDiffusion, guidance: float
) -> None:
    sampler, few = fitted.sampler, cohort.part("train").take(range(6))
    images, codes = torch.from_numpy(few.pixels(size=32)), sampler.conditions.encode(few.frame)
    ids = few.frame["image_id"].astype(str).tolist()
    around = dataclasses.replace(sampler.config.sampling, detail="draw")
    plain = dataclasses.replace(sampler, config=dataclasses.replace(sampler.config, sampling=around))
    requests = [Request((one.name,), one.levels, seed=3, guidance=guidance) for one in sampler.conditions.attributes]
    found = iter(sampler.changes(images, codes, ids, requests))
    for request in requests:
        null, changed = plain.redraw_residuals(images, codes, ids, request)
        for level, requested in zip(changed, request.requested(sampler.conditions, codes), strict=True):
            others = (requested != codes).any(dim=1).nonzero()[:, 0]
            if not len(others):
                continue
            rows, given, change = next(found)
            assert torch.equal(rows, others)
            torch.testing.assert_close(given, requested[rows])
            torch.testing.assert_close(change, (level - null)[rows, 0, 0], atol=2e-5, rtol=0)
    assert next(found, None) is None


def noisy(fitted: LatentDiffusion, entering: list[str], *, spread: float) -> MeanChanges:
    """Changes of .1 with noise, of images that enter these levels of the sex, and the coin's two sides by turns."""
    conditions, random = fitted.conditions, torch.Generator().manual_seed(0)
    other = {"female": "male", "male": "female"}
    frame = pd.DataFrame(
        {"image_id": entering, "patient_id": entering, "view": "PA", "sex": [other[k] for k in entering]}
    )
    codes = conditions.encode(frame)
    found = MeanChanges(fitted.sampler.recentring, fitted.sampler.uncertainty, torch.ones(32, 32))
    coin = conditions.attributes[1]
    sides = torch.stack([conditions.intervene(codes, (coin.name,), side) for side in coin.levels])
    own = torch.stack([sides[k % 2][k] for k in range(len(codes))])
    turned = torch.stack([sides[1 - k % 2][k] for k in range(len(codes))])
    for before, after in ((codes, _entering(conditions, codes, entering)), (own, turned)):
        found.add(before, after, 0.1 + spread * torch.randn((len(codes), 32, 32), generator=random))
    return found


def _entering(conditions: Conditions, codes: torch.Tensor, levels: list[str]) -> torch.Tensor:
    return torch.cat([conditions.intervene(codes[[k]], ("sex",), level) for k, level in enumerate(levels)])


def test_images_are_enough_when_the_mean_is_a_tenth_as_unsure_as_the_effect(fitted: LatentDiffusion) -> None:
    open_ = float(noisy(fitted, LEVELS * 8, spread=1.0).left_open()[0])
    deviations = fitted.sampler.uncertainty.deviations
    span = fitted.conditions.span("sex")
    contrast = deviations[:, span.start] - deviations[:, span.start + 1]
    assert open_ == pytest.approx(float(contrast.square().mean().sqrt()), rel=1e-4)
    spread = 0.1 * open_ * 100**0.5  # of which a hundred images are just enough
    for images, enough in ((60, False), (150, True)):
        found = noisy(fitted, LEVELS * images, spread=spread)
        assert found.are_sure() is enough
        off = found.standard_errors()[found.recentring.levels]
        torch.testing.assert_close(off, torch.full_like(off, spread / images**0.5), rtol=0.05, atol=0)
        torch.testing.assert_close(found.means()[0], torch.full((32, 32), 0.1), atol=6 * spread / images**0.5, rtol=0)
    # A level that hardly anybody enters is not believed, however alike the changes are.
    assert not noisy(fitted, ["female"] * 200 + ["male"] * 8, spread=spread / 100).are_sure()
    assert noisy(fitted, ["female"] * 200 + ["male"] * 24, spread=spread / 100).are_sure()


def test_no_more_images_are_redrawn_than_are_enough(cohort: Cohort, fitted: LatentDiffusion) -> None:
    train, seen = Dataset.of(cohort.part("train"), size=32, directory=None), []
    session = Session(Trainer("cpu"), 1, None, Narrator(quiet=True))
    for doubt in (0.0, 1e3):  # what the training split leaves open of the effect
        open_ = Uncertainty(fitted.conditions, 32)
        open_.deviations.copy_(doubt * fitted.sampler.uncertainty.deviations)
        found, images = measure_errors(dataclasses.replace(fitted.sampler, uncertainty=open_), train, session)
        assert (found[fitted.sampler.recentring.levels].flatten(1).abs().amax(dim=1) > 0).all()
        seen.append(images)
    assert seen == [len(train), 64]
    assert 64 <= fitted.report["mean_error_images"] <= len(train)


def test_it_is_kept_with_the_generator(fitted: LatentDiffusion, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    kept = load_generator(tmp_path)
    assert isinstance(kept, LatentDiffusion)
    assert torch.equal(kept.sampler.recentring.errors, fitted.sampler.recentring.errors)


def test_without_alignment_there_is_none(cohort: Cohort) -> None:
    assert fit(cohort, CLDM, ae_steps=2, denoiser_steps=2).sampler.recentring is None


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(InputError, match="recentre=-1"):
        LDMConfig.preset_of("tiny", recentre=-1)
