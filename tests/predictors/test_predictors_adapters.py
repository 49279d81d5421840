"""Every kind of model gives the probabilities that its own library gives."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from graphs import write_graph
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn

from citlr.config.model import MODEL_FILES
from citlr.errors import InputError
from citlr.predictors import loading
from citlr.predictors.base import Predictor
from citlr.predictors.check import check_predictor
from citlr.predictors.export import export_onnx, export_torchscript, make_card, save_weights
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec, OutputSpec

LABELS = ["edema", "mass"]
IMAGES = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)


def tiny(outputs: int = 2, channels: int = 1, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(4, outputs),
        )


def direct(module: nn.Module, images: np.ndarray = IMAGES) -> np.ndarray:
    module.eval()
    with torch.inference_mode():
        return module(torch.from_numpy(images)).double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_a_module_is_evaluated_batch_by_batch_in_float64_probabilities() -> None:
    module = tiny().train()
    model = load_predictor(module, labels=LABELS, output="logit", batch_size=3, device="cpu")
    assert isinstance(model, Predictor)
    given = model.predict(IMAGES)
    assert module.training, "the caller's module must keep its mode"
    assert given.dtype == np.float64
    np.testing.assert_allclose(given, sigmoid(direct(module)), atol=1e-6)
    assert check_predictor(model, IMAGES).repeat.value == 0.0


def test_a_module_is_a_snapshot_and_its_fingerprint_is_that_of_the_weights() -> None:
    module = tiny()
    model = load_predictor(module, labels=LABELS, output="logit", device="cpu")
    before = model.predict(IMAGES)
    again = load_predictor(tiny(), labels=LABELS, output="logit", device="cpu")
    with torch.no_grad():
        module[0].weight += 1.0  # type: ignore[operator, union-attr]
    np.testing.assert_array_equal(model.predict(IMAGES), before)
    assert model.fingerprint() == again.fingerprint()
    assert model.fingerprint() != load_predictor(module, labels=LABELS, device="cpu").fingerprint()


def test_softmax_and_columns_choose_one_class_of_several() -> None:
    module = tiny(outputs=3)
    output = OutputSpec("logit", activation="softmax")
    model = load_predictor(module, labels=["edema"], output=output, columns=[2], device="cpu")
    logits = direct(module)
    expected = np.exp(logits[:, 2]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], expected, atol=1e-7)


def test_extreme_logits_do_not_overflow() -> None:
    model = load_predictor(lambda x: np.where(x[:, 0, 0, 0] > 0.5, 1e4, -1e4), labels=["a"], output="logit")
    assert set(np.unique(model.predict(IMAGES))) == {0.0, 1.0}


def test_torchscript_and_onnx_files_say_themselves_what_they_take_and_give(tmp_path: Path) -> None:
    module = tiny()
    card = make_card(LABELS, input=InputSpec(size=8))
    assert export_torchscript(module, tmp_path / "m.ts", card) < 1e-6
    assert export_onnx(module, tmp_path / "m.onnx", card) < 1e-6
    expected = sigmoid(direct(module))
    larger = np.random.default_rng(1).random((2, 1, 16, 16), dtype=np.float32)
    for file in ("m.ts", "m.onnx"):
        model = load_predictor(tmp_path / file, device="cpu")
        assert model.labels == tuple(LABELS)
        assert model.input.size in (8, (8, 8))
        np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-6)
        assert model.predict(larger).shape == (2, 2), "other sizes are resized to the declared one"
        assert model.fingerprint().startswith("sha256:")
    some = load_predictor(tmp_path / "m.ts", labels=["mass"], device="cpu")
    np.testing.assert_allclose(some.predict(IMAGES), expected[:, 1:], atol=1e-6)
    with pytest.raises(InputError, match=r"has no label 'mas'. Did you mean 'mass'"):
        load_predictor(tmp_path / "m.onnx", labels=["mas"], device="cpu")


def test_an_export_that_differs_from_its_module_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))[:, None] * (1.0 if len(x) == 2 else 3.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        with pytest.raises(InputError, match="differs from the module by"):
            export_torchscript(Branching(), tmp_path / "m.ts", make_card(["a"], input=InputSpec(size=8)))


def test_an_onnx_graph_with_a_fixed_batch_axis_gets_full_batches(tmp_path: Path) -> None:
    module = tiny(channels=3).eval()
    path = tmp_path / "fixed.onnx"
    torch.onnx.export(module, (torch.zeros(4, 3, 8, 8),), path, external_data=False, verbose=False)
    model = load_predictor(path, labels=LABELS, output="logit", device="cpu")
    assert model.input == InputSpec(size=(8, 8), channels=3), "size and channels are read from the graph"
    expected = sigmoid(direct(module, np.repeat(IMAGES, 3, axis=1)))
    np.testing.assert_allclose(model.predict(IMAGES), expected, atol=1e-6)
    check_predictor(model, IMAGES)


def test_an_estimator_gives_the_positive_class_or_the_named_ones() -> None:
    flat = IMAGES.reshape(7, -1)
    truth = np.array([0, 1, 0, 1, 0, 1, 1])
    logistic = LogisticRegression().fit(flat, truth)
    model = load_predictor(logistic, labels=["edema"])
    np.testing.assert_array_equal(model.predict(IMAGES)[:, 0], logistic.predict_proba(flat)[:, 1])
    logits = load_predictor(logistic, labels=["edema"], output="logit")
    np.testing.assert_allclose(logits.predict(IMAGES), model.predict(IMAGES), atol=1e-12)

    named = LogisticRegression().fit(flat, np.array(["none", "mass", "edema", "none", "mass", "edema", "none"]))
    by_name = load_predictor(named, labels=LABELS).predict(IMAGES)
    np.testing.assert_array_equal(by_name, named.predict_proba(flat)[:, [0, 1]])

    forest = RandomForestClassifier(5, random_state=0).fit(flat, np.column_stack([truth, 1 - truth]))
    several = load_predictor(forest, labels=LABELS).predict(IMAGES)
    np.testing.assert_array_equal(several[:, 1], forest.predict_proba(flat)[1][:, 1])
    check_predictor(load_predictor(forest, labels=LABELS), IMAGES)


def test_a_margin_classifier_needs_output_logit() -> None:
    svc = LinearSVC().fit(IMAGES.reshape(7, -1), [0, 1, 0, 1, 0, 1, 1])
    with pytest.raises(InputError, match=r"has no predict_proba.*declare output: logit"):
        load_predictor(svc, labels=["edema"])
    assert load_predictor(svc, labels=["edema"], output="logit").predict(IMAGES).shape == (7, 1)


def test_an_estimator_that_is_not_fitted_or_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="is not fitted"):
        load_predictor(LogisticRegression(), labels=["edema"])
    fitted = LogisticRegression().fit(np.eye(16), np.arange(16) % 2)
    with pytest.raises(InputError, match="fitted on 16 features, but the declared input makes 64"):
        load_predictor(fitted, labels=["edema"]).predict(IMAGES)
    assert load_predictor(fitted, labels=["edema"], input={"size": 4}).predict(IMAGES).shape == (7, 1)


def test_a_function_cannot_change_the_images() -> None:
    def vandal(x: np.ndarray) -> np.ndarray:
        x[:] = 0.0
        return x.mean(axis=(1, 2, 3))

    before = IMAGES.copy()
    load_predictor(vandal, labels=["a"]).predict(IMAGES)
    np.testing.assert_array_equal(IMAGES, before)


def test_a_table_of_answers_is_sent_to_the_verb_that_takes_it(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["7"], "edema": [0.2]}).to_csv(tmp_path / "answers.csv", index=False)
    with pytest.raises(InputError, match="citlr ingest"):
        load_predictor(tmp_path / "answers.csv", labels=["edema"])


def test_weights_alone_carry_their_card(tmp_path: Path) -> None:
    save_weights(tiny(), tmp_path / "w.safetensors", make_card(LABELS, input=InputSpec(size=8)))
    with pytest.raises(InputError, match="holds weights only: say in two lines of the YAML"):
        load_predictor(tmp_path / "w.safetensors", device="cpu")
    model = load_predictor(
        tiny(seed=1), weights=tmp_path / "w.safetensors", labels=LABELS, output="logit", device="cpu"
    )
    np.testing.assert_allclose(model.predict(IMAGES), sigmoid(direct(tiny())), atol=1e-6)


@pytest.mark.parametrize("kind", MODEL_FILES)
def test_every_kind_of_model_is_a_file_of_the_adapters(kind: str) -> None:
    adapter = importlib.import_module(f"citlr.predictors.adapters.{kind}")
    on_disk = bool(MODEL_FILES[kind]) or kind in ("huggingface", "monai")
    assert hasattr(adapter, "read") == on_disk, "what comes as a file or a folder is read"
    assert hasattr(adapter, "wrap") == hasattr(adapter, "takes"), "an object of Python that is taken is wrapped"
    assert hasattr(adapter, "takes") or on_disk
    assert not hasattr(adapter, "takes") or not adapter.takes(None)


def test_a_form_that_comes_as_a_file_has_nothing_but_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands before the others, whose objects it is asked about."""
    form, found = ModuleType("citlr.predictors.adapters.linear"), load_predictor(tiny(), labels=LABELS, device="cpu")
    form.read = lambda path, declared: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, form.__name__, form)
    monkeypatch.setattr(loading, "KINDS", ("linear", *loading.KINDS))
    monkeypatch.setitem(loading._SUFFIXES, ".npz", "linear")
    (tmp_path / "weights.npz").write_bytes(b"")
    assert load_predictor(tmp_path / "weights.npz", device="cpu") is found
    assert load_predictor(tiny(), labels=LABELS, device="cpu").fingerprint() == found.fingerprint()


def test_a_graph_with_an_output_for_each_label_is_read_by_their_names(tmp_path: Path) -> None:
    write_graph(tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx")
    for kind, name in (("Neg", "cold"), ("Identity", "flu")):
        graph.graph.node.append(onnx.helper.make_node(kind, ["scaled"], [name]))
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1]))
    onnx.save_model(graph, tmp_path / "m.onnx")
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    mean = images.mean(axis=(1, 2, 3))[:, None]
    both = load_predictor(tmp_path / "m.onnx", labels=["flu", "cold"], output="logit", device="cpu")
    np.testing.assert_allclose(both.predict(images), 1 / (1 + np.exp(-mean * [[1, -1]])), atol=1e-6)
    one = load_predictor(tmp_path / "m.onnx", labels=["cold"], output="logit", device="cpu")
    np.testing.assert_allclose(one.predict(images), 1 / (1 + np.exp(mean)), atol=1e-6)
    with pytest.raises(InputError, match=r"has the outputs scores, cold, flu: say which with output\.name"):
        load_predictor(tmp_path / "m.onnx", labels=["pox"], output="logit", device="cpu")
