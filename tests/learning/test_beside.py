"""Parts beside each other: the same bits on one thread and on two, gradients and errors as without threads."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from citlr.generators.conditions import Conditions
from citlr.generators.request import Batches, Request, redraw_in_batches
from citlr.learning.beside import AT_A_TIME, beside, one_thread
from citlr.learning.plan import Learner
from citlr.learning.trainer import Trainer


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads of torch, while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_parts_are_computed_at_the_same_time_and_come_in_their_order(threads: int) -> None:
    meeting = threading.Barrier(threads, timeout=30)

    def part(number: int) -> tuple[int, int]:
        meeting.wait()  # nobody passes until all are here
        return number, torch.get_num_threads()

    assert beside(part, range(4)) == [(number, 1) for number in range(4)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("wanted", [True, False])
def test_parts_have_gradients_where_the_caller_has_them(threads: int, wanted: bool) -> None:
    with torch.set_grad_enabled(wanted):
        assert beside(lambda part: torch.is_grad_enabled(), range(AT_A_TIME + 1)) == [wanted] * (AT_A_TIME + 1)


def test_an_error_of_a_part_is_the_callers_and_nothing_stays_changed(threads: int) -> None:
    interval, finished = sys.getswitchinterval(), list[int]()

    def part(number: int) -> int:
        if number == 0:
            raise MemoryError("no room")
        time.sleep(0.05)
        finished.append(number)
        return number

    with pytest.raises(MemoryError, match="no room"):
        beside(part, range(3))
    # Nothing goes on behind the caller, who has need of the memory.
    assert sorted(finished) == ([] if threads == 1 else [1, 2])
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1 // 0
    assert (sys.getswitchinterval(), torch.get_num_threads()) == (interval, threads)


def a_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), nn.GroupNorm(4, 32), nn.Conv2d(32, 1, 3, padding=1))


def stepped(count: int, *, halves: bool) -> tuple[list[Tensor], list[float]]:
    """Three steps on batches of `count` images, by halves or not: the weights, and the losses."""
    net, trainer = a_net(), Trainer("cpu", "32-true")
    learner = Learner(net, torch.optim.AdamW(net.parameters(), lr=1e-2))
    learner.runner, learner.stepper = trainer.fabric.setup(net, learner.optimizer)
    images = torch.rand((3, count, 1, 24, 24), generator=torch.Generator().manual_seed(1))
    seen = []
    for batch in images:

        def losses(part: slice, batch: Tensor = batch) -> tuple[Tensor, ...]:
            error = learner.runner(batch[part]) - 1
            return error.square().mean(), error.abs().mean()

        if halves:
            square, size = trainer.descend_by_halves(losses, count, learner)
            seen += [float(square), float(size)]
        else:
            whole = losses(slice(0, count))
            seen += [float(trainer.descend(whole[0], learner)), float(whole[1].detach())]
    return [weight.detach().clone() for weight in net.parameters()], seen


@pytest.mark.parametrize("count", [1, 7, 16])
def test_steps_by_halves_are_steps_on_the_whole_batch(count: int) -> None:
    (weights, losses), (whole, of_whole) = (stepped(count, halves=halves) for halves in (True, False))
    assert losses == pytest.approx(of_whole, rel=1e-5)
    for one, other in zip(weights, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_bits_of_a_training_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(stepped(16, halves=True))
    torch.set_num_threads(before)
    (weights, losses), (others, of_others) = found
    assert losses == of_others
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))


@pytest.mark.parametrize("count", [3, 11])
def test_bits_of_a_redrawn_image_depend_neither_on_threads_nor_on_company(threads: int, count: int) -> None:
    net = a_net().requires_grad_(False)

    def redraw(images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        assert not torch.is_grad_enabled()
        return net(images)[:, None, None]

    frame = pd.DataFrame({"image_id": range(count), "patient_id": range(count), "sex": (["F", "M"] * count)[:count]})
    conditions = Conditions.of(frame, attributes=["sex"], hold=[], coin_seed=0)
    images = np.random.default_rng(0).random((count, 1, 24, 24), dtype=np.float32)
    found = redraw_in_batches(images, frame, Request(("sex",), ("F",)), Batches(redraw, conditions, per_batch=2))
    with one_thread():
        alone = [net(torch.from_numpy(images[[row, row]]))[:1].numpy() for row in range(count)]
    assert np.array_equal(found[:, 0, 0], np.concatenate(alone))
