from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from citlr.console import Narrator, Ticker, silent
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError
from citlr.generators.base import CounterfactualGenerator
from citlr.generators.diffusion.ldm import CLDM, DLDM, LatentDiffusion
from citlr.generators.oracle import Oracle
from citlr.generators.probes.probe import load_probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.cycles import cycle_composition, there_and_back
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter
from citlr.generators.registry import load_generator
from citlr.run.files import read_json, write_json
from citlr.simulators.phantom.world import PhantomWorld

TINY = {
    "preset": "tiny",
    "unet_channels": (16, 16),
    "ae_channels": (8,),
    "phi_channels": (8, 8),
    "critic_channels": (8, 8),
    "ae_steps": 4,
    "ae_batch": 8,
    "denoiser_steps": 6,
    "denoiser_batch": 8,
    "phi_steps": 2,
    "phi_batch": 8,
    "information_steps": 3,
    "sampling_steps": 2,
    "recentre": 10,
    "accelerator": "cpu",
}
SEX = {"attribute": "sex", "levels": ["female", "male"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    sample = PhantomWorld(size=32, correlation={"cardiomegaly": 0.3}).sample(200, seed=0, images_per_patient=1)
    return sample, sample.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def fitted(world) -> LatentDiffusion:
    return tiny(world[1])


def tiny(cohort: Cohort, kind: type = DLDM, directory: Path | None = None, narrator=None, **changes) -> LatentDiffusion:
    model = kind(size=32, hold=["view", "cardiomegaly"], **{**TINY, **changes})
    return model.fit(cohort.part("train"), cohort.part("validation"), seed=1, directory=directory, narrator=narrator)


def some(cohort: Cohort, n: int = 6):
    part = cohort.part("test").take(range(n))
    return part.pixels(size=32), part.frame


def weights(model: LatentDiffusion) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name, module in model.sampler.modules().items()
        for key, value in module.state_dict().items()
    }


def test_generators_same_seed_same_bits_and_global_state_untouched(world, fitted) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = tiny(world[1])
    assert torch.equal(before, torch.get_rng_state())
    for name, value in weights(fitted).items():
        assert torch.equal(value, weights(again)[name]), name
    assert again.report == fitted.report


def test_generators_output_contract(world, fitted) -> None:
    images, frame = some(world[1])
    assert isinstance(fitted, CounterfactualGenerator)
    out = fitted.generate(images, frame, **SEX, draws=3, seed=0)
    assert (out.shape, out.dtype) == ((6, 2, 3, 1, 32, 32), np.float32)
    assert out.min() >= 0
    assert out.max() <= 1
    assert fitted.attributes == {"sex": ("female", "male"), "placebo": ("heads", "tails")}
    assert fitted.reconstruct(images).shape == images.shape
    coin = fitted.generate(images, frame, attribute="placebo", levels=["heads", "tails"], draws=2, seed=0)
    assert coin.shape == (6, 2, 2, 1, 32, 32)


def test_generators_image_does_not_depend_on_its_company(world, fitted) -> None:
    images, frame = some(world[1], 20)
    whole = fitted.generate(images, frame, **SEX, draws=3, seed=0)
    rows = [11, 3]
    part = fitted.generate(images[rows], frame.iloc[rows].reset_index(drop=True), **SEX, draws=3, seed=0)
    np.testing.assert_array_equal(part, whole[rows])
    fewer = fitted.generate(images[rows], frame.iloc[rows], **SEX, draws=2, seed=0)
    np.testing.assert_allclose(fewer, whole[rows][:, :, :2], atol=1e-5)
    assert not np.array_equal(fitted.generate(images[rows], frame.iloc[rows], **SEX, draws=3, seed=1), part)


def test_generators_draws_share_their_noise_across_levels_on_request(world, fitted, monkeypatch) -> None:
    images, frame = some(world[1], 2)
    seen: list[torch.Tensor] = []
    kept = type(fitted.sampler)._noised

    def spy(self, *args):
        seen.append(kept(self, *args))
        return seen[-1]

    monkeypatch.setattr(type(fitted.sampler), "_noised", spy)
    fitted.generate(images, frame, **SEX, draws=2, shared_seeds=True)
    assert torch.equal(seen[0], seen[1])
    seen.clear()
    fitted.generate(images, frame, **SEX, draws=2, shared_seeds=False)
    assert not torch.equal(seen[0], seen[1])


def test_generators_guide_over_the_intervened_attribute_only(world, fitted, monkeypatch) -> None:
    images, frame = some(world[1], 2)
    sampler, seen = fitted.sampler, []
    forward = type(sampler.denoiser).forward

    def spy(self, x, times, codes):
        seen.append(codes.clone())
        return forward(self, x, times, codes)

    monkeypatch.setattr(type(sampler.denoiser), "forward", spy)
    fitted.generate(images, frame, attribute="sex", levels=["male"], guidance=2.0)
    conditions, observed = sampler.conditions, sampler.conditions.encode(frame)
    sex = conditions.span("sex")
    others = [column for column in range(conditions.width) if not sex.start <= column < sex.stop]
    assert {tuple(codes[0, sex].tolist()) for codes in seen} >= {(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)}
    known = {tuple(row.tolist()) for row in observed[:, others]}
    assert {tuple(row.tolist()) for codes in seen for row in codes[:, others]} == known


def test_generators_additive_abduction_gives_the_image_back(world, fitted, tmp_path: Path) -> None:
    images, frame = some(world[1])
    fitted.save(tmp_path)
    content = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", content | {"config": content["config"] | {"detail": "draw"}})
    additive = load_generator(tmp_path)
    own = [["female", "male"].index(level) for level in frame["sex"]]
    out = additive.generate(images, frame, **SEX, draws=2)
    np.testing.assert_allclose(out[np.arange(6), own, 0], images, atol=1e-6)
    # By default the null intervention has generator noise like every other level: two draws differ.
    drawn = fitted.generate(images, frame, **SEX, draws=2)[np.arange(6), own]
    assert np.abs(drawn[:, 0] - drawn[:, 1]).mean() > 1e-4


def test_generators_one_level_alone_is_the_same_image(world, fitted) -> None:
    images, frame = some(world[1])
    out = fitted.generate(images, frame, **SEX, draws=2)
    alone = fitted.generate(images[:1], frame.iloc[:1], attribute="sex", levels=["male"], draws=2)
    np.testing.assert_allclose(alone, out[:1, 1:], atol=1e-5)


def test_generators_save_and_load(world, fitted, tmp_path: Path) -> None:
    images, frame = some(world[1], 3)
    fitted.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = load_generator(tmp_path)
    np.testing.assert_array_equal(
        loaded.generate(images, frame, **SEX, draws=2), fitted.generate(images, frame, **SEX, draws=2)
    )
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "kind": "dldn"}))
    with pytest.raises(InputError, match="Did you mean 'dldm'"):
        load_generator(tmp_path)
    with pytest.raises(InputError, match="holds no generator"):
        load_generator(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({**content, "format": 1}))
    with pytest.raises(StateError, match="holds a generator of format 1"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**content, "config": {**content["config"], "context": 64}}))
    with pytest.raises(StateError, match="another version of citlr"):
        load_generator(tmp_path)


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the package catches it."""


class KillingNarrator(Narrator):
    """Ends the run in the given step of the given part."""

    def __init__(self, part: str, step: int) -> None:
        super().__init__()
        self.part, self.step = part, step

    def progress(self, title: str, total: int):
        narrator = self

        class Bar:
            def __enter__(self) -> Ticker:
                return tick if title == narrator.part else silent

            def __exit__(self, *args: object) -> None: ...

        def tick(done: int, note: str = "") -> None:
            if done == narrator.step:
                raise Killed

        return Bar()


@pytest.mark.parametrize(("part", "step"), [("autoencoder", 3), ("disentangler", 2), ("denoiser", 4)])
def test_generators_resume_bit_for_bit(world, fitted, tmp_path: Path, part: str, step: int) -> None:
    # The disentangler's game is played on request only.
    game = {"strength": 0.5} if part == "disentangler" else {}
    changes = {"checkpoint_minutes": 0.0, **game}
    with pytest.raises(Killed):
        tiny(world[1], directory=tmp_path, narrator=KillingNarrator(part, step), **changes)
    resumed = tiny(world[1], directory=tmp_path, **changes)
    for name, value in weights(tiny(world[1], **game) if game else fitted).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert (tmp_path / "denoiser.csv").read_text().startswith("step,loss,validation")


def test_generators_refuse_checkpoints_of_another_configuration(world, tmp_path: Path) -> None:
    tiny(world[1], CLDM, directory=tmp_path)
    with pytest.raises(StateError, match="another configuration"):
        tiny(world[1], CLDM, directory=tmp_path, ae_rate=1e-4)
    (tmp_path / "autoencoder.safetensors").write_bytes(b"half")
    with pytest.raises(StateError, match="is damaged"):
        tiny(world[1], CLDM, directory=tmp_path)


@pytest.mark.parametrize("published", [False, True])
def test_generators_abduct_by_inversion(world, published: bool) -> None:
    changes = {"objective": "published", "prediction": "epsilon"} if published else {}
    model = tiny(world[1], **changes, abduction="inversion", guidance=1.0)
    images, frame = some(world[1], 3)
    out = model.generate(images, frame, **SEX)
    assert out.shape == (3, 2, 1, 1, 32, 32)
    np.testing.assert_array_equal(out, model.generate(images, frame, **SEX, seed=9))
    with pytest.raises(InputError, match="gives one image per level"):
        model.generate(images, frame, **SEX, draws=2)


def test_generators_eta_gives_draws_after_inversion(world) -> None:
    model = tiny(world[1], eta=0.5, abduction="inversion", guidance=1.0, detail="autoencoder")
    images, frame = some(world[1], 2)
    out = model.generate(images, frame, **SEX, draws=2)
    assert not np.array_equal(out[:, :, 0], out[:, :, 1])


def test_generators_refuse_bad_requests(world, fitted) -> None:
    images, frame = some(world[1], 2)
    for changes, message in [
        ({"attribute": "race"}, "cannot intervene on 'race'"),
        ({"levels": ["malle"]}, "Did you mean 'male'"),
        ({"draws": 0}, "at least one of each"),
        ({"abduction": "inverse"}, "Did you mean 'inversion'"),
    ]:
        with pytest.raises(InputError, match=message):
            fitted.generate(images, frame, **{**SEX, **changes})
    with pytest.raises(InputError, match=r"needs \(n, 1, 32, 32\)"):
        fitted.generate(images[..., :16], frame, **SEX)
    with pytest.raises(InputError, match="NaN"):
        fitted.generate(images * np.nan, frame, **SEX)
    with pytest.raises(InputError, match="every image needs its row"):
        fitted.generate(images, frame.iloc[:1], **SEX)
    with pytest.raises(InputError, match="no column 'view'"):
        fitted.generate(images, frame.drop(columns="view"), **SEX)
    with pytest.raises(StateError, match="not trained yet"):
        DLDM(size=32, preset="tiny").generate(images, frame, **SEX)


def test_generators_report_quality_by_a_probe_of_their_own(world, tmp_path: Path) -> None:
    sample, cohort = world
    probes = fit_probes(
        cohort.part("train"),
        cohort.part("validation"),
        ProbeSettings(attributes=["sex"], labels=["cardiomegaly", "edema"], size=32, steps=60, batch_size=32),
    )
    assert probes.trusted["sex"]
    assert probes.accuracy["sex"] > 0.8
    probes.save(tmp_path)
    images, frame = some(cohort, 40)
    np.testing.assert_array_equal(load_probes(tmp_path).read(images)["sex"], probes.read(images)["sex"])
    oracle = Oracle.of(sample)
    redrawn = oracle.generate(images, frame, **SEX, draws=2)
    meter = QualityMeter(probes, **SEX)
    for part in (slice(0, 25), slice(25, 40)):
        meter.add(images[part], redrawn[part], frame["sex"].iloc[part])
    report = meter.report()
    assert report.composition < 0.003  # the images were written as 8-bit PNG
    assert min(report.effectiveness.values()) > 0.75
    assert report.minimality > 0.005
    rows = [list(sample.frame["image_id"]).index(name) for name in frame["image_id"]]
    true = sample.counterfactual("male", rows) - sample.counterfactual("female", rows)
    found = effect_map(redrawn[:, 1, 0] - redrawn[:, 0, 0], true)
    assert found.scale == pytest.approx(1)
    assert found.relative_error < 1e-6
    assert there_and_back(oracle, images, frame, attribute="sex") < 0.003
    cycles = cycle_composition(oracle, images, frame, attribute="sex", cycles=2)
    assert max(cycle.difference for cycle in cycles.values()) < 0.003
    assert min(cycle.similarity for cycle in cycles.values()) > 0.99


def test_a_probe_no_better_than_chance_says_unknown(world) -> None:
    _, cohort = world
    noise = np.random.default_rng(0).choice(["a", "b"], size=len(cohort))
    blurred = Cohort(**{**vars(cohort), "frame": cohort.frame.assign(luck=noise)})
    probes = fit_probes(
        blurred.part("train"),
        blurred.part("validation"),
        ProbeSettings(attributes=["luck"], labels=["view"], size=32, steps=4),
    )
    assert not probes.trusted["luck"]
    images, _frame = some(cohort, 4)
    meter = QualityMeter(probes, attribute="luck", levels=["a", "b"])
    meter.add(images, np.repeat(images[:, None, None], 2, axis=1), ["a"] * 4)
    report = meter.report()
    assert report.effectiveness == {}
    assert "no better than chance" in report.notes[0]
    assert report.fid is None
    assert any("too few" in note for note in report.notes)
