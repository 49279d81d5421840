"""Programs of torch.export: written, checked against the module, read as a user brings them, or refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from citlr.config.model import InputConfig
from citlr.errors import InputError
from citlr.predictors.check import check_predictor
from citlr.predictors.export import export_onnx, export_program, make_card
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec, OutputSpec

LABELS = ["edema", "mass"]
IMAGES = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)


class Tiny(nn.Module):
    """A small classifier with what differs between training and evaluation."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def direct(module: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(module.eval()(torch.from_numpy(IMAGES)).double()).numpy()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    assert export_program(Tiny().train(), path, make_card(LABELS, input=InputSpec(size=8))) < 1e-6
    return path


def test_what_was_written_is_read_with_its_card_and_gives_what_the_module_gives(file: Path) -> None:
    model = load_predictor(file, device="cpu")
    assert model.labels == tuple(LABELS)
    np.testing.assert_allclose(model.predict(IMAGES), direct(Tiny()), atol=1e-6)
    assert check_predictor(model, IMAGES).repeat.value == 0
    swapped = load_predictor(file, labels=["mass"], device="cpu")
    np.testing.assert_allclose(swapped.predict(IMAGES)[:, 0], direct(Tiny())[:, 1], atol=1e-6)


def test_a_declared_part_leaves_the_rest_to_the_card(tmp_path: Path) -> None:
    card = make_card(
        LABELS, input=InputSpec(size=8, mean=0.5, std=0.1), output=OutputSpec("logit", activation="softmax")
    )
    export_program(Tiny(), tmp_path / "m.pt2", card)
    whole = load_predictor(tmp_path / "m.pt2", device="cpu")
    for declared in ({"input": {"size": 8}}, {"output": "logit"}, {"columns": [0, 1]}, {"input": InputConfig(size=8)}):
        part = load_predictor(tmp_path / "m.pt2", device="cpu", **declared)
        np.testing.assert_array_equal(part.predict(IMAGES), whole.predict(IMAGES))
        assert part.remarks == ()
    other = load_predictor(tmp_path / "m.pt2", device="cpu", input={"mean": 0.25})
    assert (other.input.mean, other.input.std) == (0.25, 0.1)
    assert other.remarks == (
        "Model 'm' is declared to have input.mean: 0.25, and its file says 0.5: what was declared is used.",
    )
    written = InputConfig(size=8).model_dump(mode="json")
    assert written == {"size": 8}, "what was not said is not written into a run, and so not said when it is read"


