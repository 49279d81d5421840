"""One training loop for all parts: seeded steps, moving averages, checkpoints, resume, early stop.

Everything random in step k is drawn from a generator seeded by (seed, part, k), and the batch of step k is a function
of (seed, part, k) too. A run that was killed and resumed from its last checkpoint therefore ends with the same bits as
one that was never killed, whenever the checkpoints fell.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.console import Narrator
from citlr.errors import StateError
from citlr.learning.plan import Learner, Progress, TrainingPlan
from citlr.learning.resume import restore_progress, store_progress, write_history
from citlr.randomness import hashed_seed

# Images that a validation loss is computed on at most.
VALIDATION = 256


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Initialise a part from its own seed and leave the caller's random state as it was.

    Examples
    --------
    >>> with seeded(0, "probe"):
    ...     first = torch.rand(1)
    >>> with seeded(0, "probe"):
    ...     print(bool(torch.rand(1) == first))
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed(seed, part, "weights"))
        yield


class DivergedError(ArithmeticError):
    """A loss or a gradient that is not a number; `run` turns it into a sentence."""


@dataclass
class Trainer:
    """The device, and the one way to make a step.

    - `accelerator`, `precision`: As in Lightning Fabric; precision "auto" is bfloat16 where the device has it, else 32
      bits.
    - `devices`: Processes; above 1 the batch is divided among them (start with `fabric run` or torchrun).
    - `halved`: Where memory ran out and every batch from there on was halved; empty where it did not.
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

        Shapes: gives (batch_size / processes,).

        Examples
        --------
        >>> trainer = Trainer("cpu", "32-true")
        >>> steps = [trainer.rows(6, seed=0, part="probe", step=step, batch_size=3) for step in (0, 1)]
        >>> sorted(np.concatenate(steps).tolist())
        [0, 1, 2, 3, 4, 5]
        """
        batch_size = max(1, batch_size // 2) if self.halved else batch_size
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        rows = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            here = positions // n == epoch
            rows[here] = _order(n, seed, part, int(epoch))[positions[here] % n]
        return rows[self.fabric.global_rank :: self.fabric.world_size]

    def random(self, *, seed: int, part: str, step: int) -> torch.Generator:
        """Random numbers of a step, on the CPU: a generator that belongs to (seed, part, step) and this process."""
        return torch.Generator().manual_seed(hashed_seed(seed, part, "noise", step, self.fabric.global_rank))

    def descend(self, loss: Tensor, learner: Learner) -> float:
        """Take one optimiser step; the loss must be a number, and so must the gradient."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value}")
        learner.stepper.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if learner.clip is not None:
            norm = float(nn.utils.clip_grad_norm_(learner.module.parameters(), learner.clip))
            if not math.isfinite(norm):
                raise DivergedError(f"the norm of the gradient is {norm}")
        learner.stepper.step()
        return value


@lru_cache(maxsize=4)
def _order(n: int, seed: int, part: str, epoch: int) -> npt.NDArray[np.int64]:
    """Give the order of one pass; kept, as many steps of it ask."""
    return np.random.default_rng(hashed_seed(seed, part, "order", epoch)).permutation(n)


def run(
    plan: TrainingPlan, trainer: Trainer, *, directory: Path | None = None, narrator: Narrator | None = None
) -> Progress:
    """Train a part, leave the chosen weights in its modules, and give what was seen on the way."""
    narrator = narrator or Narrator()
    progress = Progress()
    for learner in plan.learners.values():
        learner.runner, learner.stepper = trainer.fabric.setup(learner.module, learner.optimizer)
    file = directory / f"{plan.file or plan.part}.safetensors" if directory is not None else None
    if file is not None and file.exists():
        # A machine that ran out of memory once is not asked again, and the rows of the steps must be the same.
        halved = restore_progress(file, plan, progress)
        trainer.halved = trainer.halved or halved
    last_saved, mine = time.monotonic(), trainer.fabric.is_global_zero
    with narrator.progress(plan.part, plan.budget.steps) as tick:
        while not _over(plan, progress):
            seen = len(progress.rows)
            losses = _try_step(plan, trainer, progress, file, narrator)
            if losses is None:
                continue
            tick(progress.step, f"loss {next(iter(losses.values())):.4f}{plan.remark(progress)}")
            due = time.monotonic() - last_saved > 60 * plan.budget.checkpoint_minutes
            if plan.keep is not None and len(progress.rows) > seen and mine:
                due = True
                plan.keep(progress)
            if file is not None and due and mine:
                store_progress(file, plan, progress, halved=trainer.halved)
                last_saved = time.monotonic()
    finish(plan, progress)
    if file is not None and mine and plan.keep is None:
        store_progress(file, plan, progress, halved=trainer.halved)
        write_history(file.with_suffix(".csv"), progress.rows)
    return progress


