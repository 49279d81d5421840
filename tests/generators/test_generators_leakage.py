from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.diffusion.guidance import round_trip
from citlr.generators.diffusion.leakage import measure_leakage
from citlr.generators.diffusion.schedule import ddim_invert, ddim_sample
from citlr.generators.probes.reading import Labelled, read_attribute
from citlr.generators.published.game import LADDER, StrengthTrial
from citlr.generators.registry import build_generator, load_generator
from citlr.generators.request import Request
from citlr.simulators.phantom.world import PhantomWorld

TINY = {"unet_channels": (16, 16), "ae_channels": (8,), "phi_channels": (8, 8), "critic_channels": (8, 8)}
STEPS = {
    "ae_steps": 20,
    "denoiser_steps": 30,
    "phi_steps": 2,
    "information_steps": 2,
    "recentre": 10,
    "accelerator": "cpu",
}

FEW = {**STEPS, "ae_steps": 4, "denoiser_steps": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    sample = PhantomWorld(size=32).sample(220, seed=0, images_per_patient=1)
    return sample.write(tmp_path_factory.mktemp("leakage"))


@pytest.fixture(scope="module")
def fitted(world):
    model = build_generator("dldm", size=32, preset="tiny", **TINY, **STEPS)
    return model.fit(world.part("train"), world.part("validation"), seed=0)


def test_the_reading_knows_how_much_there_is_to_read() -> None:
    random = np.random.default_rng(0)
    levels = np.arange(400) % 2

    def latents(shift: float) -> torch.Tensor:
        noise = random.normal(size=(400, 1, 4, 4))
        return torch.tensor(noise + shift * levels[:, None, None, None] / 4, dtype=torch.float32)

    def read(shift: float):
        return read_attribute(
            Labelled(latents(shift), levels), Labelled(latents(shift), levels), steps=120, seed=0, part="x"
        )

    nothing, some = read(0.0), read(2.0)
    assert 0.4 < nothing.auroc < 0.6
    assert nothing.information < 0.02
    # The best score is the mean pixel, 2 sd apart: AUROC Phi(sqrt(2)) = .921, and I = .337 nats by integration.
    assert 0.85 < some.auroc < 0.94
    assert 0.15 < some.information < 0.37


def test_leakage_of_a_generator_before_and_after(world, fitted) -> None:
    found = measure_leakage(fitted, world.part("train"), world.part("test"), attribute="sex", steps=60)
    assert found.latent.auroc > 0.9
    assert found.latent.information > found.noised.information
    assert (found.bound_before, found.bound_after) == (None, None)  # no game, no critics
    few = [measure_leakage(fitted, world.part("train"), world.part("test"), attribute="sex", steps=5) for _ in "12"]
    assert few[0] == few[1] != found
    with pytest.raises(InputError, match="Did you mean 'sex'"):
        measure_leakage(fitted, world.part("train"), world.part("test"), attribute="sec")
    women = world.part("test")
    women = women.take((women.frame["sex"] == "female").to_numpy())
    with pytest.raises(InputError, match="single level of 'sex'"):
        measure_leakage(fitted, world.part("train"), women, attribute="sex", steps=2)


def test_without_a_game_the_alignment_alone_hides_and_says_so(world, fitted) -> None:
    """Strength 0, the default, trains no disentangler: its latents are the aligned ones."""
    assert fitted.config.published.strength == 0
    assert fitted.report["latent_alignment"]["sex"] > 0
    assert not any(name.startswith("information") for name in fitted.report)
    assert "disentangler" not in fitted.modules()
    part = world.part("test")
    sampler = fitted.sampler
    codes = sampler.conditions.encode(part.frame)
    with torch.no_grad():
        z = sampler.encode(torch.from_numpy(part.pixels(size=32)), codes)
        assert torch.equal(sampler.disentangle(z, codes), sampler.residualise_latent(z, codes))
    found = measure_leakage(fitted, world.part("train"), part, attribute="sex", steps=60)
    assert found.hidden.auroc < found.latent.auroc - 0.2
    assert found.beyond_held is None  # nothing is held


def test_rows_whose_attribute_is_not_recorded_are_not_read(world, fitted) -> None:
    train, test = world.part("train"), world.part("test")
    known = np.arange(len(train)) % 3 > 0
    gaps = Cohort(**{**vars(train), "frame": train.frame.assign(sex=train.frame["sex"].where(known))})
    found = measure_leakage(fitted, gaps, test, attribute="sex", steps=20)
    assert found == measure_leakage(fitted, train.take(known), test, attribute="sex", steps=20)


@pytest.mark.slow
def test_a_held_finding_does_not_tell_the_attribute_and_is_told_beside_the_latent(tmp_path) -> None:
    """A finding that goes with sex is hidden with it, and is part of what is to be adjusted for."""
    phantom = PhantomWorld(size=32, correlation={"cardiomegaly": 0.8}, prevalence={"cardiomegaly": 0.5})
    cohort = phantom.sample(1000, seed=1, images_per_patient=1).write(tmp_path / "world")
    model = build_generator("dldm", size=32, hold=("cardiomegaly",), preset="tiny", **TINY, **STEPS)
    model.fit(cohort.part("train"), cohort.part("validation"), seed=0)
    train, test = cohort.part("train"), cohort.part("test")
    found = measure_leakage(model, train, test, attribute="sex", steps=150)
    assert found.latent.auroc > 0.9
    assert found.hidden.auroc < 0.65
    assert found.beyond_held is not None
    held = model.held_codes(test.frame)
    assert held.shape == (len(test), 3)  # absent, present, not recorded
    np.testing.assert_array_equal(held[:, 1], test.frame["cardiomegaly"] == 1)


def test_round_trip_is_exact_but_for_the_iteration(world, fitted) -> None:
    part = world.part("test").take(range(5))
    images = part.pixels(size=32)
    sampler = fitted.sampler
    found = round_trip(sampler, images, part.frame)
    assert 0 < found.latent < 0.05
    assert 0 <= found.image < 0.01
    # More corrections come nearer.
    codes = sampler.conditions.encode(part.frame)
    model = sampler.noise_model(codes, Request(("placebo",), (), abduction="inversion"), None, 1.0)
    z = sampler.autoencoder.encode(torch.from_numpy(images)).detach()
    walk = {"grid": sampler.process.grid, "table": sampler.process.table}
    errors = []
    with torch.no_grad():
        for iterations in (0, 3, 12):
            back = ddim_sample(ddim_invert(z, model, iterations=iterations, **walk), model, **walk)
            errors.append(float((back - z).norm() / z.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] == pytest.approx(found.latent, rel=0.2)


def test_a_generator_that_inverts_reports_its_round_trip(world, tmp_path: Path) -> None:
    model = build_generator("cldm", size=32, preset="tiny", abduction="inversion", guidance=1.0, **TINY, **FEW)
    model.fit(world.part("train"), world.part("validation"), seed=0)
    assert set(model.report["round_trip"]) == {"latent", "image"}
    assert model.report["round_trip"]["latent"] > 0


@pytest.mark.slow
def test_the_strength_is_chosen_by_the_trade(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("citlr.generators.published.game.STEPS", 20)

    def fit(folder: Path):
        model = build_generator("dldm", size=32, preset="tiny", strength=None, **TINY, **{**STEPS, "phi_steps": 6})
        return model.fit(world.part("train"), world.part("validation"), seed=0, directory=folder)

    model = fit(tmp_path / "training")
    rungs = model.report["strengths"]
    assert [rung["strength"] for rung in rungs] == list(LADDER)
    assert model.report["strength"] == min(rungs, key=lambda rung: rung["price"])["strength"]
    # Every way changes the picture. Whether a longer one does so more is a matter of the training: each has its own.
    none, *costs = [rung["composition"] for rung in rungs]
    assert none == 0 < min(costs)
    assert all(
        rung["price"] == StrengthTrial(rung["strength"], rung["auroc"], rung["composition"]).loss for rung in rungs
    )
    model.save(tmp_path / "saved")
    loaded = load_generator(tmp_path / "saved")
    assert loaded.sampler.disentangler.strength == model.report["strength"]
    part = world.part("test").take(range(3))
    images, sex = part.pixels(size=32), {"attribute": "sex", "levels": ["female", "male"]}
    np.testing.assert_array_equal(loaded.generate(images, part.frame, **sex), model.generate(images, part.frame, **sex))
    # Every rung has its own checkpoint: gone on from there, nothing is trained again and the choice is the same.
    assert fit(tmp_path / "training").report == model.report


def test_the_strength_is_preferred_that_hides_at_no_cost() -> None:
    assert StrengthTrial(0.5, 0.5, 0.01).loss < StrengthTrial(1.0, 0.5, 0.03).loss < StrengthTrial(0.25, 0.9, 0.0).loss
