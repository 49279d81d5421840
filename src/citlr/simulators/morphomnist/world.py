"""A world of digits: thickness and intensity by the equations of Pawlowski et al. (2020), and every counterfactual.

`t = 0.5 + Gamma(10, rate 5)`, `i = 64 + 191 sigmoid(0.5 e + 2 t - 5)` with standard normal e; the image is the digit
drawn at t and i. Thickness moves intensity, and intensity moves nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from citlr.data.cohort import Cohort
from citlr.data.images import encode_png
from citlr.run.files import atomic_write, fingerprint
from citlr.simulators.morphomnist.files import Digits
from citlr.simulators.morphomnist.morphology import BLOCK, WHITE, drawn, shapes

Floats = NDArray[np.float64]
ATTRIBUTES, DIGIT = ("thickness", "intensity"), "digit"
# Digits are drawn at 28 pixels and lie in the middle of this many.
SIZE = 32
TABLE = "digits.csv"


def intensity_of(thickness: ArrayLike, noise: ArrayLike) -> Floats:
    """Give the intensity (n,) that a thickness has under the noise of an image: what do(thickness) moves along."""
    found: Floats = 64 + 191 * expit(0.5 * np.asarray(noise) + 2 * np.asarray(thickness) - 5)
    return found


@dataclass(frozen=True)
class MorphoSample:
    """Digits with their thickness and intensity, and on demand with any other.

    - `digits`: Strokes as they were written; what is drawn depends on them, the thickness and the intensity alone.
    - `names` (n,): Of the images.
    - `thickness`, `noise` (n,): In pixels; what else moves intensity.
    - `intensity` (n,): In 0 to 255.
    """

    digits: Digits
    names: tuple[str, ...]
    thickness: Floats
    noise: Floats
    intensity: Floats

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per image: image_id, patient_id, path, thickness, intensity, digit."""
        return pd.DataFrame(
            {
                "image_id": self.names,
                "patient_id": self.names,
                "path": [f"images/{name}.png" for name in self.names],
                "thickness": self.thickness,
                "intensity": self.intensity,
                DIGIT: [str(label) for label in self.digits.labels],
            }
        )

    def take(self, rows: ArrayLike) -> MorphoSample:
        """Return some of them, by position."""
        index = np.asarray(rows, dtype=np.intp)
        return MorphoSample(
            self.digits.take(index),
            tuple(self.names[row] for row in index),
            self.thickness[index],
            self.noise[index],
            self.intensity[index],
        )

    def do(self, *, thickness: ArrayLike | None = None, intensity: ArrayLike | None = None) -> MorphoSample:
        """Set thickness, intensity or both, (n,) or one for all: the same strokes and the same noise.

        With thickness alone, intensity follows; with intensity, thickness stays.
        """
        count = len(self)
        width = self.thickness if thickness is None else np.broadcast_to(np.asarray(thickness, dtype=np.float64), count)
        grey = self.intensity if thickness is None else intensity_of(width, self.noise)
        if intensity is not None:
            grey = np.broadcast_to(np.asarray(intensity, dtype=np.float64), count)
        return replace(self, thickness=np.array(width), intensity=np.array(grey))

    def images(self) -> NDArray[np.float32]:
        """Draw them: (n, 1, 32, 32) in [0, 1], in 256 grey values as files are."""
        out = np.zeros((len(self), 1, SIZE, SIZE), dtype=np.float32)
        for start in range(0, len(self), BLOCK):
            depth, skeleton = shapes(self.digits.pixels[start : start + BLOCK])
            for k, row in enumerate(range(start, min(start + BLOCK, len(self)))):
                image = drawn(depth[k], skeleton[k], float(self.thickness[row]), float(self.intensity[row]))
                edge = (SIZE - len(image)) // 2
                out[row, 0, edge:-edge, edge:-edge] = np.round(image) / WHITE
        return out

    def fingerprint(self) -> str:
        """Fingerprint all that the images depend on."""
        numbers = [self.thickness.tolist(), self.noise.tolist(), self.intensity.tolist()]
        return fingerprint([self.digits.fingerprint(), self.names, numbers])

    def write(self, directory: str | Path) -> None:
        """Write 8-bit PNG files, and the table last."""
        root = Path(directory)
        (root / "images").mkdir(parents=True, exist_ok=True)
        frame = self.frame
        for path, image in zip(frame["path"], self.images(), strict=True):
            (root / path).write_bytes(encode_png(image))
        with atomic_write(root / TABLE) as temporary:
            frame.to_csv(temporary, index=False)

    def cohort(self, directory: str | Path) -> Cohort:
        """Give what `write` wrote as images to learn from."""
        return Cohort(self.frame, Path(directory), attributes=ATTRIBUTES, labels=(), covariates=(DIGIT,))


def sample_digits(digits: Digits, count: int, *, name: str, seed: int) -> MorphoSample:
    """Draw so many of the digits, and a thickness and an intensity for each."""
    random = np.random.default_rng([seed, sum(name.encode())])
    rows = np.sort(random.permutation(len(digits))[:count])
    thickness = 0.5 + random.gamma(10, 1 / 5, len(rows))
    noise = random.standard_normal(len(rows))
    names = tuple(f"{name}{row:06d}" for row in rows)
    return MorphoSample(digits.take(rows), names, thickness, noise, intensity_of(thickness, noise))
