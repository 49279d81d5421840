"""A fingerprint changes whenever answers can change, and not otherwise."""

from __future__ import annotations

import os
import pickle
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from graphs import write_graph
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from citlr.errors import InputError, StateError
from citlr.predictors.content import digest
from citlr.predictors.export import export_torchscript, make_card, save_weights
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec
from citlr.predictors.training.zoo import ZooNetwork

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)


class Bright(nn.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None] + self.offset


def key(source: Any, **settings: Any) -> str:
    return load_predictor(source, **{"labels": ["flu"], "device": "cpu", **settings}).fingerprint()


def torchscript(path: Path, offset: float) -> None:
    export_torchscript(Bright(offset), path, make_card(["flu"], input=InputSpec(size=8)))


def graph(path: Path, offset: float) -> None:
    write_graph(path, weight=offset)


def estimator(path: Path, offset: float) -> None:
    joblib.dump(RandomForestClassifier(3, random_state=int(offset)).fit(IMAGES.reshape(6, -1), [0, 1] * 3), path)


def code(path: Path, offset: float) -> None:
    path.write_text(f"def model(images):\n    return images.mean(axis=(1, 2, 3)) / {offset}\n")


@pytest.mark.filterwarnings("ignore:.*is a pickle")
@pytest.mark.parametrize(
    ("name", "write"), [("m.ts", torchscript), ("m.onnx", graph), ("m.joblib", estimator), ("m.py:model", code)]
)
def test_another_file_at_the_same_path_is_another_model(
    tmp_path: Path, name: str, write: Callable[[Path, float], None]
) -> None:
    path = tmp_path / name.partition(":")[0]
    again = partial(key, str(tmp_path / name), trust=True)
    write(path, 2.0)
    old, when, content = again(), path.stat().st_mtime, path.read_bytes()
    assert old.startswith("sha256:")
    assert again() == old
    write(path, 3.0)
    # as a copy that keeps times does: neither time nor length says that it is another file
    os.utime(path, (when, when))
    assert again() != old
    path.write_bytes(content)
    assert again() == old
    (tmp_path / "elsewhere").mkdir()
    shutil.move(path, tmp_path / "elsewhere")
    assert key(str(tmp_path / "elsewhere" / name), trust=True) == old, "where a file lies is not what it holds"


def test_a_predictor_names_the_file_that_it_read(tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", 1.0)
    model = load_predictor(tmp_path / "m.onnx", labels=["flu"], device="cpu")
    before = model.fingerprint()
    graph(tmp_path / "m.onnx", 2.0)
    assert model.fingerprint() == before


def test_weights_count_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.tensor(1.0))\n"
        "    def forward(self, x):\n        return self.scale * x.mean((1, 2, 3))[:, None]\n"
    )
    found = set()
    for scale in (0.25, 0.5):
        torch.save({"scale": torch.tensor(scale)}, tmp_path / "w.pt")
        found.add(key(f"{tmp_path / 'm.py'}:Net", weights=tmp_path / "w.pt"))
    assert len(found | {key(f"{tmp_path / 'm.py'}:Net")}) == 3

    (tmp_path / "weights").mkdir()
    aside = {"save_as_external_data": True, "location": "weights/e.bin", "size_threshold": 256}
    write_graph(tmp_path / "e.onnx", **aside)
    first = key(tmp_path / "e.onnx")
    data = tmp_path / "weights" / "e.bin"
    data.write_bytes(b"\1" * data.stat().st_size)
    assert key(tmp_path / "e.onnx") != first


def test_a_network_of_the_zoo_is_its_weights(tmp_path: Path) -> None:
    network = ZooNetwork("resnet34", ["flu"])
    card = make_card(["flu"], input=InputSpec(size=64), arch="resnet34")
    save_weights(network, tmp_path / "w.safetensors", card)
    first = key(tmp_path / "w.safetensors")
    assert key(tmp_path / "w.safetensors") == first
    with (tmp_path / "w.safetensors").open("r+b") as stream:
        stream.seek(-6, os.SEEK_END)
        stream.write(b"\1")
    assert key(tmp_path / "w.safetensors") != first


