"""Time per model of the default test against fitting the published g and h, in one run on the same predictions.

    OMP_NUM_THREADS=1 python benchmarks/synthetic.py --models 12

The reference is what the publication fits for one p-value: two networks (64, 32) in torch, 1000 epochs of Adam, here
with the whole training set in one batch, which is the fastest way to go through it 1000 times. Ours is the whole
generator-mode test: redraw 200 units 4 times under both levels, predict, 4999 randomisations.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from citlr.invariance.randomization.test import contrast_tests
from citlr.simulators.tabular import SETS, TabularWorld
from citlr.studies.synthetic.run import FAMILIES, decisions, fit_family


def fit_published(inputs: np.ndarray, target: np.ndarray, epochs: int) -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 1),
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)[:, None]
    for _ in range(epochs):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimiser.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=1000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ours, theirs = [], []
    for k in range(chosen.models):
        world = TabularWorld(SETS[k % len(SETS)], balanced=True)
        train, test = world.sample(800, seed=2 * k), world.sample(200, seed=2 * k + 1)
        family = list(FAMILIES)[k % len(FAMILIES)]
        model = fit_family(family, train, k)
        began = time.perf_counter()
        redrawn = decisions(model, world, test.z, draws=4, seed=k, shared=True)
        p = contrast_tests(redrawn[..., None], shared_seeds=True, seed=k).pvalue.item()
        ours.append(time.perf_counter() - began)
        predicted = train.label.astype(float)
        began = time.perf_counter()
        fit_published(np.column_stack([train.z, train.attribute]), predicted, chosen.epochs)
        fit_published(train.z, predicted, chosen.epochs)
        theirs.append(time.perf_counter() - began)
        print(f"{family:24} ours {1e3 * ours[-1]:7.1f} ms (p = {p:.4f})  g and h {1e3 * theirs[-1]:8.1f} ms")
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    medians = [1e3 * statistics.median(times) for times in (ours, theirs)]
    print(f"median: ours {medians[0]:.1f} ms, g and h {medians[1]:.1f} ms; {ratio:.0f} x")


if __name__ == "__main__":
    main()
