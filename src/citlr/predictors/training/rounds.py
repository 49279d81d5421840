"""What a training run leaves behind between its rounds: the exact state, the best checkpoints, the history."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from citlr.errors import StateError
from citlr.run.files import atomic_write

_STATE = "state.safetensors"


@dataclass(frozen=True)
class Round:
    """One validation.

    - `number`, `step`: From 1; steps of the optimiser so far.
    - `loss`: Mean training loss of the round.
    - `auroc`: Per label on the validation split; None where the split has only one class of it.
    - `mean`: Over the labels that have one.
    """

    number: int
    step: int
    loss: float
    auroc: dict[str, float | None]
    mean: float

    @property
    def file(self) -> str:
        """Name of the round's checkpoint."""
        return f"checkpoint-{self.number:04d}.safetensors"


@dataclass
class Progress:
    """All rounds so far, and the numbers of the best ones."""

    rounds: list[Round] = field(default_factory=list)
    finished: bool = False

    def kept(self, keep: int) -> list[Round]:
        """Give the `keep` best rounds, best first; of two equals the earlier one."""
        return sorted(self.rounds, key=lambda entry: (-entry.mean, entry.number))[:keep]

    def similar(self, keep: int, tolerance: float) -> int:
        """Count those of the `keep` best rounds that are within `tolerance` of the best one."""
        kept = self.kept(keep)
        # beyond the last bits: 0.92 is within 0.02 of 0.94
        return sum(kept[0].mean - entry.mean <= tolerance + 1e-9 for entry in kept)

    def waited(self) -> int:
        """Count the rounds since the best one."""
        return self.rounds[-1].number - self.kept(1)[0].number if self.rounds else 0


def auroc_by_label(
    truth: NDArray[np.float64], scores: NDArray[np.float64], labels: Sequence[str]
) -> dict[str, float | None]:
    """AUROC of every label over the images where it is known; None where one class is absent.

    Shapes: `truth` (n, n_labels), `scores` (n, n_labels).

    Examples
    --------
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


def save_progress(
    folder: Path, progress: Progress, module: nn.Module, optimizer: torch.optim.Optimizer, key: str
) -> None:
    """Write everything that the next round depends on into one file, atomically."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    content = {"key": key, "finished": progress.finished, "rounds": [asdict(entry) for entry in progress.rounds]}
    with atomic_write(folder / _STATE) as temporary:
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        safetensors.torch.save_file(whole, temporary, metadata={"progress": json.dumps(content)})


def read_progress(folder: Path, key: str) -> Progress | None:
    """Read how far a training in this folder came; None where there is none."""
    path = folder / _STATE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            content: dict[str, Any] = json.loads((file.metadata() or {})["progress"])
    except (safetensors.SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise StateError(f"'{path}' is damaged: delete the folder and train again.") from error
    if content["key"] != key:
        raise StateError(
            f"'{folder}' holds a training of another network, cohort or settings: give another folder, or delete it."
        )
    return Progress([Round(**entry) for entry in content["rounds"]], content["finished"])


def restore(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Put the state of the last finished round into the module and the optimiser."""
    tensors = safetensors.torch.load_file(folder / _STATE)
    module.load_state_dict({n.removeprefix("module."): v for n, v in tensors.items() if n.startswith("module.")})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            # Adam keeps its count of steps on the CPU, and its moments in the memory order of the parameter
            if entry != "step":
                value = torch.empty_like(parameters[int(index)], device=device).copy_(value)
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def tidy(folder: Path, progress: Progress, keep: int) -> None:
    """Delete the checkpoints that are not among the best (any more), and rewrite the history."""
    kept = {entry.file for entry in progress.kept(keep)}
    for path in folder.glob("checkpoint-*.safetensors"):
        if path.name not in kept:
            path.unlink()
    labels = list(progress.rounds[0].auroc) if progress.rounds else []
    with (
        atomic_write(folder / "training.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["round", "step", "loss", "mean_auroc", *(f"auroc_{label}" for label in labels)])
        for entry in progress.rounds:
            writer.writerow([entry.number, entry.step, entry.loss, entry.mean, *entry.auroc.values()])


def mean_auroc(auroc: dict[str, float | None]) -> float:
    """Average over the labels that have an AUROC; NaN where none has."""
    known = [value for value in auroc.values() if value is not None]
    return math.fsum(known) / len(known) if known else math.nan