def test_what_is_declared_is_part_of_the_answers() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"labels": ["cold"]},
        {"output": "logit"},
        {"output": {"kind": "logit", "activation": "softmax"}},
        {"input": {"size": 4}},
        {"input": {"high": 255.0}},
        {"input": {"channels": 3}},
        {"columns": [0]},
    ]
    assert len({key(Bright(0.0), **given) for given in settings}) == len(settings)
    assert key(Bright(0.0)) == key(Bright(0.0), name="another", batch_size=2)


def test_a_plain_attribute_and_a_layer_without_weights_count() -> None:
    class Scaled(Bright):
        factor = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * super().forward(x)

    one, two = Scaled(0.0), Scaled(0.0)
    assert key(one) == key(two)
    two.factor = 2.0
    assert key(one) != key(two)
    assert key(nn.Sequential(nn.Flatten(), nn.ReLU())) != key(nn.Sequential(nn.Flatten(), nn.Tanh()))
    assert key(nn.Sequential(nn.LeakyReLU(0.1))) != key(nn.Sequential(nn.LeakyReLU(0.2)))


def test_an_estimator_given_as_an_object_counts_as_it_is() -> None:
    flat = IMAGES.reshape(6, -1)
    found = {key(LogisticRegression(C=c).fit(flat, [0, 1] * 3)) for c in (1.0, 1.0, 0.5)}
    assert len(found) == 2


SHELL = """
import numpy as np
WEIGHTS = np.array([{weight}])
def helper(x): return x * WEIGHTS[0] {operation} 0.1
def unused(x): return x {unused}
class Model:
    def __init__(self, scale): self.scale = scale
    def _inner(self, x): return helper(x) * self.scale
    def __call__(self, x): return self._inner(x.mean(axis=(1, 2, 3)))
model = Model({scale})
"""


def test_code_counts_as_far_as_it_is_reached(tmp_path: Path) -> None:
    plain = {"weight": 1.0, "operation": "+", "unused": "", "scale": 0.5}

    def of(**changed: object) -> str:
        (tmp_path / "m.py").write_text(SHELL.format(**{**plain, **changed}))
        return key(f"{tmp_path / 'm.py'}:model")

    first = of()
    assert first.startswith("sha256:")
    assert of(weight=2.0) != first
    assert of(operation="-") != first
    assert of(scale=0.25) != first
    assert of(unused="+ 1") == first
    assert of() == first


@pytest.mark.parametrize(
    "body",
    [
        "return np.load('w.npy')",
        "return open('w.txt').read()",
        "return os.environ['W']",
        "return subprocess.run(x)",
        "import socket\n    return socket.socket()",
        "return eval('x')",
        "return reader('w.npy')",
        "return SESSION.run(x)",
        "from scipy import sparse\n    return sparse.load_npz(x)",
        "import torchvision\n    return torchvision.io.decode_image(x)",
        "return np.lib.format.open_memmap(x)",
    ],
)
def test_a_function_that_asks_elsewhere_is_never_taken_for_an_earlier_one(tmp_path: Path, body: str) -> None:
    (tmp_path / "m.py").write_text(
        "import os, subprocess, threading\nimport numpy as np\nfrom numpy import load as reader\n"
        f"SESSION = threading.Lock()\ndef model(x):\n    {body}\n"
    )
    source = f"{tmp_path / 'm.py'}:model"
    model = load_predictor(source, labels=["flu"])
    assert model.fingerprint().startswith("unknown:")
    assert model.fingerprint() == model.fingerprint()
    assert model.fingerprint() != key(source)


