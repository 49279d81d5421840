"""The cache, data set objects as sources, and leaks between splits."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.images import read_image
from citlr.data.leaks import check_leaks, fingerprints, near_duplicates, perceptual_hash, require_unseen
from citlr.data.pixels.cache import cache_name, open_cache, write_cache
from citlr.data.pixels.shards import CachePixels
from citlr.data.pixels.shown import Seen
from citlr.data.pixels.source import FolderPixels
from citlr.data.prepared import write_prepared
from citlr.data.sources.torch_dataset import read_dataset
from citlr.errors import InputError, StateError


def picture(seed: int, side: int = 96) -> np.ndarray:
    """Draw something smooth with its own shape, as a radiograph is."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(20, 235, (9, 9), dtype=np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    rows = []
    for patient in range(30):
        Image.fromarray(picture(patient)).save(tmp_path / f"{patient}.png")
        rows.append(
            {
                "image_id": f"i{patient}",
                "path": f"{patient}.png",
                "patient_id": f"p{patient}",
                "split": ["train", "validation", "test"][patient % 3],
                "sex": ["f", "m"][patient % 2],
                "edema": float(patient % 2),
            }
        )
    return Cohort(pd.DataFrame(rows), tmp_path, attributes=("sex",), labels=("edema",))


@pytest.mark.parametrize("shard_size", [7, 4096])
def test_cached_pixels_are_the_decoded_ones(cohort: Cohort, tmp_path: Path, shard_size: int) -> None:
    cached = write_cache(cohort, tmp_path / "cache", size=32, shard_size=shard_size)
    np.testing.assert_array_equal(cached.pixels(size=32), cohort.pixels(size=32))
    rows = [29, 3, 3, 0]
    np.testing.assert_array_equal(cached.pixels(rows, size=32), cohort.pixels(rows, size=32))
    again = open_cache(cohort.part("test"), tmp_path / "cache")
    np.testing.assert_array_equal(again.pixels(size=32), cohort.part("test").pixels(size=32))
    assert cached.pixels([0], size=16).shape == (1, 1, 16, 16)
    with pytest.raises(InputError, match="holds images of 32 pixels"):
        cached.pixels([0], size=64)
    # The cache alone is read: the files may go.
    (cohort.root / "0.png").unlink()
    assert cached.pixels([0], size=32).shape == (1, 1, 32, 32)


def test_the_cache_is_mapped_and_8_bit(cohort: Cohort, tmp_path: Path) -> None:
    cached = write_cache(cohort, tmp_path / "cache", size=32)
    shard = np.load(tmp_path / "cache" / "shard-00000.npy", mmap_mode="r")
    assert (shard.shape, shard.dtype) == ((30, 32, 32), np.uint8)
    cached.pixels(size=32)
    assert isinstance(next(iter(cached.source._maps.values())), np.memmap)  # type: ignore[union-attr]


