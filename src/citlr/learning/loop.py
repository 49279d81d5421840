"""One training loop for all parts: seeded steps, moving averages, checkpoints, resume, early stop.

Everything random in step k is drawn from a generator seeded by (seed, part, k), and the batch of step k is a function
of (seed, part, k) too. A run that was killed and resumed from its last checkpoint therefore ends with the same bits as
one that was never killed, whenever the checkpoints fell.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from citlr.console import Narrator
from citlr.errors import StateError
from citlr.learning.beside import free, out_of_memory
from citlr.learning.checkpoints import restore_progress, store_progress, write_history
from citlr.learning.plan import Progress, TrainingPlan
from citlr.learning.trainer import DivergedError, Trainer
from citlr.randomness import ALONE, hashed_seed

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
    with ALONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed(seed, part, "weights"))
        yield


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
