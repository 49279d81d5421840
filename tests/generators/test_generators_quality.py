from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import softmax

from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.oracle import Oracle
from citlr.generators.probes.linear import fit_offsets, moved
from citlr.generators.probes.parts import ProbeNet, Target
from citlr.generators.probes.probe import Probes, load_probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.cycles import cycle_composition, redraw_as, there_and_back
from citlr.generators.quality.features import load_extractor
from citlr.generators.quality.measures import kernel_distance, level_auroc, level_error, similarity
from citlr.generators.quality.meter import QualityMeter
from citlr.generators.registry import build_generator, load_generator
from citlr.simulators.phantom.world import PhantomWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    sample = PhantomWorld(size=32).sample(260, seed=0, images_per_patient=1)
    cohort = sample.write(tmp_path_factory.mktemp("quality"))
    # An age that the images know: how much bone they show.
    brightness = cohort.pixels(size=32).mean(axis=(1, 2, 3))
    age = 20 + 60 * (brightness - brightness.min()) / np.ptp(brightness)
    return sample, Cohort(**{**vars(cohort), "frame": cohort.frame.assign(age=age.round(1))})


def test_labels_are_read_within_the_level_that_images_were_redrawn_under(world, tmp_path: Path) -> None:
    """A probe that reads half of the sex as the finding sees no drift in redrawing, and one that is there."""
    net = ProbeNet([2, 2])
    targets = (Target("sex", ("female", "male")), Target("finding", ("0", "1")))
    shift = [0.0, -float(np.log(3))]
    probes = Probes(targets, 32, net, {"sex": 1.0, "finding": 1.0}, {"sex": True, "finding": True}, "small", {
        "finding": {"female": [0.0, 0.0], "male": shift},
    })  # fmt: skip
    images = world[1].pixels(size=32)[:4]
    plain, told = (probes.read(images, level=level) for level in (None, "male"))
    np.testing.assert_array_equal(plain["sex"], told["sex"])
    odds = [one["finding"][:, 1] / one["finding"][:, 0] for one in (plain, told)]
    np.testing.assert_allclose(odds[1], odds[0] / 3, rtol=1e-4)
    meter = QualityMeter(probes, attribute="sex", levels=("female", "male"))
    redrawn = np.repeat(images[:, None, None], 2, axis=1)
    meter.add(images, redrawn, ["female"] * 4)
    expected = float((told["finding"] - plain["finding"])[:, 1].mean())
    assert meter.report().drift["finding"] == pytest.approx(expected, abs=1e-5)
    probes.save(tmp_path)
    np.testing.assert_allclose(load_probes(tmp_path).read(images, level="male")["finding"], told["finding"], rtol=1e-6)


def test_offsets_take_off_what_a_probe_reads_of_the_level_and_leave_what_the_label_does() -> None:
    """A probe whose log-odds rise by 1 in men, who have the finding nine times in ten: no unit has it by its sex."""
    random = np.random.default_rng(0)
    male = random.integers(0, 2, 6000)
    there = (random.random(6000) < np.where(male == 1, 0.9, 0.1)).astype(int)
    signal = random.normal(2.0 * (2 * there - 1), 1.5)  # of the finding itself, in log-odds

    def odds(level: np.ndarray | int) -> np.ndarray:
        return np.stack([np.zeros(6000), signal + level], axis=1)

    weights = np.where(there == male, 0.5 / 0.9, 0.5 / 0.1)
    offsets = [fit_offsets(odds(male)[male == k], there[male == k], weights[male == k]) for k in (0, 1)]

    def drift(offsets: list[np.ndarray]) -> float:
        read = [moved(softmax(odds(k), axis=1).astype(np.float32), offset) for k, offset in enumerate(offsets)]
        return float((read[1] - read[0])[:, 1].mean())

    assert drift([np.zeros(2), np.zeros(2)]) > 0.05
    assert abs(drift(offsets)) < 0.015
    # A generator that moves the finding itself is still seen.
    signal = np.where(there == 1, signal, signal + 1.0)
    shown = moved(softmax(odds(1), axis=1).astype(np.float32), offsets[1])[:, 1].mean()
    assert shown - moved(softmax(odds(0) - [0, 1.0], axis=1).astype(np.float32), offsets[0])[:, 1].mean() > 0.05
    # A value that hardly occurs in a level leaves its reading as it is.
    assert fit_offsets(odds(0)[:100], np.zeros(100, dtype=int), weights[:100]).tolist() == [0, 0]


def test_similarity_falls_with_noise_and_is_one_at_home() -> None:
    random = np.random.default_rng(0)
    images = random.random((3, 1, 16, 16)).astype(np.float32)
    noise = random.normal(size=(3, 2, 1, 16, 16)).astype(np.float32)
    found = [similarity(images, np.clip(images[:, None] + scale * noise, 0, 1)) for scale in (0.0, 0.05, 0.2)]
    assert found[0] == pytest.approx(1)
    assert found[0] > found[1] > found[2]