def test_a_function_is_known_by_its_closure_and_defaults() -> None:
    def make(weight: np.ndarray, power: int = 1) -> Callable[..., Any]:
        def model(x: np.ndarray, power: int = power) -> np.ndarray:
            return (x.mean(axis=(1, 2, 3)) * weight[0]) ** power

        return model

    assert key(make(np.ones(1))) == key(make(np.ones(1)))
    assert key(make(np.ones(1))) != key(make(np.zeros(1)))
    assert key(make(np.ones(1))) != key(make(np.ones(1), power=2))
    assert key(partial(make(np.ones(1)), power=3)) != key(partial(make(np.ones(1)), power=4))


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text(
        "import torch\nNAMES = {'a', 'b', 'c', 'd'}\nclass Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.names = {'x', 'y', 'z'}\n"
        "        torch.manual_seed(0)\n        self.layer = torch.nn.Linear(64, 1)\n"
        "    def forward(self, x):\n        return self.layer(x.flatten(1)) * (len(NAMES) if 'a' in NAMES else 1)\n"
    )
    program = (
        "import sys\nfrom citlr.predictors.loading import load_predictor\n"
        "print(load_predictor(sys.argv[1], labels=['flu'], device='cpu').fingerprint())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, f"{source}:Net"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == key(f"{source}:Net") + "\n"


def test_a_pickled_and_restored_object_is_the_same() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(IMAGES.reshape(6, -1), [0, 1] * 3)
    assert digest(pickle.loads(pickle.dumps(forest))) == digest(forest) is not None
    lstm = nn.LSTM(3, 4)
    assert digest(lstm) is not None


PIPELINE = """
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
flat = np.random.default_rng(0).random((6, 64))
"""
HIDDEN = {
    "a method that an installed base calls": (
        "class Net(torch.nn.Conv2d):\n    def _conv_forward(self, x, weight, bias):\n"
        "        return {} * x.mean((1, 2, 3))[:, None]\nmodel = Net(1, 1, 1)\nmodel.weight.data.fill_(1)\n"
        "model.bias.data.fill_(1)\n"
    ),
    "a transformer": (
        PIPELINE + "class Own(TransformerMixin, BaseEstimator):\n    def fit(self, X, y=None): return self\n"
        "    def transform(self, X): return X * {}\nmodel = make_pipeline(Own(), LogisticRegression())\n"
        "model.steps[1][1].fit(flat, [0, 1] * 3)\n"
    ),
    "an estimator": (
        PIPELINE + "class Own(ClassifierMixin, BaseEstimator):\n    def fit(self, X, y=None): return self\n"
        "    def predict_proba(self, X): return np.tile([{}, 0.5], (len(X), 1))\n"
        "model = Own()\nmodel.fitted_ = True\n"
    ),
    "a made object": (
        "class Scale:\n    def __init__(self): self.by = {}\n    def __call__(self, x): return x * self.by\n"
        "def model(x): return Scale()(x.mean((1, 2, 3)))\n"
    ),
}
MADE_NAME = (
    "MEAN = [{}]\ndef share(x): return x.mean((1, 2, 3))[:, None] {} 0.5\n"
    "class Net(torch.nn.Module):\n    kind = 'a'\n    def head_a(self, x): return share(x) - MEAN[0]\n"
    "    def forward(self, x): return getattr(self, f'head_{{self.kind}}')(x)\n"
    "    @classmethod\n    def from_file(cls, path=HERE): return torch.load(path / 'w.pt')\nmodel = Net()\n"
)


def of_text(folder: Path, text: str) -> str:
    top = "import pathlib\nimport numpy as np\nimport torch\nHERE = pathlib.Path(__file__).parent\n"
    (folder / "m.py").write_text(top + text)
    return key(f"{folder / 'm.py'}:model")


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_code_that_only_installed_code_or_a_constructor_runs_counts(tmp_path: Path, text: str) -> None:
    first = of_text(tmp_path, text.format(0.5))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, text.format(0.5)) == first != of_text(tmp_path, text.format(0.25))
    reading = text.format("(0.5 if HERE else np.load('w.npy'))")
    assert of_text(tmp_path, reading).startswith("unknown:")


def test_a_method_that_is_called_by_a_made_name_counts_with_its_helpers(tmp_path: Path) -> None:
    first = of_text(tmp_path, MADE_NAME.format(0.5, "+"))
    assert first.startswith("sha256:"), "what loads a network does not run while it predicts"
    assert (
        len({first, of_text(tmp_path, MADE_NAME.format(0.25, "+")), of_text(tmp_path, MADE_NAME.format(0.5, "-"))}) == 3
    )
    (tmp_path / "elsewhere").mkdir()
    assert of_text(tmp_path / "elsewhere", MADE_NAME.format(0.5, "+")) == first


def test_a_value_that_is_kept_once_it_is_computed_counts(tmp_path: Path) -> None:
    text = (
        "import functools\nclass Model:\n    @functools.cached_property\n    def scale(self): return {}\n"
        "    def __call__(self, x): return x.mean((1, 2, 3)) * self.scale\nmodel = Model()\n"
    )
    first = of_text(tmp_path, text.format(0.5))
    assert of_text(tmp_path, text.format(0.5)) == first != of_text(tmp_path, text.format(0.25))


