"""How a classifier is trained, and what a training gives."""

from dataclasses import dataclass
from pathlib import Path

from citlr.errors import InputError, require_known
from citlr.predictors.training.zoo import SMALLEST, Start

SCHEDULES = ("constant", "one-cycle")


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained.

    - `size`: Side of the images in pixels, 64 or more.
    - `rounds`: At most this many rounds; after each the validation AUROC is taken and the state saved.
    - `round_steps`: Optimiser steps per round; one pass through the training split if not given.
    - `batch_size`: Images per step, over all devices.
    - `learning_rate`: Of Adam. If not given: 1e-4 for a network that starts from weights or has no batch normalisation,
      else 1e-3.
    - `schedule`: Of the learning rate, see `Budget.rate`; one cycle is over after `rounds` rounds.
    - `patience`: Rounds without a better mean AUROC after which the training stops, once `keep` rounds within
      `tolerance` of the best are done.
    - `keep`: Checkpoints kept: those with the best mean AUROC.
    - `tolerance`: Checkpoints further below the best one's mean AUROC are not of similar accuracy: they are kept only
      where there are too few others, and a note says so.
    - `augmented`: Whether training images are turned, scaled, shifted and re-exposed a little.
    - `precision`, `accelerator`, `devices`: See `Trainer`.
    """

    size: int = 64
    rounds: int = 30
    round_steps: int | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    schedule: str = "constant"
    weight_decay: float = 0.0
    dropout: float = 0.2
    patience: int = 10
    keep: int = 10
    tolerance: float = 0.02
    augmented: bool = True
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if self.size < SMALLEST:
            raise InputError(f"size is {self.size}; the networks work from {SMALLEST} pixels up.")
        for name in ("rounds", "batch_size", "patience", "keep", "devices"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        require_known(self.schedule, SCHEDULES, f"schedule is '{self.schedule}'; it can be {' or '.join(SCHEDULES)}")
        if not 0 <= self.tolerance <= 1:
            raise InputError(f"tolerance is {self.tolerance}; it is a difference of AUROC, between 0 and 1.")
        if self.batch_size < 2 * self.devices:
            raise InputError(f"batch_size is {self.batch_size}; batch normalisation needs 2 images per device.")
        if self.rounds < self.keep:
            raise InputError(
                f"rounds is {self.rounds}, fewer than the {self.keep} checkpoints to keep: raise rounds or lower keep."
            )


@dataclass(frozen=True)
class Checkpoint:
    """A kept checkpoint: its file, and what it reached on the validation split."""

    path: Path
    round: int
    auroc: dict[str, float | None]
    mean_auroc: float


@dataclass(frozen=True)
class TrainedClassifier:
    """What a training made.

    - `arch`, `labels`, `start`: The network, and where its first weights came from.
    - `checkpoints`: The best ones, best first; `load_predictor` reads each.
    - `spread`: Difference in mean AUROC between the first and the last of them.
    - `similar`: How many of them are of similar accuracy (`TrainingSettings.tolerance`), the best one included.
    - `program`, `onnx`: The best one, as model.pt2 and model.onnx; None where no export was asked for, or the `onnx`
      extra is not installed.
    - `notes`: What a reader of the numbers has to know, one sentence each.
    """

    arch: str
    labels: tuple[str, ...]
    start: Start
    checkpoints: tuple[Checkpoint, ...]
    spread: float
    similar: int
    program: Path | None
    onnx: Path | None
    notes: tuple[str, ...]
