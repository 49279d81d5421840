"""MONAI bundles as models under audit, in the layout of the model zoo, with weights of a small network."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from as_user import CONFIG, citlr
from pages import ROOT

from citlr.config import ModelConfig
from citlr.errors import InputError
from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor
from citlr.simulators.phantom.world import PhantomWorld

IMAGES = np.random.default_rng(0).random((3, 1, 40, 48), dtype=np.float32)
SHAPE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4, "growth_rate": 4}
SHAPE |= {"block_config": [1, 1]}
METADATA: dict[str, Any] = {
    "network_data_format": {
        "inputs": {
            "image": {"type": "image", "num_channels": 1, "spatial_shape": [32, 24], "value_range": [-1, 1]},
        },
        "outputs": {
            "pred": {
                "type": "probabilities", "format": "classes", "num_channels": 2, "spatial_shape": [1, 2],
                "value_range": [0, 1], "channel_def": {"1": "cardiomegaly", "0": "edema"},
            }
        },
    }
}  # fmt: skip
INFERENCE: dict[str, Any] = {
    "imports": ["$import os"],
    "bundle_root": "/workspace/elsewhere",
    "test_file": "$open('/nowhere')",
    "features": "$len(os.path.join('ab', 'c'))",
    "network_def": {"_target_": "DenseNet", **SHAPE, "init_features": "@features"},
    "postprocessing": {"transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]},
}  # fmt: skip
LOADED = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]


def network() -> torch.nn.Module:
    """Build a small network of MONAI, which takes seconds to import: every worker would spend them at collection."""
    from monai.networks.nets import DenseNet

    torch.manual_seed(0)
    return DenseNet(**SHAPE).eval()


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (folder / "configs" / "inference.json").write_text(json.dumps(INFERENCE))
    torch.save(network().state_dict(), folder / "models" / "model.pt")
    return folder


def load(folder: Path, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is the configuration of a MONAI bundle")
        return load_predictor(folder, trust=True, device="cpu", **more)


def prepare(*steps: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content.update(preprocessing={"_target_": "Compose", "transforms": [*LOADED, *steps]})


def small(size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(torch.from_numpy(IMAGES), size, mode="bilinear", antialias=True)


def probabilities(images: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        return network()(images).sigmoid().numpy()


def test_labels_size_scale_and_activation_are_taken_from_the_bundle(bundle: Path) -> None:
    with pytest.warns(UserWarning, match="configuration of a MONAI bundle and is read with trust=True"):
        model = load_predictor(bundle, trust=True, device="cpu")
    assert (model.labels, model.name, model.remarks) == (("edema", "cardiomegaly"), "bundle", ())
    assert (model.input.size, model.input.channels) == ((32, 24), 1)
    np.testing.assert_allclose(model.predict(IMAGES), probabilities(small((32, 24)) * 2 - 1), atol=1e-6)
    again = load(bundle, labels=["cardiomegaly"])
    np.testing.assert_allclose(again.predict(IMAGES)[:, 0], model.predict(IMAGES)[:, 1])
    assert load(bundle).fingerprint() == model.fingerprint() != again.fingerprint()
    check_predictor(model, IMAGES)


def test_images_go_through_the_bundles_own_preparation(bundle: Path) -> None:
    norm = {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}
    size = {"_target_": "Resized", "keys": ["image"], "spatial_size": [24, 32]}
    edit(bundle / "configs" / "inference.json", prepare(size, norm, {"_target_": "CastToTyped", "keys": "image"}))
    model = load(bundle)
    # MONAI's readers give the width first: what it resizes to 24 by 32 is 32 high
    assert (model.input.size, model.input.high) == ((32, 24), 255.0)
    seen = small((32, 24)).transpose(2, 3) * 255
    flat = seen.flatten(1)
    spread = flat.std(dim=1, correction=0)
    seen = (seen - flat.mean(dim=1)[:, None, None, None]) / spread[:, None, None, None]
    np.testing.assert_allclose(model.predict(IMAGES), probabilities(seen), atol=1e-5)
    assert "through the preprocessing of bundle 'bundle' (Resized, NormalizeIntensityd, " in model.remarks[0]
    assert "width before height" in model.remarks[1]


def test_a_range_of_the_preparation_is_the_scale_of_its_files(bundle: Path) -> None:
    span = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 1000, "b_min": -1, "b_max": 1}

    def change(content: dict[str, Any]) -> None:
        prepare(span)(content)
        content["preprocessing"]["transforms"][0].update(reader="ITKReader", reverse_indexing=True)

    edit(bundle / "configs" / "inference.json", change)
    model = load(bundle)
    assert (model.input.size, model.input.high) == ((32, 24), 1000.0)
    np.testing.assert_allclose(model.predict(IMAGES), probabilities(small((32, 24)) * 2 - 1), atol=1e-5)
    # what is declared takes its place
    declared = load(bundle, input={"size": [32, 24], "low": -1})
    np.testing.assert_allclose(declared.predict(IMAGES), model.predict(IMAGES), atol=1e-5)


def test_yaml_own_scripts_and_nested_weights_are_read(bundle: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text(
        "from monai.networks.nets import DenseNet\n\n\n"
        f"def make(pretrained):\n    assert not pretrained\n    return DenseNet(**{SHAPE})\n"
    )
    inference = {**INFERENCE, "network_def": {"_target_": "scripts.net.make", "pretrained": True}}
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(inference))
    (bundle / "configs" / "inference.json").unlink()
    torch.save({"model": network().state_dict()}, bundle / "models" / "model.pt")
    model = load(bundle)
    np.testing.assert_allclose(model.predict(IMAGES), probabilities(small((32, 24)) * 2 - 1), atol=1e-6)
    assert "scripts.net" not in sys.modules, "another bundle has scripts of the same name"
    assert str(bundle) not in sys.path
    before = model.fingerprint()
    with (bundle / "scripts" / "net.py").open("a") as file:
        file.write("# changed\n")
    assert load(bundle).fingerprint() != before
    torch.save({"model": network().state_dict(), "at": Path("a")}, bundle / "models" / "model.pt")
    with pytest.warns(UserWarning, match="is a pickle and is read with trust=True"):
        load(bundle)


def test_all_code_and_data_that_a_config_names_count(bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    net = f"from monai.networks.nets import DenseNet\ndef make():\n    return DenseNet(**{SHAPE})\n"
    shifted = "class Net(DenseNet):\n    def forward(self, x): return super().forward(x) + {}\n"
    (bundle / "nets").mkdir()
    (bundle / "configs" / "network.json").write_text(json.dumps({"shift": 1}))
    (tmp_path / "aside.py").write_text(net + shifted.format(1) + f"def made():\n    return Net(**{SHAPE})\n")
    monkeypatch.syspath_prepend(tmp_path)

    def named(target: str) -> str:
        edit(bundle / "configs" / "inference.json", lambda content: content.update(network_def={"_target_": target}))
        return load(bundle).fingerprint()

    (bundle / "nets" / "net.py").write_text(net)
    first = named("nets.net.make")
    assert first.startswith("sha256:")
    assert named("nets.net.make") == first
    (bundle / "configs" / "network.json").write_text(json.dumps({"shift": 2}))
    second = named("nets.net.make")
    (bundle / "nets" / "net.py").write_text(net + "# changed\n")
    assert len({first, second, named("nets.net.make")}) == 3
    beside = named("aside.made")
    del sys.modules["aside"]
    (tmp_path / "aside.py").write_text((tmp_path / "aside.py").read_text().replace("+ 1", "+ 25"))
    assert named("aside.made") != beside


def test_a_scripted_network_is_read_too(bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.* is deprecated")
        torch.jit.save(torch.jit.trace(network(), torch.zeros(1, 1, 32, 24)), bundle / "models" / "model.ts")
    (bundle / "models" / "model.pt").unlink()
    model = load(bundle)
    assert "is TorchScript" in model.remarks[-1]
    np.testing.assert_allclose(model.predict(IMAGES), probabilities(small((32, 24)) * 2 - 1), atol=1e-6)


def side(name: str, part: str, **changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        edit(folder / "configs" / "metadata.json", lambda c: c["network_data_format"][name][part].update(changes))

    return spoil


def second_input(folder: Path) -> None:
    edit(folder / "configs" / "metadata.json", lambda c: c["network_data_format"]["inputs"].update(mask={}))


def inference(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "configs" / "inference.json", lambda content: content.update(changes))


def random_step(folder: Path) -> None:
    edit(folder / "configs" / "inference.json", prepare({"_target_": "RandFlipd", "keys": "image"}))


BAD: list[tuple[Callable[[Path], None], str]] = [
    (side("inputs", "image", spatial_shape=[32, 32, 32]), "takes images of 3 dimensions"),
    (side("inputs", "image", num_channels=4), "takes 4 channels"),
    (side("inputs", "image", value_range=[]), "no value_range"),
    (side("outputs", "pred", spatial_shape=[32, 24]), "is no image classifier"),
    (side("outputs", "pred", format="segmentation"), "is no image classifier"),
    (side("outputs", "pred", channel_def={"0": "edema"}), "name them with 'labels'"),
    (second_input, "has 2 inputs (image, mask)"),
    (lambda folder: (folder / "configs" / "metadata.json").write_text("{}"), "does not say its inputs"),
    (lambda folder: (folder / "configs" / "inference.json").unlink(), "has no configs/inference.json"),
    (lambda folder: (folder / "models" / "model.pt").unlink(), "has no network"),
    (inference(network_def={"_target_": "DenseNet", **SHAPE, "growth_rate": 8}), "of another architecture"),
    (inference(network_def="$1"), "makes a int, which is no network"),
    (inference(network_def={"_target_": "nowhere.Net"}), "cannot be loaded"),
    (inference(postprocessing=None), "declare output"),
    (random_step, "prepares images by chance (RandFlip"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_is_no_classifier_or_is_missing_is_one_sentence(
    bundle: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(bundle)
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        load(bundle)
    assert "\n" not in str(error.value)


def test_the_configuration_of_the_page_leads_into_an_audit(bundle: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "bundle" in one)
    model = yaml.safe_load(block)["model"]
    assert ModelConfig.model_validate(model).trust
    PhantomWorld(size=32).sample(200, seed=0, images_per_patient=1).write(tmp_path / "world")
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**CONFIG, "model": model}))
    done = citlr("audit", "audit.yaml", "--out", "run", "--until", "cohort", "--quiet", cwd=tmp_path)
    assert (done.returncode, "is read with trust=True" in done.stderr) == (0, True), done.stderr


def test_code_of_a_bundle_is_not_run_unless_it_is_trusted(bundle: Path) -> None:
    inference(network_def="$open('ran', 'w')")(bundle)
    with pytest.raises(InputError, match="can run any code: trust it"):
        load_predictor(bundle, device="cpu")
    assert not Path("ran").exists()