def test_a_constructor_that_only_keeps_values_stays_known(tmp_path: Path) -> None:
    text = (
        "import dataclasses\n@dataclasses.dataclass\nclass By:\n    factor: float = {}\n    of: pathlib.Path = HERE\n"
        "def model(x): return By().factor * x.mean((1, 2, 3))\n"
    )
    first = of_text(tmp_path, text.format(0.5))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, text.format(0.25)) != first


@pytest.mark.parametrize("name", ["'w.npz'", "NAME"])
def test_a_file_that_is_named_counts_whatever_reads_it(tmp_path: Path, name: str) -> None:
    text = f"NAME = 'w.npz'\ndef model(x): return torch.compile(x, {name})\n"
    found = []
    for content in ("old", "new", "old"):
        (tmp_path / "w.npz").write_text(content)
        found.append(of_text(tmp_path, text))
    assert found[0] == found[2] != found[1]
    assert found[0].startswith("sha256:")


def test_own_code_with_the_name_of_a_reader_is_followed(tmp_path: Path) -> None:
    text = "def decode(x): return x.mean((1, 2, 3)) * {}\ndef model(x): return decode(x)\n"
    first = of_text(tmp_path, text.format(0.5))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, text.format(0.25)) != first


def test_an_installed_class_that_was_patched_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(nn.Sequential(nn.Flatten(), nn.ReLU()))
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: -x)
    assert key(nn.Sequential(nn.Flatten(), nn.ReLU())) != first


def test_what_an_installed_module_is_given_or_runs_with_all_networks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Flatten(), nn.GELU())
    found = [key(network)]
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, out: out / 2)
    found.append(key(network))
    hook.remove()
    assert key(network) == found[0]
    monkeypatch.setattr(nn.functional, "gelu", lambda x, approximate="none": -x)
    found.append(key(network))
    assert len(set(found)) == 3


BESIDE = {
    "under the name of an installed function": (
        "import functools\n@functools.wraps(np.mean)\ndef mean(x): return {} * x.mean((1, 2, 3))\n"
        "def model(x): return mean(x)\n"
    ),
    "a method under an installed name": (
        "import functools\nclass Net(torch.nn.Conv2d):\n    @functools.wraps(torch.nn.Conv2d.forward)\n"
        "    def forward(self, x): return {} * x.mean((1, 2, 3))[:, None]\nmodel = Net(1, 1, 1)\n"
        "model.weight.data.fill_(1)\nmodel.bias.data.fill_(1)\n"
    ),
    "a class of classes": (
        "class Kind(type):\n    @property\n    def scale(cls): return {}\nclass Of(metaclass=Kind): pass\n"
        "def model(x): return Of.scale * x.mean((1, 2, 3))\n"
    ),
    "what a module makes when it is asked": (
        "import sys\ndef __getattr__(name):\n    if name == 'scale': return {}\n    raise AttributeError(name)\n"
        "here = sys.modules[__name__]\ndef model(x): return here.scale * x.mean((1, 2, 3))\n"
    ),
}


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE)
def test_code_counts_under_whatever_name_and_behind_whatever_door(tmp_path: Path, text: str) -> None:
    first = of_text(tmp_path, text.format(0.5))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, text.format(0.5)) == first != of_text(tmp_path, text.format(0.25))


@pytest.mark.parametrize(
    "text",
    [
        "from scipy.io import readsav\nHERE = str(HERE)\ndef model(x): return readsav(f'{HERE}/w')['of']\n",
        "from monai.transforms import LoadImage as of\nHERE = str(HERE)\ndef model(x): return of()(f'{HERE}/w')\n",
        "by = np.frompyfunc(lambda v: v / 2, 1, 1)\ndef model(x): return by(x.mean((1, 2, 3))).astype(float)\n",
    ],
)
def test_what_is_read_under_other_names_or_shows_nobody_its_code_cannot_be_known(tmp_path: Path, text: str) -> None:
    assert of_text(tmp_path, text).startswith("unknown:")


