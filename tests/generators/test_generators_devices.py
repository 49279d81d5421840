"""A training on two processes learns what one learns from the same batches, and leaves one set of files."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from citlr.errors import InputError
from citlr.generators.registry import build_generator, load_generator
from citlr.learning.plan import Learner
from citlr.learning.trainer import Trainer
from citlr.simulators.phantom.world import PhantomWorld

SMALL = {
    "vae": {"steps": 20, "batch": 8},
    "dldm": {"ae_steps": 12, "denoiser_steps": 20, "denoiser_batch": 8, "ae_batch": 8, "guidance": 1.0},
}
PARTS = {"vae": ("vae",), "dldm": ("autoencoder", "denoiser")}


def curve(folder: Path, part: str) -> dict[str, np.ndarray]:
    rows = list(csv.DictReader((folder / f"{part}.csv").read_text().splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("kind", ["vae", pytest.param("dldm", marks=pytest.mark.slow)])
def test_two_processes_have_the_loss_curve_of_one(kind: str, tmp_path: Path) -> None:
    cohort = (
        PhantomWorld(size=32)
        .sample(60, seed=0, images_per_patient=1)
        .write(tmp_path / "world", min_patients_per_level=1)
    )
    splits = cohort.part("train"), cohort.part("validation")
    for devices in (1, 2):
        model = build_generator(kind, size=32, preset="tiny", devices=devices, accelerator="cpu", **SMALL[kind])
        model.fit(*splits, seed=0, directory=tmp_path / str(devices))
        model.save(tmp_path / f"model-{devices}")
        assert model.splits == splits
    for part in PARTS[kind]:
        one, two = curve(tmp_path / "1", part), curve(tmp_path / "2", part)
        assert one.keys() == two.keys()
        for name, values in one.items():
            np.testing.assert_allclose(two[name], values, atol=1e-4, err_msg=f"{part} {name}")
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == sorted(
        path.name for path in (tmp_path / "2").iterdir()
    )
    again = load_generator(tmp_path / "model-2")
    assert again.fingerprint() == model.fingerprint()


def test_processes_share_a_batch_equally_or_not_at_all() -> None:
    trainer = Trainer("cpu", "32-true")
    asked = {"seed": 0, "part": "a", "step": 1}
    whole = trainer.rows(20, **asked, batch_size=8)
    shares = []
    for rank in (0, 1):
        trainer.fabric = SimpleNamespace(global_rank=rank, world_size=2)
        shares.append(trainer.rows(20, **asked, batch_size=8))
    np.testing.assert_array_equal(np.stack(shares, axis=1).ravel(), whole)
    with pytest.raises(InputError, match=r"A batch of 9 images \(training of the a\) cannot be shared equally by 2"):
        trainer.rows(20, **asked, batch_size=9)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_devices_that_are_not_there_are_said(tmp_path: Path) -> None:
    cohort = (
        PhantomWorld(size=32)
        .sample(60, seed=0, images_per_patient=1)
        .write(tmp_path / "world", min_patients_per_level=1)
    )
    model = build_generator("vae", size=32, preset="tiny", devices=2, accelerator="cuda")
    with pytest.raises(InputError, match="There are no 2 devices of kind 'cuda' here"):
        model.fit(cohort.part("train"), cohort.part("validation"), seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu() -> None:
    trainer = Trainer("cuda")
    net = torch.nn.Linear(64, 64).to(trainer.device)
    learner = Learner(net, torch.optim.AdamW(net.parameters()))
    learner.runner, learner.stepper = trainer.fabric.setup(net, learner.optimizer)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.descend(learner.runner(trainer.put(torch.ones(8, 64))).square().mean(), learner)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.read()
