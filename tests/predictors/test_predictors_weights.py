"""Weights under any name and prefix are found or named; damaged files, cards and odd paths are one sentence."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from graphs import write_graph
from onnx import TensorProto
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from citlr.errors import InputError
from citlr.predictors.export import export_torchscript, make_card
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
IMAGES = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
State = dict[str, Any]


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)
        )


def below(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


GOOD: State = net(1).state_dict()
OTHER: State = net(2).state_dict()


def filled(folder: Path, content: object, **settings: Any) -> np.ndarray:
    torch.save(content, folder / "c.pth")
    model = load_predictor(
        net(), weights=folder / "c.pth", labels=["flu"], output="logit", device="cpu", name="net", **settings
    )
    return model.predict(IMAGES)


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "model_state_dict": GOOD, "loss": 0.1},
        {"state_dict": GOOD, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        {"net": GOOD, "best": torch.tensor(0.9)},
        {"checkpoint": {"weights": {"net": GOOD}}},
        {"generator": nn.Linear(2, 2).state_dict(), "discriminator": GOOD},
        {"model": GOOD, "ema": GOOD},
        below("module.", GOOD),
        below("_orig_mod.", GOOD),
        below("module._orig_mod.", GOOD),
        {"state_dict": {**below("model.", GOOD), "criterion.weight": torch.ones(2)}},
        {name: value for name, value in GOOD.items() if "num_batches_tracked" not in name},
        {name: value.double() if value.is_floating_point() else value for name, value in GOOD.items()},
    ],
)
def test_weights_are_found_under_any_name(tmp_path: Path, content: object) -> None:
    expected = load_predictor(net(1), labels=["flu"], output="logit", device="cpu").predict(IMAGES)
    np.testing.assert_array_equal(filled(tmp_path, content), expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": GOOD, "ema": OTHER}, r"hold 2 different sets for model 'net' \('model', 'ema'\)"),
        (
            {"state_dict": {**below("model.", GOOD), **below("model_ema.", OTHER)}},
            r"2 different sets .*'state_dict\.model', 'state_dict\.model_ema'",
        ),
        ({"epoch": 3, "history": [0.1]}, r"holds no state_dict .*, but 'epoch', 'history'"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, "holds no state_dict"),
        ([GOOD], "holds no state_dict"),
        (below("fc.", GOOD) | {"conv.weight": torch.ones(1)}, "another architecture than model 'net'"),
        ({name: (100 * value).to(torch.int8) for name, value in GOOD.items()}, "are quantised: .* of whole numbers"),
        ({name: value * float("nan") for name, value in GOOD.items()}, "4 of 4 values that are NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        filled(tmp_path, content)


def test_a_whole_model_takes_no_weights_and_is_none(tmp_path: Path) -> None:
    export_torchscript(net(), tmp_path / "m.ts", make_card(["flu"], input=InputSpec(size=8)))
    torch.save(GOOD, tmp_path / "w.pt")
    with pytest.raises(InputError, match="is a whole model, and weights are given besides"):
        load_predictor(tmp_path / "m.ts", weights=tmp_path / "w.pt", device="cpu")
    with pytest.raises(InputError, match="is a TorchScript archive, which is a whole model: name it as the source"):
        load_predictor(net(), weights=tmp_path / "m.ts", labels=["flu"], device="cpu")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_is_fed_the_precision_of_its_weights(tmp_path: Path, kind: torch.dtype) -> None:
    module = net(1).eval().to(kind)
    torch.jit.trace(module, torch.zeros(2, 1, 8, 8, dtype=kind), check_trace=False).save(tmp_path / "m.ts")
    with torch.inference_mode():
        expected = torch.sigmoid(module(torch.from_numpy(IMAGES).to(kind)).double()).numpy()
    for source in (module, tmp_path / "m.ts"):
        model = load_predictor(source, labels=["flu"], output="logit", device="cpu")
        np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-12)


def test_a_module_that_wants_other_numbers_is_told_so() -> None:
    class Bytes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.embedding(x, torch.ones(256, 1)).mean((1, 2, 3))

    with pytest.raises(InputError, match=r"The batch holds float32 numbers.* wrap a model that takes other numbers"):
        load_predictor(Bytes(), labels=["flu"], device="cpu").predict(IMAGES)
    mixed = net()
    mixed[0].half()  # type: ignore[operator]
    with pytest.raises(InputError, match=r"failed on a float16 batch.*make all weights float16"):
        load_predictor(mixed, labels=["flu"], output="logit", device="cpu").predict(IMAGES)


def test_channels_and_layout_are_named() -> None:
    with pytest.raises(InputError, match=r"Declare input: \{channels: 3\}\."):
        load_predictor(nn.Sequential(nn.Conv2d(3, 1, 8)), labels=["flu"], device="cpu").predict(IMAGES)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.permute(0, 3, 1, 2))

    with pytest.raises(InputError, match=r"Declare input: \{layout: channels_last\}"):
        load_predictor(Last(), labels=["flu"], output="logit", device="cpu").predict(IMAGES)


def fitted(path: Path) -> None:
    joblib.dump(LogisticRegression().fit(IMAGES.reshape(4, -1), [0, 1, 0, 1]), path)


def zoo(path: Path) -> None:
    card = make_card(["flu"], input=InputSpec(size=64), arch="resnet34")
    save_file({"a": torch.zeros(64)}, path, metadata={"citlr.json": json.dumps(card)})


WRITERS: dict[str, Callable[[Path], Any]] = {
    "m.ts": lambda path: export_torchscript(net(), path, make_card(["flu"], input=InputSpec(size=8))),
    "m.onnx": write_graph,
    "m.safetensors": zoo,
    "m.pt": lambda path: torch.save(GOOD, path),
    "m.joblib": fitted,
}


@pytest.mark.filterwarnings("ignore:.*is a pickle")
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_short_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError) as caught:
            load_predictor(path, labels=["flu"], trust=name == "m.joblib", device="cpu")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.ts", "m.pt"])
def test_a_flipped_bit_in_an_archive_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        part = max((entry for entry in archive.infolist() if "/data/" in entry.filename), key=lambda e: e.file_size)
    # the stored bytes of a part lie behind its header, and before the next part
    values = GOOD["0.weight"] if name == "m.pt" else net().state_dict()["0.weight"]
    start = content.find(values.numpy().tobytes()[:16], part.header_offset if name == "m.pt" else 0)
    assert start > 0
    content[start + 3] ^= 1
    path.write_bytes(content)
    source, settings = (net(), {"weights": path}) if name == "m.pt" else (path, {})
    with pytest.raises(InputError, match=r"is damaged: its part '.*' has another checksum"):
        load_predictor(source, labels=["flu"], output="logit", device="cpu", **settings)


CARDS = {
    "{bad": "it is no JSON",
    "[" * 100_000: "nested too deeply",
    "[]": r"it is \[\], not a mapping",
    '"flu"': "it is 'flu', not a mapping",
    '{"labels": 5}': "its labels are 5: give a list of names",
    '{"labels": "flu"}': "its labels are 'flu': give a list of names",
    '{"labels": [1, 2]}': "A label is 1; give a name",
    '{"labels": []}': "at least one label",
    '{"labels": ["a", "a"]}': "named more than once",
    '{"labels": ["a"], "input": 5}': "its input is 5",
    '{"labels": ["a"], "input": {"size": "32"}}': "size='32': this is text",
    '{"labels": ["a"], "input": {"colour": 3}}': "no setting 'colour'",
    '{"labels": ["a"], "output": {"kind": "odds"}}': "output is 'odds'",
    '{"arch": ["x"], "labels": ["a"]}': r"its arch is \['x'\]",
    '{"arch": "resnet34"}': "it names an architecture and no labels",
    '{"arch": "resnet34", "labels": ["a"], "dropout": "much"}': "its dropout is 'much'",
    json.dumps({"labels": ["a" * 2_000_000]}): "no card has more than",
}


@pytest.mark.parametrize("card", CARDS, ids=lambda text: text[:40])
@pytest.mark.parametrize("name", ["m.ts", "m.safetensors"])
def test_a_card_that_cannot_be_is_one_sentence(tmp_path: Path, name: str, card: str) -> None:
    path = tmp_path / name
    if name == "m.ts":
        torch.jit.trace(net().eval(), torch.zeros(2, 1, 8, 8)).save(path, _extra_files={"citlr.json": card})
    else:
        save_file({"a": torch.zeros(1)}, path, metadata={"citlr.json": card})
    with pytest.raises(InputError, match=f"The card in .*{name}.*{CARDS[card]}") as caught:
        load_predictor(path, device="cpu")
    assert len(str(caught.value)) < 1001


def test_an_unknown_architecture_in_a_card_is_named(tmp_path: Path) -> None:
    card = json.dumps({"arch": "resnet35", "labels": ["a"]})
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"citlr.json": card})
    with pytest.raises(InputError, match=r"no network 'resnet35'\. Did you mean 'resnet34'"):
        load_predictor(tmp_path / "m.safetensors", device="cpu")


def test_a_declaration_against_the_card_is_used_and_remarked(tmp_path: Path) -> None:
    export_torchscript(net(), tmp_path / "m.ts", make_card(["flu"], input=InputSpec(size=8)))
    model = load_predictor(tmp_path / "m.ts", output="probability", device="cpu")
    assert "is declared to have output.kind: 'probability', and its file says 'logit'" in model.remarks[0]  # type: ignore[attr-defined]
    (remark,) = load_predictor(tmp_path / "m.ts", output="logit", device="cpu").remarks  # type: ignore[attr-defined]
    assert "which torch no longer develops" in remark


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe.onnx", "is a named pipe; give a file"),
        ("link.pt", "is a named pipe; give a file"),
        ("folder.ts", "is a folder; give a file"),
        ("loop.ts", "neither a file nor an import path"),
        ("a\0b.ts", "neither a file nor an import path"),
        ("a" * 5000 + ".ts", "neither a file nor an import path"),
        ("a" * 300 + ".py:model", "does not exist"),
        ("script.py", "is a Python file: add the name of the model"),
        ("http://example.com/m.onnx", "is an address: download the file"),
    ],
)
def test_a_path_that_is_no_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.onnx")
    Path("link.pt").symlink_to("pipe.onnx")
    Path("loop.ts").symlink_to("loop.ts")
    Path("folder.ts").mkdir()
    Path("script.py").write_text("")
    with pytest.raises(InputError, match=said) as caught:
        load_predictor(name, labels=["flu"])
    assert len(str(caught.value)) < 600
    if "py" not in name and "http" not in name:
        with pytest.raises(InputError, match=r"does not exist|give a file"):
            load_predictor(net(), weights=name, labels=["flu"], device="cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": 5}, "labels is 5; give a list of names"),
        ({"labels": [1]}, "A label is 1; give a name"),
        ({"labels": ["  "]}, "A label is '  '"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
        ({"device": 5}, "Device is 5"),
        ({"device": "meta"}, "Device 'meta' cannot be used"),
        ({"trust": "no"}, "trust is 'no'; give True or False"),
        ({"name": [1]}, r"name is \[1\]"),
        ({"kind": ["onnx"]}, r"kind is \['onnx'\]"),
        ({"weights": 5}, "Weights file is 5; give a path"),
        ({"columns": [0.5]}, r"columns=\[0\.5\]"),
        ({"columns": [1], "output": {"columns": [0]}}, "give one of them"),
    ],
)
def test_a_setting_of_a_wrong_type_is_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_predictor(net(), **{"labels": ["flu"], "device": "cpu", **settings})


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT32, TensorProto.UINT16, TensorProto.INT64])
def test_a_graph_of_whole_numbers_is_fed_them(tmp_path: Path, kind: int) -> None:
    write_graph(tmp_path / "m.onnx", kind=kind, weight=1 / 255)
    rounded = np.rint(IMAGES * 255)
    settings: dict[str, Any] = {"labels": ["flu"], "device": "cpu"}
    model = load_predictor(tmp_path / "m.onnx", input={"size": 8, "high": 255}, **settings)
    expected = rounded.mean(axis=(1, 2, 3))[:, None] / 255
    np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-6)
    with pytest.raises(
        InputError, match=r"takes whole numbers \(u?int\d+\), but the declared input makes .* 0 to 1: set"
    ):
        load_predictor(tmp_path / "m.onnx", input={"size": 8, "high": 1}, **settings)
    if kind == TensorProto.UINT8:
        for declared in (None, {"size": 8}):
            partly = load_predictor(tmp_path / "m.onnx", input=declared, **settings)
            np.testing.assert_allclose(partly.predict(IMAGES), expected, atol=1e-6)
        with pytest.raises(InputError, match="takes whole numbers"):
            load_predictor(tmp_path / "m.onnx", input={"size": 8, "high": 1024}, **settings)


def test_a_graph_that_no_image_can_be_fed_to_is_named(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"labels": ["flu"], "device": "cpu"}
    write_graph(tmp_path / "m.onnx", kind=TensorProto.BOOL)
    with pytest.raises(InputError, match=r"takes tensor\(bool\), which no image can be made of; export it with one of"):
        load_predictor(tmp_path / "m.onnx", **settings)
    write_graph(tmp_path / "m.onnx", shape=("n", 8, 8, 1))
    with pytest.raises(InputError, match=r"takes images of shape \(8, 8, 1\).*declare input\.layout: channels_last"):
        load_predictor(tmp_path / "m.onnx", input={"size": 8}, **settings)
    write_graph(tmp_path / "m.onnx", shape=("n", 8, 8))
    with pytest.raises(InputError, match="an image batch has 4 axes"):
        load_predictor(tmp_path / "m.onnx", **settings)
    write_graph(tmp_path / "m.onnx", metadata={"citlr.json": {"labels": 5}})
    with pytest.raises(InputError, match=r"The card in .*m\.onnx.* its labels are 5"):
        load_predictor(tmp_path / "m.onnx", device="cpu")


def test_a_graph_with_a_batch_of_one_gets_one_image_at_a_time(tmp_path: Path) -> None:
    write_graph(tmp_path / "m.onnx", shape=(1, 1, 8, 8))
    model = load_predictor(tmp_path / "m.onnx", labels=["flu"], device="cpu")
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], IMAGES.mean(axis=(1, 2, 3)), atol=1e-6)
