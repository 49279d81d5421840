"""What the training loop is told of a part: its networks, its step, its budget, and how far it has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Budget:
    """How long a part is trained, in steps: never in seconds, which would not be the same twice.

    - `batch_size`: Images per step, over all devices.
    - `learning_rate`, `schedule`: Peak of the learning rate, and how it gets there and on, see `rate`.
    - `validate_every`: Steps between validation losses.
    - `patience`: Validations without a better loss before the training stops.
    - `checkpoint_minutes`: Time between checkpoints; has no influence on the result.
    - `least_batch`: Images that a step needs, over all devices: a batch is not halved below that.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: str = "warm-up"
    validate_every: int = 100
    patience: int = 1_000_000
    checkpoint_minutes: float = 2.0
    least_batch: int = 1

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0.

        - "warm-up": up along a line in the first twentieth, then down to a tenth by half a cosine.
        - "constant": the peak.
        - "one-cycle" (Smith and Topin, 2019): from a twenty-fifth up along a line in the first quarter, then down to
          nothing along a cosine; a short training comes further, and its last checkpoints are alike.
        """
        peak, done = self.learning_rate, step / self.steps
        if self.schedule == "constant":
            return peak
        if self.schedule == "one-cycle":
            rising = 0.04 + 0.96 * done / 0.25
            return peak * (rising if done < 0.25 else (1 + math.cos(math.pi * (done - 0.25) / 0.75)) / 2)
        ramp = max(1.0, 0.05 * self.steps)
        if step < ramp:
            return peak * (step + 1) / (ramp + 1)
        share = (step - ramp) / max(1.0, self.steps - ramp)
        return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


@dataclass
class Learner:
    """A network with its optimiser and its moving average.

    - `clip`: Largest norm of the gradient; a longer one is shortened to it. None for any norm.
    - `decay`: Of the moving average of the weights, in [0, 1); 0 for none.
    - `average`: The average, by the names of `state_dict`; filled here.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip: float | None = 1.0
    decay: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runner: nn.Module = self.module
        self.stepper: torch.optim.Optimizer = self.optimizer
        if self.decay > 0:
            self.average = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def follow(self, step: int) -> None:
        """Move the average towards the weights; quickly at first, so that it forgets the random start.

        `average <- d average + (1 - d) weights` with `d = min(decay, (1 + step) / (10 + step))`.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value.detach(), 1 - decay)
            else:
                self.average[name].copy_(value)

    def weights(self) -> dict[str, Tensor]:
        """Give copies of the average where there is one, of the weights themselves where not."""
        source = self.average or self.module.state_dict()
        return {name: value.detach().clone() for name, value in source.items()}


@dataclass(frozen=True)
class TrainingPlan:
    """What `training.run` needs to know of a part.

    - `part`: Its name, which seeds its steps and names its checkpoint.
    - `update`: `update(step, random)` makes one step and returns named losses, the first of which the progress bar
      shows.
    - `validate`: `validate()` returns the loss that early stopping and the choice of the weights go by, with the
      averages; or several measures, that loss as "validation" among them.
    - `key`: Names the configuration and the data: a checkpoint of another one is refused.
    - `memory`: State of an update that is neither weights nor optimiser, such as a running mean.
    - `file`: Name of the checkpoint where it is not the part's.
    - `enough`: Whether a training that has lost patience may stop.
    - `keep`: Is called after every validation, before the checkpoint that counts it: what else is kept of it.
    - `remark`: What the progress bar shows beside the loss.
    """

    part: str
    learners: Mapping[str, Learner]
    update: Callable[[int, torch.Generator], Mapping[str, float | Tensor]]
    budget: Budget
    seed: int
    validate: Callable[[], float | Mapping[str, Any]] | None = None
    key: str = ""
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    file: str = ""
    enough: Callable[[Progress], bool] = lambda progress: True
    keep: Callable[[Progress], None] | None = None
    remark: Callable[[Progress], str] = lambda progress: ""


@dataclass
class Progress:
    """How far a part has come, over all sessions that trained it.

    - `best`: Least validation loss so far.
    - `weights`: Weights of that validation, by learner and name.
    - `rows`: What was seen at each validation.
    - `earlier_seconds`, `began`: Processor time of the sessions before this one, and when this one began, seconds.
    """

    step: int = 0
    best: float = math.inf
    bad: int = 0
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    earlier_seconds: float = 0.0
    began: float = field(default_factory=time.process_time)

    @property
    def core_seconds(self) -> float:
        """Processor time that this part has taken, in all sessions together, seconds."""
        return self.earlier_seconds + time.process_time() - self.began
