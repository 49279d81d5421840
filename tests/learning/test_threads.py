"""Threads of a notebook: what one seeds, another does not draw from."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from citlr.learning.loop import seeded
from citlr.predictors.training.zoo import build_network
from citlr.randomness import ALONE


def first_weights(seed: int) -> list[float]:
    with seeded(seed, "probe"):
        time.sleep(0.02)  # in which others seed
        drawn = torch.rand(2)
        time.sleep(0.02)
        return [*drawn.tolist(), float(torch.rand(1))]


def test_parts_that_are_made_beside_each_other_are_those_that_are_made_alone() -> None:
    alone = [first_weights(seed) for seed in range(4)]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(first_weights, range(4))] == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_that_are_made_beside_each_other_are_those_that_are_made_alone() -> None:
    def made(seed: int) -> torch.Tensor:
        network, _ = build_network("densenet121", ["flu"], weights=None, seed=seed)
        return torch.cat([one.detach().reshape(-1) for one in network.parameters()])

    alone = [made(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert all(torch.equal(one, other) for one, other in zip(threads.map(made, range(3)), alone, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_draws_does_not_wait_for_that_thread() -> None:
    begun, done = threading.Event(), threading.Event()

    def draw() -> None:
        with seeded(1, "probe"):
            begun.set()
            done.wait(60)

    thread = threading.Thread(target=draw)
    thread.start()
    begun.wait(60)
    child = os.fork()
    if not child:
        os._exit(0 if ALONE.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
