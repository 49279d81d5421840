"""Networks by name with local weights, and the page on models, as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
import yaml
from pages import ROOT, python

from citlr.config import ModelConfig
from citlr.errors import InputError, MissingExtraError
from citlr.predictors.loading import load_predictor

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
IMAGES = np.random.default_rng(0).random((2, 1, 64, 64), dtype=np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    safetensors.torch.save_file(torchvision.models.resnet18(num_classes=2).state_dict(), path)
    return path


def test_the_configuration_of_the_page_gives_what_the_network_gives(weights: Path) -> None:
    settings = ModelConfig.model_validate(
        yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])["model"]
    )
    model = load_predictor(
        settings.source,
        weights=weights,
        labels=settings.labels,
        input=settings.input,
        output=settings.output,
        device="cpu",
    )
    network = torchvision.models.resnet18(num_classes=2)
    network.load_state_dict(safetensors.torch.load_file(weights))
    seen = torch.nn.functional.interpolate(torch.from_numpy(IMAGES), (224, 224), mode="bilinear", antialias=True)
    seen = (seen - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.inference_mode():
        expected = torch.sigmoid(network.eval()(seen).double()).numpy()
    np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-4)


def test_a_network_as_it_comes_has_its_thousand_outputs(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "net.pt")
    model = load_predictor(
        "torchvision:squeezenet1_1",
        weights=tmp_path / "net.pt",
        labels=["cat"],
        columns=[281],
        input={"size": 64, "channels": 3},
        output={"kind": "logit", "activation": "softmax"},
        device="cpu",
    )
    assert model.predict(IMAGES).shape == (2, 1)


def test_a_network_that_is_shown_images_without_mean_and_std_says_so(weights: Path) -> None:
    said = []
    for normalised in ({}, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}):
        input = {"size": 64, "channels": 3, **normalised}
        model = load_predictor("torchvision:resnet18", weights=weights, labels=["a", "b"], input=input, device="cpu")
        said.append(model.remarks)  # type: ignore[attr-defined]
    assert said[1] == ()
    assert "mean: [0.485, 0.456, 0.406]" in said[0][0]


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_a_network_that_may_change_its_input_is_left_to_a_factory(weights: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"transform_input .* name file\.py:function"):
        load_predictor(f"torchvision:{name}", weights=weights, labels=["a", "b"], device="cpu")


def test_what_does_not_fit_is_one_sentence(weights: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean 'resnet18'\?"):
        load_predictor("torchvision:resnet_18", weights=weights, labels=["a", "b"])
    with pytest.raises(InputError, match="nothing is downloaded"):
        load_predictor("torchvision:resnet18", labels=["a", "b"])
    with pytest.raises(InputError, match="another architecture"):
        load_predictor("torchvision:densenet121", weights=weights, labels=["a", "b"])


def test_timm_is_an_extra_and_its_networks_come_by_name(tmp_path: Path) -> None:
    try:
        import timm
    except ImportError:
        torch.save({"a": torch.zeros(1)}, tmp_path / "net.pt")
        with pytest.raises(MissingExtraError, match=r"citlr\[timm\]"):
            load_predictor("timm:resnet18", weights=tmp_path / "net.pt", labels=["a"])
        return
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), tmp_path / "net.pt")
    model = load_predictor(
        "timm:resnet18",
        weights=tmp_path / "net.pt",
        labels=["a", "b", "c"],
        input={"size": 64, "channels": 3},
        output="logit",
        device="cpu",
    )
    assert model.predict(IMAGES).shape == (2, 3)


def test_the_python_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in python("models.md"):
        exec(block, {})
    assert capsys.readouterr().out.strip() == "True ('pneumonia', 'edema')"


def test_a_network_of_torchvision_that_comes_as_an_object_is_told_its_mean_and_std(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=2)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "net.py").write_text(
        "import torchvision\n\ndef make():\n    return torchvision.models.squeezenet1_1(num_classes=2)\n"
    )
    three = {"size": 64, "channels": 3}
    own = {**three, "mean": [0.5] * 3, "std": [0.25] * 3}
    inside = torch.nn.Sequential(torch.nn.Identity(), network)
    for found, input_, told in (
        (network, three, True),
        (network, own, False),
        (network, {"size": 64}, False),
        (inside, three, False),
        (f"{tmp_path / 'net.py'}:make", three, True),
    ):
        weights = {} if not isinstance(found, str) else {"weights": tmp_path / "w.safetensors"}
        model = load_predictor(found, labels=["a", "b"], input=input_, output="logit", device="cpu", **weights)
        said = "is shown images without mean and std, and torchvision trains it with both: declare input: {channels: 3"
        assert [said in remark for remark in model.remarks] == ([True] if told else [])
