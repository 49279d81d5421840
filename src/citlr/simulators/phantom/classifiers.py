"""Classifiers of known bias for the phantom: blind ones that cannot see the attribute, biased ones of chosen strength.

All are torch modules from float32 images (n, 1, s, s) in [0, 1] to logits (n, 1); they can be scripted and saved as
TorchScript. A blind one multiplies its input by the complement of the attribute's support before anything else, so in
the true world its output under two levels of the attribute is the same number, not merely a close one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from citlr.errors import InputError
from citlr.randomness import ALONE
from citlr.simulators.phantom import PhantomSample, PhantomWorld
from citlr.simulators.phantom.anatomy import graded
from citlr.simulators.phantom.regions import Image, check_finding

GRID = 16
"""Cells per side on which the analytic classifiers weigh an image."""
HEAVY = 1e4
"""How much more than chance variation a change of images counts that a classifier is to be indifferent to."""
TEXTURE = 0.5
"""Spread of the random reading of an indifferent classifier, as a share of the finding's."""
BATCH = 64
"""Images per step of a training."""
NET_SIZE = 64
"""Larger images are averaged down to this before the first convolution."""


class MaskedNet(nn.Module):
    """A small CNN that sees some of the pixels: those not `seen` (s, s) are multiplied by zero first."""

    if TYPE_CHECKING:  # an annotation seen at run time would stop torch.jit.script
        seen: Tensor

    def __init__(self, seen: NDArray[np.bool_], *, width: int = 8) -> None:
        super().__init__()
        self.register_buffer("seen", torch.from_numpy(seen.astype(np.float32))[None, None])
        shrink: nn.Module = nn.AdaptiveAvgPool2d(NET_SIZE) if seen.shape[0] > NET_SIZE else nn.Identity()
        layers: list[nn.Module] = [shrink]
        channels = 1
        for out in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(16 * channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1) of images (n, 1, s, s)."""
        logits: Tensor = self.head(self.features((images - 0.5) * self.seen))
        return logits


class TemplateClassifier(nn.Module):
    """Logit ``slope * (<template, image> - middle) + prior``: linear in the pixels.

    - `template` (s, s): Weights of the pixels, 0 where it sees nothing.
    - `slope`, `middle`, `prior`: Calibration.
    """

    if TYPE_CHECKING:  # as above
        template: Tensor

    def __init__(self, template: Image, *, slope: float, middle: float, prior: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("template", torch.from_numpy(template.astype(np.float32))[None, None])
        self.slope, self.middle, self.prior = slope, middle, prior

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1) of images (n, 1, s, s)."""
        score = (images * self.template).sum(dim=(1, 2, 3)).unsqueeze(1)
        return self.slope * (score - self.middle) + self.prior


class BiasedClassifier(nn.Module):
    """Logit ``base(x) + strength * (sigmoid(detector(x)) - 1/2)``: a known dose of the attribute.

    - `base`: Usually a blind classifier.
    - `detector`: Logit of the attribute's last level against the first, see `attribute_detector`.
    - `strength`: By how much the logit moves from an image that is surely of the first level to one that is surely of
      the last.
    """

    def __init__(self, base: nn.Module, detector: nn.Module, *, strength: float) -> None:
        super().__init__()
        self.base, self.detector, self.strength = base, detector, float(strength)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1) of images (n, 1, s, s)."""
        logits: Tensor = self.base(images) + self.strength * (torch.sigmoid(self.detector(images)) - 0.5)
        return logits


def train_blind(sample: PhantomSample, finding: str, *, seed: int, epochs: int = 15, width: int = 8) -> MaskedNet:
    """Train a CNN for a finding that sees nothing inside the attribute's support."""
    return _train(sample, finding, ~sample.world.support(), seed, epochs, width)


def train_sighted(sample: PhantomSample, finding: str, *, seed: int, epochs: int = 15, width: int = 8) -> MaskedNet:
    """Train the same CNN with all pixels in sight; a correlated sample may teach it the attribute as a shortcut."""
    return _train(sample, finding, np.ones_like(sample.world.support()), seed, epochs, width)


def _train(
    sample: PhantomSample, finding: str, seen: NDArray[np.bool_], seed: int, epochs: int, width: int
) -> MaskedNet:
    with ALONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _trained(MaskedNet(seen, width=width), sample, finding, epochs)