def _over(plan: TrainingPlan, progress: Progress) -> bool:
    tired = progress.bad >= plan.budget.patience and plan.enough(progress)
    return tired or progress.step >= plan.budget.steps


def _try_step(
    plan: TrainingPlan, trainer: Trainer, progress: Progress, file: Path | None, narrator: Narrator
) -> dict[str, float] | None:
    """Make one step; None where memory ran out and the next try is at half the batch."""
    try:
        return make_step(plan, trainer, progress)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as trouble:
        if not _out_of_memory(trouble):
            raise
        if _halve(plan, trainer, progress, narrator):
            return None
        batch = plan.budget.batch_size // 2 if trainer.halved else plan.budget.batch_size
        raise StateError(
            f"Training of the {plan.part} ran out of memory at step {progress.step}, with a batch of "
            f"{batch}. A smaller batch, size or preset would do.{_keep(file, plan, trainer, progress)}"
        ) from trouble
    except DivergedError as trouble:
        raise StateError(
            f"Training of the {plan.part} stopped at step {progress.step}: {trouble}. A smaller learning rate "
            f"would do, or images without constant or extreme values.{_keep(file, plan, trainer, progress)}"
        ) from trouble


def _out_of_memory(trouble: BaseException) -> bool:
    """Say whether an error means that memory ran out; the processor's allocator raises a plain RuntimeError."""
    plain = isinstance(trouble, RuntimeError) and "can't allocate memory" in str(trouble)
    return plain or isinstance(trouble, torch.OutOfMemoryError | MemoryError)


def _keep(file: Path | None, plan: TrainingPlan, trainer: Trainer, progress: Progress) -> str:
    """Write the weights as they were before the step that failed, which touched none; say where they are.

    A training of several networks may have changed one of them in that step: of those the last checkpoint stays.
    """
    if file is None or not trainer.fabric.is_global_zero:
        return ""
    if len(plan.learners) == 1:
        store_progress(file, plan, progress, halved=trainer.halved)
    return f" The last good checkpoint is kept in {file}." if file.is_file() else ""


def _halve(plan: TrainingPlan, trainer: Trainer, progress: Progress, narrator: Narrator) -> bool:
    """Halve every batch from here on, and say so; false the second time, when there is nothing left to try."""
    if trainer.halved or plan.budget.batch_size < 2 * plan.budget.least_batch:
        return False
    trainer.halved = (
        f"Memory ran out in training the {plan.part} at step {progress.step}: from there on every batch is halved."
    )
    narrator.say(trainer.halved)
    for learner in plan.learners.values():
        learner.stepper.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def make_step(plan: TrainingPlan, trainer: Trainer, progress: Progress) -> dict[str, float]:
    """Make one step and, where it is due, a validation; give the losses."""
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
        validate(plan, progress, losses)
    return losses


def validate(plan: TrainingPlan, progress: Progress, losses: dict[str, float]) -> None:
    """Validate the averages, and keep them where they are the best so far."""
    row: dict[str, Any] = {"step": float(progress.step), **losses}
    if plan.validate is not None:
        held = {name: learner.weights() for name, learner in plan.learners.items()}
        raw = {
            name: {key: value.detach().clone() for key, value in learner.module.state_dict().items()}
            for name, learner in plan.learners.items()
        }
        for name, learner in plan.learners.items():
            learner.module.load_state_dict(held[name])
            learner.module.eval()
        with torch.no_grad():
            found = plan.validate()
        row |= found if isinstance(found, Mapping) else {"validation": float(found)}
        for name, learner in plan.learners.items():
            learner.module.load_state_dict(raw[name])
        if row["validation"] < progress.best:
            progress.best, progress.bad, progress.weights = row["validation"], 0, held
        else:
            progress.bad += 1
    progress.rows.append(row)


def finish(plan: TrainingPlan, progress: Progress) -> None:
    """Leave the best weights by validation where there was one, else the averages."""
    for name, learner in plan.learners.items():
        learner.module.load_state_dict(progress.weights.get(name) or learner.weights())
        learner.module.eval()
        for parameter in learner.module.parameters():
            parameter.grad = None
