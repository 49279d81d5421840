"""Training: what is learnt, what is kept, and that a killed run ends as one never killed."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from as_user import citlr
from PIL import Image
from torch import nn

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.reading import read_cohort
from citlr.errors import InputError, StateError
from citlr.learning import loop
from citlr.learning.checkpoints import load_state
from citlr.learning.plan import Budget
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.training import classifier as training
from citlr.predictors.training import zoo
from citlr.predictors.training.classifier import masked_bce, train_classifier
from citlr.predictors.training.rounds import augment
from citlr.predictors.training.settings import TrainingSettings

ARCH = "tiny"
SETTINGS = TrainingSettings(
    rounds=4, keep=2, batch_size=16, patience=4, learning_rate=1e-2, accelerator="cpu", dropout=0.1
)


def recipe() -> zoo._Recipe:
    """Give a network of four layers: the loop is the same, the seconds are fewer."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())

    return zoo._Recipe(build, "none.pth", 8)


@pytest.fixture(autouse=True)
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the small network to the recipes."""
    monkeypatch.setitem(zoo._RECIPES, ARCH, recipe())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """120 images: 'bright' is seen in the gray value, 'bar' in a stripe and known for half of them, 'none' is empty."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        bright, bar = rng.integers(0, 2, 2)
        image = rng.normal(0.4 + 0.25 * bright, 0.05, (64, 64))
        image[28:36] += 0.35 * bar
        Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).save(root / f"{number}.png")
        rows.append(
            {
                "image_id": str(number),
                "path": f"{number}.png",
                "patient_id": str(number),
                "sex": "FM"[number % 2],
                "bright": bright,
                "bar": bar if number % 2 else np.nan,
                "none": 0,
                "split": "train" if number < 70 else "validation" if number < 110 else "test",
            }
        )
    return read_cohort(
        pd.DataFrame(rows),
        images=root,
        attribute="sex",
        labels=["bright", "bar", "none"],
        split="split",
        min_patients_per_level=1,
    )


def train(cohort: Cohort, folder: Path, *, export: bool = False, **changes: object):
    """Train; the export, which takes longer than that, only where a test looks at it."""
    settings = replace(SETTINGS, **changes)
    return train_classifier(
        cohort, arch=ARCH, directory=folder, labels=["bright", "bar"], weights=None, settings=settings, export=export
    )


