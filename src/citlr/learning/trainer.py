"""The device that a training runs on, and the one way to make a step of it: rows, random numbers, descent."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.errors import InputError
from citlr.learning.beside import Found, Part, beside, one_thread
from citlr.learning.devices import fabric_of
from citlr.learning.plan import Learner
from citlr.randomness import hashed_seed

# Steps whose losses a GPU is asked for together.
_PACE = 25


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
        """Rows (batch_size,) of the whole batch: what is drawn for it belongs to its rows, not to a process."""
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
