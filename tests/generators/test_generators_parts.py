from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import uniform_filter

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.guidance import mean_effects
from citlr.generators.diffusion.networks import Autoencoder, reconstruction_loss
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.schedule import noise_table
from citlr.generators.diffusion.settings import PRESETS, AutoencoderSettings, LDMConfig
from citlr.generators.probes.parts import Critic
from citlr.generators.published.disentangle import Disentangler, critic_loss, donsker_varadhan
from citlr.generators.quality.measures import drift, effect_map, effectiveness, frechet_distance, kernel_distance, ssim
from citlr.generators.request import keyed_noise
from citlr.randomness import toss


def frame() -> pd.DataFrame:
    rows = np.arange(40)
    return pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in rows],
            "patient_id": [f"p{row // 2}" for row in rows],
            "sex": np.where(rows % 2, "M", "F"),
            "race": np.asarray(["a", "b", "c"])[rows % 3],
            "view": np.where(rows % 4 < 2, "AP", "PA"),
            "age": rows + 20.0,
            "finding": (rows % 5 == 0).astype(float),
        }
    )


def conditions(**changes: object) -> Conditions:
    settings = {"attributes": ["sex", "race"], "hold": ["view", "age", "finding"], "coin_seed": 3, **changes}
    return Conditions.of(frame(), **settings)


def test_mean_effects_of_levels_and_of_a_number_beside_them() -> None:
    """Levels are centred among themselves; the slope of the age is its own, whatever the sexes do."""
    random = np.random.default_rng(0)
    n = 2000
    table = pd.DataFrame(
        {
            "image_id": range(n),
            "patient_id": range(n),
            "sex": np.where(random.random(n) < 0.3, "M", "F"),
            "age": random.uniform(20, 80, n),
        }
    )
    known = Conditions.of(table, attributes=["age", "sex"], hold=[], coin_seed=0)
    z = 0.1 * random.normal(size=(n, 1, 2, 2)) + 2.0 * (table["sex"] == "M").to_numpy()[:, None, None, None]
    z += 0.01 * table["age"].to_numpy()[:, None, None, None]
    found = mean_effects(z.astype(np.float32), known.encode(table), known)
    age, sex = known.span("age"), known.span("sex")
    assert float(found[age.start].mean()) == pytest.approx(0.01 * known.attribute("age").spread, abs=0.01)
    assert float((found[sex.start + 1] - found[sex.start]).mean()) == pytest.approx(2.0, abs=0.03)
    shares = known.encode(table)[:, sex].mean(dim=0)
    assert float((shares[:, None, None, None] * found[sex]).sum(dim=0).abs().max()) < 1e-5


def test_donsker_varadhan_reaches_the_information_of_normal_pairs() -> None:
    # I = -log(1 - rho^2) / 2 nats; the critic that attains it is the log density ratio.
    rho, n = 0.8, 200_000
    random = torch.Generator().manual_seed(0)
    x, e = torch.randn(n, generator=random), torch.randn(n, generator=random)
    y = rho * x + (1 - rho**2) ** 0.5 * e

    def best(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -0.5 * np.log(1 - rho**2) - (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))

    true = -0.5 * np.log(1 - rho**2)
    found = float(donsker_varadhan(best(x, y), best(x, y.roll(1))))
    assert found == pytest.approx(true, abs=0.02)
    # Any other critic bounds from below; without the logarithm the value would not.
    assert float(donsker_varadhan(0.5 * best(x, y), 0.5 * best(x, y.roll(1)))) < found
    assert float(donsker_varadhan(best(x, y) + 1, best(x, y.roll(1)) + 1)) == pytest.approx(found, abs=1e-4)


def test_critic_learns_the_information_by_its_corrected_gradient() -> None:
    rho, random = 0.9, torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    average = torch.tensor(float("nan"))
    bounds = []
    for _ in range(400):
        x, e = torch.randn(512, generator=random), torch.randn(512, generator=random)
        y = rho * x + (1 - rho**2) ** 0.5 * e
        joint, product = net(torch.stack([x, y], 1))[:, 0], net(torch.stack([x, y.roll(1)], 1))[:, 0]
        optimizer.zero_grad()
        critic_loss(joint, product, average).backward()
        optimizer.step()
        bounds.append(float(donsker_varadhan(joint, product).detach()))
    assert np.mean(bounds[-50:]) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.12)


def test_gradient_of_the_bound_reaches_the_disentangler_through_the_critic() -> None:
    phi = Disentangler(latent_shape=(2, 8, 8), channels=(8, 8), strength=0.3, attributes=3)
    critic = Critic(2, 2, (8, 8), grid=2)
    scores = critic(phi(torch.randn(4, 2, 8, 8), torch.zeros(4, 3)), torch.zeros(4, 0))
    donsker_varadhan(scores[:, 0], scores[:, 1]).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in phi.out.parameters())


