"""The training of a probe: attributes and labels balanced against each other, and what is left of one in the other."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import softmax
from scipy.stats import mannwhitneyu, spearmanr
from torch import Tensor
from torch.nn import functional

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.splits import require_both
from citlr.errors import require_known
from citlr.generators.effects.propensity import Propensity
from citlr.generators.probes.linear import Offsets, cross_read, describe, fit_linear, fit_offsets, told_apart
from citlr.generators.probes.parts import ARCHITECTURES, Target, make_net
from citlr.generators.probes.probe import Probes
from citlr.learning.loop import seeded
from citlr.learning.session import Session
from citlr.learning.store import Dataset, spans
from citlr.learning.trainer import Trainer
from citlr.randomness import hashed_seed

Integers = npt.NDArray[np.int64]
# Images that a regression learns from, at most.
LEARNT_ON = 4000
# Level of the tests that a probe reads better than chance.
TRUST = 0.01
# A row may count at most this many times as much as the average one.
LARGEST_WEIGHT = 10.0
# Groups that a continuous attribute is read in; the reading is the mean of their centres.
ATTRIBUTE_GROUPS = 6


@dataclass(frozen=True)
class ProbeSettings:
    """What a probe reads, and how it is trained.

    - `attributes`, `labels`: Columns; each of the two groups is balanced against the other.
    - `within_levels`: Whether labels are calibrated within each level of the first attribute, see `within_levels`.
    """

    attributes: Sequence[str]
    size: int
    labels: Sequence[str] = ()
    steps: int = 800
    batch_size: int = 64
    architecture: str = "small"
    within_levels: bool = True

    def targets(self, frame: pd.DataFrame) -> tuple[Target, ...]:
        """Describe the columns, the attributes first."""
        for name in (*self.attributes, *self.labels):
            require_known(name, frame.columns, f"The cohort has no column '{name}' to probe")
        require_known(self.architecture, ARCHITECTURES, f"There is no probe '{self.architecture}'")
        return tuple(
            Target.of(name, frame[name], groups=ATTRIBUTE_GROUPS if name in self.attributes else 2)
            for name in dict.fromkeys((*self.attributes, *self.labels))
        )


def fit_probes(
    train: Cohort,
    validation: Cohort,
    settings: ProbeSettings,
    *,
    seed: int = 0,
    directory: Path | None = None,
    narrator: Narrator | None = None,
) -> Probes:
    """Train a probe on the training split.

    Attributes are balanced against labels and labels against attributes by weights `p(y) / p(y | rest)`: where they are
    correlated, a plain probe of the disease reads the attribute instead and would report drift that is not there.
    """
    require_both(train, validation)
    size, architecture, targets = settings.size, settings.architecture, settings.targets(train.frame)
    sets = [Dataset.of(part, size=size, directory=directory) for part in (train, validation)]
    codes = [np.stack([t.code(part.frame[t.name]) for t in targets], axis=1) for part in (train, validation)]
    count = len(set(settings.attributes))
    # The choice among the weights is balanced too: unbalanced, it would fall on those that read the other group along.
    weights = [_balance(part, targets, n_attributes=count) for part in codes]
    with seeded(seed, "probe"):
        net = make_net(architecture, [len(target.levels) for target in targets], size, train.channels)
    session = Session(Trainer("cpu", "32-true"), seed, directory, narrator or Narrator(), ema=0.98)
    learner = session.learner(net, rate=ARCHITECTURES[architecture], weight_decay=1e-2)

    def loss(rows: Integers, images: Tensor, which: int) -> Tensor:
        total = torch.zeros(())
        for k, logits in enumerate(learner.runner(images) if net.training else net(images)):
            code = torch.from_numpy(codes[which][rows, k])
            each = functional.cross_entropy(logits, code.clamp_min(0), reduction="none") * (code >= 0)
            total = total + (each * torch.from_numpy(weights[which][rows, k])).mean()
        return total

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows = session.rows(len(sets[0]), part="probe", step=step, batch=settings.batch_size)
        images = _jitter(sets[0].images(rows), random, blur=architecture != "fine")
        return {"loss": session.trainer.descend(loss(rows, images, 0), learner)}

    def validate() -> float:
        parts = [np.arange(span.start, span.stop) for span in spans(min(len(sets[1]), 512), 64)]
        return float(np.average([float(loss(r, sets[1].images(r), 1)) for r in parts], weights=[len(r) for r in parts]))

    pace = session.budget(settings.steps, batch=settings.batch_size, rate=ARCHITECTURES[architecture])
    budget = dataclasses.replace(pace, validate_every=max(1, settings.steps // 8))
    content = (*(data.mark for data in sets), *(code.tobytes().hex() for code in codes))
    keyed = session.keyed(size, settings.steps, settings.batch_size, architecture, targets, *content)
    keyed.train("probe", {"probe": learner}, update, budget, validate)
    probes = Probes(targets, size, net, {}, {}, architecture)
    accuracy, trusted = _judge(probes, sets[1], codes[1])
    probes = dataclasses.replace(probes, accuracy=accuracy, trusted=trusted)
    probes = _with_linear(probes, sets[0], codes[0], weights[0], n_attributes=count, seed=seed)
    offsets = _offsets(probes, sets[0], codes[0], weights[0], n_attributes=count) if settings.within_levels else {}
    return dataclasses.replace(probes, offsets=offsets)


def _with_linear(
    probes: Probes, data: Dataset, codes: Integers, weights: npt.NDArray[np.float32], *, n_attributes: int, seed: int
) -> Probes:
    """Have a regression read what the network reads no better than chance, where it does read it."""
    asked = [k for k, target in enumerate(probes.targets) if not probes.trusted[target.name]]
    if not asked:
        return probes
    rows = np.random.default_rng(hashed_seed("described", seed)).permutation(len(data))[:LEARNT_ON]
    frame, random = data.cohort.frame.iloc[rows], torch.Generator().manual_seed(hashed_seed("jitter", seed) % 2**63)
    batches = [data.images(rows[span]) for span in spans(len(rows), 64)]
    # Every image once as it is and once changed a little, as the network sees it.
    changed = [_jitter(images, random, blur=probes.architecture != "fine") for images in batches]
    described = np.concatenate([describe(images.numpy()) for images in (*batches, *changed)])
    accuracy, trusted, linear = dict(probes.accuracy), dict(probes.trusted), {}
    for k in asked:
        target = probes.targets[k]
        others = slice(n_attributes, None) if k < n_attributes else slice(n_attributes)
        given = np.flatnonzero(codes[rows, k] >= 0)
        own, weight = codes[rows[given], k], weights[rows[given], k].astype(np.float64)
        both = np.concatenate([given, given + len(rows)])
        fitted_to = (described[both], np.tile(own, 2), np.tile(weight, 2), len(target.levels))
        read = cross_read(*fitted_to, np.tile(frame["patient_id"].to_numpy()[given], 2), seed)
        if read is None:
            continue
        read = softmax(read[: len(given)], axis=1)
        strata = np.unique(codes[rows[given], others], axis=0, return_inverse=True)[1].reshape(-1)
        if _tells(target, read, own, strata, frame.iloc[given]):
            linear[target.name], trusted[target.name] = fit_linear(*fitted_to), True
            shares = [float((read[own == level].argmax(axis=1) == level).mean()) for level in np.unique(own)]
            accuracy[target.name] = float(np.mean(shares))
    return dataclasses.replace(probes, accuracy=accuracy, trusted=trusted, linear=linear)


def _tells(
    target: Target, read: npt.NDArray[np.float64], codes: Integers, strata: Integers, frame: pd.DataFrame
) -> bool:
    """Say whether readings (n, levels) are better than chance, at half the network's level: it is the second to try."""
    if len(target.centres) > 2:
        numbers = pd.DataFrame({"read": target.numbers(read), "true": frame[target.name].to_numpy(dtype=np.float64)})
        means = numbers.groupby(frame["patient_id"].to_numpy()).mean()
        return _follows(means["read"].to_numpy(), means["true"].to_numpy(), TRUST / 2)
    patients = frame["patient_id"]
    each = [told_apart(read[:, level], codes == level, strata, patients) for level in range(len(target.levels))]
    return max(each) < TRUST / 2 / len(target.levels)


