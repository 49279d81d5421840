"""The ten networks: published head, gray images from 64 pixels up, first weights from where they can be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from citlr.errors import InputError
from citlr.predictors.export import make_card, save_weights
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec
from citlr.predictors.training import zoo
from citlr.predictors.training.zoo import ARCHITECTURES, PROBE, ZooNetwork, build_network
from citlr.predictors.weights import fill_module, read_weights
from citlr.run.files import sha256

LABELS = ["edema", "mass"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point torch to an empty cache folder of its own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_there_are_the_ten_of_the_publication() -> None:
    assert len(ARCHITECTURES) == 10
    assert PROBE not in ARCHITECTURES


@pytest.mark.parametrize("arch", [*ARCHITECTURES, PROBE])
def test_every_network_works_from_64_pixels_up_and_learns_in_every_part(arch: str) -> None:
    network, start = build_network(arch, LABELS, weights=None)
    assert start.kind == "random"
    assert "at random" in start.text
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = network(images)
    assert logits.shape == (2, 2)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    for head in network.heads:
        assert isinstance(head, nn.Sequential)
        assert [type(layer) for layer in head] == [nn.Dropout, nn.BatchNorm2d, nn.Conv2d]
        assert head[2].kernel_size == (1, 1)
    if arch in ("densenet121", "inception_v3"):
        assert network.eval()(torch.rand(1, 1, 96, 96)).shape == (1, 2)


def test_the_features_are_those_of_torchvision() -> None:
    """With the same weights, the backbone gives torchvision's features of a colour image of equal channels."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = models.resnet34(weights=None).eval().to(memory_format=torch.channels_last)
    network = ZooNetwork(PROBE, LABELS).eval()
    network.backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    whole.fc = nn.Identity()
    gray = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    colour = (gray.expand(-1, 3, -1, -1) - torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).reshape(3, 1, 1)
    pooled = whole(colour)
    expected = torch.cat([head(pooled[:, :, None, None]).flatten(1) for head in network.heads], dim=1)
    torch.testing.assert_close(network(gray), expected)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    first, second = (build_network(PROBE, LABELS, weights=None, seed=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_network(PROBE, LABELS, weights=None, seed=6)[0].state_dict()
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_cached_file_the_start_says_where_it_looked(cache: Path) -> None:
    _, start = build_network("densenet121", LABELS)
    assert start.kind == "random"
    assert "no ImageNet weights" in start.text
    assert "densenet121-a639ec97.pth" in start.text
    assert str(cache) in start.text


def test_cached_weights_are_found_and_checked_by_the_hash_in_their_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = models.resnet34(weights=None)
    torch.save(whole.state_dict(), cache / "w.pth")
    name = f"resnet34-{sha256(cache / 'w.pth')[:8]}.pth"
    (cache / "w.pth").rename(cache / name)
    monkeypatch.setitem(zoo._RECIPES, PROBE, replace(zoo._RECIPES[PROBE], cached=name))
    network, start = build_network(PROBE, LABELS)
    assert start.kind == "imagenet"
    assert start.sha256 == sha256(cache / name)
    assert torch.equal(network.backbone.state_dict()["conv1.weight"], whole.state_dict()["conv1.weight"])
    with (cache / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="is damaged"):
        build_network(PROBE, LABELS)


def test_the_dots_of_torchvisions_densenet_files_are_understood(tmp_path: Path) -> None:
    whole = models.densenet121(weights=None).state_dict()
    dotted = {}
    for name, value in whole.items():
        for part in ("norm", "conv"):
            for digit in "12":
                name = name.replace(f"denselayer1.{part}{digit}.", f"denselayer1.{part}.{digit}.")
        dotted[name] = value
    assert dotted.keys() != whole.keys()
    torch.save(dotted, tmp_path / "dense.pth")
    network, start = build_network("densenet121", LABELS, weights=tmp_path / "dense.pth")
    assert start.kind == "file"
    wanted = whole["features.denseblock1.denselayer1.conv1.weight"]
    assert torch.equal(network.backbone.state_dict()["features.denseblock1.denselayer1.conv1.weight"], wanted)


def test_a_checkpoint_rebuilds_its_network_and_starts_another(tmp_path: Path) -> None:
    network = build_network(PROBE, LABELS, weights=None, seed=1)[0].eval()
    path = tmp_path / "c.safetensors"
    save_weights(network, path, make_card(LABELS, input=InputSpec(size=64), **network.architecture()))
    images = np.random.default_rng(0).random((3, 1, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(load_predictor(path, device="cpu").predict(images), expected, atol=1e-6)
    some = load_predictor(path, labels=["mass"], device="cpu")
    np.testing.assert_allclose(some.predict(images), expected[:, 1:], atol=1e-6)
    other, _ = build_network(PROBE, ["other"], weights=path, seed=2)
    assert torch.equal(other.backbone.state_dict()["conv1.weight"], network.backbone.state_dict()["conv1.weight"])
    with pytest.raises(InputError, match=r"another architecture than model 'vgg13'.*missing"):
        build_network("vgg13", LABELS, weights=path)


@pytest.mark.parametrize(
    ("arch", "settings", "said"),
    [
        ("densnet121", {}, r"no network 'densnet121'\. Did you mean 'densenet121'"),
        (PROBE, {"dropout": 1.0}, r"dropout is 1\.0"),
        (PROBE, {"weights": "nowhere.pth"}, r"'nowhere\.pth' does not exist"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arch: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_network(arch, LABELS, **settings)


def test_a_pickle_as_first_weights_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "p.pth")
    with pytest.raises(InputError, match="is a pickle"):
        build_network(PROBE, LABELS, weights=tmp_path / "p.pth")


@pytest.mark.parametrize("arch", ["densenet121", "vgg13", "inception_v3"])
def test_networks_keep_the_order_that_convolutions_want(arch: str, tmp_path: Path) -> None:
    network, _ = build_network(arch, ["a"], weights=None, seed=0)
    wide = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in wide)
    save_weights(network, tmp_path / "a.safetensors", {})
    saved = read_weights(tmp_path / "a.safetensors")
    assert all(value.is_contiguous() for value in saved.values()), "files are in the order of every other tool"
    fill_module(network, saved, model="a", path="a")
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in wide)
