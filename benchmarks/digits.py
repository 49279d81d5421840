"""Digits of MNIST as a cohort of other images than radiographs, in which attributes can be planted.

    python benchmarks/digits.py ../shared/data/mnist.npz --images 1000 --out digits
    citlr reproduce generation --cohort digits/audit.yaml --label odd --size 32 --kind edits --correlation 0.4 \
        --world shape --world contrast --world tone --world texture --world null

Writes 32 x 32 pixels (28 in a black margin), a table of them with the label "odd", and the audit's YAML. The coin
`side` stands in for an attribute where none is planted yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from citlr.data.images import encode_png

MARGIN = 2


def write(file: Path, out: Path, images: int, seed: int) -> None:
    """Write the first digits of a random order."""
    random = np.random.default_rng(seed)
    (out / "images").mkdir(parents=True, exist_ok=True)
    with np.load(file) as arrays:
        digits, labels = arrays["x_train"], arrays["y_train"]
        chosen = random.permutation(len(labels))[:images]
        for row in chosen:
            picture = np.pad(digits[row].astype(np.float32) / 255, MARGIN)
            (out / "images" / f"{row:05d}.png").write_bytes(encode_png(picture))
        names = [f"{row:05d}" for row in chosen]
        table = pd.DataFrame({"image_id": names, "patient_id": names, "odd": labels[chosen] % 2})
    table["path"] = "images/" + table["image_id"] + ".png"
    table["side"] = random.choice(["left", "right"], len(table))
    table.to_csv(out / "digits.csv", index=False)
    cohort = {"table": "digits.csv", "images": ".", "attribute": "side", "labels": ["odd"]}
    model = {"source": "model.pt2", "labels": ["odd"]}
    (out / "audit.yaml").write_text(yaml.safe_dump({"seed": seed, "cohort": cohort, "model": model}, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.file, options.out, options.images, options.seed)
    print(options.out / "audit.yaml")


if __name__ == "__main__":
    main()