def _jitter(images: Tensor, random: torch.Generator, *, blur: bool = True) -> Tensor:
    """Shift, brighten and blur a little, so that the probe does not learn the training images by heart.

    Blur and noise also make it indifferent to what an autoencoder loses: it is to read redrawn images. A fine probe is
    to notice just that.
    """
    down, right = (int(v) for v in torch.randint(-2, 3, (2,), generator=random))
    shifted = torch.roll(images, (down, right), dims=(2, 3))
    gain = 1 + 0.1 * (torch.rand((len(images), 1, 1, 1), generator=random) - 0.5)
    if not blur:
        return (shifted * gain).clamp(0, 1)
    if float(torch.rand((), generator=random)) < 0.5:
        shifted = functional.avg_pool2d(functional.pad(shifted, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    noise = 0.01 * torch.randn(images.shape, generator=random)
    return (shifted * gain + noise).clamp(0, 1)


def _balance(codes: Integers, targets: Sequence[Target], *, n_attributes: int) -> npt.NDArray[np.float32]:
    """Give weights (n, targets) under which a target is uniform over its levels and independent of the other group."""
    weights = np.ones(codes.shape, dtype=np.float32)
    for k, target in enumerate(targets):
        others = range(n_attributes, len(targets)) if k < n_attributes else range(n_attributes)
        given = codes[:, k] >= 0
        y = codes[given, k]
        if len(np.unique(y)) < 2:
            continue
        planes = [np.eye(len(targets[j].levels) + 1)[codes[given, j]] for j in others]
        rest = np.concatenate([np.ones((len(y), 1)), *planes], axis=1)
        alike = np.full(len(target.levels), 1 / len(target.levels))
        raw = Propensity().fit(y, rest).weights(y, rest, shares=alike, heaviest=LARGEST_WEIGHT)
        weights[given, k] = raw / raw.mean()
    return weights


def _readings(probes: Probes, data: Dataset) -> dict[str, npt.NDArray[np.float32]]:
    """Read all images of a split."""
    parts = [probes.read(data.images(span).numpy()) for span in spans(len(data))]
    return {target.name: np.concatenate([part[target.name] for part in parts]) for target in probes.targets}


def _offsets(
    probes: Probes, data: Dataset, codes: Integers, weights: npt.NDArray[np.float32], *, n_attributes: int
) -> Offsets:
    """Calibrate the labels within each level of the first attribute, where that is a set of levels."""
    first = probes.targets[0]
    if first.centres or not n_attributes or n_attributes == len(probes.targets):
        return {}
    readings, found = _readings(probes, data), {}
    for k, target in enumerate(probes.targets[n_attributes:], n_attributes):
        logits = np.log(np.maximum(readings[target.name].astype(np.float64), 1e-12))
        own = {}
        for number, level in enumerate(first.levels):
            rows = (codes[:, 0] == number) & (codes[:, k] >= 0)
            own[level] = fit_offsets(logits[rows], codes[rows, k], weights[rows, k].astype(np.float64)).tolist()
        found[target.name] = own
    return found


def _judge(probes: Probes, data: Dataset, codes: Integers) -> tuple[dict[str, float], dict[str, bool]]:
    readings = _readings(probes, data)
    accuracy, trusted = {}, {}
    for k, target in enumerate(probes.targets):
        given = codes[:, k] >= 0
        values, truth = readings[target.name][given], codes[given, k]
        present = np.unique(truth)
        shares = [float((values[truth == level].argmax(axis=1) == level).mean()) for level in present]
        accuracy[target.name] = float(np.mean(shares)) if shares else float("nan")
        if len(target.centres) > 2:
            numbers = data.cohort.frame[target.name].to_numpy(dtype=np.float64)[given]
            trusted[target.name] = _follows(target.numbers(values), numbers)
            continue
        trusted[target.name] = len(present) == len(target.levels) and all(
            mannwhitneyu(values[truth == level, level], values[truth != level, level], alternative="greater").pvalue
            < TRUST / len(target.levels)
            for level in present
        )
    return accuracy, trusted


def _follows(read: npt.NDArray[np.float64], true: npt.NDArray[np.float64], level: float = TRUST) -> bool:
    """Say whether readings of a number rise with it, better than by chance."""
    if len(np.unique(read)) < 2 or len(np.unique(true)) < 2:
        return False
    return bool(spearmanr(read, true, alternative="greater").pvalue < level)
