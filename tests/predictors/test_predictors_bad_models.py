"""A model that cannot be audited is refused on one batch, in one sentence that says what would do."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from citlr.errors import InputError, MissingExtraError
from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec

IMAGES = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)


def model_of(
    function: Callable[[np.ndarray], object], labels: tuple[str, ...] = ("edema",), output: str = "probability"
):
    return load_predictor(function, labels=labels, output=output, name="m")


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES[:, 0], r"images has shape \(6, 8, 8\)"),
        (np.repeat(IMAGES, 3, axis=1), "images are in colour and the model.s input has one channel"),
        (IMAGES[:0], "at least one image"),
        (IMAGES * 255, r"values from .* to 25\d.*; a predictor takes finite values in \[0, 1\]"),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), "values from nan to nan"),
        ((IMAGES * 255).astype(np.uint8), "images holds uint8"),
        (IMAGES.tolist(), "images is a list"),
    ],
)
def test_wrong_images_are_refused(images: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model_of(mean).predict(images)
    with pytest.raises(InputError, match=said):
        check_predictor(model_of(mean), images)


def test_a_check_needs_two_images() -> None:
    with pytest.raises(InputError, match="got 1 image; it needs at least 2"):
        check_predictor(model_of(mean), IMAGES[:1])


def test_a_model_that_takes_another_shape_is_named_with_the_shape_it_got() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    model = load_predictor(module, labels=["edema"], output="logit", name="net", device="cpu")
    with pytest.raises(InputError, match=r"Model 'net' failed on a batch of shape \(6, 1, 8, 8\): RuntimeError: .*64"):
        check_predictor(model, IMAGES)
    fitting = load_predictor(module, labels=["edema"], output="logit", input={"size": 4}, device="cpu")
    assert check_predictor(fitting, IMAGES).n_images == 6


def test_scores_that_are_scaled_by_the_batch_are_not_blamed_on_a_layer() -> None:
    scaled = model_of(lambda x: (x.mean((1, 2, 3)) / x.mean((1, 2, 3)).max())[:, None])
    with pytest.raises(InputError, match="divide by no mean or maximum of the whole batch"):
        check_predictor(scaled, IMAGES)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_wrong_number_of_labels_is_refused(n_outputs: int) -> None:
    model = model_of(lambda x: np.full((len(x), n_outputs), 0.5), labels=("edema", "mass"))
    with pytest.raises(InputError, match=rf"gives {n_outputs} output\(s\) for 2 label\(s\) \(edema, mass\)"):
        check_predictor(model, IMAGES)


@pytest.mark.parametrize("given", [lambda x: 0.5, lambda x: np.zeros((2, 1)), lambda x: np.zeros((len(x), 1, 4, 4))])
def test_an_output_that_is_not_one_row_per_image_is_refused(given: Callable[[np.ndarray], object]) -> None:
    with pytest.raises(InputError, match=r"gives an output of shape \(.*\) for 6 image"):
        check_predictor(model_of(given), IMAGES)


def test_an_output_that_is_not_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="gives a list that is not an array of numbers"):
        check_predictor(model_of(lambda x: ["yes"] * len(x)), IMAGES)
    with pytest.raises(InputError, match=r"gives a, b: say which with output\.name"):
        check_predictor(model_of(lambda x: {"a": mean(x), "b": mean(x)}), IMAGES)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_counted_and_the_first_is_named(output: str, bad: float) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        values = np.full((len(x), 2), 0.5)
        values[[2, 4], 1] = bad
        return values

    with pytest.raises(
        InputError, match=rf"2 of 12 values .* NaN or infinite; the first is {bad} for image 2, .*'mass'"
    ):
        check_predictor(model_of(broken, labels=("edema", "mass"), output=output), IMAGES)


def test_values_outside_0_1_are_counted_and_logits_suggested() -> None:
    model = model_of(lambda x: np.where(np.arange(len(x)) >= 3, 2.5, 0.5))
    with pytest.raises(
        InputError, match=r"3 of 6 values outside \[0, 1\]; the first is 2.5 for image 3.*output: logit"
    ):
        check_predictor(model, IMAGES)


def test_a_bad_value_in_a_late_batch_is_found_too() -> None:
    model = load_predictor(
        lambda x: np.where(x[:, 0, 0, 0] == IMAGES[5, 0, 0, 0], np.nan, 0.5), labels=["a"], batch_size=2
    )
    with pytest.raises(InputError, match="for image 5"):
        model.predict(IMAGES)


def test_a_model_that_raises_is_one_sentence() -> None:
    def raises(x: np.ndarray) -> np.ndarray:
        raise ValueError("no licence server\nsecond line")

    with pytest.raises(InputError) as caught:
        check_predictor(model_of(raises), IMAGES)
    assert "Model 'm' failed on a batch of shape (6, 1, 8, 8): ValueError: no licence server." in str(caught.value)
    assert "second line" not in str(caught.value)


def test_dropout_left_on_is_found() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"two answers for the same 6 images .*call eval\(\)"):
        check_predictor(model_of(lambda x: mean(x) * rng.random()), IMAGES)


def test_dropout_in_a_module_that_ignores_eval_is_found() -> None:
    class AlwaysDropping(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(x, 0.5, training=True).mean((1, 2, 3))[:, None]

    model = load_predictor(AlwaysDropping(), labels=["edema"], device="cpu")
    with pytest.raises(InputError, match="two answers for the same"):
        check_predictor(model, IMAGES)


# With all but the first of these seeds the first image's answer is nearly the same alone as in the batch.
@pytest.mark.parametrize("seed", [0, 12, 21, 26, 46])
def test_batch_normalisation_in_training_mode_is_found(seed: int) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 1))
    with torch.no_grad():
        norm[2].weight.uniform_(-1 / 8, 1 / 8, generator=torch.Generator().manual_seed(seed))

    def as_function(x: np.ndarray) -> np.ndarray:
        return norm(torch.from_numpy(x)).detach().numpy()

    with pytest.raises(InputError, match=r"another answer for an image alone than in a batch .*call eval\(\)"):
        check_predictor(model_of(as_function, output="logit"), IMAGES)


def test_a_model_that_takes_no_single_image_is_found() -> None:
    norm = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 1)).train()
    for layer in norm:
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 0.0

    def as_function(x: np.ndarray) -> np.ndarray:
        return norm(torch.from_numpy(x)).detach().numpy()

    with pytest.raises(InputError, match=r"takes a batch of 6 images but not one image alone: .*Call eval\(\)"):
        check_predictor(model_of(as_function, output="logit"), IMAGES)


def test_a_predictor_of_the_users_own_class_is_checked_as_strictly() -> None:
    class Own:
        name, labels, input = "own", ("a", "b"), InputSpec()

        def predict(self, images: np.ndarray) -> np.ndarray:
            return np.zeros((len(images), 1))

        def fingerprint(self) -> str:
            return "none"

    with pytest.raises(InputError, match=r"output of shape \(6, 1\); .* make \(6, 2\)"):
        check_predictor(Own(), IMAGES)
    Own.predict = lambda self, images: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(InputError, match=r"Model 'own' failed on images of shape .*ZeroDivisionError"):
        check_predictor(Own(), IMAGES)
    Own.predict = lambda self, images: np.full((len(images), 2), 1.5)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="12 of 12 values outside"):
        check_predictor(Own(), IMAGES)


def test_what_only_looks_wrong_is_noted() -> None:
    constant = check_predictor(model_of(lambda x: np.full(len(x), 0.25)), IMAGES)
    assert "gives 0.25 for 'edema' on all 6 images" in constant.notes[0]
    squashed = check_predictor(model_of(mean, output="logit"), IMAGES)
    assert "if they are probabilities, declare output: probability" in squashed.notes[0]
    assert check_predictor(model_of(mean), IMAGES).notes == ()
    # as of a network that was trained on -1024 to 1024, and is shown 0 to 1
    many = np.random.default_rng(1).random((16, 1, 8, 8), dtype=np.float32)
    flat = check_predictor(model_of(lambda x: 0.5 + (mean(x) - 0.5) / 1024), many)
    assert re.search(r"hardly tells images apart: it gives 0\.\d+ to 0\.\d+ for 'edema' on all 16", flat.notes[0])
    assert check_predictor(model_of(lambda x: 0.5 + (mean(x) - 0.5) / 1024), IMAGES).notes == ()


def test_a_network_of_torchxrayvision_that_is_shown_other_grey_values_is_told() -> None:
    xray = pytest.importorskip("torchxrayvision")
    network = xray.models.DenseNet(weights=None, num_classes=1, block_config=(1, 1, 1, 1), num_init_features=4)
    for input_, told in (
        (None, "shown 0 to 1"),
        ({"high": 255}, "shown 0 to 255"),
        ({"low": -1024, "high": 1024}, None),
        ({"low": 0, "high": 255, "mean": 127.5, "std": 127.5 / 1024}, None),
    ):
        model = load_predictor(network, labels=["edema"], input=input_, output="logit", device="cpu")
        assert [told in remark for remark in model.remarks] == ([True] if told else [])


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("nothere.onnx", {}, "neither a file nor an import path"),
        ("math:sqt", {}, "'math' has no 'sqt'. Did you mean 'sqrt'"),
        ("no_such_module_x:f", {}, "cannot be imported: ModuleNotFoundError: No module named 'no_such_module_x'"),
        (mean, {"labels": None}, "does not say what its outputs are: name them with 'labels'"),
        (mean, {"labels": []}, "needs at least one label: name its outputs with 'labels'"),
        (mean, {"labels": ["a", "a"]}, "Label 'a' is named more than once"),
        (mean, {"kind": "sklean"}, "kind is 'sklean'.*Did you mean 'sklearn'"),
        (mean, {"kind": "sklearn"}, "is a function, which is no sklearn"),
        (mean, {"batch_size": 0}, "batch_size is 0"),
        (mean, {"device": "gpu"}, "Device 'gpu' cannot be used here"),
        (mean, {"weights": "w.safetensors"}, "only a torch module takes weights"),
        (3.5, {}, "is a float, which is no torch module"),
    ],
)
def test_a_source_that_cannot_be_is_refused(source: object, settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_predictor(source, **{"labels": ["edema"], **settings})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="Device 'cuda' cannot be used here"):
        load_predictor(nn.Flatten(), labels=["a"], device="cuda")


def test_a_file_beside_the_misspelt_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"Did you mean 'model.onnx'"):
        load_predictor(tmp_path / "modell.onnx", labels=["a"])
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"ending this project does not know .*say its kind"):
        load_predictor(tmp_path / "model.h5", labels=["a"])


@pytest.mark.parametrize("name", ["m.onnx", "m.ts", "m.pt", "m.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a model at all")
    with pytest.raises(InputError, match=re.escape(name)):
        load_predictor(tmp_path / name, labels=["a"], device="cpu")


class Payload:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["m.pt", "m.joblib", "m.pkl"])
def test_a_pickle_is_refused_and_none_of_its_code_runs(tmp_path: Path, name: str) -> None:
    path, mark = tmp_path / name, tmp_path / "ran"
    if name == "m.pt":
        torch.save({"state_dict": Payload(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError, match=r"is a pickle.*trust=True \(--trust\)"):
        load_predictor(path, labels=["a"])
    with pytest.raises(InputError, match=r"is a pickle.*trust=True \(--trust\)"):
        load_predictor(nn.Flatten(), weights=path, labels=["a"]) if name == "m.pt" else load_predictor(
            path, labels=["a"], kind="sklearn"
        )
    assert not mark.exists()


def test_a_trusted_pickle_is_read_with_a_warning(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(IMAGES.reshape(6, -1), [0, 1] * 3)
    joblib.dump(fitted, tmp_path / "m.joblib")
    with pytest.warns(UserWarning, match=r"m.joblib' is a pickle and is read with trust=True"):
        model = load_predictor(tmp_path / "m.joblib", labels=["edema"], trust=True)
    np.testing.assert_array_equal(model.predict(IMAGES)[:, 0], fitted.predict_proba(IMAGES.reshape(6, -1))[:, 1])

    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    torch.save(whole, tmp_path / "whole.pt")
    with pytest.warns(UserWarning, match=r"whole.pt' is a pickle"):
        module = load_predictor(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), weights=tmp_path / "whole.pt", labels=["a"], trust=True
        )
    assert module.fingerprint().startswith("sha256:")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"another architecture .*of 4 tensors, 1 missing .*left over.*of another shape"
    ):
        load_predictor(
            nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2, bias=False), nn.PReLU()),
            weights=tmp_path / "w.pt",
            labels=["a"],
            name="net",
            device="cpu",
        )
    with pytest.raises(InputError, match="holds weights only: say in two lines of the YAML"):
        load_predictor(tmp_path / "w.pt", labels=["a"], device="cpu")
    torch.save({"epoch": 3}, tmp_path / "e.pt")
    with pytest.raises(InputError, match="holds no state_dict"):
        load_predictor(nn.Flatten(), weights=tmp_path / "e.pt", labels=["a"], device="cpu")
    with pytest.raises(InputError, match="does not exist"):
        load_predictor(nn.Flatten(), weights=tmp_path / "none.pt", labels=["a"], device="cpu")


MODULE = """
import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
    def forward(self, x):
        return self.scale * x.mean((1, 2, 3))[:, None]

