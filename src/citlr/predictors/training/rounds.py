"""The rounds of a training: what was reached after each, which are kept, and the images of its steps."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from citlr.data.cohort import Cohort
from citlr.learning.trainer import Trainer
from citlr.run.files import atomic_write


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Turn by up to 10 degrees, scale by up to 10 %, shift by up to 6 %, change contrast and brightness.

    Never mirrored: the heart is on the left.
    """

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=rng) * 2 - 1).to(images.device)

    n = len(images)
    angle, scale, shift = 0.17 * uniform(n), 1 + 0.1 * uniform(n), 0.12 * uniform(n, 2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    images = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = 1 + 0.2 * uniform(n, 1, 1, 1), 0.1 * uniform(n, 1, 1, 1)
    return ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


@dataclass(frozen=True)
class Round:
    """One validation.

    - `number`, `step`: From 1; steps of the optimiser so far.
    - `auroc`: Per label on the validation split; None where the split has only one class of it.
    - `mean`: Over the labels that have one.
    """

    number: int
    step: int
    loss: float
    auroc: dict[str, float | None]
    mean: float

    @classmethod
    def all(cls, rows: Sequence[Mapping[str, Any]]) -> list[Self]:
        """Read the rows that the loop keeps of its validations, whose loss is the negative mean AUROC."""
        return [
            cls(number, int(row["step"]), row["loss"], row["auroc"], -row["validation"])
            for number, row in enumerate(rows, start=1)
        ]

    @property
    def file(self) -> str:
        """Name of the round's checkpoint."""
        return f"checkpoint-{self.number:04d}.safetensors"


def best_rounds(rounds: Sequence[Round], keep: int) -> list[Round]:
    """Give the `keep` best rounds, best first; of two equals the earlier one."""
    return sorted(rounds, key=lambda entry: (-entry.mean, entry.number))[:keep]


def count_similar(best: Sequence[Round], tolerance: float) -> int:
    """Count those of the best rounds that are within `tolerance` of the first."""
    # beyond the last bits: 0.92 is within 0.02 of 0.94
    return sum(best[0].mean - entry.mean <= tolerance + 1e-9 for entry in best)


def auroc_by_label(
    truth: NDArray[np.float64], scores: NDArray[np.float64], labels: Sequence[str]
) -> dict[str, float | None]:
    """AUROC of every label over the images where it is known; None where one class is absent.

    Shapes: `truth` (n, n_labels), `scores` (n, n_labels).

    >>> auroc_by_label(np.array([[0.0, 1], [1, 1], [1, np.nan]]), np.array([[0.1, 0], [0.2, 0], [0, 0]]), ["a", "b"])
    {'a': 0.5, 'b': None}
    """
    found: dict[str, float | None] = {}
    for column, label in enumerate(labels):
        known = ~np.isnan(truth[:, column])
        classes = np.unique(truth[known, column])
        found[label] = None
        if len(classes) == 2:
            found[label] = float(roc_auc_score(truth[known, column], scores[known, column]))
    return found


def mean_auroc(auroc: dict[str, float | None]) -> float:
    """Average over the labels that have an AUROC; NaN where none has."""
    known = [value for value in auroc.values() if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def write_rounds(folder: Path, rounds: Sequence[Round], keep: int) -> None:
    """Rewrite the history, and delete the checkpoints that are not among the best (any more)."""
    kept = {entry.file for entry in best_rounds(rounds, keep)}
    for path in folder.glob("checkpoint-*.safetensors"):
        if path.name not in kept:
            path.unlink()
    with (
        atomic_write(folder / "training.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["round", "step", "loss", "mean_auroc", *(f"auroc_{label}" for label in rounds[0].auroc)])
        for entry in rounds:
            writer.writerow([entry.number, entry.step, entry.loss, entry.mean, *entry.auroc.values()])


@dataclass
class Batches:
    """The images of one step after the other, read ahead to the end of the round; any step can be the first."""

    cohort: Cohort
    trainer: Trainer
    size: int
    round_steps: int
    batch_size: int
    seed: int
    part: str

    def __post_init__(self) -> None:
        self._next: tuple[int, str] | None = None
        self._ahead: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]] = iter(())

    def of(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Give the rows (n,) of a step, and their images (n, c, size, size)."""
        # Where memory ran out, the batches from there on are others than were read ahead.
        if step % self.round_steps == 0 or self._next != (step, self.trainer.halved):
            steps = range(step, (step // self.round_steps + 1) * self.round_steps)
            named = {"seed": self.seed, "part": self.part, "batch_size": self.batch_size}
            rows = [self.trainer.rows(len(self.cohort), step=one, **named) for one in steps]  # type: ignore[arg-type]
            self._ahead = self.cohort.batches(size=self.size, batch_size=len(rows[0]), rows=np.concatenate(rows))
        self._next = (step + 1, self.trainer.halved)
        return next(self._ahead)
