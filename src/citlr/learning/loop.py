"""One training loop for all parts: seeded steps, moving averages, checkpoints, resume, early stop.

Everything random in step k is drawn from a generator seeded by (seed, part, k), and the batch of step k is a function
of (seed, part, k) too. A run that was killed and resumed from its last checkpoint therefore ends with the same bits as
one that was never killed, whenever the checkpoints fell.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from citlr.errors import InputError, StateError
from citlr.learning.beside import Found, Part, beside, one_thread
from citlr.learning.devices import fabric_of
from citlr.learning.memory import free, out_of_memory
from citlr.learning.plan import Learner, Progress, TrainingPlan
from citlr.learning.resume import restore_progress, store_progress, write_history
from citlr.randomness import hashed_seed

# Steps whose losses a GPU is asked for together.
_PACE = 25
# Images that a validation loss is computed on at most.
VALIDATION = 128


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Initialise a part from its own seed and leave the caller's random state as it was.

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
    - `compiled`: Whether networks are compiled by torch before they are trained.
    - `halved`: Where memory ran out and every batch from there on was halved; empty where it did not.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    compiled: bool = False

    def __post_init__(self) -> None:
        self.halved = ""
        self.fabric = fabric_of(self.accelerator, full_precision(self.accelerator, self.precision))
        # Reading a number makes the processor wait for a GPU: there, numbers are read some steps at a time.
        self.pace = _PACE if self.fabric.device.type == "cuda" else 1
        self._unread: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.fabric.device

    def rows(self, n: int, *, seed: int, part: str, step: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Rows of the batch of a step: a new permutation every pass, this process's share of the batch.

        The batch has half its size once memory has run out, see `run`.

        Shapes: gives (batch_size / processes,).

        >>> trainer = Trainer("cpu", "32-true")
        >>> steps = [trainer.rows(6, seed=0, part="probe", step=step, batch_size=3) for step in (0, 1)]
        >>> sorted(np.concatenate(steps).tolist())
        [0, 1, 2, 3, 4, 5]
        """
        whole = self.whole(n, seed=seed, part=part, step=step, batch_size=batch_size)
        return whole[self.own]

    @property
    def abreast(self) -> bool:
        """Whether parts of a batch are computed beside each other: on a processor that no other process shares."""
        return self.device.type == "cpu" and self.fabric.world_size == 1

    def each(self, function: Callable[[Part], Found], parts: Iterable[Part]) -> list[Found]:
        """Call a function on parts of some data, beside each other where that pays."""
        return beside(function, list(parts)) if self.abreast else [function(part) for part in parts]

    @property
    def own(self) -> slice:
        """Which of a whole batch's rows, and of what is drawn for them, are this process's."""
        return slice(self.fabric.global_rank, None, self.fabric.world_size)

    def whole(self, n: int, *, seed: int, part: str, step: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Rows of the whole batch, of all processes: what is drawn for it belongs to its rows, not to a process.

        Shapes: gives (batch_size,).
        """
        if batch_size % self.fabric.world_size:
            raise InputError(
                f"A batch of {batch_size} images (training of the {part}) cannot be shared equally by "
                f"{self.fabric.world_size} devices: give a multiple."
            )
        batch_size = max(1, batch_size // 2) if self.halved else batch_size
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        rows = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            here = positions // n == epoch
            rows[here] = _order(n, seed, part, int(epoch))[positions[here] % n]
        return rows

    def random(self, *, seed: int, part: str, step: int) -> torch.Generator:
        """Random numbers of a step, on the CPU: a generator that belongs to (seed, part, step), in every process."""
        return torch.Generator().manual_seed(hashed_seed(seed, part, "noise", step, 0))

    def put(self, values: Tensor) -> Tensor:
        """Bring values to the device; from the CPU to a GPU while it computes, out of memory that stays in place."""
        if self.device.type != "cuda" or values.is_cuda:
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def descend(self, loss: Tensor, learner: Learner) -> Tensor:
        """Take one optimiser step, and give the loss; it must be a number, and so must the gradient, see `read`."""
        value = loss.detach()
        self._watch(value, "the loss")
        learner.stepper.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self._step(learner)
        return value

    def descend_by_halves(
        self, losses: Callable[[slice], tuple[Tensor, ...]], count: int, learner: Learner
    ) -> tuple[Tensor, ...]:
        """Take one optimiser step on the mean over `count` images of the first of some losses; give their means.

        `losses(part)` gives the means over a part of the batch. On a processor of its own the two halves of a batch are
        computed beside each other, and their gradients added, see `citlr.learning.beside`.
        """
        middle = count // 2
        if not self.abreast or middle == 0:
            found = losses(slice(0, count))
            self.descend(found[0], learner)
            return tuple(value.detach() for value in found)
        weights = [weight for weight in learner.module.parameters() if weight.requires_grad]

        def half(part: slice) -> tuple[list[Tensor], tuple[Tensor | None, ...]]:
            shares = [loss * ((part.stop - part.start) / count) for loss in losses(part)]
            return [share.detach() for share in shares], torch.autograd.grad(shares[0], weights, allow_unused=True)

        (first, down), (second, other) = beside(half, [slice(0, middle), slice(middle, count)], most=2)
        values = tuple(one + two for one, two in zip(first, second, strict=True))
        self._watch(values[0], "the loss")
        for weight, one, two in zip(weights, down, other, strict=True):
            weight.grad = one if one is None or two is None else one + two
        self._step(learner)
        return values

    def _step(self, learner: Learner) -> None:
        with one_thread():
            if learner.clip is not None:
                norm = nn.utils.clip_grad_norm_(learner.module.parameters(), learner.clip)
                self._watch(norm, "the norm of the gradient")
            learner.stepper.step()

    def _watch(self, value: Tensor, name: str) -> None:
        if self.pace > 1:
            self._unread.append(value)
        elif not math.isfinite(number := float(value)):
            raise DivergedError(f"{name} is {number}")

    def read(self) -> None:
        """Look at what was not looked at yet: on a GPU, a loss that is no number is found some steps later."""
        found, self._unread = self._unread, []
        if found and not bool(torch.stack(found).isfinite().all()):
            raise DivergedError(f"the loss or the gradient of one of the last {self.pace} steps is no number")

    def average(self, losses: Mapping[str, float | Tensor]) -> dict[str, float]:
        """Give losses as numbers, over the shares of all processes."""
        if not losses or self.fabric.world_size == 1:
            return {name: float(value) for name, value in losses.items()}
        together = torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in losses.values()])
        found = self.fabric.all_reduce(together.to(self.device), reduce_op="mean")
        return dict(zip(losses, torch.as_tensor(found).tolist(), strict=True))


def full_precision(accelerator: str, precision: str) -> str:
    """Say what "auto" is: bfloat16 where a GPU that is asked for has it, else 32 bits.

    >>> full_precision("cpu", "auto"), full_precision("cpu", "16-mixed")
    ('32-true', '16-mixed')
    """
    if precision != "auto":
        return precision
    usable = accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()
    return "bf16-mixed" if usable and torch.cuda.is_bf16_supported() else "32-true"


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
        if trainer.compiled:
            learner.module.compile()
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
            if progress.step % trainer.pace == 0:
                tick(progress.step, f"loss {float(next(iter(losses.values()))):.4f}{plan.remark(progress)}")
            # What was not looked at is not kept.
            read = progress.step % trainer.pace == 0
            due = read and time.monotonic() - last_saved > 60 * plan.budget.checkpoint_minutes
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
) -> Mapping[str, float | Tensor] | None:
    """Make one step; None where memory ran out and the next try is at half the batch."""
    try:
        return make_step(plan, trainer, progress)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as trouble:
        if not out_of_memory(trouble):
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


def _keep(file: Path | None, plan: TrainingPlan, trainer: Trainer, progress: Progress) -> str:
    """Write the weights as they were before the step that failed, which touched none; say where they are.

    A training of several networks may have changed one of them in that step, and on a GPU the step that failed may be
    some steps ago: of those the last checkpoint stays.
    """
    if file is None or not trainer.fabric.is_global_zero:
        return ""
    if len(plan.learners) == 1 and trainer.pace == 1:
        store_progress(file, plan, progress, halved=trainer.halved)
    return f" The last good checkpoint is kept in {file}." if file.is_file() else ""


def _halve(plan: TrainingPlan, trainer: Trainer, progress: Progress, narrator: Narrator) -> bool:
    """Halve every batch from here on, and say so; false the second time, when there is nothing left to try."""
    alone = trainer.fabric.world_size == 1  # else the others would go on with whole batches
    if trainer.halved or not alone or plan.budget.batch_size < 2 * plan.budget.least_batch:
        return False
    trainer.halved = (
        f"Memory ran out in training the {plan.part} at step {progress.step}: from there on every batch is halved."
    )
    narrator.say(trainer.halved)
    for learner in plan.learners.values():
        learner.stepper.zero_grad(set_to_none=True)
    free()
    return True


def make_step(plan: TrainingPlan, trainer: Trainer, progress: Progress) -> Mapping[str, float | Tensor]:
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
    due = progress.step % plan.budget.validate_every == 0 or progress.step == plan.budget.steps
    if due or progress.step % trainer.pace == 0:
        trainer.read()
    if due:
        validate(plan, progress, trainer.average(losses))
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
