"""Presets, one for each budget: what "laptop" always was, and what "workstation" takes from images and device."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import citlr
from citlr.config.kinds import GENERATORS
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError
from citlr.generators.conditions import two_levels
from citlr.generators.diffusion import presets
from citlr.generators.diffusion.ldm import DLDM
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.registry import build_generator, load_generator
from citlr.simulators.phantom.world import PhantomWorld

KINDS = tuple(GENERATORS)


def test_the_default_is_what_it_was_under_its_former_name() -> None:
    former, now, plain = (
        one.to_json() for one in (LDMConfig.preset_of("small"), LDMConfig.preset_of("laptop"), LDMConfig())
    )
    assert former == now == plain
    assert (now["preset"], now["ae_steps"], now["denoiser_steps"], now["follow"]) == ("laptop", 300, 2000, [])
    assert (now["ae_channels"], now["unet_channels"], now["denoiser_batch"]) == ([32], [32, 32], 16)


@pytest.mark.parametrize("kind", KINDS)
def test_every_budget_is_there_for_every_kind(kind: str) -> None:
    for preset in ("laptop", "workstation", "paper"):
        assert build_generator(kind, size=128, preset=preset).config.preset == preset


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_by_the_public_name(kind: str) -> None:
    built = citlr.build_generator(kind, hold=["view"], preset="tiny")
    assert (built.kind, built.size, tuple(built.hold), built.config.preset) == (kind, 64, ("view",), "tiny")
    with pytest.raises(InputError, match=r"hold='view': this is one text; give a list, such as \['view'\]"):
        citlr.build_generator(kind, hold="view")


def test_a_class_that_calls_itself_otherwise_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be saved under a kind that nobody can load."""
    monkeypatch.setitem(GENERATORS, "mean-shift", GENERATORS["vae"])
    with pytest.raises(StateError, match=r"ConditionalVAE is 'mean-shift' in config/.*and 'vae' in its"):
        build_generator("mean-shift", size=32)


def test_what_follows_from_images_and_device_grows_with_them_and_is_overridden_one_by_one() -> None:
    config = LDMConfig.preset_of("workstation", size=256, denoiser_steps=7)
    assert "denoiser_steps" not in config.follow
    few, many = config.for_images(1000, None), config.for_images(200_000, 80.0)
    assert few.denoiser.denoiser_steps == many.denoiser.denoiser_steps == 7
    assert few.denoiser.unet_channels < many.denoiser.unet_channels
    assert few.autoencoder.ae_steps * few.autoencoder.ae_batch < many.autoencoder.ae_steps * many.autoencoder.ae_batch
    assert few.denoiser.denoiser_batch < many.denoiser.denoiser_batch
    assert {LDMConfig.preset_of("workstation", size=size).latent_size for size in (128, 256)} == {32}
    assert config.for_images(200_000, 6.0).denoiser.denoiser_batch < many.denoiser.denoiser_batch
    shift = build_generator("latent-shift", size=128, preset="workstation").config.for_images(1000, None)
    plain = LDMConfig.preset_of("workstation", size=128).for_images(1000, None)
    assert dict(shift.to_json()["autoencoder"])["ae_steps"] == plain.autoencoder.ae_steps


def test_the_memory_that_batches_are_chosen_by_is_what_a_step_keeps() -> None:
    """Three times what the forward pass saves: activations, their gradients, and what convolutions work with."""
    size = 256
    model = DLDM(size=size, preset="workstation")
    model.build(two_levels(), seed=0)
    parts = model._sampler
    noise, codes = torch.zeros(1, *model.config.latent_shape), torch.zeros(1, two_levels().width)
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    def counted(network: torch.nn.Module, *given: Tensor) -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            network(*given)
        return 3 * (sum(kept.values()) - 4 * sum(one.numel() for one in network.parameters()))

    image = counted(parts.autoencoder, torch.zeros(1, 1, size, size), noise)
    latent = counted(parts.denoiser, noise, torch.zeros(1).long(), codes)
    assert image <= presets.BYTES_PER_PIXEL * size**2 <= 2 * image
    assert latent <= presets.BYTES_PER_POSITION * model.config.latent_size**2 <= 2 * latent


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Cohort]:
    sample = PhantomWorld(size=128).sample(40, seed=3, images_per_patient=1)
    whole = sample.write(tmp_path_factory.mktemp("phantom"), min_patients_per_level=1)
    return whole.take(np.arange(28)), whole.take(np.arange(28, 40))


def test_a_workstation_at_128_pixels_trains_and_says_before_what_it_takes(
    splits: tuple[Cohort, Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = StringIO()
    narrator = Narrator(quiet=False, console=Console(file=said, width=400))
    tiny = {"ae_steps": 2, "ae_batch": 2, "denoiser_steps": 2, "guidance": 1.0, "recentre": 0, "accelerator": "cpu"}
    model = DLDM(128, preset="workstation", **tiny)
    model.fit(*splits, seed=0, directory=tmp_path / "training", narrator=narrator)
    assert "Preset 'workstation', 28 images of 128 pixels, cpu: " in said.getvalue()
    assert "denoiser_batch=16" in said.getvalue()
    assert "ae_batch=" not in said.getvalue()
    assert (model.config.autoencoder.ae_batch, model.config.denoiser.unet_channels) == (2, (32, 64, 96))
    model.save(tmp_path / "saved")
    again = load_generator(tmp_path / "saved")
    assert again.config == model.config
    assert again.fingerprint() == model.fingerprint()
    # Other machines decide otherwise; a training that goes on keeps what it began with.
    monkeypatch.setattr("citlr.generators.diffusion.presets.BATCH_WITHOUT_GPU", 8)
    elsewhere = DLDM(128, preset="workstation", **tiny)
    assert elsewhere.fit(*splits, seed=0, directory=tmp_path / "training").fingerprint() == model.fingerprint()


def test_what_is_no_folder_or_kind_of_a_generator_is_named() -> None:
    with pytest.raises(InputError, match="directory is a NoneType; give the folder that `save` was given"):
        load_generator(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no generator of the kind"):
        build_generator(["edits"])  # type: ignore[arg-type]
