from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from citlr.console import Narrator, Ticker, silent
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError
from citlr.generators.base import CounterfactualGenerator
from citlr.generators.conditions import Conditions
from citlr.generators.learnt import LearntGenerator
from citlr.generators.overlap import sparse_levels
from citlr.generators.preparation import Prepared
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.published.game import level_odds
from citlr.generators.quality.meter import QualityMeter
from citlr.generators.registry import build_generator, load_generator
from citlr.generators.request import Request
from citlr.generators.rivals.direct import DirectGenerator
from citlr.generators.rivals.vae import VAEConfig
from citlr.simulators.phantom.world import PhantomWorld

VAE = {"steps": 4, "batch": 8, "latent": 8, "channels": (8, 8)}
SHIFT = {
    "probe_steps": 3,
    "probe_batch": 8,
    "probe_channels": (8, 8),
    "autoencoder": {"ae_steps": 4, "ae_batch": 8, "ae_channels": (8,)},
}
KINDS = [("vae", VAE), ("latent-shift", SHIFT)]
SEX = {"attribute": "sex", "levels": ["female", "male"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    sample = PhantomWorld(size=32).sample(220, seed=0, images_per_patient=1)
    cohort = sample.write(tmp_path_factory.mktemp("rivals"))
    random = np.random.default_rng(0)
    extra = {"age": random.uniform(20, 90, len(cohort)).round(), "race": random.choice(["x", "y", "z"], len(cohort))}
    return Cohort(**{**vars(cohort), "frame": cohort.frame.assign(**extra)})


def built(kind: str, options: dict, **more) -> DirectGenerator:
    return build_generator(kind, size=32, hold=["view"], preset="tiny", accelerator="cpu", **{**options, **more})


def fitted(kind: str, options: dict, cohort: Cohort, **more):
    where = {name: more.pop(name) for name in ("directory", "narrator") if name in more}
    return built(kind, options, **more).fit(cohort.part("train"), cohort.part("validation"), seed=1, **where)


def some(cohort: Cohort, n: int = 5):
    part = cohort.part("test").take(range(n))
    return part.pixels(size=32), part.frame


class Killed(BaseException):
    """Stands in for SIGKILL."""


class Killing(Narrator):
    def progress(self, title: str, total: int):
        class Bar:
            def __enter__(self) -> Ticker:
                return tick if title in ("vae", "latent-probe") else silent

            def __exit__(self, *args: object) -> None: ...

        def tick(done: int, note: str = "") -> None:
            if done == 2:
                raise Killed

        return Bar()


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_rivals_keep_the_protocol(world, tmp_path: Path, kind: str, options: dict) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = fitted(kind, options, world)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(model, CounterfactualGenerator)
    assert model.attributes == {"sex": ("female", "male"), "placebo": ("heads", "tails")}
    images, frame = some(world)
    out = model.generate(images, frame, **SEX, draws=3, seed=0)
    assert (out.shape, out.dtype) == ((5, 2, 3, 1, 32, 32), np.float32)
    assert 0 <= out.min() <= out.max() <= 1
    assert model.reconstruct(images).shape == images.shape
    # Draws are keyed by image, not by company; draws and seeds differ.
    np.testing.assert_array_equal(model.generate(images[3:4], frame.iloc[3:4], **SEX, draws=3, seed=0), out[3:4])
    assert not np.array_equal(out[:, :, 0], out[:, :, 1])
    assert not np.array_equal(model.generate(images, frame, **SEX, draws=3, seed=1), out)
    mean = model.generate(images, frame, **SEX, abduction="inversion")
    np.testing.assert_array_equal(mean, model.generate(images, frame, **SEX, abduction="inversion", seed=7))
    model.save(tmp_path / "saved")
    loaded = load_generator(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.generate(images, frame, **SEX, draws=3, seed=0), out)
    assert loaded.report == model.report
    assert loaded.seen == model.seen


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_rivals_resume_bit_for_bit(world, tmp_path: Path, kind: str, options: dict) -> None:
    whole = fitted(kind, options, world)
    with pytest.raises(Killed):
        fitted(kind, options, world, directory=tmp_path, narrator=Killing(), checkpoint_minutes=0.0)
    resumed = fitted(kind, options, world, directory=tmp_path, checkpoint_minutes=0.0)
    for name, module in whole.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, resumed.modules()[name].state_dict()[key]), f"{name}/{key}"
    with pytest.raises(StateError, match="another configuration"):
        fitted(kind, options, world, directory=tmp_path, **({"beta": 3.0} if kind == "vae" else {"probe_rate": 1e-4}))


class Contrast(LearntGenerator):
    """The least that a generator has to fill in; what it gives is not clipped."""

    settings, kind = VAEConfig, "contrast"

    def build(self, conditions: Conditions, *, seed: int) -> None:
        pass

    def learn(self, prepared: Prepared) -> None:
        pass

    def modules(self) -> dict[str, torch.nn.Module]:
        return {}

    def redraw_batch(self, images: torch.Tensor, codes: torch.Tensor, ids: list[str], request: Request) -> torch.Tensor:
        wide = 5 * images - 2
        return wide[:, None, None].expand(-1, len(request.levels), request.draws, -1, -1, -1)

    def reconstruct_batch(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_a_generator_need_not_clip_what_it_redraws(world) -> None:
    generator = Contrast(size=32, preset="tiny", accelerator="cpu").fit(world.part("train"), seed=0)
    images, frame = some(world)
    drawn = generator.generate(images, frame, **SEX, draws=2)
    assert ((5 * images - 2).min(), (5 * images - 2).max()) != (0, 1)
    np.testing.assert_array_equal(drawn[:, 1, 1], np.clip(5 * images - 2, 0, 1))


def test_noise_is_shared_by_the_levels_on_request(world) -> None:
    model = fitted("vae", VAE, world)
    # A decoder that ignores its code shows the latent alone.
    with torch.no_grad():
        for tell in model.net.tell:
            tell.weight[:, -model.conditions.width :] = 0
        model.net.open.weight[:, -model.conditions.width :] = 0
    images, frame = some(world)
    same = model.generate(images, frame, **SEX, shared_seeds=True)
    np.testing.assert_array_equal(same[:, 0], same[:, 1])
    apart = model.generate(images, frame, **SEX, shared_seeds=False)
    assert not np.array_equal(apart[:, 0], apart[:, 1])


def test_latent_shift_moves_the_reading_and_leaves_the_factual_level_alone(world) -> None:
    model = fitted("latent-shift", SHIFT, world, probe_steps=150, turns=8)
    images, frame = some(world, 12)
    codes = model.conditions.encode(frame)
    mean, _ = model.posterior(torch.from_numpy(images), codes)
    torch.testing.assert_close(model.shift(mean, codes, codes), mean)
    turned = model.conditions.intervene(codes, "sex", "male")
    moved = model.shift(mean, codes, turned)
    own = torch.tensor([level == "male" for level in frame["sex"]])
    torch.testing.assert_close(moved[own], mean[own])

    def log_odds(z: torch.Tensor, name: str) -> torch.Tensor:
        scores = model.probe(z, z.new_zeros(len(z), 0))[:, model.conditions.span(name)]
        return (scores[:, 1] - scores[:, 0]).detach()

    wanted = model.probe.means[1, 1] - model.probe.means[0, 1]
    gained = (log_odds(moved, "sex") - log_odds(mean, "sex"))[~own]
    assert float(wanted) > 1
    torch.testing.assert_close(gained, wanted.expand(len(gained)), rtol=0.25, atol=0.0)
    # Held: at a right angle to its gradient, so that it moves much less than the attribute.
    assert float((log_odds(moved, "view") - log_odds(mean, "view"))[~own].abs().mean()) < 0.2 * float(wanted)


@pytest.mark.parametrize(("kind", "options"), [*KINDS, ("cldm", {})])
def test_generators_take_several_attributes_and_a_continuous_one(world, kind: str, options: dict) -> None:
    if kind == "cldm":
        sizes = {"unet_channels": (16, 16), "ae_channels": (8,), "phi_channels": (8, 8)}
        steps = {"ae_steps": 4, "denoiser_steps": 4, "denoiser_batch": 8, "ae_batch": 8}
        # Age and race leave no trace in these few images, and what is not shown is not changed.
        options = {**sizes, **steps, "support": "everywhere"}
    model = fitted(kind, options, world, attributes=("age", "sex", "race"))
    assert model.attributes["age"] == ()
    images, frame = some(world)
    both = model.generate(images, frame, attribute=("sex", "race"), levels=[("male", "x"), ("female", "z")], draws=2)
    assert both.shape == (5, 2, 2, 1, 32, 32)
    assert not np.array_equal(both[:, 0], both[:, 1])
    one = model.generate(images, frame, attribute="sex", levels=["male"], draws=2)
    joint = model.generate(
        images[:1], frame[:1], attribute=("sex", "race"), levels=[("male", frame["race"][0])], draws=2
    )
    np.testing.assert_allclose(joint, one[:1], atol=1e-5)
    old = model.generate(images, frame, attribute="age", levels=["30", "80"])
    assert not np.array_equal(old[:, 0], old[:, 1])
    own = model.generate(images[:1], frame[:1], attribute="age", levels=[str(frame["age"][0])])
    np.testing.assert_allclose(own, model.generate(images[:1], frame[:1], attribute="sex", levels=[frame["sex"][0]]))
    with pytest.raises(InputError, match="'age' is a number, and 'old' is none"):
        model.generate(images, frame, attribute="age", levels=["old"])


def test_a_disentangler_hides_several_attributes_a_continuous_one_among_them(world) -> None:
    sizes = {"unet_channels": (16, 16), "ae_channels": (8,), "phi_channels": (8, 8), "critic_channels": (8, 8)}
    steps = {"ae_steps": 4, "denoiser_steps": 4, "phi_steps": 2, "information_steps": 2}
    model = build_generator(
        "dldm", size=32, preset="tiny", attributes=("sex", "age"), accelerator="cpu", strength=0.5, **sizes, **steps
    )
    model.fit(world.part("train"), world.part("validation"), seed=0)
    assert np.isfinite(model.report["information_after"])
    # Two sexes times four quarters of the age.
    codes = model.conditions.encode(world.part("train").frame)
    assert level_odds(model.conditions, codes, [])[1].shape[1] == 8


def test_bad_input_attribute_determined_by_a_held_covariate() -> None:
    frame = pd.DataFrame({"sex": ["F", "M"] * 20, "patient_id": range(40)})
    frame = frame.assign(gown=frame["sex"].map({"F": "pink", "M": "blue"}), height=[150.0 + i for i in range(40)])
    with pytest.raises(InputError, match=r"'gown' determines 'sex'.*take 'gown' off `hold`"):
        Conditions.of(frame, attributes=["sex"], hold=["gown"], coin_seed=0)
    with pytest.raises(InputError, match=r"'gown' is blank in every training image of 'sex' = 'M'.*take 'gown' off"):
        Conditions.of(
            frame.assign(gown=["pink", None, "blue", None] * 10), attributes=["sex"], hold=["gown"], coin_seed=0
        )
    # A third level, or a number: the blank itself says the level.
    three = pd.DataFrame({"race": ["a", "b", "w"] * 20, "site": [None, "x", "y", None, "y", "x"] * 10})
    with pytest.raises(InputError, match="'site' is blank in every training image of 'race' = 'a'"):
        Conditions.of(three.assign(patient_id=range(60)), attributes=["race"], hold=["site"], coin_seed=0)
    with pytest.raises(InputError, match="'height' is blank in every training image of 'sex' = 'F'"):
        none = frame.assign(height=frame["height"].where(frame["sex"] == "M"))
        Conditions.of(none, attributes=["sex"], hold=["height"], coin_seed=0)
    tall = frame.assign(height=np.where(frame["sex"] == "M", 1000.0, 0.0) + frame["height"])
    with pytest.raises(InputError, match="'height' determines 'sex'"):
        Conditions.of(tall, attributes=["sex"], hold=["height"], coin_seed=0)
    assert Conditions.of(frame, attributes=["sex"], hold=["height"], coin_seed=0).held[0].name == "height"


def test_bad_input_attribute_determined_by_held_covariates_together() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 2, 80), random.integers(0, 2, 80)
    frame = pd.DataFrame({"sex": np.where(one == other, "F", "M"), "patient_id": range(80), "a": one, "b": other})
    assert len(Conditions.of(frame, attributes=["sex"], hold=["a"], coin_seed=0).held) == 1
    with pytest.raises(InputError, match="'a', 'b' together determine 'sex'"):
        Conditions.of(frame, attributes=["sex"], hold=["a", "b"], coin_seed=0)
    # Combinations that few images share say nothing, even where each has one level.
    many = frame.assign(**{f"c{k}": random.integers(0, 2, 80) for k in range(6)})
    assert len(Conditions.of(many, attributes=["sex"], hold=[f"c{k}" for k in range(6)], coin_seed=0).held) == 6
    years = pd.DataFrame({"age": np.linspace(20, 80, 40), "patient_id": range(40)})
    years["decade"] = np.exp(years["age"])
    with pytest.raises(InputError, match="'decade' determines 'age'"):
        Conditions.of(years, attributes=["age"], hold=["decade"], coin_seed=0)


def test_latent_shift_takes_a_level_that_validation_lacks_from_the_training_split(world) -> None:
    train, validation = world.part("train"), world.part("validation")
    women = validation.take((validation.frame["sex"] == "female").to_numpy())
    model = built("latent-shift", SHIFT).fit(train, women, seed=0)
    own = model.conditions.span("sex")
    means = model.probe.means[own.start : own.stop - 1, own.start : own.stop - 1]
    assert bool((means.abs().sum(dim=1) > 0).all())


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_checkpoint_of_another_table_is_not_gone_on_from(world, tmp_path: Path, kind: str, options: dict) -> None:
    train, validation = world.part("train"), world.part("validation")
    built(kind, options).fit(train, validation, seed=0, directory=tmp_path)
    swapped = train.frame.assign(sex=train.frame["sex"].map({"male": "female", "female": "male"}))
    with pytest.raises(StateError, match="another configuration, seed or training split"):
        built(kind, options).fit(Cohort(**{**vars(train), "frame": swapped}), validation, seed=0, directory=tmp_path)


def test_bad_input_a_level_with_ten_images_trains_and_is_named(world, tmp_path: Path) -> None:
    train = world.part("train")
    males = np.flatnonzero((train.frame["sex"] == "male").to_numpy())
    few = train.take(np.sort(np.concatenate([np.flatnonzero((train.frame["sex"] == "female").to_numpy()), males[:10]])))
    model = built("vae", VAE).fit(few, world.part("validation"), seed=0)
    assert model.report["sparse_levels"] == [
        "The level 'male' of 'sex' has 10 training images: what a generator shows of it is mostly a guess."
    ]
    assert sparse_levels(train.frame, model.conditions.recorded) == ()
    model.save(tmp_path)
    assert load_generator(tmp_path).report["sparse_levels"]


@pytest.mark.parametrize(("kind", "options"), [*KINDS, ("cldm", {"ae_steps": 4, "ae_channels": (8,)})])
def test_bad_input_constant_images_are_refused(world, kind: str, options: dict) -> None:
    class Grey(Cohort):
        def batches(self, *, size: int, batch_size: int, rows=None, workers: int = 2):
            chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
            for start in range(0, len(chosen), batch_size):
                part = chosen[start : start + batch_size]
                yield part, np.full((len(part), 1, size, size), 0.5, np.float32)

    train, validation = (Grey(**vars(world.part(name))) for name in ("train", "validation"))
    with pytest.raises(InputError, match=r"alike.*check the image folder"):
        built(kind, options).fit(train, validation, seed=0)


def test_rivals_refuse_bad_settings_and_requests(world) -> None:
    for kind, options, message in [
        ("vae", {"beta": -1.0}, "beta=-1.0: it should be greater than 0"),
        ("vae", {"betta": 1.0}, "Did you mean 'beta'"),
        ("vae", {"preset": "laptp"}, "Did you mean 'laptop'"),
        ("latent-shift", {"abduction": "noisy"}, "Did you mean 'noise'"),
        ("latent-shift", {"autoencoder": {"ae_stepz": 3}}, "Did you mean 'ae_steps'"),
        ("vea", {}, "Did you mean 'vae'"),
    ]:
        with pytest.raises(InputError, match=message):
            build_generator(kind, **{"size": 32, **options})
    with pytest.raises(StateError, match="not trained yet"):
        build_generator("vae", size=32).generate(*some(world, 1), **SEX)
    model = fitted("vae", VAE, world)
    images, frame = some(world, 2)
    for changes, message in [
        ({"attribute": "race"}, "cannot intervene on 'race'"),
        ({"levels": ["malle"]}, "Did you mean 'male'"),
        ({"draws": 0}, "at least one of each"),
        ({"draws": 2, "abduction": "inversion"}, "gives one image per level"),
    ]:
        with pytest.raises(InputError, match=message):
            model.generate(images, frame, **{**SEX, **changes})


@pytest.mark.slow
def test_a_dearer_latent_is_told_less_and_the_condition_does_more(world) -> None:
    train, validation = world.part("train"), world.part("validation")
    probes = fit_probes(train, validation, ProbeSettings(attributes=["sex"], size=32, steps=200))
    images, frame = some(world, 40)
    found = {}
    for beta in (0.5, 8.0):
        model = build_generator("vae", size=32, preset="tiny", beta=beta, steps=800).fit(train, validation, seed=0)
        meter = QualityMeter(probes, **SEX)
        meter.add(images, model.generate(images, frame, **SEX, draws=2), frame["sex"])
        found[beta] = (min(meter.report().effectiveness.values()), model.report["information_in_latent"])
    assert found[8.0][0] > found[0.5][0]
    assert found[8.0][1] < found[0.5][1]
