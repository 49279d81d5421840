"""Local Hugging Face folders as models under audit, as `save_pretrained` writes them, without a network."""

from __future__ import annotations

import json
import re
import shutil
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
from citlr.errors import InputError, MissingExtraError
from citlr.predictors.adapters.huggingface import card_input, input_remarks
from citlr.predictors.loading import load_predictor
from citlr.simulators.phantom.world import PhantomWorld

try:
    import transformers
except ImportError:
    transformers = None
needed = pytest.mark.skipif(
    transformers is None, reason="transformers is not installed: pip install 'citlr[huggingface]'"
)
IMAGES = np.random.default_rng(0).random((3, 1, 48, 48), dtype=np.float32)
PROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
LABELS = {0: "edema", 1: "cardiomegaly"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision transformer of two findings, which is not to be changed."""
    folder = tmp_path_factory.mktemp("hub") / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        **SHAPE, image_size=32, id2label=LABELS, label2id={}, problem_type="multi_label_classification"
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "vit"))


def edit(file: Path, **changes: Any) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def seen(folder: Path) -> torch.Tensor:
    """What the network itself gives for the images as its processor would prepare them."""
    network = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    small = torch.nn.functional.interpolate(torch.from_numpy(IMAGES), (32, 32), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(PROCESSOR[name])[:, None, None] for name in ("image_mean", "image_std"))
    with torch.inference_mode():
        return network((small - mean) / std).logits.double()


def test_an_adapter_beside_the_weights_is_not_left_out_in_silence(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"holds an adapter to its weights, such as LoRA .* merge both"):
        load_predictor(tmp_path, device="cpu")
    (tmp_path / "config.json").unlink()  # as peft saves it, by itself
    with pytest.raises(InputError, match=r"holds an adapter to its weights, such as LoRA .* merge both"):
        load_predictor(tmp_path, device="cpu")


@needed
def test_labels_size_mean_and_activation_are_taken_from_the_folder(folder: Path) -> None:
    model = load_predictor(folder, device="cpu")
    assert (model.labels, model.name) == (("edema", "cardiomegaly"), "vit")
    assert (model.input.size, model.input.channels, model.input.high) == ((32, 32), 3, 1.0)
    np.testing.assert_allclose(model.predict(IMAGES), torch.sigmoid(seen(folder)).numpy(), atol=1e-5)
    only = load_predictor(folder, labels=["cardiomegaly"], device="cpu")
    np.testing.assert_allclose(only.predict(IMAGES)[:, 0], model.predict(IMAGES)[:, 1])
    assert load_predictor(folder, device="cpu").fingerprint() == model.fingerprint()


@needed
def test_one_of_several_classes_is_a_softmax(folder: Path) -> None:
    edit(folder / "config.json", problem_type="single_label_classification")
    model = load_predictor(folder, labels=["cardiomegaly"], device="cpu")
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], seen(folder).softmax(dim=1)[:, 1].numpy(), atol=1e-5)


@needed
def test_other_networks_and_sharded_weights_are_read(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_channels=1, num_labels=3,
        problem_type="multi_label_classification",
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net", max_shard_size="4KB")
    assert (tmp_path / "net" / "model.safetensors.index.json").is_file()
    input = {"size": 32}
    with pytest.raises(InputError, match="name them with 'labels'"):
        load_predictor(tmp_path / "net", input=input, device="cpu")
    model = load_predictor(tmp_path / "net", labels=["a", "b", "c"], input=input, device="cpu")
    assert model.predict(IMAGES).shape == (3, 3)


@needed
def test_a_declared_part_leaves_the_rest_to_the_folder(folder: Path) -> None:
    edit(folder / "config.json", problem_type="single_label_classification")
    whole = load_predictor(folder, labels=["cardiomegaly"], device="cpu")
    part = load_predictor(folder, labels=["cardiomegaly"], input={"size": 32}, output="logit", device="cpu")
    np.testing.assert_array_equal(part.predict(IMAGES), whole.predict(IMAGES))
    edit(folder / "preprocessor_config.json", size={"max_height": 32})
    part = load_predictor(folder, labels=["cardiomegaly"], input={"size": 32}, device="cpu")
    np.testing.assert_array_equal(part.predict(IMAGES), whole.predict(IMAGES))


STEPS: list[tuple[dict[str, Any], str]] = [
    ({"image_processor_type": "EfficientNetImageProcessor"}, r"std: \[0.04, 0.0625, 0.09\]"),
    ({"image_processor_type": "MobileViTImageProcessor", "do_normalize": None}, r"std: \[1.0, 1.0, 1.0\]"),
    ({"do_normalize": None, "image_mean": None, "image_std": None}, r"mean: \[0.5, 0.5, 0.5\]"),
    (
        {"image_processor_type": "MobileViTImageProcessor", "image_mean": None, "do_normalize": None},
        "channels in another order",
    ),
]


@needed
@pytest.mark.parametrize(("changes", "said"), STEPS)
def test_a_processor_that_does_more_than_its_file_says_is_refused(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(InputError, match=said):
        load_predictor(folder, device="cpu")
    declared = {"channels": 3, "low": 0, "high": 1, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert load_predictor(folder, input=declared, device="cpu").input.std == (0.5, 0.5, 0.5)


@needed
def test_weights_count_under_whatever_name_they_are_loaded(folder: Path) -> None:
    import safetensors.torch

    first = load_predictor(folder, device="cpu").fingerprint()
    whole = safetensors.torch.load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(whole, "part.safetensors")}
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_predictor(folder, device="cpu").fingerprint() == first, "the same network in other files"
    whole["classifier.bias"] += 1
    safetensors.torch.save_file(whole, folder / "part.safetensors", metadata={"format": "pt"})
    assert load_predictor(folder, device="cpu").fingerprint() != first


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def without_head(folder: Path) -> None:
    import safetensors.torch

    state = safetensors.torch.load_file(folder / "model.safetensors")
    body = {name: value for name, value in state.items() if "classifier" not in name}
    safetensors.torch.save_file(body, folder / "model.safetensors", metadata={"format": "pt"})


BAD: list[tuple[Callable[[Path], None], str]] = [
    (remove("config.json"), "is a folder; give a file, a Hugging Face folder"),
    (remove("model.safetensors"), "has no model.safetensors"),
    (remove("preprocessor_config.json"), "has no preprocessor_config.json"),
    (pickled, "pickled weights"),
    (config(problem_type=None), "declare output"),
    (config(problem_type="regression"), "no classification"),
    (config(auto_map={"AutoModel": "code.Net"}), "brings code of its own"),
    (config(id2label={"0": "edema", "2": "x"}), "a name for each output"),
    (config(model_type="nothing"), "cannot be read as an image classifier"),
    (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "a mapping is due"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 99), "cannot be read as an image classifier"),
    (lambda folder: edit(folder / "preprocessor_config.json", image_std=None), "nothing of image_std"),
    (without_head, "lack 2 tensors"),
]


@needed
@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_is_missing_or_damaged_is_one_sentence(folder: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        load_predictor(folder, device="cpu")
    assert "\n" not in str(error.value)


@needed
def test_pickled_weights_are_read_where_they_are_trusted(folder: Path) -> None:
    import safetensors.torch

    expected = load_predictor(folder, device="cpu").predict(IMAGES)
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="is a pickle"):
        model = load_predictor(folder, trust=True, device="cpu")
    np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-6)


@needed
def test_the_configuration_of_the_page_leads_into_an_audit(folder: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    block = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    model = yaml.safe_load(block)["model"]
    assert ModelConfig.model_validate(model).source == "vit"
    PhantomWorld(size=32).sample(200, seed=0, images_per_patient=1).write(tmp_path / "world")
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**CONFIG, "model": model}))
    done = citlr("audit", "audit.yaml", "--out", "run", "--until", "cohort", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder / "preprocessor_config.json").unlink()
    done = citlr("audit", "audit.yaml", "--out", "run", "--quiet", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no preprocessor_config.json" in done.stderr


def test_without_transformers_the_extra_is_named(tmp_path: Path) -> None:
    if transformers is not None:
        pytest.skip("transformers is installed: what is said without it cannot be seen")
    (tmp_path / "config.json").write_text(json.dumps({"problem_type": "multi_label_classification"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"citlr\[huggingface\]"):
        load_predictor(tmp_path, labels=["a"], device="cpu")


def test_a_folder_of_something_else_and_a_file_in_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give a file"):
        load_predictor(tmp_path, labels=["a"])
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="give the Hugging Face folder"):
        load_predictor(tmp_path / "model.safetensors", kind="huggingface", labels=["a"])
    with pytest.raises(InputError, match="is a folder; give a file"):
        load_predictor(tmp_path, kind="onnx", labels=["a"])


def test_what_processors_do_is_said_in_our_words() -> None:
    cropped = {**PROCESSOR, "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "resample": 3}
    assert card_input(cropped, {}, "m")["size"] == (224, 224)
    assert len(input_remarks(cropped, "m")) == 2
    assert input_remarks(PROCESSOR, "m") == ()
    offset = card_input({**PROCESSOR, "rescale_factor": 1 / 127.5, "rescale_offset": True}, {}, "m")
    assert (offset["low"], offset["high"]) == (-1.0, 1.0)
    assert card_input({"do_rescale": False, "size": 8}, {"num_channels": 1}, "m") == {
        "channels": 1, "low": 0.0, "high": 255.0, "size": (8, 8)
    }  # fmt: skip
    for broken in ({"size": "large"}, {"size": {"longest": 4}}, {"size": [1, 2, 3]}):
        with pytest.raises(InputError, match="declare input"):
            card_input({**PROCESSOR, **broken}, {}, "m")
