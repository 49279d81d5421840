"""Shapes like digits, drawn, and MNIST's forms of files around them: no test needs MNIST itself."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Arrays = dict[str, NDArray[np.uint8]]


def drawn_digits(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw strokes, rings and hooks: pixels (n, 28, 28) and labels (n,), sorted by label as a tree of files is."""
    random = np.random.default_rng(seed)
    labels = np.sort(np.arange(count) % 10).astype(np.uint8)
    pixels = []
    for label in labels:
        image = Image.new("L", (112, 112))
        draw, width = ImageDraw.Draw(image), int(random.integers(8, 14))
        x, y = (int(v) for v in random.integers(-6, 7, 2))
        if label % 2:
            draw.line([(40 + x, 25 + y), (70 + x, 30 + y), (45 + 2 * int(label) + x, 85 + y)], fill=255, width=width)
        else:
            draw.ellipse([(34 + x, 28 + y), (74 + x, 80 + y)], outline=255, width=width)
            draw.line([(74 + x, 30 + y), (74 + x, 60 + 3 * int(label) + y)], fill=255, width=width)
        pixels.append(np.asarray(image.resize((28, 28), Image.Resampling.BOX)))
    return np.stack(pixels), labels


def drawn_mnist(train: int, test: int) -> Arrays:
    """Draw both splits, by the names of the arrays of an npz."""
    both = (*drawn_digits(train, seed=1), *drawn_digits(test, seed=2))
    return dict(zip(("x_train", "y_train", "x_test", "y_test"), both, strict=True))


def write_npz(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "digits.npz", **arrays)
    return folder / "digits.npz"


def write_idx(folder: Path, arrays: Arrays, *, packed: bool = False) -> Path:
    for array, split in (("train", "train"), ("test", "t10k")):
        for letter, kind in (("x", "images"), ("y", "labels")):
            values = arrays[f"{letter}_{array}"]
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
            content, name = head + values.tobytes(), f"{split}-{kind}-idx{values.ndim}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
            else:
                (folder / name).write_bytes(content)
    return folder


def write_pngs(folder: Path, arrays: Arrays) -> Path:
    for split in ("train", "test"):
        for row, (pixels, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)):
            (folder / split / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / split / str(label) / f"{row:05d}.png")
    return folder
