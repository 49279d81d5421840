"""What the trainings of all parts of one generator have in common, and the pace at which they go on this machine."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.console import Narrator
from citlr.learning.loop import VALIDATION, finish, make_step, run
from citlr.learning.loop import validate as validate_plan
from citlr.learning.plan import Budget, Learner, Progress, TrainingPlan
from citlr.learning.store import spans
from citlr.learning.trainer import Trainer
from citlr.randomness import hashed_seed


@dataclass(frozen=True)
class Session:
    """What the trainings of one generator have in common.

    - `patience`, `checkpoint_minutes`: See `Budget`.
    - `ema`: Decay of the moving average of the weights.
    - `key`: Names the settings and the data: a checkpoint of others is refused.
    """

    trainer: Trainer
    seed: int
    directory: Path | None
    narrator: Narrator
    patience: int = 1_000_000
    checkpoint_minutes: float = 2.0
    ema: float = 0.0
    key: str = ""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.trainer.device

    def keyed(self, *parts: object) -> Self:
        """Give a session whose key names these parts and the seed."""
        return dataclasses.replace(self, key=f"{hashed_seed(self.seed, *parts):016x}")

    def file(self, name: str) -> Path | None:
        """Name an array that depends on what the key names; None where there is no folder."""
        return None if self.directory is None else self.directory / f"{name}-{self.key}.npy"

    def rows(self, n: int, *, part: str, step: int, batch: int) -> npt.NDArray[np.int64]:
        """Rows of the batch of a step of a part, out of n; see `Trainer.rows`."""
        return self.trainer.rows(n, seed=self.seed, part=part, step=step, batch_size=batch)

    def whole(self, n: int, *, part: str, step: int, batch: int) -> tuple[npt.NDArray[np.int64], slice]:
        """Rows of the whole batch of a step, and which of them, and of what is drawn for them, are this process's."""
        return self.trainer.whole(n, seed=self.seed, part=part, step=step, batch_size=batch), self.trainer.own

    def random(self, part: str, step: int) -> torch.Generator:
        """Random numbers that belong to a part and a step of it."""
        return self.trainer.random(seed=self.seed, part=part, step=step)

    def learner(
        self, module: nn.Module, *, rate: float, decay: float | None = None, weight_decay: float = 0
    ) -> Learner:
        """Adam, with weight decay apart from the gradient where there is any, for a module that goes to the device."""
        module.to(self.device)
        # Fused: one call for all weights instead of a dozen for each, which on a processor is a tenth of a step.
        optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=weight_decay, fused=True)
        return Learner(module, optimizer, decay=self.ema if decay is None else decay)

    def budget(self, steps: int, *, batch: int, rate: float) -> Budget:
        """Budget of `steps` steps of `batch` images at a peak learning rate, with about ten validations."""
        return Budget(
            steps=steps,
            batch_size=batch,
            learning_rate=rate,
            validate_every=max(1, math.ceil(steps / 10)),
            patience=self.patience,
            checkpoint_minutes=self.checkpoint_minutes,
        )

    def mean_of(self, loss: Callable[[slice], float], n: int, batch: int) -> Callable[[], float]:
        """Give what validates a part: the mean of a loss over the first of n rows, a batch at a time."""

        def validate() -> float:
            return float(np.mean(self.trainer.each(loss, spans(min(n, VALIDATION), batch))))

        return validate

    def train(
        self,
        part: str,
        learners: Mapping[str, Learner],
        update: Callable[[int, torch.Generator], Mapping[str, float | Tensor]],
        budget: Budget,
        validate: Callable[[], float] | None = None,
        memory: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Train a part in place; parameters as of `TrainingPlan`."""
        self.carry_out(TrainingPlan(part, learners, update, budget, self.seed, validate, self.key, memory or {}))

    def carry_out(self, plan: TrainingPlan) -> None:
        """Do what a plan says, and go on where an earlier call was cut off."""
        run(plan, self.trainer, directory=self.directory, narrator=self.narrator)


# Steps that are timed at least, after one that is not: it builds what the others find.
FEWEST = 2


@dataclass(frozen=True)
class Pace:
    """How fast a part is trained, and how long its training is.

    - `flown`: Seconds that all of this was measured in.
    """

    steps: int
    batch: int
    seconds_a_step: float
    seconds_a_validation: float
    validations: int
    flown: float


@dataclass(frozen=True)
class Pacing(Session):
    """A session in which every part is trained for some seconds only.

    - `seconds`: That a part is timed for; it makes two steps at least.
    - `paces`: What was found, by part; filled as they are trained.
    """

    seconds: float = 1.0
    paces: dict[str, Pace] = field(default_factory=dict)

    def carry_out(self, plan: TrainingPlan) -> None:
        """Make some steps of a part, and note how long one takes."""
        budget = plan.budget
        plan = dataclasses.replace(plan, budget=dataclasses.replace(budget, validate_every=budget.steps + 1))
        for learner in plan.learners.values():
            learner.runner, learner.stepper = self.trainer.fabric.setup(learner.module, learner.optimizer)
        progress, taken = Progress(), list[float]()
        # The clock is read after a loss was: by then the device has done its work. The last step would validate.
        while len(taken) <= FEWEST or sum(taken[1:]) < self.seconds:
            began = time.perf_counter()
            float(next(iter(make_step(plan, self.trainer, progress).values())))
            taken.append(time.perf_counter() - began)
            if progress.step >= budget.steps - 1:
                break
        began = time.perf_counter()
        validate_plan(plan, progress, {})
        validation = time.perf_counter() - began
        finish(plan, progress)
        timed = taken[1:] or taken
        self.paces[plan.part] = Pace(
            steps=budget.steps,
            batch=budget.batch_size,
            seconds_a_step=sum(timed) / len(timed),
            seconds_a_validation=validation,
            validations=-(-budget.steps // budget.validate_every),
            flown=sum(taken) + validation,
        )
