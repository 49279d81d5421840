"""One training loop for all parts: seeded steps, moving averages, checkpoints, resume, early stop.

Everything random in step k is drawn from a generator seeded by (seed, part, k), and the batch of step k is a function
of (seed, part, k) too. A run that was killed and resumed from its last checkpoint therefore ends with the same bits as
one that was never killed, whenever the checkpoints fell.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.artifacts import atomic_write
from citlr.console import Narrator
from citlr.errors import StateError
from citlr.generators.base import hashed_seed
from citlr.generators.checkpoints import load_state, save_state


@dataclass(frozen=True)
class Budget:
    """How long a part is trained, in steps: never in seconds, which would not be the same twice.

    Parameters
    ----------
    steps : int
        Length of the training.
    batch_size : int
        Images per step, over all devices.
    learning_rate : float
        Peak; reached after `warmup` of the steps and then led to a tenth of itself by half a cosine.
    warmup : float
        Share of the steps.
    validate_every : int
        Steps between validation losses.
    patience : int
        Validations without a better loss before the training stops.
    checkpoint_minutes : float
        Time between checkpoints; has no influence on the result.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.05
    validate_every: int = 100
    patience: int = 1_000_000
    checkpoint_minutes: float = 2.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        ramp = max(1.0, self.warmup * self.steps)
        if step < ramp:
            return self.learning_rate * (step + 1) / (ramp + 1)
        share = (step - ramp) / max(1.0, self.steps - ramp)
        return self.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


@dataclass
class Learner:
    """A network with its optimiser and its moving average; gradients are clipped to `clip`."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip: float = 1.0
    decay: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runner: nn.Module = self.module
        self.stepper: torch.optim.Optimizer = self.optimizer
        if self.decay > 0:
            self.average = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def follow(self, step: int) -> None:
        """Move the average towards the weights; quickly at first, so that it forgets the random start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value.detach(), 1 - decay)
            else:
                self.average[name].copy_(value)

    def weights(self) -> dict[str, Tensor]:
        """Give the average where there is one, the weights themselves where not."""
        source = self.average or self.module.state_dict()
        return {name: value.detach().clone() for name, value in source.items()}


class DivergedError(ArithmeticError):
    """A loss or a gradient that is not a number; `run` turns it into a sentence."""


