"""The network that reads thickness, intensity and digit off redrawn images, and whose features they are compared in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.base import Images
from citlr.learning.loop import seeded
from citlr.learning.session import Session
from citlr.learning.store import Dataset, spans
from citlr.learning.trainer import Trainer
from citlr.simulators.morphomnist.world import ATTRIBUTES, DIGIT, SIZE

BATCH, RATE, WIDTH = 64, 2e-3, 64


class Reader(nn.Module):
    """Three strided convolutions, 64 features, and a head: two standardised numbers and ten digits.

    >>> Reader()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 12])
    """

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIZE // 8) ** 2, WIDTH), nn.SiLU())
        self.head = nn.Linear(WIDTH, len(ATTRIBUTES) + 10)
        self.register_buffer("centre", torch.zeros(len(ATTRIBUTES)))
        self.register_buffer("spread", torch.ones(len(ATTRIBUTES)))

    def features(self, images: Tensor) -> Tensor:
        """Give features (n, 64) of images (n, 1, 32, 32) in [0, 1]."""
        found: Tensor = self.body(images * 2 - 1)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Give standardised thickness and intensity and the logits of the digits, (n, 12)."""
        found: Tensor = self.head(self.features(images))
        return found

    @torch.no_grad()
    def read(self, images: Images) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Read numbers (n, 2), thickness in pixels and intensity in 0 to 255, and digits (n,)."""
        found = torch.cat([self(torch.from_numpy(images[part])) for part in spans(len(images), BATCH)])
        count = len(ATTRIBUTES)
        numbers = (found[:, :count] * self.spread + self.centre).double().numpy()
        return numbers, found[:, count:].argmax(dim=1).numpy()


def fit_reader(splits: tuple[Cohort, Cohort], *, steps: int, seed: int, directory: Path, narrator: Narrator) -> Reader:
    """Train a reader on (train, validation): squared errors of the numbers and cross-entropy of the digit."""
    sets = [Dataset.of(part, size=SIZE, directory=directory) for part in splits]
    numbers = [torch.tensor(part.frame[list(ATTRIBUTES)].to_numpy(dtype=np.float32)) for part in splits]
    digits = [torch.tensor(part.frame[DIGIT].astype(int).to_numpy()) for part in splits]
    with seeded(seed, "reader"):
        net = Reader()
    net.centre.copy_(numbers[0].mean(dim=0))
    net.spread.copy_(numbers[0].std(dim=0))
    session = Session(Trainer("cpu", "32-true"), seed, directory, narrator, ema=0.98)
    learner = session.learner(net, rate=RATE, weight_decay=1e-2)

    def loss(which: int, rows: NDArray[np.int64]) -> Tensor:
        found = (learner.runner if net.training else net)(sets[which].images(rows))
        wanted = (numbers[which][rows] - net.centre) / net.spread
        count = len(ATTRIBUTES)
        return functional.mse_loss(found[:, :count], wanted) + functional.cross_entropy(
            found[:, count:], digits[which][rows]
        )

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows = session.rows(len(sets[0]), part="reader", step=step, batch=BATCH)
        return {"loss": session.trainer.descend(loss(0, rows), learner)}

    def validate() -> float:
        return float(loss(1, np.arange(len(sets[1]))))

    keyed = session.keyed(steps, *(data.mark for data in sets))
    keyed.train("reader", {"reader": learner}, update, session.budget(steps, batch=BATCH, rate=RATE), validate)
    net.eval()
    return net