@pytest.mark.parametrize("at_most", [False, True])
def test_disentangler_moves_by_lambda(at_most: bool) -> None:
    phi = Disentangler(latent_shape=(2, 8, 8), channels=(8, 8), strength=0.3, attributes=3, at_most=at_most)
    z = torch.randn(5, 2, 8, 8)
    moved = (phi(z, torch.zeros(5, 3)) - z).square().mean(dim=(1, 2, 3)).sqrt()
    if at_most:
        assert bool((moved <= 0.3 + 1e-5).all())
    else:
        torch.testing.assert_close(moved, torch.full((5,), 0.3), rtol=1e-4, atol=1e-5)


def test_conditions_code_hold_and_intervene() -> None:
    made = conditions()
    codes = made.encode(frame())
    assert [variable.name for variable in made.variables] == ["sex", "race", "placebo", "view", "age", "finding"]
    changed = made.intervene(codes, "sex", "M")
    assert bool((changed[:, made.span("sex")] == torch.tensor([0.0, 1.0, 0.0])).all())
    others = ["race", "placebo", "view", "age", "finding"]
    assert all(bool((changed[:, made.span(n)] == codes[:, made.span(n)]).all()) for n in others)
    both = made.intervene(codes, ("sex", "race"), ("F", "c"))
    assert both[:, made.span("race")][:, 2].min() == 1
    assert both[:, made.span("sex")][:, 0].min() == 1
    missing = frame().assign(view=None, age=np.nan)
    assert made.encode(missing)[:, made.span("view")].unique(dim=0).tolist() == [[0.0, 0.0, 1.0]]
    assert Conditions.from_json(made.to_json()) == made