@pytest.fixture(scope="module")
def whole(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing cut off, not to be changed."""
    folder = tmp_path_factory.mktemp("training") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo._RECIPES, ARCH, recipe())
        patch.setattr(training, "export_onnx", no_onnx)
        train(cohort, folder, export=True)
    return folder


def test_masked_bce_is_the_sum_over_labels_of_means_over_known_images() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 3.0], [-0.3, 0.2]], requires_grad=True)
    truth = torch.tensor([[1.0, float("nan")], [0.0, 1.0], [1.0, float("nan")]])
    p = torch.sigmoid(logits.detach())
    first = -(p[0, 0].log() + (1 - p[1, 0]).log() + p[2, 0].log()) / 3
    loss = masked_bce(logits, truth)
    torch.testing.assert_close(loss.detach(), first - p[1, 1].log())
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[[0, 2], 1], torch.zeros(2))
    assert float(masked_bce(logits.detach(), torch.full((3, 2), float("nan")))) == 0.0


def test_augmentation_changes_images_by_the_seed_alone_and_keeps_their_range() -> None:
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    once, again = (augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(images, torch.Generator().manual_seed(2)))
    assert 0 <= once.min() <= once.max() <= 1
    left = torch.zeros(8, 1, 32, 32)
    left[..., :8] = 1.0
    assert (augment(left, torch.Generator().manual_seed(3))[..., :8].mean((1, 2, 3)) > 0.5).all(), "never mirrored"


def test_a_network_learns_and_keeps_checkpoints_that_load(cohort: Cohort, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained = train(cohort, tmp_path / "run", rounds=8, keep=3, augmented=False, export=True)
    assert torch.equal(before, torch.get_rng_state())
    best = trained.checkpoints[0]
    assert best.mean_auroc > 0.9
    assert len(trained.checkpoints) == 3 == len(list((tmp_path / "run").glob("checkpoint-*")))
    assert trained.spread == pytest.approx(best.mean_auroc - trained.checkpoints[-1].mean_auroc)
    history = pd.read_csv(tmp_path / "run" / "training.csv")
    assert list(history.columns) == ["round", "step", "loss", "mean_auroc", "auroc_bright", "auroc_bar"]
    assert history["mean_auroc"].max() == pytest.approx(best.mean_auroc)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    images = cohort.part("test").pixels(size=64)
    given = [load_predictor(path, device="cpu").predict(images) for path in (best.path, trained.program)]
    np.testing.assert_allclose(given[0], given[1], atol=1e-4)
    assert trained.onnx is not None
    np.testing.assert_allclose(load_predictor(trained.onnx, device="cpu").predict(images), given[0], atol=1e-4)
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    assert max(summary["largest_export_difference"].values()) < 1e-4
    assert summary["start"]["kind"] == "random"
    assert trained.notes[0] == trained.start.text


def no_onnx(*_: object) -> float:
    """Stand in for the ONNX export, which takes seconds and is tested above."""
    return 0.0


def files(folder: Path) -> dict[str, object]:
    """Read all files of a training; of its state all but the seconds that it took."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    tensors, head = load_state(folder / "state.safetensors")
    del head["core_seconds"]
    found["state.safetensors"] = {name: value.numpy().tobytes() for name, value in tensors.items()}, head
    return found


@pytest.mark.parametrize(
    "moment", ["in a round", "before the history", "before the state", "after the state", "before the export"]
)
def test_a_training_that_was_cut_off_ends_with_the_same_bits(
    cohort: Cohort, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(training, "export_onnx", no_onnx)
    calls = 0

    def cut(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls == (1 if moment == "before the export" else 3):
            raise Cut

    write, save = training.write_rounds, loop.store_progress
    with monkeypatch.context() as patch:
        if moment == "in a round":
            patch.setattr(training, "augment", lambda images, rng: (cut(), augment(images, rng))[1])
        elif moment == "before the history":
            patch.setattr(training, "write_rounds", lambda *a: (cut(), write(*a)))
        elif moment == "before the state":
            patch.setattr(loop, "store_progress", lambda *a, **k: (cut(), save(*a, **k)))
        elif moment == "after the state":
            patch.setattr(loop, "store_progress", lambda *a, **k: (save(*a, **k), cut()))
        else:
            patch.setattr(training, "export_program", cut)
        with pytest.raises(Cut):
            train(cohort, tmp_path / "cut", export=True)
    assert not (tmp_path / "cut" / "training.json").exists()
    train(cohort, tmp_path / "cut", export=True)
    expected, resumed = files(whole), files(tmp_path / "cut")
    assert expected.keys() == resumed.keys()
    assert [name for name in expected if expected[name] != resumed[name]] == []


KILLED = """
import os, signal, sys
from torch import nn
from citlr.data.cohort import Cohort
from citlr.learning import loop
from citlr.predictors.training import classifier, zoo
from citlr.predictors.training.settings import TrainingSettings

sys.path.insert(0, sys.argv[4])
from test_predictors_training import SETTINGS, recipe

zoo._RECIPES["tiny"] = recipe()
save, left = loop.store_progress, [2]

def killing(*given, **named):
    save(*given, **named)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

loop.store_progress = killing
cohort = Cohort.from_parquet(sys.argv[1], root=sys.argv[2])
classifier.train_classifier(
    cohort, arch="tiny", directory=sys.argv[3], labels=["bright", "bar"], weights=None, settings=SETTINGS
)
"""


def test_a_training_killed_by_the_system_goes_on(cohort: Cohort, whole: Path, tmp_path: Path) -> None:
    cohort.to_parquet(tmp_path / "cohort.parquet")
    where = [tmp_path / "cohort.parquet", cohort.root, tmp_path / "killed", Path(__file__).parent]
    done = citlr(*where, before=KILLED)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "killed" / "state.safetensors").is_file()
    assert not (tmp_path / "killed" / "training.json").exists()
    # The one is found finished, and only looked at.
    killed, finished = train(cohort, tmp_path / "killed"), train(cohort, whole)
    assert [(c.round, c.auroc) for c in killed.checkpoints] == [(c.round, c.auroc) for c in finished.checkpoints]
    for one, other in zip(killed.checkpoints, finished.checkpoints, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_a_finished_training_is_not_repeated_and_another_is_not_mixed_in(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "export_onnx", no_onnx)
    first = train(cohort, tmp_path / "run", export=True)
    stamp = (tmp_path / "run" / "training.json").stat().st_mtime_ns
    assert train(cohort, tmp_path / "run", export=True) == first
    assert (tmp_path / "run" / "training.json").stat().st_mtime_ns == stamp
    with pytest.raises(StateError, match="another network, cohort or settings"):
        train(cohort, tmp_path / "run", batch_size=8)
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(StateError, match="is damaged"):
        train(cohort, tmp_path / "run")


def test_an_export_that_was_not_wanted_can_follow(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "export_onnx", no_onnx)
    wanted = {"arch": ARCH, "directory": tmp_path, "labels": ["bright", "bar"], "weights": None, "settings": SETTINGS}
    without = train_classifier(cohort, export=False, **wanted)
    assert without.program is None
    assert not (tmp_path / "model.pt2").exists()
    assert json.loads((tmp_path / "training.json").read_text())["largest_export_difference"] == {}
    exported = train_classifier(cohort, **wanted)
    assert exported.program == tmp_path / "model.pt2"
    assert exported.checkpoints == without.checkpoints


def test_training_stops_early_but_not_before_enough_checkpoints(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "mean_auroc", lambda auroc: 0.5)
    trained = train(cohort, tmp_path / "run", rounds=9, keep=3, patience=1, round_steps=1)
    assert len(pd.read_csv(tmp_path / "run" / "training.csv")) == 3
    assert [kept.round for kept in trained.checkpoints] == [1, 2, 3]


def test_a_training_goes_on_until_enough_checkpoints_are_alike(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.9, 0.5, 0.6, 0.885, 0.7, 0.881, 0.6, 0.6])
    monkeypatch.setattr(training, "mean_auroc", lambda auroc: next(values))
    trained = train(cohort, tmp_path / "run", rounds=8, keep=3, patience=1, round_steps=1)
    assert [kept.round for kept in trained.checkpoints] == [1, 4, 6]
    assert not any("of similar accuracy" in note for note in trained.notes)
    assert len(pd.read_csv(tmp_path / "run" / "training.csv")) == 6


class Cut(BaseException):
    """As abrupt as a kill can be inside one process."""


def test_one_cycle_moves_the_rate_and_is_resumed(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step, save = torch.optim.Adam.step, loop.store_progress

    def watched(self: torch.optim.Adam, *given: object, **named: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *given, **named)

    def cutting(*given: Any, **named: Any) -> None:
        save(*given, **named)
        raise Cut

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    train(cohort, tmp_path / "run", schedule="one-cycle", round_steps=2)
    wanted = [Budget(8, learning_rate=1e-2, schedule="one-cycle").rate(k) for k in range(8)]
    assert rates == pytest.approx(wanted)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(loop, "store_progress", cutting)
        with pytest.raises(Cut):
            train(cohort, tmp_path / "cut", schedule="one-cycle", round_steps=2)
    rates.clear()
    train(cohort, tmp_path / "cut", schedule="one-cycle", round_steps=2)
    assert rates == pytest.approx(wanted[2:])
    whole, resumed = files(tmp_path / "run"), files(tmp_path / "cut")
    for name in ("state.safetensors", "training.csv"):
        assert resumed[name] == whole[name]


def test_checkpoints_of_unlike_accuracy_are_said(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, 0.6, 0.9, 0.7])
    monkeypatch.setattr(training, "mean_auroc", lambda auroc: next(values))
    trained = train(cohort, tmp_path / "run", round_steps=1)
    assert [kept.round for kept in trained.checkpoints] == [3, 4]
    said = "Of the 2 checkpoints of tiny that were kept, only 1 within 0.02 of the best in mean AUROC"
    assert any(note.startswith(said) and "up to 0.200 below it" in note for note in trained.notes)


def test_progress_says_loss_and_auroc_of_every_label(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "export_onnx", no_onnx)
    train_classifier(
        cohort,
        arch=ARCH,
        directory=tmp_path / "run",
        labels=["bright"],
        weights=None,
        settings=SETTINGS,
        narrator=Narrator(quiet=False),
        export=False,
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert "starts at random" in said.err
    assert re.search(r"loss 0\.\d+  AUROC bright [01]\.\d{3}", said.err), said.err


def test_without_the_onnx_extra_the_training_says_so(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    trained = train(cohort, tmp_path / "run", round_steps=1, export=True)
    assert trained.onnx is None
    assert any("citlr[onnx]" in note for note in trained.notes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["brigt"], r"has no label 'brigt'\. Did you mean 'bright'"),
        (["none"], "Label 'none' has one class only in the training split"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(cohort: Cohort, tmp_path: Path, labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_classifier(cohort, arch=ARCH, directory=tmp_path, labels=labels, weights=None, settings=SETTINGS)


def test_a_validation_split_of_one_class_is_refused_or_said(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = cohort.frame.copy()
    frame.loc[frame["split"] == "validation", "bar"] = 1.0
    one = replace(cohort, frame=frame)
    trained = train(one, tmp_path / "run", round_steps=1)
    assert trained.checkpoints[0].auroc["bar"] is None
    assert any("one class of 'bar' only" in note for note in trained.notes)
    with pytest.raises(InputError, match="No label has both classes in the validation split"):
        train_classifier(one, arch=ARCH, directory=tmp_path / "b", labels=["bar"], weights=None, settings=SETTINGS)
    with pytest.raises(InputError, match="no images in its validation split"):
        train(one.take(np.flatnonzero(frame["split"] == "train")), tmp_path / "c")


def test_a_training_that_diverges_is_one_sentence(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged.*lower learning_rate|diverged .*NaN on the validation"):
        train(cohort, tmp_path / "run", learning_rate=1e30)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 32}, "size is 32; the networks work from 64 pixels up"),
        ({"rounds": 3}, "fewer than the 10 checkpoints to keep"),
        ({"batch_size": 1}, "batch normalisation needs 2 images per device"),
        ({"patience": 0}, "patience is 0"),
        ({"schedule": "one-cycl"}, "it can be constant or one-cycle. Did you mean 'one-cycle'"),
        ({"tolerance": 2.0}, "tolerance is 2.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TrainingSettings(**settings)


def test_a_first_weights_file_sets_a_lower_rate(tmp_path: Path) -> None:
    network, start = zoo.build_network(ARCH, ["a"], weights=None)
    assert training._default_rate(network, start) == 1e-3
    assert training._default_rate(network, replace(start, kind="imagenet")) == 1e-4


def test_an_exported_network_is_a_batched_predictor(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "export_onnx", no_onnx)
    trained = train(cohort, tmp_path / "run", round_steps=1, export=True)
    model = load_predictor(trained.program)
    assert isinstance(model, BatchedPredictor)
    assert model.output.kind == "logit"
    assert model.labels == ("bright", "bar")
