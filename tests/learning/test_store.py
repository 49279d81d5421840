"""What a training keeps of its images: 8-bit pixels once, or the cache's own, half-precision latents, and no more."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.pixels.cache import write_cache
from citlr.errors import InputError
from citlr.generators.diffusion.ldm import CLDM, DLDM
from citlr.learning.store import CachedRows, Dataset, MappedRows, Stream, spans, stored
from citlr.simulators.phantom.world import PhantomWorld

SIZE = 32
SHORT = {
    "preset": "tiny",
    "unet_channels": (16, 16),
    "ae_channels": (8,),
    "ae_steps": 2,
    "denoiser_steps": 2,
    "recentre": 8,
    "guidance": 1.0,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    world = PhantomWorld(size=SIZE).sample(80, seed=0, images_per_patient=2)
    return world.write(tmp_path_factory.mktemp("world"), min_patients_per_level=2)


def test_pixels_are_kept_once_in_8_bits_as_they_were_decoded(cohort: Cohort, tmp_path: Path) -> None:
    data = Dataset.of(cohort, size=SIZE, directory=tmp_path)
    (file,) = tmp_path.iterdir()
    assert np.load(file, mmap_mode="r").dtype == np.uint8
    rows = np.array([7, 3, 11])
    np.testing.assert_array_equal(data.images(rows).numpy(), cohort.pixels(rows, size=SIZE))
    in_memory = Dataset.of(cohort, size=SIZE, directory=None)
    assert torch.equal(data.images(slice(0, 9)), in_memory.images(slice(0, 9)))


def test_a_cache_of_the_size_is_read_and_not_copied(cohort: Cohort, tmp_path: Path) -> None:
    cached = write_cache(cohort, tmp_path / "cache", size=SIZE)
    training = tmp_path / "training"
    data = Dataset.of(cached, size=SIZE, directory=training)
    assert isinstance(data.pixels, CachedRows)
    assert data.pixels.shape == (len(cohort), 1, SIZE, SIZE)
    assert not training.exists()
    plain = Dataset.of(cohort, size=SIZE, directory=None)
    rows = np.array([4, 0])
    assert torch.equal(data.images(rows), plain.images(rows))
    assert torch.equal(data.images(slice(3, 9)), plain.images(slice(3, 9)))


def test_a_cache_of_another_size_is_decoded_from_or_refused(cohort: Cohort, tmp_path: Path) -> None:
    cached = write_cache(cohort, tmp_path / "cache", size=SIZE)
    smaller = Dataset.of(cached, size=16, directory=tmp_path / "training")
    assert smaller.images(slice(0, 2)).shape == (2, 1, 16, 16)
    with pytest.raises(InputError, match=r"holds images of 32 pixels .* and 64 pixels .* prepare the cohort"):
        Dataset.of(cached, size=64, directory=tmp_path / "training")
    assert len(list((tmp_path / "training").iterdir())) == 1


def test_the_folder_of_a_training_holds_at_most_twice_the_pixels(cohort: Cohort, tmp_path: Path) -> None:
    parts = cohort.part("train"), cohort.part("validation")
    DLDM(SIZE, hold=["view"], **SHORT).fit(*parts, seed=0, directory=tmp_path)
    arrays = sum(file.stat().st_size for file in tmp_path.glob("*.npy"))
    pixels = sum(len(part) for part in parts) * SIZE**2
    assert 1.5 * pixels < arrays < 2.05 * pixels  # headers of the files are of some weight here


def test_a_training_from_the_cache_is_the_one_from_the_files(cohort: Cohort, tmp_path: Path) -> None:
    cached = write_cache(cohort, tmp_path / "cache", size=SIZE)
    found = []
    for one, folder in ((cohort, None), (cached, tmp_path / "training")):
        parts = one.part("train"), one.part("validation")
        found.append(DLDM(SIZE, hold=["view"], **SHORT).fit(*parts, seed=0, directory=folder).fingerprint())
    assert found[0] == found[1]
    assert not list((tmp_path / "training").glob("pixels*"))


def test_latents_in_half_precision_train_to_nearly_the_same_losses(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = cohort.part("train"), cohort.part("validation")
    losses = []
    for name, dtype in (("half", None), ("single", "float32")):
        if dtype:
            monkeypatch.setattr(
                "citlr.generators.diffusion.parts.stored",
                lambda file, shape, values, dtype: stored(file, shape, values, dtype="float32"),
            )
        CLDM(SIZE, hold=["view"], **{**SHORT, "denoiser_steps": 20}).fit(*parts, seed=0, directory=tmp_path / name)
        losses.append(float((tmp_path / name / "denoiser.csv").read_text().splitlines()[-1].split(",")[1]))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_of_many_images_it_says_what_rests_on_a_sample(
    cohort: Cohort, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citlr.learning.store.SAMPLE", 40)
    parts = cohort.part("train"), cohort.part("validation")
    generator = DLDM(SIZE, hold=["view"], **SHORT).fit(*parts, seed=0, narrator=Narrator(quiet=False))
    said = " ".join(capsys.readouterr().err.split())
    assert f"40 of {len(parts[0])} training images" in said
    assert generator.report["sampled"] == 40


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident of mapped files")
def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    def parts():
        for rows in spans(2048):
            yield rows, np.ones((rows.stop - rows.start, 128, 128), np.uint8)

    mapped = stored(tmp_path / "a.npy", (2048, 128, 128), parts, dtype="uint8")
    assert isinstance(mapped, MappedRows)
    before = resident()
    assert all(bool((mapped[rows] == 1).all()) for rows in spans(2048))
    assert resident() - before < 8_000  # kB, of 33,554


def test_a_change_is_made_as_rows_are_read() -> None:
    asked = []

    def change(values: torch.Tensor, rows: np.ndarray | slice) -> torch.Tensor:
        asked.append(rows)
        return values + 1

    stream = Stream(np.arange(6, dtype=np.float16), change)
    assert stream[np.array([5, 0])].tolist() == [6, 1]
    assert len(asked) == 1
    assert dataclasses.replace(stream, change=None)[slice(0, 2)].tolist() == [0, 1]