def build():
    return Net()

def build_function():
    return predict

def predict(images):
    return images.mean(axis=(1, 2, 3))

def broken():
    raise OSError("no weights here")

ready = Net(0.5)

class Wanting(torch.nn.Module):
    def __init__(self, depth):
        super().__init__()
"""


@pytest.mark.parametrize(
    ("name", "factor"), [("Net", 1), ("build", 1), ("build_function", 1), ("predict", 1), ("ready", 0.5)]
)
def test_an_import_path_finds_modules_factories_and_functions(tmp_path: Path, name: str, factor: float) -> None:
    path = tmp_path / "model.py"
    path.write_text(MODULE)
    model = load_predictor(f"{path}:{name}", labels=["a"], device="cpu")
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], factor * mean(IMAGES), atol=1e-6)
    assert model.name == name


def test_a_package_path_and_weights_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "citlr_test_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save({"scale": torch.tensor(0.25)}, tmp_path / "w.pt")
    model = load_predictor("citlr_test_models:build", weights=tmp_path / "w.pt", labels=["a"], device="cpu")
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], 0.25 * mean(IMAGES), atol=1e-6)
    torch.save({"module.scale": torch.tensor(0.25)}, tmp_path / "parallel.pt")
    load_predictor("citlr_test_models:build", weights=tmp_path / "parallel.pt", labels=["a"], device="cpu")
    sys.modules.pop("citlr_test_models")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("buidl", "has no 'buidl'. Did you mean 'build'"),
        ("broken", r"Factory '.*:broken' failed: OSError: no weights here"),
        ("Wanting", "needs arguments: write a function without any"),
    ],
)
def test_an_import_path_that_makes_no_model_is_refused(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / "model.py"
    path.write_text(MODULE)
    with pytest.raises(InputError, match=said):
        load_predictor(f"{path}:{name}", labels=["a"])


def test_a_file_that_fails_to_import_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("import no_such_package_at_all\n")
    with pytest.raises(InputError, match=r"cannot be imported: .*no_such_package_at_all"):
        load_predictor(f"{path}:build", labels=["a"])
    with pytest.raises(InputError, match="does not exist"):
        load_predictor(f"{tmp_path / 'other.py'}:build", labels=["a"])


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'citlr\[onnx\]'"):
        load_predictor(tmp_path / "m.onnx", labels=["a"], device="cpu")


def test_an_onnx_graph_of_another_shape_is_refused_before_it_runs(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.onnx.export(module, (torch.zeros(2, 3, 8, 8),), tmp_path / "m.onnx", external_data=False, verbose=False)
    said = r"takes images of shape \(3, 8, 8\), but the declared input makes \(3, 16, 16\)"
    with pytest.raises(InputError, match=said):
        load_predictor(tmp_path / "m.onnx", labels=["a", "b"], input={"size": 16}, device="cpu")
    with pytest.raises(InputError, match=r"and none is 'probs': say which with output.name"):
        load_predictor(tmp_path / "m.onnx", labels=["a", "b"], output={"kind": "logit", "name": "probs"}, device="cpu")


class Named(torch.nn.Module):
    """A network that has names for its outputs: the mean of the left, the right and the upper half."""

    def __init__(self, names: list[str], where: str = "pathologies") -> None:
        super().__init__()
        if where == "id2label":
            self.config = SimpleNamespace(id2label=dict(enumerate(names)))
        else:
            setattr(self, where, names)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return torch.stack([part.mean((1, 2, 3)) for part in (x[..., :half], x[..., half:], x[..., :half, :])], 1)


HEADS = ["Edema", "Mass", "Effusion"]
RIGHT = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3)).numpy()


@pytest.mark.parametrize("where", ["pathologies", "targets", "class_names", "classes", "id2label"])
@pytest.mark.parametrize("labels", [["Mass", "Effusion", "Edema"], ["effusion", "mass", "EDEMA"], HEADS])
def test_labels_are_found_by_the_names_that_a_network_has_for_its_outputs(where: str, labels: list[str]) -> None:
    own = Named(HEADS, where)(torch.from_numpy(RIGHT)).numpy()
    model = load_predictor(Named(HEADS, where), labels=labels, device="cpu")
    columns = [[head.lower() for head in HEADS].index(label.lower()) for label in labels]
    np.testing.assert_allclose(model.predict(RIGHT), own[:, columns], atol=1e-6)
    said = "names its 3 outputs (Edema, Mass, Effusion), and labels are found by these names: declare columns"
    assert [said in note for note in check_predictor(model, RIGHT).notes] == ([] if labels == HEADS else [True])
    # ... also of a part, as where images are prepared in front of it.
    inside = torch.nn.Sequential(torch.nn.Identity(), Named(HEADS, where))
    np.testing.assert_array_equal(
        load_predictor(inside, labels=labels, device="cpu").predict(RIGHT), model.predict(RIGHT)
    )
    # What is declared is taken, and told where the names contradict it.
    model = load_predictor(Named(HEADS, where), labels=labels, columns=[0, 1, 2], device="cpu")
    np.testing.assert_allclose(model.predict(RIGHT), own, atol=1e-6)
    notes = check_predictor(model, RIGHT).notes
    assert [f"output 0 is taken for '{labels[0]}', and is called 'Edema'" in one for one in notes] == (
        [] if labels == HEADS else [True]
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Edema", "Mass", "Nodule"], "output 0 is taken for 'Mass', and is called 'Edema'"),
        (["Edema", "Mass", "mass"], "output 1 is taken for 'Edema', and is called 'Mass'"),
        (["Mass", "Edema", "Nodule"], "and not all labels are among these: outputs are taken in their order"),
        (["Mass", "Edema"], None),  # of a head that was replaced
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        ([], None),
    ],
)
def test_names_that_do_not_fit_change_nothing(names: list[str], said: str | None) -> None:
    model = load_predictor(Named(names), labels=["Mass", "Edema", "Effusion"], device="cpu")
    np.testing.assert_allclose(model.predict(RIGHT), Named(names)(torch.from_numpy(RIGHT)).numpy(), atol=1e-6)
    notes = check_predictor(model, RIGHT).notes
    assert [said is not None and said in note for note in notes] == ([True] if said else [])
    with pytest.raises(InputError, match=r"gives 3 output\(s\) for 1 label"):
        load_predictor(Named(HEADS), labels=["Mass"], device="cpu").predict(RIGHT)