KEPT = (
    "class Scaled:\n    def __init__(self): self.pipeline, self.hub = {}, 1\n"
    "    def __call__(self, x): return self.hub * self.pipeline(x.mean((1, 2, 3)))\nmodel = Scaled()\n"
)
READING = [
    KEPT.format("np.load"),
    "def model(x, self=HERE): return self.read_bytes()[0] * x\n",
    "class At(type(HERE)):\n    def __call__(self, x): return self.read_bytes()[0] * x\nmodel = At()\n",
]


def test_a_value_that_an_object_keeps_under_the_name_of_a_reader_is_known(tmp_path: Path) -> None:
    first = of_text(tmp_path, KEPT.format("(0.5).__mul__"))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, KEPT.format("(0.5).__mul__")) == first != of_text(tmp_path, KEPT.format("(0.2).__mul__"))


@pytest.mark.parametrize("text", READING)
def test_what_only_looks_like_such_a_value_cannot_be_known(tmp_path: Path, text: str) -> None:
    assert of_text(tmp_path, text).startswith("unknown:")


def answer(folder: Path) -> tuple[str, float]:
    model = load_predictor(f"{folder / 'm.py'}:model", labels=["flu"], device="cpu")
    return model.fingerprint(), float(model.predict(np.ones((1, 1, 8, 8), np.float32))[0, 0])


