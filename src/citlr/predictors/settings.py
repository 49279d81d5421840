"""How a classifier is trained, and what a training gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from citlr.errors import InputError
from citlr.predictors.zoo import SMALLEST, Start


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is trained.

    Parameters
    ----------
    size : int
        Side of the images in pixels, 64 or more.
    rounds : int
        At most this many rounds; after each the validation AUROC is taken and the state saved.
    round_steps : int, optional
        Optimiser steps per round; one pass through the training split if not given.
    batch_size : int
        Images per step, over all devices.
    learning_rate : float, optional
        Of Adam. If not given: 1e-4 for a network that starts from weights or has no batch normalisation, else 1e-3.
    weight_decay : float
        Of Adam.
    dropout : float
        Of the heads.
    patience : int
        Rounds without a better mean AUROC after which the training stops, once `keep` rounds are done.
    keep : int
        Checkpoints kept: those with the best mean AUROC.
    augmented : bool
        Whether training images are turned, scaled, shifted and re-exposed a little.
    precision : str
        As in Lightning Fabric; "auto" is bfloat16 autocast on a GPU that has it, else 32 bits.
    accelerator : str
        As in Lightning Fabric: "auto", "cpu", "cuda", ...
    devices : int
        Processes; above 1 the batch is divided among them.

    Raises
    ------
    InputError
        If a setting is out of its range.

    Examples
    --------
    >>> TrainingSettings(rounds=4)
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: rounds is 4, fewer than the 10 checkpoints to keep: raise rounds or lower keep.
    """

    size: int = 64
    rounds: int = 30
    round_steps: int | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 0.0
    dropout: float = 0.2
    patience: int = 10
    keep: int = 10
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

    Parameters
    ----------
    arch, labels, start
        The network, and where its first weights came from.
    checkpoints : tuple of Checkpoint
        The best ones, best first; `load_predictor` reads each.
    spread : float
        Difference in mean AUROC between the first and the last of them.
    torchscript, onnx : Path or None
        The best one, exported; None where no export was asked for, or the `onnx` extra is not installed.
    notes : tuple of str
        What a reader of the numbers has to know, one sentence each.
    """

    arch: str
    labels: tuple[str, ...]
    start: Start
    checkpoints: tuple[Checkpoint, ...]
    spread: float
    torchscript: Path | None
    onnx: Path | None
    notes: tuple[str, ...]


def choose_precision(settings: TrainingSettings) -> str:
    """Give the precision that Fabric is to use: what was asked for, or for "auto" what the device has."""
    if settings.precision != "auto":
        return settings.precision
    usable = settings.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()
    return "bf16-mixed" if usable and torch.cuda.is_bf16_supported() else "32-true"


def hashed_seed(*parts: object) -> int:
    """Make a seed of names and numbers: 63 bits of their SHA-256.

    Examples
    --------
    >>> hashed_seed(0, "order", 1) == hashed_seed(0, "order", 1) != hashed_seed(0, "order", 2)
    True
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