class Colours(torch.nn.Module):
    """A model of three channels: the mean of two of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))[:, :2]


def test_a_mean_for_each_channel_may_be_declared_where_the_card_says_the_channels(tmp_path: Path) -> None:
    card = make_card(LABELS, input=InputSpec(size=8, channels=3))
    export_program(Colours(), tmp_path / "m.pt2", card)
    model = load_predictor(tmp_path / "m.pt2", device="cpu", input={"mean": [0.1, 0.2, 0.3]})
    assert (model.input.channels, model.input.mean) == (3, (0.1, 0.2, 0.3))
    with pytest.raises(InputError, match=r"mean has 2 values for 3 channel"):
        load_predictor(tmp_path / "m.pt2", device="cpu", input={"mean": [0.1, 0.2]})


def test_the_fingerprint_is_that_of_the_file(file: Path, tmp_path: Path) -> None:
    export_program(Tiny(seed=1), tmp_path / "other.pt2", make_card(LABELS, input=InputSpec(size=8)))
    same, again, other = (
        load_predictor(one, device="cpu").fingerprint() for one in (file, file, tmp_path / "other.pt2")
    )
    assert same == again != other


def test_somebody_elses_program_with_a_fixed_batch_says_its_own_size(tmp_path: Path) -> None:
    program = torch.export.export(Tiny().eval(), (torch.zeros(4, 1, 8, 8),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    model = load_predictor(tmp_path / "fixed.pt2", labels=LABELS, output="logit", device="cpu")
    assert (model.input.size, model.input.channels) == ((8, 8), 1)
    np.testing.assert_allclose(model.predict(IMAGES), direct(Tiny()), atol=1e-6)
    taken = load_predictor(program, labels=LABELS, output="logit", device="cpu", name="program")
    np.testing.assert_allclose(taken.predict(IMAGES), direct(Tiny()), atol=1e-6)


class Turned(nn.Module):
    """Gives the classes of the only image that it takes along the first axis."""

    def __init__(self, *, squeezed: bool) -> None:
        super().__init__()
        self.tiny, self.squeezed = Tiny().eval(), squeezed

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        given = self.tiny(image)
        return given.squeeze(0) if self.squeezed else given.T


@pytest.mark.parametrize("squeezed", [True, False])
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_classes_are_never_taken_for_images_of_a_fixed_batch(tmp_path: Path, squeezed: bool, ending: str) -> None:
    module, path = Turned(squeezed=squeezed).eval(), tmp_path / f"m.{ending}"
    if ending == "pt2":
        torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 8, 8),)), path)
    else:
        pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
        torch.onnx.export(module, (torch.zeros(1, 1, 8, 8),), path, external_data=False, verbose=False)
    model = load_predictor(path, labels=["mass"], output="logit", device="cpu")
    with pytest.raises(InputError, match=r"gives an output of shape \(2, 1\) for 1 image"):
        model.predict(IMAGES)


@pytest.mark.parametrize("size", [1, 4])
def test_a_program_in_training_mode_is_refused(tmp_path: Path, size: int) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2)).train()
    torch.export.save(torch.export.export(module, (torch.zeros(size, 1, 8, 8),)), tmp_path / "m.pt2")
    with pytest.raises(InputError, match=r"was exported in training mode \(.*batch_norm"):
        load_predictor(tmp_path / "m.pt2", labels=LABELS, output="logit", device="cpu")
    dropping = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2)).train()
    program = torch.export.export(dropping, (torch.zeros(size, 1, 8, 8),))
    with pytest.raises(InputError, match="was exported in training mode"):
        load_predictor(program, labels=LABELS, output="logit", device="cpu")
    still = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2), nn.Dropout(0.0), nn.Flatten(), nn.Linear(72, 2))
    program = torch.export.export(still.train(), (torch.zeros(size, 1, 8, 8),))
    assert load_predictor(program, labels=LABELS, output="logit", device="cpu").predict(IMAGES).shape == (7, 2)


def test_a_program_of_two_inputs_is_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a + b).mean(dim=(1, 2, 3), keepdim=False)[:, None]

    torch.export.save(torch.export.export(Two(), (torch.zeros(2, 1, 8, 8),) * 2), tmp_path / "two.pt2")
    with pytest.raises(InputError, match="has 2 inputs"):
        load_predictor(tmp_path / "two.pt2", labels=["a"], device="cpu")


def test_a_damaged_file_and_one_that_is_none_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(file.read_bytes()[:3000])
    (tmp_path / "text.pt2").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "zip.pt2", "w") as archive:
        archive.writestr("a/archive_format", "pt2")
    for name in ("cut.pt2", "text.pt2", "zip.pt2"):
        with pytest.raises(InputError) as refused:
            load_predictor(tmp_path / name, labels=["a"], device="cpu")
        assert name in str(refused.value)
        assert "torch.export" in str(refused.value)


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code of the file has run",))


def test_a_pickle_in_an_archive_is_not_opened_without_trust(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    torch.save(_Payload(), buffer)
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, buffer.getvalue() if "/sample_inputs/" in name else whole.read(name))
    with pytest.raises(InputError, match="holds a pickle"):
        load_predictor(tmp_path / "evil.pt2", device="cpu")
    assert "has run" not in "".join(capfd.readouterr())


def test_no_file_names_a_path_of_the_machine_that_wrote_it(tmp_path: Path) -> None:
    """Weights in the order of channels last are written without a warning, too."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    net = net.to(memory_format=torch.channels_last)
    card = make_card(["a"], input=InputSpec(size=16))
    assert export_program(net, tmp_path / "model.pt2", card) < 1e-6
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        written = [archive.read(name) for name in archive.namelist()]
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    export_onnx(net, tmp_path / "model.onnx", card)
    for content in (*written, (tmp_path / "model.onnx").read_bytes()):
        assert b"site-packages" not in content
        assert __file__.encode() not in content