def test_dropout_replaces_attributes_by_the_null_code() -> None:
    made = conditions()
    codes = made.encode(frame())
    dropped = made.drop(codes, probability=1.0, generator=torch.Generator().manual_seed(0))
    for name in ("sex", "race", "placebo"):
        part = dropped[:, made.span(name)]
        assert bool((part[:, -1] == 1).all())
        assert float(part[:, :-1].abs().sum()) == 0
    kept = made.drop(codes, probability=0.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kept, codes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": ["sexx"]}, "no column 'sexx'.*Did you mean 'sex'"),
        ({"hold": ["veiw"]}, "no column 'veiw'"),
        ({"hold": ["sex"]}, "both intervened on and held"),
    ],
)
def test_conditions_refuse(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        conditions(**changes)


def test_conditions_refuse_a_single_level_and_an_unknown_one() -> None:
    with pytest.raises(InputError, match="single level 'F'"):
        Conditions.of(frame().assign(sex="F"), attributes=["sex"], hold=[], coin_seed=0)
    with pytest.raises(InputError, match="holds 'X', which the generator was not trained with"):
        conditions().encode(frame().assign(sex="X"))


def test_coin_is_fair_per_patient_and_seeded() -> None:
    names = [f"p{k}" for k in range(4000)]
    sides = toss(names, seed=1)
    assert abs((sides == "heads").mean() - 0.5) < 0.04
    assert (sides == toss(names, seed=1)).all()
    assert (sides != toss(names, seed=2)).any()


def test_noise_belongs_to_its_key() -> None:
    keys = [(0, name, draw) for name in "abc" for draw in range(2)]
    noise = keyed_noise(keys, (2, 3))
    assert torch.equal(keyed_noise(keys[::-1], (2, 3)).flip(0), noise)
    assert len({row.sum().item() for row in noise}) == len(keys)


def test_restoring_process_starts_at_the_noised_hidden_latent_and_ends_at_the_latent() -> None:
    process = Process.of(LDMConfig(objective="restoring", depth=0.2, sampling_steps=4))
    random = torch.Generator().manual_seed(0)
    z, hidden, eps = (torch.randn(3, 2, 4, 4, generator=random) for _ in range(3))
    deepest = torch.full((3,), process.grid[-1])
    x, noise, alpha = process.noised(z, hidden, eps, deepest)
    torch.testing.assert_close(x, process.start(hidden, eps), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((x - (1 - alpha).sqrt() * noise) / alpha.sqrt(), z, rtol=1e-4, atol=1e-4)
    assert set(process.times(200, random).tolist()) == set(process.grid[1:])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_config_rebuilds_from_its_json(preset: str) -> None:
    config = LDMConfig.preset_of(preset, hold=("view",))
    assert LDMConfig.from_json(config.to_json()) == config


def test_paper_preset_has_the_published_shape() -> None:
    config = LDMConfig.preset_of("paper")
    assert (config.size, config.latent_shape) == (256, (8, 32, 32))
    assert config.autoencoder.ae_channels == config.published.critic_channels == (64, 128, 256, 512)
    assert (config.denoiser.context, config.published.critic_steps, config.denoiser.depth) == (512, 5, 0.2)
    np.testing.assert_array_equal(Process.of(config).table, noise_table(1000, beta_start=0.002, beta_end=0.02))


def test_a_field_is_found_by_its_flat_name_and_in_its_section() -> None:
    flat = LDMConfig.preset_of("tiny", size=32, ae_steps=7, guidance=2.0)
    nested = LDMConfig.preset_of("tiny", size=32, autoencoder={"ae_steps": 7}, sampling={"guidance": 2.0})
    assert flat == nested == dataclasses.replace(LDMConfig.preset_of("tiny", size=32), ae_steps=7, guidance=2.0)
    assert (flat.autoencoder.ae_steps, flat.sampling.guidance, flat.denoiser.denoiser_steps) == (7, 2.0, 1000)
    with pytest.raises(InputError, match=r"'ae_stepz' is not a field of AutoencoderSettings. Did you mean 'ae_steps'"):
        LDMConfig.preset_of("tiny", autoencoder={"ae_stepz": 7})


def test_a_configuration_of_before_is_read() -> None:
    config = LDMConfig.preset_of("tiny", size=32)
    assert LDMConfig.from_json({**config.to_json(), "schedule": "scaled_linear", "timesteps": 1000}) == config


def test_a_part_is_trained_again_when_its_own_settings_change() -> None:
    config = LDMConfig.preset_of("tiny", size=32)
    for changes, autoencoder, rest in [
        ({"guidance": 2.0, "support": "everywhere", "devices": 2}, True, True),
        ({"denoiser_steps": 5}, True, False),
        ({"phi_steps": 5}, True, False),
        ({"ae_steps": 5}, False, False),
        ({"ema": 0.5}, False, False),
    ]:
        other = dataclasses.replace(config, **changes)
        assert (other.autoencoder_depends_on() == config.autoencoder_depends_on()) is autoencoder
        assert (other.weights_depend_on() == config.weights_depend_on()) is rest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 66}, "multiple of 4"),
        ({"size": 16}, "greater than or equal to 32"),
        ({"depht": 0.1}, "Did you mean 'depth'"),
        ({"depth": 0.0}, r"number in \(0, 1\]"),
        ({"objective": "restorin"}, "Did you mean 'restoring'"),
        ({"unet_attention": (False, False)}, "attention at one resolution"),
        ({"unet_channels": (30, 32)}, "multiple of groups"),
        ({"size": 36}, "halved"),
    ],
)
def test_config_refuses(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LDMConfig.preset_of("tiny", **changes)


def test_principal_components_reconstruct_before_any_training_and_locally() -> None:
    torch.manual_seed(0)
    base = torch.rand(20, 1, 8, 8)
    images = torch.nn.functional.interpolate(base, size=32, mode="bilinear")
    net = Autoencoder(AutoencoderSettings(ae_channels=(16,), latent_channels=16))
    net.start(images)
    with torch.no_grad():
        mean, _ = net.moments(images)
        assert float((net.render(mean) - images).abs().mean()) < 0.01
        changed = images.clone()
        changed[:, :, :4, :4] = 0
        before, after = net.render(mean), net.render(net.moments(changed)[0])
    assert torch.equal(before[..., 28:, 28:], after[..., 28:, 28:])
    assert float(reconstruction_loss(images, images)) == pytest.approx(0, abs=1e-5)


def test_quality_numbers_on_known_cases() -> None:
    readings = np.zeros((4, 2, 3, 2))
    readings[:, 0, :, 0] = readings[:3, 1, :, 1] = 1
    readings[3, 1, :, 0] = 1
    np.testing.assert_allclose(effectiveness(readings), [1.0, 0.75])
    label = np.zeros((5, 2, 2, 2))
    label[:, 0, :, 1], label[:, 1, :, 1] = 0.2, 0.5
    assert drift(label) == pytest.approx(0.3)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    assert frechet_distance(a, rng.normal(size=(4000, 3))) < 0.02
    assert kernel_distance(a[:500], a[500:1000]) == pytest.approx(0, abs=0.05)
    assert kernel_distance(a[:500], a[500:1000] + 1) > 1
    true = rng.normal(size=(3, 1, 4, 4)) * (rng.random((3, 1, 4, 4)) > 0.5)
    assert effect_map(true, true).relative_error == 0
    with pytest.raises(InputError, match="zero everywhere"):
        effect_map(true, np.zeros_like(true))


@pytest.mark.parametrize("shape", [(20, 24), (5, 9)])
def test_similarity_is_the_mean_over_every_whole_window(shape: tuple[int, int]) -> None:
    a, b = np.random.default_rng(0).random((2, *shape))
    side = min(7, *shape)
    low, high = side // 2, (side - 1) // 2

    def mean(x: np.ndarray) -> np.ndarray:
        return uniform_filter(x, side)[low : shape[0] - high, low : shape[1] - high]

    m_a, m_b = mean(a), mean(b)
    s_a, s_b, s_ab = mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * m_a * m_b + c1) * (2 * s_ab + c2) / ((m_a**2 + m_b**2 + c1) * (s_a + s_b + c2))
    found = ssim(*(torch.from_numpy(x)[None, None] for x in (a, b)))
    assert float(found) == pytest.approx(expected.mean(), abs=1e-9)