@dataclass
class Trainer:
    """The device, and the one way to make a step.

    Parameters
    ----------
    accelerator, precision : str
        As in Lightning Fabric; precision "auto" is bfloat16 where the device has it, else 32 bits.
    devices : int
        Processes; above 1 the batch is divided among them (start with `fabric run` or torchrun).

    Attributes
    ----------
    halved : str
        Where memory ran out and every batch from there on was halved; empty where it did not.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        self.halved = ""
        precision = self.precision
        if precision == "auto":
            usable = self.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()
            precision = "bf16-mixed" if usable and torch.cuda.is_bf16_supported() else "32-true"
        # Here, for it takes 2 s, of which only a training has need.
        import lightning_fabric as fabric_package

        self.fabric = fabric_package.Fabric(accelerator=self.accelerator, devices=self.devices, precision=precision)  # type: ignore[arg-type]
        self.fabric.launch()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.fabric.device

    def rows(self, n: int, *, seed: int, part: str, step: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Rows of the batch of a step: a new permutation every pass, this process's share of the batch.

        The batch has half its size once memory has run out, see `run`.
        """
        batch_size = max(1, batch_size // 2) if self.halved else batch_size
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        rows = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            order = np.random.default_rng(hashed_seed(seed, part, "order", int(epoch))).permutation(n)
            here = positions // n == epoch
            rows[here] = order[positions[here] % n]
        return rows[self.fabric.global_rank :: self.fabric.world_size]

    def random(self, *, seed: int, part: str, step: int) -> torch.Generator:
        """Random numbers of a step, on the CPU."""
        return torch.Generator().manual_seed(hashed_seed(seed, part, "noise", step, self.fabric.global_rank))

    def descend(self, loss: Tensor, learner: Learner) -> float:
        """Take one optimiser step; the loss must be a number, and so must the gradient.

        Raises
        ------
        DivergedError
            Before the weights are touched.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value}")
        learner.stepper.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(learner.module.parameters(), learner.clip))
        if not math.isfinite(norm):
            raise DivergedError(f"the norm of the gradient is {norm}")
        learner.stepper.step()
        return value


@dataclass(frozen=True)
class Plan:
    """What `run` needs to know of a part.

    `update(step, random)` makes one step and returns named losses, the first of which the progress bar shows;
    `validate()` returns the loss that early stopping and the choice of the weights go by, computed with the averages.
    """

    part: str
    learners: Mapping[str, Learner]
    update: Callable[[int, torch.Generator], dict[str, float]]
    budget: Budget
    seed: int
    validate: Callable[[], float] | None = None
    # Names the configuration and the data: a checkpoint of another one is refused.
    key: str = ""
    # State of an update that is neither weights nor optimiser, such as a running mean.
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class _Progress:
    step: int = 0
    best: float = math.inf
    bad: int = 0
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)


def run(plan: Plan, trainer: Trainer, *, directory: Path | None = None, narrator: Narrator | None = None) -> None:
    """Train a part and leave the chosen weights in its modules.

    Parameters
    ----------
    plan : Plan
        The part.
    trainer : Trainer
        The device.
    directory : Path, optional
        Where checkpoints and `<part>.csv` go; a checkpoint found there is gone on from.
    narrator : Narrator, optional
        Shows the progress.

    Raises
    ------
    StateError
        If a loss or gradient stops being a number, or memory runs out although the batch was halved: the last good
        checkpoint stays where it is.
    """
    narrator = narrator or Narrator()
    progress = _Progress()
    for learner in plan.learners.values():
        learner.runner, learner.stepper = trainer.fabric.setup(learner.module, learner.optimizer)
    file = directory / f"{plan.part}.safetensors" if directory is not None else None
    if file is not None and file.exists():
        _restore(file, plan, trainer, progress)
    last_saved = time.monotonic()
    with narrator.progress(plan.part, plan.budget.steps) as tick:
        while progress.step < plan.budget.steps and progress.bad < plan.budget.patience:
            kept = "" if file is None else f" The last good checkpoint is kept in {file}."
            try:
                losses = _step(plan, trainer, progress)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as trouble:
                if not _out_of_memory(trouble):
                    raise
                _halve(plan, trainer, progress, narrator, kept)
                continue
            except DivergedError as trouble:
                raise StateError(
                    f"Training of the {plan.part} stopped at step {progress.step}: {trouble}. A smaller learning rate "
                    f"would do, or images without constant or extreme values.{kept}"
                ) from trouble
            tick(progress.step, f"loss {next(iter(losses.values())):.4f}")
            due = time.monotonic() - last_saved > 60 * plan.budget.checkpoint_minutes
            if file is not None and due and trainer.fabric.is_global_zero:
                _store(file, plan, trainer, progress)
                last_saved = time.monotonic()
    _finish(plan, progress)
    if file is not None and trainer.fabric.is_global_zero:
        _store(file, plan, trainer, progress)
        _write_history(file.with_suffix(".csv"), progress.rows)


def _out_of_memory(trouble: BaseException) -> bool:
    """Say whether an error means that memory ran out; the processor's allocator raises a plain RuntimeError."""
    plain = isinstance(trouble, RuntimeError) and "can't allocate memory" in str(trouble)
    return plain or isinstance(trouble, torch.OutOfMemoryError | MemoryError)


def _halve(plan: Plan, trainer: Trainer, progress: _Progress, narrator: Narrator, kept: str) -> None:
    """Halve every batch from here on, and say so; the second time there is nothing left to try."""
    batch = plan.budget.batch_size
    if trainer.halved or batch < 2:
        raise StateError(
            f"Training of the {plan.part} ran out of memory at step {progress.step}, with a batch of "
            f"{max(1, batch // 2) if trainer.halved else batch}. A smaller batch, size or preset would do.{kept}"
        )
    trainer.halved = (
        f"Memory ran out in training the {plan.part} at step {progress.step}: from there on every batch is halved."
    )
    narrator.say(trainer.halved)
    for learner in plan.learners.values():
        learner.stepper.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _step(plan: Plan, trainer: Trainer, progress: _Progress) -> dict[str, float]:
    step = progress.step
    for learner in plan.learners.values():
        learner.module.train()
        for group in learner.optimizer.param_groups:
            group["lr"] = plan.budget.rate(step) * group.get("scale", 1.0)
    losses = plan.update(step, trainer.random(seed=plan.seed, part=plan.part, step=step))
    for learner in plan.learners.values():
        if learner.decay > 0:
            learner.follow(step)
    progress.step = step + 1
    if progress.step % plan.budget.validate_every == 0 or progress.step == plan.budget.steps:
        _validate(plan, progress, losses)
    return losses


def _validate(plan: Plan, progress: _Progress, losses: dict[str, float]) -> None:
    row = {"step": float(progress.step), **losses}
    if plan.validate is not None:
        held = {name: learner.weights() for name, learner in plan.learners.items()}
        raw = {name: _copy(learner.module.state_dict()) for name, learner in plan.learners.items()}
        for name, learner in plan.learners.items():
            learner.module.load_state_dict(held[name])
            learner.module.eval()
        with torch.no_grad():
            row["validation"] = float(plan.validate())
        for name, learner in plan.learners.items():
            learner.module.load_state_dict(raw[name])
        if row["validation"] < progress.best:
            progress.best, progress.bad, progress.weights = row["validation"], 0, held
        else:
            progress.bad += 1
    progress.rows.append(row)


def _finish(plan: Plan, progress: _Progress) -> None:
    """Leave the best weights by validation where there was one, else the averages."""
    for name, learner in plan.learners.items():
        learner.module.load_state_dict(progress.weights.get(name) or learner.weights())
        learner.module.eval()
        for parameter in learner.module.parameters():
            parameter.grad = None


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _store(file: Path, plan: Plan, trainer: Trainer, progress: _Progress) -> None:
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
        "halved": trainer.halved,
    }
    save_state(file, tensors, head)


def _restore(file: Path, plan: Plan, trainer: Trainer, progress: _Progress) -> None:
    tensors, head = load_state(file)
    if head["key"] != plan.key:
        raise StateError(
            f"{file} was trained with another configuration, seed or training split; train into an empty folder."
        )
    progress.step, progress.bad, progress.rows = head["step"], head["bad"], head["rows"]
    # A machine that ran out of memory once is not asked again, and the rows of the steps must be the same.
    trainer.halved = trainer.halved or head.get("halved", "")
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


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: object) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