def test_auroc_and_error_per_level_on_known_cases() -> None:
    readings = np.zeros((2, 2, 1, 2))
    readings[:, 0, 0, 0] = [0.9, 0.4]  # redrawn under level 0
    readings[:, 1, 0, 0] = [0.1, 0.6]
    readings[..., 1] = 1 - readings[..., 0]
    # Of the four pairs (under 0, under 1): .9 > .1, .9 > .6, .4 > .1, .4 < .6.
    np.testing.assert_allclose(level_auroc(readings), [0.75, 0.75])
    numbers = np.array([[[30.0, 34.0], [70.0, 71.0]]])
    np.testing.assert_allclose(level_error(numbers, np.array([30.0, 70.0])), [2.0, 0.5])


def test_a_continuous_attribute_is_read_as_a_number(world) -> None:
    _, cohort = world
    probes = fit_probes(
        cohort.part("train"), cohort.part("validation"), ProbeSettings(attributes=["age"], size=32, steps=80)
    )
    assert probes.trusted["age"]
    test = cohort.part("test")
    images, target = test.pixels(size=32), probes.target("age")
    read = target.numbers(probes.read(images)["age"])
    error = np.abs(read - test.frame["age"]).mean()
    assert error < 0.7 * np.abs(test.frame["age"].median() - test.frame["age"]).mean()
    # What is redrawn "as 35" and "as 65" by hand: images that have about that age.
    young, old = (test.frame["age"] - 35).abs().argsort()[:6], (test.frame["age"] - 60).abs().argsort()[:6]
    meter = QualityMeter(probes, attribute="age", levels=["35", "60"])
    meter.add(images[:6], np.stack([images[young], images[old]], axis=1)[:, :, None], test.frame["age"][:6])
    report = meter.report()
    assert set(report.error) == {"35", "60"}
    assert max(report.error.values()) < 25
    assert report.auroc == {}
    assert report.composition is None
    assert min(report.effectiveness.values()) > 0.5
    assert report.attribute_readings.shape == (6, 2, 1, 2)


def test_quality_of_a_generator_with_a_continuous_attribute(world) -> None:
    _, cohort = world
    vae = build_generator("vae", size=32, attributes=("age",), steps=3, batch=8, channels=(8, 8), accelerator="cpu")
    vae.fit(cohort.part("train"), cohort.part("validation"), seed=0)
    part = cohort.part("test").take(range(4))
    images = part.pixels(size=32)
    cycles = cycle_composition(vae, images, part.frame, attribute="age", cycles=2)
    assert cycles[1].difference > 0
    assert cycles[1].similarity < 1
    assert there_and_back(vae, images, part.frame, attribute="age") > 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("vae", {"steps": 3, "batch": 8, "channels": (8, 8)}),
        ("dldm", {"preset": "tiny", "ae_steps": 2, "ae_channels": [8], "unet_channels": [16, 16], "denoiser_steps": 2}),
    ],
)
def test_values_of_a_number_are_redrawn_together_as_each_by_itself(world, monkeypatch, kind: str, options) -> None:
    _, cohort = world
    model = build_generator(kind, size=32, attributes=("age",), accelerator="cpu", **options)
    model.fit(cohort.part("train"), cohort.part("validation"), seed=0)
    part = cohort.part("test").take(range(5))
    images, values = part.pixels(size=32), [30.0, "41.5", 30, 77.25, 52]
    each = [
        model.generate(images[[k]], part.frame.iloc[[k]], attribute="age", levels=[value], seed=3)[0, 0, 0]
        for k, value in enumerate(values)
    ]
    asked, redraw = [], model.redraw
    monkeypatch.setattr(model, "redraw", lambda *given: asked.append(given) or redraw(*given))
    together = redraw_as(model, images, part.frame, attribute="age", levels=values, seed=3)
    assert np.array_equal(together, np.stack(each))
    assert len(asked) == 1  # not a batch, filled up with copies, for every value


def test_resnet34_probe_is_saved_and_read_back(world, tmp_path: Path) -> None:
    _, cohort = world
    probes = fit_probes(
        cohort.part("train"),
        cohort.part("validation"),
        ProbeSettings(attributes=["sex"], size=32, steps=2, batch_size=8, architecture="resnet34"),
    )
    assert sum(p.numel() for p in probes.net.parameters()) > 2e7
    assert probes.features(cohort.part("test").pixels([0, 1], size=32)).shape == (2, 512)
    probes.save(tmp_path)
    images = cohort.part("test").pixels([0, 1, 2], size=32)
    np.testing.assert_array_equal(load_probes(tmp_path).read(images)["sex"], probes.read(images)["sex"])
    with pytest.raises(InputError, match="Did you mean 'resnet34'"):
        fit_probes(cohort, cohort, ProbeSettings(attributes=["sex"], size=32, architecture="resnet43"))


def untrained() -> Probes:
    net = ProbeNet([2])
    net.eval()
    return Probes((Target("sex", ("female", "male")),), 32, net, {"sex": 1.0}, {"sex": True})


