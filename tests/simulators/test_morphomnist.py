"""Digits whose thickness and intensity are set: read in every form, measured as defined, counterfactuals exact."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from digits import drawn_digits, drawn_mnist, write_idx, write_npz, write_pngs

from citlr.errors import InputError
from citlr.simulators.morphomnist.files import Digits, read_mnist
from citlr.simulators.morphomnist.world import intensity_of, measure, sample_digits

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist.npz"
ARRAYS = drawn_mnist(20, 10)


@pytest.mark.parametrize("form", ["idx", "gz", "npz", "png", "folder of an npz"])
def test_every_form_gives_the_same_digits(tmp_path: Path, form: str) -> None:
    written = {
        "idx": lambda: write_idx(tmp_path, ARRAYS),
        "gz": lambda: write_idx(tmp_path, ARRAYS, packed=True),
        "npz": lambda: write_npz(tmp_path, ARRAYS),
        "png": lambda: write_pngs(tmp_path, ARRAYS),
        "folder of an npz": lambda: write_npz(tmp_path, ARRAYS).rename(tmp_path / "mnist.npz").parent,
    }[form]()
    for found, split in zip(read_mnist(written), ("train", "test"), strict=True):
        assert np.array_equal(found.pixels, ARRAYS[f"x_{split}"])
        assert np.array_equal(found.labels, ARRAYS[f"y_{split}"])


def _wrong_magic(folder: Path) -> Path:
    file = write_idx(folder, ARRAYS) / "train-images-idx3-ubyte"
    file.write_bytes(b"\0\0\x0d\x03" + file.read_bytes()[4:])
    return folder


def _cut_gzip(folder: Path) -> Path:
    file = write_idx(folder, ARRAYS, packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-40])
    return folder


def _cut_idx(folder: Path) -> Path:
    file = write_idx(folder, ARRAYS) / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-2])
    return folder


def _changed(**arrays: np.ndarray) -> Callable[[Path], Path]:
    return lambda folder: write_npz(folder, ARRAYS | arrays)


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _fewer(folder: Path) -> Path:
    np.savez(folder / "a.npz", images=ARRAYS["x_train"])
    return folder / "a.npz"


def _one_file(folder: Path) -> Path:
    (write_idx(folder, ARRAYS) / "t10k-images-idx3-ubyte").unlink()
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda folder: folder / "no", "There is no"),
    "an empty folder": (lambda folder: folder, "holds no MNIST"),
    "a picture": (_file("a.png", b"\x89PNG"), "single file that is no .npz"),
    "no npz": (_file("a.npz", b"PK\x03\x04 rest"), "cannot be read as an .npz"),
    "an npz without the arrays": (_fewer, "no array 'x_train' \\(found: images\\)"),
    "another magic": (_wrong_magic, "begins with 00 00 0d 03, not with 00 00 08 03"),
    "a cut gzip": (_cut_gzip, "cut short or damaged"),
    "a cut idx": (_cut_idx, "fewer bytes than the 10"),
    "a missing file": (_one_file, "no t10k-images-idx3-ubyte"),
    "another size": (_changed(x_test=np.zeros((10, 32, 32), np.uint8)), r"shape \(10, 32, 32\): MNIST is uint8"),
    "floats": (_changed(x_train=ARRAYS["x_train"] / 255), "holds float64"),
    "fewer labels": (_changed(y_train=ARRAYS["y_train"][:3]), "20 images and labels of the shape"),
    "letters": (_changed(y_test=np.arange(10, dtype=np.uint8) + 5), "has the label 10"),
    "blank digits": (_changed(x_test=np.zeros((10, 28, 28), np.uint8)), "no digit in image 0"),
    "a large tree": (
        lambda folder: write_pngs(folder, ARRAYS | {"x_train": np.full((20, 32, 32), 200, np.uint8)}),
        "is 32 x 32 pixels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_mnist_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    make, said = BAD[case]
    with pytest.raises(InputError, match=said):
        read_mnist(make(tmp_path))


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    write_idx(tmp_path, ARRAYS)
    head = b"\0\0\x08\x03" + np.array([2**31, 28, 28], dtype=">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head))
    with pytest.raises(InputError, match="says that it holds 2147483648 x 28 x 28"):
        read_mnist(tmp_path)


def test_thickness_and_intensity_are_what_they_are_defined_as() -> None:
    images = np.zeros((3, 28, 28))
    for row, width in enumerate((2, 4, 6)):
        images[row, 3:25, 10 : 10 + width] = 60 * (row + 1)
    thickness, intensity = measure(images)
    # The ends of a skeleton lie nearer to the edge than its middle.
    assert thickness == pytest.approx([2, 4, 6], abs=0.3)
    assert intensity.tolist() == [60, 120, 180]
    assert measure(np.zeros((1, 28, 28)))[0].tolist() == [0]


@pytest.fixture(scope="module")
def sample():
    return sample_digits(Digits(*drawn_digits(40, seed=3)), 30, name="test", seed=0)


def test_digits_show_the_thickness_and_intensity_that_they_have(sample) -> None:
    images = sample.images()
    assert images.shape == (30, 1, 32, 32)
    assert images[:, :, :2].max() == 0  # black beyond the 28 pixels
    thickness, intensity = measure(255 * images[:, 0])
    assert np.abs(thickness - sample.thickness).mean() < 0.15
    assert np.corrcoef(thickness, sample.thickness)[0, 1] > 0.95
    assert np.abs(intensity - sample.intensity).max() < 4
    assert np.array_equal(images, sample.take(np.arange(30)).images())


def test_counterfactuals_follow_the_graph(sample) -> None:
    thick = sample.do(thickness=4.5)
    assert np.allclose(thick.intensity, intensity_of(np.full(30, 4.5), sample.noise))
    assert np.array_equal(thick.digits.pixels, sample.digits.pixels)
    dim = sample.do(intensity=100)
    assert np.array_equal(dim.thickness, sample.thickness)
    assert np.array_equal(sample.do(thickness=sample.thickness).images(), sample.images())
    strokes = [measure(255 * one.images()[:, 0])[0] for one in (sample, dim, thick)]
    assert np.abs(strokes[1] - strokes[0]).mean() < 0.05
    assert np.abs(strokes[2] - 4.5).mean() < 0.3
    # A thicker digit covers the thinner one, pixel by pixel, at the same intensity.
    thin, wide = (sample.do(thickness=width, intensity=255).images() for width in (2, 4))
    assert (wide >= thin - 0.02).mean() > 0.999
    both = sample.do(thickness=2, intensity=80)
    assert both.intensity.tolist() == [80] * 30


@pytest.mark.skipif(not MNIST.is_file(), reason="the digits of ../shared/data are not here")
def test_real_digits_have_their_thickness() -> None:
    train, test = read_mnist(MNIST)
    assert (len(train), len(test)) == (60_000, 10_000)
    some = sample_digits(test, 60, name="test", seed=0)
    thickness, intensity = measure(255 * some.images()[:, 0])
    assert np.abs(thickness - some.thickness).mean() < 0.12
    assert np.abs(intensity - some.intensity).mean() < 1