def test_a_module_beside_a_model_is_read_as_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python keeps what it imported, and compiled code of a file of the same size and time."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "m.py").write_text("from of_beside import scaled\n\ndef model(x): return scaled(x.mean((1, 2, 3)))\n")
    (tmp_path / "of_beside.py").write_text("from of_beside_too import BY\n\ndef scaled(x): return BY * x\n")
    second = tmp_path / "of_beside_too.py"
    second.write_text("BY = 0.5\n")
    py_compile.compile(str(second))
    old = second.stat()
    second.write_text("BY = 0.7\n")
    os.utime(second, ns=(old.st_atime_ns, old.st_mtime_ns))
    first = answer(tmp_path)
    assert first[1] == pytest.approx(0.7)
    assert answer(tmp_path) == first
    kept = sys.modules["of_beside"]
    assert answer(tmp_path) == first
    assert sys.modules["of_beside"] is kept, "what has not changed stays"
    second.write_text("BY = 0.9\n")
    os.utime(second, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert answer(tmp_path)[1] == pytest.approx(0.9)
    second.unlink()
    with pytest.raises(InputError, match="No module named 'of_beside_too'"):
        answer(tmp_path)


LEAVING = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.asked = None, 0
    def forward(self, x):
        self.features, self.asked = x.flatten(1), self.asked + 1
        return self.features.mean(1, keepdim=True) + {}
model = Net()
"""


def test_what_a_call_leaves_behind_is_not_the_model_unless_it_answers_by_it(tmp_path: Path) -> None:
    first = of_text(tmp_path, LEAVING.format("0"))
    model = load_predictor(f"{tmp_path / 'm.py'}:model", labels=["flu"], device="cpu")
    model.predict(IMAGES)
    assert model.fingerprint() == first
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(IMAGES), model.predict(IMAGES))
    of_text(tmp_path, LEAVING.format("-0.1 * (self.asked > 1)"))
    model = load_predictor(f"{tmp_path / 'm.py'}:model", labels=["flu"], device="cpu")
    model.predict(IMAGES)
    with pytest.raises(StateError, match="or what was asked before"):
        pickle.loads(pickle.dumps(model))


class Counting:
    """A model that counts its calls, and answers all the same."""

    def __init__(self) -> None:
        self.calls: dict[int, int] = {}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.calls[len(self.calls)] = len(x)
        return x.mean(axis=(1, 2, 3))[:, None]


def test_a_model_that_counts_its_calls_goes_to_another_process() -> None:
    model = load_predictor(Counting(), labels=["flu"], device="cpu")
    answers = model.predict(IMAGES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(IMAGES), answers)


WRAPPER = """
import copy, threading
def read(path): return np.load(path)
class Model:
    def __init__(self, path): self.path, self.scale, self.lock = path, read(path)[0], threading.Lock()
    def __call__(self, x): return x.mean((1, 2, 3)) * self.scale
{}
model = Model("w.npy")
"""
ASIDE = {
    "read again": "    def __getstate__(self): return self.path\n    def __setstate__(self, path): self.__init__(path)",
    "not restored": "    def __getstate__(self): return self.path",
    "named": "    def __reduce__(self): return 'model'",
    "made again": "    def __reduce__(self): return Model, (self.path,)",
}


@pytest.mark.parametrize("state", ASIDE.values(), ids=ASIDE)
def test_what_a_pickle_leaves_out_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.chdir(tmp_path)
    for lock in ("threading.Lock()", "None"):
        text = WRAPPER.format(state).replace("threading.Lock()", lock)
        found = []
        for weight in (0.5, 0.25):
            np.save("w.npy", [weight])
            found.append(of_text(tmp_path, text))
        assert found[0] != found[1]


def test_what_is_restored_without_reading_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", [0.5])
    state = (
        "    def __getstate__(self): return {k: v for k, v in vars(self).items() if k != 'lock'}\n"
        "    def __setstate__(self, state):\n        self.__dict__.update(state)\n        self.lock = threading.Lock()"
    )
    first = of_text(tmp_path, WRAPPER.format(state))
    assert first.startswith("sha256:")
    assert of_text(tmp_path, WRAPPER.format(state)) == first
    np.save("w.npy", [0.25])
    assert of_text(tmp_path, WRAPPER.format(state)) != first


@pytest.mark.parametrize("version", ["", "__version__ = '0.1'\n"])
@pytest.mark.parametrize("file", ["house.py", "house/__init__.py", "house/nets/dense.py"])
def test_another_release_of_an_installed_package_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, file: str
) -> None:
    path = tmp_path / "site-packages" / file
    path.parent.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")

    def of(offset: float) -> str:
        for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
            del sys.modules[name]
        path.write_text(
            f"{version}import torch\nclass Net(torch.nn.Module):\n"
            f"    def forward(self, x): return x.mean((1, 2, 3))[:, None] * {offset}\n"
        )
        # Python takes a file of equal size that was written within a second for the same one
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        return key(f"{file.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}:Net")

    first = of(0.5)
    assert first.startswith("sha256:")
    assert of(0.25) != first == of(0.5)


OPERATORS = """
import torch

@torch.library.custom_op("of_fingerprints::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / BY

BY = {0}

@torch.library.custom_op("of_fingerprints::stored", mutates_args=(), device_types="cuda")
def stored(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

@stored.register_kernel("cpu")
def _(x): return x * {0}

torch.library.define("of_fingerprints::told", "(Tensor x) -> Tensor")

@torch.library.impl("of_fingerprints::told", "cpu")
def told(x): return x - {0}
"""
MINE = "torch.ops.of_fingerprints."


def operator_keys(folder: Path, by: float, calls: list[str]) -> list[str]:
    """The fingerprints, in a process of their own, of models that call operators of a file beside them."""
    (folder / "operators.py").write_text(OPERATORS.format(by))
    script = "from citlr import load_predictor\n"
    for place, call in enumerate(calls):
        (folder / f"m{place}.py").write_text(
            f"import torch, torchvision, operators\ndef model(x): return {call}(x).mean((1, 2, 3))\n"
        )
        script += f"print(load_predictor('m{place}.py:model', labels=['flu'], device='cpu').fingerprint())\n"
    traced = f"torch.jit.trace(lambda x: {MINE}halved(x).mean((1, 2, 3)), torch.ones(2, 1, 8, 8))"
    (folder / "traced.py").write_text(f"import torch, operators\nmodel = {traced}\n")
    script += "print(load_predictor('traced.py:model', labels=['flu'], device='cpu').fingerprint())\n"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    return run.stdout.split()


def test_an_operator_that_was_put_in_among_torchs_counts(tmp_path: Path) -> None:
    """A custom operator is called by a name that no variable of the model's code has."""
    calls = [f"{MINE}halved", f"{MINE}stored.default", "operators.halved", f"{MINE}told"]
    calls += ["torch.ops.aten.relu", "torch.ops.torchvision.roi_align"]
    first, again, other = (operator_keys(tmp_path, by, calls) for by in (2.0, 2.0, 3.0))
    said = [
        "".join("=" if one == two else "x" for one, two in zip(first, keys, strict=True)) for keys in (again, other)
    ]
    assert said == ["===x===", "xxxx==x"], "of one that was put in by its parts nobody sees the code"
