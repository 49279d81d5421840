"""Tensors and JSON in one safetensors file, written whole or not at all, never a pickle; trainings that go on."""

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from citlr.errors import StateError
from citlr.learning.plan import Progress, TrainingPlan
from citlr.run.files import atomic_write


def save_state(file: Path, tensors: Mapping[str, Tensor], head: Any) -> None:
    """Write tensors with a JSON head (kept in the file's metadata, so that the two cannot part)."""
    # safetensors wants plain memory: no views that share it, no channels-last strides.
    plain = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}
    with atomic_write(file) as temporary:
        save_file(plain, temporary, metadata={"head": json.dumps(head)})


def load_head(file: Path) -> dict[str, Any]:
    """Read the JSON head alone, an empty one where there is none; errors as of `load_state`."""
    with _opened(file) as content:
        head: dict[str, Any] = json.loads((content.metadata() or {}).get("head", "{}"))
    return head


def load_state(file: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `save_state` wrote: the tensors, on the CPU, and the head."""
    with _opened(file) as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a mapping
        return tensors, json.loads((content.metadata() or {})["head"])


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as content:
            yield content
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise StateError(f"{file} is damaged ({error}); remove it and train that part again.") from error


def weights_fingerprint(modules: Mapping[str, nn.Module], head: Any) -> str:
    """Return the SHA-256 of all weights and of a JSON head, the same before and after they were saved.

    >>> net = nn.Linear(1, 1)
    >>> before = weights_fingerprint({"net": net}, {"step": 1})
    >>> _ = nn.init.constant_(net.weight, 0.5)
    >>> before == weights_fingerprint({"net": net}, {"step": 1})
    False
    """
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, default=str).encode())
    for part, module in sorted(modules.items()):
        for name, value in sorted(module.state_dict().items()):
            plain = value.detach().to("cpu").contiguous()
            digest.update(f"{part}\0{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def load_module(module: nn.Module, file: Path) -> None:
    """Read a module's weights from what `save_state` wrote."""
    tensors, _ = load_state(file)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise StateError(
            f"{file} does not hold what its configuration says, so it is of another version of citlr or was changed; "
            "train the generator again."
        ) from error


def seconds_spent(directory: Path) -> float:
    """Sum the processor time of all trainings whose checkpoints lie in a folder, in seconds; 0 where there is none.

    Steps after the last checkpoint of a killed session are lost, and so is their time; what is computed between the
    trainings of the parts is not in it.
    """
    return sum(float(load_head(file).get("core_seconds", 0.0)) for file in sorted(directory.glob("*.safetensors")))


def store_progress(file: Path, plan: TrainingPlan, progress: Progress, *, halved: str) -> None:
    """Write a checkpoint; `halved` says where memory ran out, or is empty."""
    tensors: dict[str, Tensor] = {f"memory/{name}": value for name, value in plan.memory.items()}
    groups: dict[str, object] = {}
    for name, learner in plan.learners.items():
        tensors |= {f"{name}/module/{key}": value for key, value in learner.module.state_dict().items()}
        tensors |= {f"{name}/average/{key}": value for key, value in learner.average.items()}
        tensors |= {f"{name}/best/{key}": value for key, value in progress.weights.get(name, {}).items()}
        state = learner.optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, entries in state["state"].items():
            tensors |= {f"{name}/optimizer/{index}/{key}": torch.as_tensor(value) for key, value in entries.items()}
    head = {
        "key": plan.key,
        "step": progress.step,
        "best": progress.best if math.isfinite(progress.best) else None,
        "bad": progress.bad,
        "rows": progress.rows,
        "groups": groups,
        "halved": halved,
        "core_seconds": progress.core_seconds,
    }
    save_state(file, tensors, head)


def restore_progress(file: Path, plan: TrainingPlan, progress: Progress) -> str:
    """Read a checkpoint into the part's networks and into `progress`, and give what `halved` was."""
    tensors, head = load_state(file)
    if head["key"] != plan.key:
        raise StateError(
            f"{file} was trained with another configuration, seed or training split; train into an empty folder."
        )
    progress.step, progress.bad, progress.rows = head["step"], head["bad"], head["rows"]
    progress.earlier_seconds = head.get("core_seconds", 0.0)
    progress.best = math.inf if head["best"] is None else head["best"]
    try:
        for name, value in plan.memory.items():
            value.copy_(tensors[f"memory/{name}"])
        for name, learner in plan.learners.items():
            learner.module.load_state_dict(_below(tensors, f"{name}/module/"))
            for key, value in _below(tensors, f"{name}/average/").items():
                learner.average[key].copy_(value)
            best = _below(tensors, f"{name}/best/")
            if best:
                progress.weights[name] = best
            _restore_optimizer(learner.optimizer, _below(tensors, f"{name}/optimizer/"), head["groups"][name])
    except (KeyError, RuntimeError) as error:
        raise StateError(
            f"{file} belongs to another configuration of the {plan.part} ({error}); train into an empty folder."
        ) from error
    return str(head.get("halved", ""))


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: object) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        like = parameters[int(index)]
        # Moments lie in memory as their parameter does, which safetensors does not keep.
        state.setdefault(int(index), {})[name] = (
            torch.empty_like(like, device="cpu").copy_(value) if value.shape == like.shape else value
        )
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what was seen in training as a table, a row per validation.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_history(Path(folder) / "denoiser.csv", [{"step": 1.0, "loss": 0.5}])
    ...     (Path(folder) / "denoiser.csv").read_text().split()
    ['step,loss', '1.0,0.5']
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