def test_inception_features_come_from_the_named_file(world, tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    file = tmp_path / "inception.pth"
    torch.save(inception_v3(weights=None, aux_logits=True, init_weights=False).state_dict(), file)
    extractor = load_extractor(f"inception_v3:{file}")
    sample, cohort = world
    part = cohort.part("test").take(range(3))
    images = part.pixels(size=32)
    found = extractor(images)
    assert found.shape == (3, 2048)
    assert np.ptp(found, axis=0).max() > 0
    meter = QualityMeter(untrained(), attribute="sex", levels=["female", "male"], extractor=extractor)
    redrawn = Oracle.of(sample).generate(images, part.frame, attribute="sex", levels=["female", "male"])
    meter.add(images, redrawn, part.frame["sex"])
    report = meter.report()
    assert report.fid_extractor == f"torchvision Inception-v3, weights {file.name}, 2048 features"
    assert report.fid is None  # 3 images, 2048 features
    assert np.isfinite(report.kid)


def test_torchxrayvision_features_come_from_the_named_file(world, tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    torch.manual_seed(0)
    file = tmp_path / "chest.safetensors"
    save_file(xrv.models.DenseNet(weights=None, num_classes=18).state_dict(), file)
    extractor = load_extractor(f"torchxrayvision:densenet121-res224-all:{file}")
    assert extractor.name == "torchxrayvision densenet121-res224-all, weights chest.safetensors, 1024 features"
    assert extractor(world[1].part("test").pixels([0, 1], size=32)).shape == (2, 1024)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inception", "Did you mean 'inception_v3'"),
        ("probe:x.pt", "takes no weights"),
        ("inception_v3:/nowhere/w.pth", r"no weights at '/nowhere/w.pth'.*nothing is downloaded"),
        ("torchxrayvision", "names no model"),
        ("torchxrayvision:densenet121-res224-al", "Did you mean 'densenet121-res224-all'"),
    ],
)
def test_extractors_refuse_and_nothing_falls_back(spec: str, message: str) -> None:
    if spec.startswith("torchxrayvision:"):
        pytest.importorskip("torchxrayvision")
    with pytest.raises(InputError, match=message):
        load_extractor(spec)


def test_extractors_refuse_weights_of_another_network(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="another network's"):
        load_extractor(f"inception_v3:{tmp_path / 'other.pth'}")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_extractor(f"inception_v3:{tmp_path / 'bad.pth'}")


def test_torchxrayvision_without_weights_in_its_cache_is_not_downloaded(monkeypatch, tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"not on this machine.*nothing is downloaded"):
        load_extractor("torchxrayvision:densenet121-res224-all")
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(InputError, match=r"pip install 'citlr\[xray\]'"):
        load_extractor("torchxrayvision:densenet121-res224-all")


def test_the_meter_refuses_what_it_cannot_measure(world) -> None:
    with pytest.raises(InputError, match="does not read 'race'"):
        QualityMeter(untrained(), attribute="race", levels=["a", "b"])
    with pytest.raises(InputError, match="does not know the level 'man'"):
        QualityMeter(untrained(), attribute="sex", levels=["female", "man"])
    images = np.zeros((1, 1, 32, 32), np.float32)
    meter = QualityMeter(untrained(), attribute="sex", levels=["female", "male"])
    with pytest.raises(InputError, match="'other' is no level that images were redrawn under"):
        meter.add(images, np.zeros((1, 2, 1, 1, 32, 32), np.float32), ["other"])


def test_memory_does_not_grow_with_the_square_of_the_images(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel distance goes by blocks of pairs, and only chosen images are described."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 5)), rng.normal(size=(50, 5)) + 0.2
    gram = [(x @ y.T / 5 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in gram[:2]]
    exact = own[0] + own[1] - 2 * gram[2].mean()
    for pairs in (10**6, 120, 1):
        monkeypatch.setattr("citlr.generators.quality.measures.PAIRS", pairs)
        assert kernel_distance(a, b) == pytest.approx(exact, rel=1e-9)
    images = world[1].pixels(size=32)[:6]
    meter = QualityMeter(untrained(), attribute="sex", levels=["female", "male"])
    redrawn = np.repeat(np.repeat(images[:, None, None], 2, axis=1), 3, axis=2)
    chosen = np.array([True, False, True, True, False, False])
    some, every = (meter.read(images, redrawn, ["male"] * 6, which) for which in (chosen, None))
    assert (some.described.shape[:2], every.described.shape[:2]) == ((3, 2), (6, 2))
    assert np.array_equal(some.described, every.described[chosen])
    assert some.count == every.count == 6


def test_saved_rivals_are_found_by_kind(world, tmp_path: Path) -> None:
    vae = build_generator("vae", size=32, steps=2, batch=8, channels=(8, 8), accelerator="cpu")
    vae.fit(world[1].part("train"), world[1].part("validation"), seed=0).save(tmp_path)
    assert type(load_generator(tmp_path)) is type(vae)
