"""Threads of a notebook: what one seeds, another does not draw from."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from citlr.learning.loop import seeded
from citlr.predictors.training.zoo import build_network


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
