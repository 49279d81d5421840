"""How fast parts are trained: a few real steps of the real batch, timed, where a training would make thousands."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field

from citlr.learning.loop import finish, make_step
from citlr.learning.loop import validate as validate_plan
from citlr.learning.plan import Progress, TrainingPlan
from citlr.learning.session import Session

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
