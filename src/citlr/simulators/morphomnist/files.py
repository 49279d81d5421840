"""Reads the MNIST digits in the forms in which they are handed around: IDX files, gzipped or not, an npz, PNG files."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from citlr.data.images import quantise, read_image
from citlr.errors import InputError
from citlr.run.files import fingerprint

SIDE = 28
# What an IDX file begins with: two zeros, 8 for unsigned bytes, and the number of its axes.
IMAGES, LABELS = b"\0\0\x08\x03", b"\0\0\x08\x01"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# How the folders of a PNG tree are called, and the files of the IDX form begin.
FOLDERS = {"train": ("train", "training"), "test": ("test", "testing", "t10k")}
FILES = {"train": "train", "test": "t10k"}
# More digits than any edition has: a header that claims more is damaged.
MOST = 1_000_000
FORMS = (
    "a folder with the four IDX files (train-images-idx3-ubyte and so on, gzipped or not), an .npz with the arrays "
    "x_train, y_train, x_test and y_test, or a folder of PNG files as train/0/*.png and test/0/*.png"
)


@dataclass(frozen=True)
class Digits:
    """Digits of one split: `pixels` (n, 28, 28), 0 to 255, and `labels` (n,), 0 to 9."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.intp]) -> Digits:
        """Return some of them."""
        return Digits(self.pixels[rows], self.labels[rows])

    def fingerprint(self) -> str:
        """Fingerprint pixels and labels."""
        return fingerprint([self.pixels.tobytes().hex(), self.labels.tolist()])


def read_mnist(path: str | Path) -> tuple[Digits, Digits]:
    """Read the training and the test digits; InputError for anything that is not MNIST."""
    source = Path(path)
    if source.is_dir():
        inside = source / "mnist.npz"
        if inside.is_file():
            return _from_npz(inside)
        if any(_idx_file(source, FILES["train"], kind) for kind in ("images", "labels")):
            return _from_idx(source, "train"), _from_idx(source, "test")
        if any((source / name).is_dir() for name in FOLDERS["train"]):
            return _from_pngs(source, "train"), _from_pngs(source, "test")
        raise InputError(f"'{source}' holds no MNIST: give {FORMS}.")
    if not source.exists():
        raise InputError(f"There is no '{source}': give {FORMS}.")
    if source.suffix != ".npz":
        raise InputError(f"'{source}' is a single file that is no .npz: give {FORMS}.")
    return _from_npz(source)


def _from_npz(file: Path) -> tuple[Digits, Digits]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            missing = [name for name in ARRAYS if name not in content.files]
            if missing:
                found = ", ".join(content.files) or "nothing"
                raise InputError(f"'{file}' has no array '{missing[0]}' (found: {found}): give {FORMS}.")
            arrays = [content[name] for name in ARRAYS]
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError) as error:
        raise InputError(f"'{file}' cannot be read as an .npz: it is damaged, or another kind of file.") from error
    train, test = (_checked(arrays[k], arrays[k + 1], f"'{file}', {ARRAYS[k]}") for k in (0, 2))
    return train, test


def _idx_file(folder: Path, split: str, kind: str) -> Path | None:
    axes = 3 if kind == "images" else 1
    names = [f"{split}-{kind}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _from_idx(folder: Path, split: str) -> Digits:
    found = []
    for kind, magic in (("images", IMAGES), ("labels", LABELS)):
        file = _idx_file(folder, FILES[split], kind)
        if file is None:
            axes = 3 if kind == "images" else 1
            raise InputError(
                f"'{folder}' has no {FILES[split]}-{kind}-idx{axes}-ubyte(.gz): all four files are needed."
            )
        found.append(_read_idx(file, magic))
    return _checked(found[0], found[1], f"'{folder}', {split}")


def _read_idx(file: Path, magic: bytes) -> NDArray[np.uint8]:
    """Read one IDX file: its first bytes, the lengths of its axes, and as many bytes as they say."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            head = stream.read(4)
            if head != magic:
                raise InputError(
                    f"'{file}' begins with {head.hex(' ') or 'nothing'}, not with {magic.hex(' ')}: it is not the "
                    "IDX file that its name says."
                )
            shape = tuple(int(length) for length in np.frombuffer(stream.read(4 * magic[3]), dtype=">u4"))
            if len(shape) < magic[3] or not 0 < shape[0] <= MOST or shape[1:] not in ((), (SIDE, SIDE)):
                sizes = " x ".join(map(str, shape))
                raise InputError(f"'{file}' says that it holds {sizes}: MNIST is n x {SIDE} x {SIDE} images.")
            wanted = int(np.prod(shape, dtype=np.int64))
            content = stream.read(wanted + 1)
    except (EOFError, OSError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{file}' is cut short or damaged: fetch it again.") from error
    if len(content) != wanted:
        kind = "more" if len(content) > wanted else "fewer"
        raise InputError(f"'{file}' has {kind} bytes than the {wanted} that its head says: fetch it again.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _from_pngs(folder: Path, split: str) -> Digits:
    root = next((folder / name for name in FOLDERS[split] if (folder / name).is_dir()), None)
    if root is None:
        raise InputError(f"'{folder}' has no folder '{split}': give {FORMS}.")
    files = [(file, digit) for digit in range(10) for file in sorted((root / str(digit)).glob("*.png"))]
    if not files:
        raise InputError(f"'{root}' has no PNG files in folders 0 to 9: give {FORMS}.")
    pixels = []
    for file, _ in files:
        image = quantise(read_image(file)[0])
        if image.shape != (SIDE, SIDE):
            raise InputError(f"'{file}' is {image.shape[1]} x {image.shape[0]} pixels: MNIST is {SIDE} x {SIDE}.")
        pixels.append(image)
    return _checked(np.stack(pixels), np.array([digit for _, digit in files], dtype=np.uint8), f"'{root}'")


def _checked(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], source: str) -> Digits:
    """Refuse what has another shape, type or range than MNIST."""
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE) or pixels.dtype != np.uint8:
        raise InputError(
            f"{source} holds {pixels.dtype} of the shape {pixels.shape}: MNIST is uint8 of (n, {SIDE}, {SIDE})."
        )
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise InputError(
            f"{source} holds {len(pixels)} images and labels of the shape {labels.shape}: one each is needed."
        )
    if labels.min() < 0 or labels.max() > 9:
        wrong = labels[(labels < 0) | (labels > 9)][0]
        raise InputError(f"{source} has the label {wrong}: digits are 0 to 9.")
    blank = np.flatnonzero(pixels.max(axis=(1, 2)) < 128)
    if len(blank):
        raise InputError(f"{source} has no digit in image {blank[0]}: nothing in it is brighter than half of white.")
    return Digits(np.ascontiguousarray(pixels), labels.astype(np.uint8))