def test_an_interrupted_cache_goes_on_after_the_last_whole_shard(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(FolderPixels):
        left = 17

        def see(self, *args: Any, **kwargs: Any) -> Seen:
            Dies.left -= 1
            if Dies.left < 0:
                raise KeyboardInterrupt
            return super().see(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr("citlr.data.cohort.FolderPixels", Dies)
        with pytest.raises(KeyboardInterrupt):
            write_cache(cohort, tmp_path / "cache", size=32, shard_size=8, workers=1)
    shards = sorted((tmp_path / "cache").glob("shard-*.npy"))
    assert len(shards) == 2
    stamps = [shard.stat().st_mtime_ns for shard in shards]
    with pytest.raises(StateError, match="no whole cache"):
        open_cache(cohort, tmp_path / "cache")
    cached = write_cache(cohort, tmp_path / "cache", size=32, shard_size=8)
    assert [shard.stat().st_mtime_ns for shard in shards] == stamps
    np.testing.assert_array_equal(cached.pixels(size=32), cohort.pixels(size=32))
    assert [file.name for file in (tmp_path / "cache").glob(".*")] == [".lock"]


def test_unreadable_images_are_left_out_of_the_cached_cohort(cohort: Cohort, tmp_path: Path) -> None:
    (cohort.root / "4.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"1 of 30 images .*4.png"):
        write_cache(cohort, tmp_path / "strict", size=32)
    cached = write_cache(cohort, tmp_path / "cache", size=32, max_unreadable=0.1)
    assert "i4" not in set(cached.frame["image_id"])
    assert cached.flow[-1].names == ("4.png",)
    np.testing.assert_array_equal(cached.pixels([4], size=32), cohort.pixels([5], size=32))


def test_a_cache_of_something_else_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    write_cache(cohort.take(range(5)), tmp_path / "cache", size=32)
    with pytest.raises(StateError, match="other images, another size"):
        write_cache(cohort, tmp_path / "cache", size=32)
    with pytest.raises(InputError, match="lacks 25 images"):
        open_cache(cohort, tmp_path / "cache")


def test_a_cache_is_never_stale(cohort: Cohort, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    first = write_cache(cohort, place, size=32, shard_size=8)
    first.to_parquet(tmp_path / "cohort.parquet")
    # A copy has another time and the same content: still fresh.
    os.utime(cohort.root / "3.png", ns=(1, 1))
    assert isinstance(open_cache(cohort, place).source, CachePixels)
    assert isinstance(Cohort.from_parquet(tmp_path / "cohort.parquet").source, CachePixels)
    # The same length and another content, which only its digest shows.
    content = bytearray((cohort.root / "3.png").read_bytes())
    content[-20] ^= 1
    (cohort.root / "3.png").write_bytes(bytes(content))
    for opened in (lambda: open_cache(cohort, place), lambda: Cohort.from_parquet(tmp_path / "cohort.parquet")):
        with pytest.raises(StateError, match=r"1 of 30 images were changed after the cache .*3\.png"):
            opened()
    assert Cohort.from_parquet(tmp_path / "cohort.parquet", cache=False).source is None
    # Written again, only the shard with the changed file is decoded, and the cache has another name inside.
    Image.fromarray(picture(99)).save(cohort.root / "3.png")
    stamps = {shard.name: shard.stat().st_mtime_ns for shard in place.glob("*.npy")}
    again = write_cache(cohort, place, size=32, shard_size=8)
    changed = {shard.name for shard in place.glob("*.npy") if shard.stat().st_mtime_ns != stamps[shard.name]}
    assert changed == {"shard-00000.npy"}
    np.testing.assert_array_equal(again.pixels([3], size=32)[0], read_image(cohort.root / "3.png", size=32))
    assert again.source.key != first.source.key  # type: ignore[union-attr]
    with pytest.raises(StateError, match="was written anew after the cohort"):
        Cohort.from_parquet(tmp_path / "cohort.parquet")


def disguise(file: Path, content: bytes) -> None:
    """Give a file another content of the same length and the time that it had, as `cp -p` and rsync do."""
    status = file.stat()
    assert len(content) == status.st_size
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def plain(file: Path, seed: int) -> None:
    """Write a picture without compression: all have one length."""
    Image.fromarray(picture(seed)).save(file, compress_level=0)


def test_another_content_of_the_same_length_and_time_is_seen(cohort: Cohort, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    for name in ("3.png", "11.png"):
        plain(cohort.root / name, 3)
    write_cache(cohort, place, size=32, shard_size=8)
    plain(tmp_path / "other.png", 77)
    disguise(cohort.root / "3.png", (tmp_path / "other.png").read_bytes())
    with pytest.raises(StateError, match=r"1 of 30 images were changed after the cache .*3\.png"):
        open_cache(cohort, place)
    again = write_cache(cohort, place, size=32, shard_size=8)
    np.testing.assert_array_equal(again.pixels(size=32), cohort.pixels(size=32))
    # Another folder with other images of the same names, lengths and times, and without one of them.
    shutil.copytree(cohort.root, elsewhere := tmp_path / "elsewhere", ignore=lambda *_: ["cache"])
    disguise(elsewhere / "11.png", (tmp_path / "other.png").read_bytes())
    (elsewhere / "20.png").unlink()
    there = write_cache(replace(cohort, root=elsewhere), place, size=32, shard_size=8, max_unreadable=0.1)
    assert "i20" not in set(there.frame["image_id"])
    np.testing.assert_array_equal(there.pixels(size=32), replace(there, source=None).pixels(size=32))


def test_a_cache_of_the_version_before_is_read_and_completed(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache"
    key = write_cache(cohort, place, size=32, shard_size=8).source.key  # type: ignore[union-attr]
    for file in place.glob("shard-*.parquet"):
        pd.read_parquet(file).drop(columns=["ctime_ns", "inode"]).to_parquet(file, index=False)
    assert open_cache(cohort, place).source.key == key  # type: ignore[union-attr]
    shards = {file: file.stat().st_mtime_ns for file in place.glob("*.npy")}
    assert write_cache(cohort, place, size=32, shard_size=8).source.key == key  # type: ignore[union-attr]
    assert all(file.stat().st_mtime_ns == time for file, time in shards.items())
    # From then on no content is read to open it.
    monkeypatch.setattr("citlr.data.pixels.shards._content_digest", lambda _: "")
    assert open_cache(cohort, place).source.key == key  # type: ignore[union-attr]


def test_a_cache_of_another_object_is_made_anew(tmp_path: Path) -> None:
    ranged: dict[str, Any] = {"attribute": "sex", "labels": ["edema"], "min_patients_per_level": 1}
    for scale in (1.0, 0.5):
        cohort = read_dataset(Torch(scale=scale), **ranged)
        cached = write_cache(cohort, tmp_path / "cache", size=4)
        assert np.abs(cached.pixels(size=4) - cohort.pixels(size=4)).max() <= 1 / 510 + 1e-6


def test_a_mended_image_comes_back(cohort: Cohort, tmp_path: Path) -> None:
    (cohort.root / "4.png").rename(tmp_path / "away.png")
    assert len(write_cache(cohort, tmp_path / "cache", size=32, max_unreadable=0.1)) == 29
    (tmp_path / "away.png").rename(cohort.root / "4.png")
    mended = write_cache(cohort, tmp_path / "cache", size=32)
    np.testing.assert_array_equal(mended.pixels(size=32), cohort.pixels(size=32))


def test_a_cohort_keeps_its_cache_on_disk(cohort: Cohort, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_cache(cohort, home / "cache", size=32).to_parquet(home / "cohort.parquet")
    # The whole folder may be moved, and the images may be gone.
    moved = home.rename(tmp_path / "moved")
    expected = cohort.pixels(size=32)
    for file in cohort.root.glob("*.png"):
        file.unlink()
    stored = Cohort.from_parquet(moved / "cohort.parquet")
    np.testing.assert_array_equal(stored.pixels(size=32), expected)
    # A cohort elsewhere, such as a run's, finds it as well.
    stored.part("test").to_parquet(tmp_path / "run" / "cohort.parquet")
    assert len(Cohort.from_parquet(tmp_path / "run" / "cohort.parquet").pixels(size=32)) == 10
    (moved / "cache").rename(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"cache, which is not there: .*cohort.cache: false"):
        Cohort.from_parquet(moved / "cohort.parquet")


def test_a_small_cache_does_not_blind_the_search_for_duplicates(cohort: Cohort, tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(cohort.root / "5.png")
    cached = write_cache(cohort, tmp_path / "cache", size=16)
    assert [(pair.first, pair.second) for pair in near_duplicates(cached)] == [("i0", "i5")]


@pytest.mark.parametrize("size", [0, 5000])
def test_sizes_that_no_cache_has(cohort: Cohort, tmp_path: Path, size: int) -> None:
    with pytest.raises(InputError, match="give 1 to 4096"):
        write_cache(cohort, tmp_path / "cache", size=size)


class Torch(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Pairs of an image tensor and a dictionary, as people write them."""

    def __init__(self, scale: float = 1.0, as_dict: bool = False) -> None:
        self.scale, self.as_dict = scale, as_dict

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        image = torch.full((1, 10, 8), index / 24 * self.scale)
        image[..., 0] = self.scale
        about = {"patient_id": f"p{index // 2}", "sex": "fm"[(index // 2) % 2], "edema": torch.tensor(index // 2 % 2)}
        return {"img": image, **about} if self.as_dict else (image, about)


@pytest.mark.parametrize("as_dict", [True, False])
def test_torch_data_set(as_dict: bool) -> None:
    cohort = read_dataset(Torch(as_dict=as_dict), attribute="sex", labels=["edema"], min_patients_per_level=1)
    assert len(cohort) == 24
    assert cohort.frame["image_id"].tolist()[:2] == ["0000000", "0000001"]
    images = cohort.pixels(size=4)
    np.testing.assert_allclose(images[:, 0, 2, 2], np.arange(24) / 24, atol=1e-6)
    # Rows stay with their items after a split.
    test = cohort.part("test")
    expected = test.frame["image_id"].astype(int) / 24
    np.testing.assert_allclose(test.pixels(size=4)[:, 0, 2, 2], expected, atol=1e-6)


def test_values_of_a_torch_data_set(tmp_path: Path) -> None:
    ranged: dict[str, Any] = {"attribute": "sex", "labels": ["edema"], "min_patients_per_level": 1}
    with pytest.raises(InputError, match=r"outside \(0.0, 1.0\); give value_range"):
        read_dataset(Torch(scale=100), **ranged).pixels(size=4)
    scaled = read_dataset(Torch(scale=100), value_range=(0, 100), **ranged)
    assert scaled.pixels([12], size=4)[0, 0, 2, 2] == pytest.approx(0.5)
    with pytest.raises(InputError, match="is empty; give the values"):
        read_dataset(Torch(), value_range=(1, 0), **ranged)
    cached = write_cache(scaled, tmp_path / "cache", size=4)
    assert np.abs(cached.pixels(size=4) - scaled.pixels(size=4)).max() <= 1 / 510 + 1e-6


@pytest.mark.parametrize(("top", "told"), [(0.05, True), (0.2, False), (12, True), (100, False)])
def test_items_that_use_little_of_the_grey_range_are_told(top: float, told: bool) -> None:
    class Items:
        def __len__(self) -> int:
            return 24

        def __getitem__(self, index: int) -> dict[str, Any]:
            values = np.random.default_rng(index).random((1, 8, 8)) * top
            image = values.astype(np.float32 if top < 1 else np.uint8)
            return {"image": image, "sex": "MF"[index % 2], "edema": index // 2 % 2, "patient_id": f"p{index}"}

    usual = {"attribute": "sex", "labels": ["edema"], "min_patients_per_level": 1}
    cohort = read_dataset(Items(), **usual)
    said = "16 of the first 16 items with less than a sixteenth of the grey range used, where black and white are"
    assert [said in step.reason for step in cohort.flow if step.step == "remark"] == ([True] if told else [])
    if told:
        wide = read_dataset(Items(), value_range=(0, top), **usual)
        assert not [step for step in wide.flow if step.step == "remark"]


class Xray:
    """What torchxrayvision's data sets look like from outside."""

    pathologies = ("Edema", "Effusion")

    def __init__(self) -> None:
        self.csv = pd.DataFrame(
            {
                "patientid": [str(index // 2) for index in range(24)],
                "age_years": 50.0,
                "sex_male": [(index // 2) % 2 == 1 for index in range(24)],
                "sex_female": [(index // 2) % 2 == 0 and index > 1 for index in range(24)],
                "view": "PA",
            },
            index=range(100, 124),
        )
        self.labels = np.array([[index // 2 % 2, np.nan] for index in range(24)])
        self.decoded = 0

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.decoded += 1
        image = np.full((1, 6, 6), -1024 + 2048 * index / 24, np.float32)
        image[..., 5] = 1024
        return {"idx": index, "lab": self.labels[index], "img": image}


def test_torchxrayvision_data_set() -> None:
    dataset = Xray()
    cohort = read_dataset(dataset, attribute="sex", labels=["Edema", "Effusion"], min_patients_per_level=1)
    # Described by its tables: no image is decoded before it is asked for.
    assert dataset.decoded == 0
    assert len(cohort) == 22
    assert cohort.flow[-1].excluded_images == 2
    assert cohort.levels("sex") == ("female", "male")
    assert cohort.frame["age"].unique().tolist() == [50.0]
    assert cohort.frame["Effusion"].isna().all()
    assert cohort.pixels([0], size=6)[0, 0, 0, 0] == pytest.approx(2 / 24)
    # Not stated is neither, also where it is missing or text.
    for male, female in ((np.nan, False), ("0", 0), ("False", np.nan)):
        for name, none in (("sex_male", male), ("sex_female", female)):
            dataset.csv[name] = dataset.csv[name].astype(object).where(dataset.csv.index < 120, none)
        again = read_dataset(dataset, attribute="sex", labels=["Edema"], min_patients_per_level=1)
        assert len(again) == 18
        assert again.frame["sex"].tolist() == cohort.frame["sex"].tolist()[:18]
    dataset.labels = dataset.labels[:5]
    with pytest.raises(InputError, match="do not fit its 24 items"):
        read_dataset(dataset, attribute="sex", labels=["Edema"])


@pytest.mark.parametrize(
    ("items", "sentence"),
    [([1, 2], "is a int; a dictionary"), ([{"picture": 1}], "has no image"), ([], "is empty"), (3, "is no data set")],
)
def test_other_objects_are_refused(items: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_dataset(items, attribute="sex", labels=["edema"])


def test_colour_items_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        read_items(lambda _: np.zeros((3, 8, 8), np.float32))


def read_items(image: Callable[[int], Any], **choices: Any) -> Cohort:
    """Read eight items with the images that a function gives."""
    items = [{"img": image(i), "patient_id": i, "sex": "fm"[i % 2], "e": 0} for i in range(8)]
    return read_dataset(items, attribute="sex", labels=["e"], min_patients_per_level=0, **choices)


def as_palette(grey: np.ndarray) -> Image.Image:
    """Give a grey picture as indices of a palette that runs backwards."""
    indexed = Image.fromarray(255 - grey, mode="P")
    indexed.putpalette([value for place in range(256) for value in (255 - place,) * 3])
    return indexed


def turned(grey: np.ndarray) -> Image.Image:
    """Give a grey picture lying on its side, with the note that says so."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(grey)).save(stream, "PNG", exif=exif)
    return Image.open(stream)


@pytest.mark.parametrize(
    "form",
    [
        lambda grey: grey,
        lambda grey: torch.from_numpy(grey.copy())[None],
        lambda grey: grey / np.float32(255),
        Image.fromarray,
        as_palette,
        turned,
        lambda grey: Image.fromarray(grey).convert("RGB"),
        lambda grey: Image.merge("LA", [Image.fromarray(grey), Image.new("L", grey.shape, 255)]),
    ],
)
def test_an_item_is_what_it_shows(form: Callable[[np.ndarray], Any]) -> None:
    pixels = read_items(lambda i: form(picture(i, 24))).pixels(size=24)
    expected = np.stack([picture(i, 24) for i in range(8)])[:, None]
    np.testing.assert_allclose(pixels, expected / 255, atol=1e-6)


@pytest.mark.parametrize("form", [lambda mask: mask, lambda mask: Image.fromarray(mask)])
def test_black_and_white_items_are_black_and_white(form: Callable[[np.ndarray], Any]) -> None:
    pixels = read_items(lambda i: form(picture(i, 24) > 128)).pixels(size=24)
    np.testing.assert_array_equal(np.unique(pixels), [0, 1])


def test_colour_items_are_as_their_palette_shows_them() -> None:
    def indexed(i: int) -> Image.Image:
        image = Image.fromarray(picture(i, 24), mode="P")
        image.putpalette([value for place in range(256) for value in (place, 255 - place, 7)])
        return image

    shown = np.stack([np.asarray(indexed(i).convert("RGB")) for i in range(8)]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(read_items(indexed, channels=3).pixels(size=24), shown / 255, atol=1e-6)
    with pytest.raises(InputError, match="shape"):
        read_items(indexed)
    with pytest.raises(InputError, match="Item 0 of the data set is in YCbCr, not in RGB"):
        read_items(lambda i: indexed(i).convert("RGB").convert("YCbCr"), channels=3)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (lambda i: picture(i) / np.float32(255) if i else picture(i), "Items 0 and 1 .* integers and floats"),
        (lambda i: picture(i) > 128 if i == 5 else picture(i), "Items 0 and 5 .* integers and booleans"),
        (lambda i: (picture(i) > 128).astype(np.int64), "8 of the first 8 items of the data set show nothing"),
        (lambda i: np.array([["a"]]), "Item 0 of the data set has an image of <U1"),
    ],
)
def test_items_whose_black_and_white_cannot_be_known_are_refused(image: Callable[[int], Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_items(image)


@pytest.mark.parametrize("kind", ["items", "xray", "shape"])
def test_an_object_that_augments_its_images_is_refused(kind: str) -> None:
    """What the generator learns, what it redraws and what the model sees would be three images."""
    draws = np.random.default_rng(0)

    def drawn(index: int) -> np.ndarray:
        image = picture(index, 6)
        return image[:, ::-1].copy() if draws.random() < 0.5 else image[: 6 - (kind == "shape")]

    class Augmented(Xray):
        data_aug = drawn

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"img": drawn(index)[None]}

    class Items(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            return {**super().__getitem__(index), "img": drawn(index)}

    plain = [{"img": 0, "patient_id": i, "sex": "fm"[i % 2], "Edema": 0} for i in range(8)]
    with pytest.raises(InputError, match="is another image each time that it is asked for"):
        read_dataset(
            Augmented() if kind == "xray" else Items(plain), attribute="sex", labels=["Edema"], min_patients_per_level=0
        )


def test_the_range_of_xrays_is_that_of_floats() -> None:
    class Whole(Xray):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"img": picture(index, 6)[None]}

    cohort = read_dataset(Whole(), attribute="sex", labels=["Edema"], min_patients_per_level=1)
    np.testing.assert_allclose(cohort.pixels([0], size=6)[0, 0], picture(2, 6) / 255, atol=1e-6)


def copies(image: np.ndarray) -> list[Image.Image]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=60)
    return [
        Image.open(stream),
        Image.fromarray(image).resize((70, 70), Image.Resampling.LANCZOS),
        Image.fromarray((30 + image * 0.7).astype(np.uint8)),
    ]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_near_duplicates_across_splits_are_found_with_ids(cohort: Cohort, kind: int) -> None:
    assert near_duplicates(cohort) == ()
    # Image 5 is in the test split, image 0 in training: 5 becomes an altered copy of 0.
    copies(picture(0))[kind].save(cohort.root / "5.png")
    (pair,) = near_duplicates(cohort)
    assert (pair.first, pair.second, pair.first_split, pair.second_split) == ("i0", "i5", "train", "test")
    # Within one split a copy is no leak.
    copies(picture(0))[kind].save(cohort.root / "3.png")
    assert {(one.first, one.second) for one in near_duplicates(cohort)} == {("i0", "i5"), ("i3", "i5")}


def test_hash_of_flat_images_is_defined() -> None:
    flat = perceptual_hash(np.zeros((2, 1, 64, 64), np.float32))
    assert flat.shape == (2, 4)
    assert (flat[0] == flat[1]).all()


def test_leak_checks_together(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_leaks(cohort) == ()
    trained = fingerprints(cohort.part("train").frame["patient_id"])
    assert not any("p0" in mark for mark in trained)
    require_unseen(cohort.part("test"), trained)
    with pytest.raises(
        InputError, match=r"10 of the 10 test patients were in the training set of the generator: p11, p14"
    ):
        check_leaks(cohort, seen=fingerprints(cohort.frame["patient_id"]))
    torn = replace(cohort, frame=cohort.frame.assign(patient_id=["p0"] * 30))
    with pytest.raises(InputError, match="1 patients have images in more than one split"):
        check_leaks(torn)
    Image.fromarray(picture(0)).save(cohort.root / "5.png")
    assert len(check_leaks(cohort, narrator=Narrator(quiet=False))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "i0 (train) and i5 (test)" in captured.err


def flip(file: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def test_a_fingerprint_is_of_rows_and_of_pixels(cohort: Cohort, tmp_path: Path) -> None:
    first = cohort.fingerprint()
    cohort.to_parquet(tmp_path / "cohort.parquet")
    assert Cohort.from_parquet(tmp_path / "cohort.parquet").fingerprint() == first
    assert len(first) == 64
    others = [
        cohort.take(range(29)),
        cohort.take(range(29, -1, -1)),
        replace(cohort, frame=cohort.frame.assign(sex="f")),
        replace(cohort, frame=cohort.frame.assign(edema=np.nan)),
        replace(cohort, attributes=("edema",)),
        replace(cohort, fit="crop"),
        write_cache(cohort, tmp_path / "cache", size=32),
        write_cache(cohort, tmp_path / "small", size=16),
    ]
    (cohort.root / "7.png").rename(tmp_path / "away.png")
    others.append(cohort)
    seen = {first, *(one.fingerprint() for one in others)}
    assert len(seen) == 1 + len(others)
    # One bit of one image, at the same length; and what lies in its place is not waited for.
    (tmp_path / "away.png").rename(cohort.root / "7.png")
    assert cohort.fingerprint() == first
    flip(cohort.root / "7.png", -20)
    assert cohort.fingerprint() not in seen
    (cohort.root / "7.png").unlink()
    os.mkfifo(cohort.root / "7.png")
    assert cohort.fingerprint() in seen - {first}


def test_the_fingerprint_of_a_data_set_object_is_of_its_items() -> None:
    def read(dataset: Torch) -> str:
        return read_dataset(dataset, attribute="sex", labels=["edema"], min_patients_per_level=1).fingerprint()

    assert read(Torch()) == read(Torch()) != read(Torch(scale=0.5))


def test_damage_in_a_cache_is_named_and_mended(cohort: Cohort, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    mark = write_cache(cohort, place, size=32, shard_size=8).fingerprint()
    expected = cohort.pixels(size=32)
    shard = place / "shard-00001.npy"
    flip(shard)
    with pytest.raises(StateError, match=r"shard-00001.npy is damaged \(the pixels of 'i15' are not those"):
        open_cache(cohort, place).pixels(size=32)
    assert open_cache(cohort, place).pixels([14], size=32).shape == (1, 1, 32, 32)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StateError, match=r"shard-00001.npy is damaged"):
        open_cache(cohort, place).pixels(size=32)
    shard.unlink()
    with pytest.raises(StateError, match=r"shard-00001.npy is damaged"):
        open_cache(cohort, place).pixels(size=32)
    for name in ("shard-00001.npy", "shard-00001.parquet", "index.json"):
        (place / name).write_bytes(b"{")
        if name != "shard-00001.npy":
            with pytest.raises(StateError, match=f"{name} is damaged"):
                open_cache(cohort, place)
        mended = write_cache(cohort, place, size=32, shard_size=8)
        np.testing.assert_array_equal(mended.pixels(size=32), expected)
        assert mended.fingerprint() == mark
    # A table that is whole and another one's.
    (place / "shard-00001.parquet").write_bytes((place / "shard-00002.parquet").read_bytes())
    with pytest.raises(StateError, match=r"are not those that its index.json was written with"):
        open_cache(cohort, place)


def test_a_killed_prepare_leaves_nothing_behind_and_two_do_not_meet(cohort: Cohort, tmp_path: Path) -> None:
    home = tmp_path / "home"
    place = home / cache_name(cohort, 32)
    place.mkdir(parents=True)
    left = [home / ".cohort.77.partial.parquet", place / ".shard-00000.77.partial.npy"]
    others = [home / ".film.partial", tmp_path / "home/deeper/.a.1.partial.txt"]
    for file in (*left, *others):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    script = """
        import sys, time
        from pathlib import Path
        from citlr.run.lock import locked
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(60)
    """
    for folder in (home, place):
        command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(StateError, match=f"Another process is working in '{folder}': wait for it"):
                write_prepared(cohort, home, cache=32)
            other.kill()
        for file in left:
            file.touch()
    write_prepared(cohort, home, cache=32)
    assert not any(file.exists() for file in left)
    # The other process held the whole folder with all below it; what is nobody's own stays.
    assert others[0].exists()
    np.testing.assert_array_equal(Cohort.from_parquet(home / "cohort.parquet").pixels(size=32), cohort.pixels(size=32))


def test_a_damaged_plan_does_not_let_other_shards_in(cohort: Cohort, tmp_path: Path) -> None:
    write_cache(cohort.take(range(10)), tmp_path / "cache", size=32)
    (tmp_path / "cache" / "plan.json").write_text("{")
    other = cohort.take(range(10, 20))
    np.testing.assert_array_equal(
        write_cache(other, tmp_path / "cache", size=32).pixels(size=32), other.pixels(size=32)
    )