def _trained(net: MaskedNet, sample: PhantomSample, finding: str, epochs: int) -> MaskedNet:
    check_finding(finding)
    labels = torch.from_numpy((sample.severity[finding].to_numpy() > 0).astype(np.float32))[:, None]
    if labels.min() == labels.max():
        raise InputError(f"All {len(sample)} training images have the same label for {finding}; draw a larger sample.")
    images = torch.from_numpy(sample.images())
    steps = -(-len(sample) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(sample)).chunk(steps):
            loss = nn.functional.binary_cross_entropy_with_logits(net(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval()


def analytic_blind(world: PhantomWorld, finding: str, *, n_patients: int = 400, seed: int = 0) -> TemplateClassifier:
    """Return the linear discriminant of a finding on the pixels outside the support, computed from the world itself."""
    _, absent, there, prior = _pairs(world, finding, n_patients, seed)
    return _discriminant(absent, there, ~world.support(), prior=prior)


def _pairs(world: PhantomWorld, finding: str, n_patients: int, seed: int) -> tuple[PhantomSample, Image, Image, float]:
    """Render units without and with a finding; also the units, and the finding's logit of its prevalence."""
    check_finding(finding)
    units = world.sample(n_patients, seed=seed, images_per_patient=1)
    grade = graded(units.exogenous[f"{finding}_rank"].to_numpy())
    share = float(world.prevalences()[finding])
    absent, there = (units.with_severity(finding, severity).images() for severity in (0, grade))
    return units, absent, there, float(np.log(share / (1 - share)))


def analytic_indifferent(
    world: PhantomWorld, finding: str, *, n_patients: int = 1000, seed: int = 0
) -> TemplateClassifier:
    """Return a linear classifier that looks where the attribute acts and uses nothing of what the attribute does.

    To the discriminant of a finding on all pixels a random reading of the pixels that the attribute can touch is
    added, of half its spread. All weights are at a right angle to the change that setting the attribute makes, unit by
    unit, as far as the coarse grid lets them. What is left is not exactly nothing; the truth is to be taken from
    `true_effect`.
    """
    units, absent, there, prior = _pairs(world, finding, n_patients, seed)
    effects = units.counterfactual(world.levels[-1]) - units.counterfactual(world.levels[0])
    finds = _discriminant(absent, there, np.ones_like(world.support()), prior=prior, ignored=effects)
    texture = np.random.default_rng(seed).normal(size=(1, 1, *world.support().shape)).astype(np.float32)
    # The random reading is the discriminant of a change that nothing makes.
    reads = _discriminant(absent, absent + 0.01 * texture, world.support(), prior=0.0, ignored=effects)
    images = torch.from_numpy(units.images())
    with torch.no_grad():
        spread, own = (float(one(images).std()) for one in (finds, reads))
    factor = TEXTURE * spread / own * reads.slope / finds.slope
    template = (finds.template + factor * reads.template)[0, 0].numpy()
    middle = finds.middle + factor * float((images * reads.template).sum(dim=(1, 2, 3)).mean())
    return TemplateClassifier(template, slope=finds.slope, middle=middle, prior=finds.prior).eval()


def attribute_detector(
    world: PhantomWorld, *, contrast: tuple[str, str] | None = None, n_patients: int = 400, seed: int = 0
) -> TemplateClassifier:
    """Return the linear discriminant of the attribute on the pixels of the support."""
    first, last = contrast if contrast is not None else (world.levels[0], world.levels[-1])
    units = world.sample(n_patients, seed=seed, images_per_patient=1)
    return _discriminant(units.counterfactual(first), units.counterfactual(last), world.support(), prior=0.0)


def _discriminant(
    before: Image, after: Image, seen: NDArray[np.bool_], *, prior: float, ignored: Image | None = None
) -> TemplateClassifier:
    """Fit ``w = (S + ridge)^-1 (mean after - mean before)`` on the sums over the cells of a coarse grid.

    Changes of images to be `ignored` enter S, heavily: the score hardly moves with them.
    """
    size = seen.shape[0]
    cells = np.zeros((min(GRID, size), size))
    cells[np.arange(size) * len(cells) // size, np.arange(size)] = 1

    def coarse(images: Image) -> NDArray[np.float64]:
        masked = np.where(seen, images[:, 0], 0).astype(np.float64)
        return np.asarray(cells @ masked @ cells.T).reshape(len(images), -1)

    low, high = coarse(before), coarse(after)
    spread = (np.cov(low, rowvar=False) + np.cov(high, rowvar=False)) / 2
    ridge = 0.02 * np.trace(spread) / len(spread)
    if ignored is not None:
        changes = coarse(ignored)
        spread = spread + HEAVY * changes.T @ changes / len(changes)
    weights = np.linalg.solve(spread + ridge * np.eye(len(spread)), high.mean(0) - low.mean(0))
    template = np.where(seen, cells.T @ weights.reshape(len(cells), -1) @ cells, 0)
    score_low, score_high = low @ weights, high @ weights
    variance = (score_low.var() + score_high.var()) / 2
    slope = (score_high.mean() - score_low.mean()) / variance
    # One pixel's weight should not be lost in float32 sums: scores are scaled to unit spread first.
    unit = float(np.sqrt(variance))
    middle = (score_low.mean() + score_high.mean()) / 2
    return TemplateClassifier(
        (template / unit).astype(np.float32), slope=float(slope * unit), middle=float(middle / unit), prior=prior
    ).eval()


def classify(module: nn.Module, *, batch: int = 256) -> Callable[[Image], NDArray[np.float64]]:
    """Return the function from images (n, 1, s, s) to probabilities (n,) that `true_effect` takes."""

    def run(images: Image) -> NDArray[np.float64]:
        with torch.no_grad():
            logits = [module(torch.from_numpy(images[start : start + batch])) for start in range(0, len(images), batch)]
        return torch.sigmoid(torch.cat(logits)[:, 0].double()).numpy()

    return run
