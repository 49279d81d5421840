"""Latent shift: move an image's latent up the gradient of an attribute probe, and decode. No diffusion is needed.

Cohen et al. (2021) shift a latent along a classifier's gradient, `D(E(x) + lambda grad f)`, to show what a classifier
looks at. Here f reads the attribute, the way is cut off from what is to be held, and its length is not a free number:
the reading moves by the difference between the levels' mean readings, so that the factual level is no change at all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BeforeValidator
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.networks import Autoencoder
from citlr.generators.diffusion.parts import latents, train_autoencoder
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.preparation import Prepared
from citlr.generators.probes.parts import Critic
from citlr.generators.rivals.direct import DirectConfig, DirectGenerator, level_columns
from citlr.generators.variables import Variable
from citlr.learning.loop import VALIDATION, seeded
from citlr.learning.store import Rows, Stream, spans
from citlr.values import Batch, Count, Few, Name, Positive, Widths

# A mapping of settings as pairs, which a frozen record can hold.
Pairs = Annotated[
    tuple[tuple[Name, Any], ...],
    BeforeValidator(lambda value: tuple(value.items()) if isinstance(value, Mapping) else value),
]


@dataclass(frozen=True)
class LatentShiftConfig(DirectConfig):
    """Everything that a latent-shift generator is built from; further fields as of `DirectConfig`.

    - `autoencoder`: Fields of `LDMConfig` that the autoencoder is built and trained by, over those of the preset: at
      the same preset and seed it is the latent diffusion model's own.
    - `probe_channels`, `probe_grid`: Widths of the probe in the latent, and the raster that it averages over, see
      `Critic`.
    - `turns`: Gradient steps of a shift; a straight line where it is 1.
    """

    autoencoder: Pairs = ()
    probe_channels: Widths = (16, 32)
    probe_grid: Few = 4
    probe_steps: Count = 400
    probe_batch: Batch = 32
    probe_rate: Positive = 2e-3
    turns: Few = 4

    @classmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """Name the presets: those of `LDMConfig`."""
        return PRESETS

    def check(self) -> None:
        """Refuse values that do not go together."""
        super().check()
        self.latent_config()

    def latent_config(self) -> LDMConfig:
        """Give the configuration of the autoencoder; InputError where a field of it does not fit."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in self.autoencoder}
        for name in ("preset", "size", "hold"):
            if name in given:
                raise InputError(f"autoencoder names '{name}', which is that of the generator: give it there.")
        own = {name: getattr(self, name) for name in ("size", "hold", "patience", "image_channels")}
        return LDMConfig.preset_of(self.preset, **{**own, **given})

    @classmethod
    def following(cls, size: int, images: int, memory_gb: float | None) -> Mapping[str, Any]:
        """Leave the autoencoder to its own preset as long as nobody knows how many images there are."""
        return {"autoencoder": ()}

    def for_images(self, images: int, memory_gb: float | None) -> Self:
        """Take the autoencoder's settings of the latent diffusion model for so many images; one that is given stays."""
        if not self.follow:
            return self
        own = {"size": self.size, "hold": self.hold, "patience": self.patience}
        latent = LDMConfig.preset_of(self.preset, **own).for_images(images, memory_gb)
        return dataclasses.replace(self, autoencoder=tuple(vars(latent.autoencoder).items()), follow=())

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one latent."""
        return self.latent_config().latent_shape


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"probe_steps": 300},
    "laptop": {},
    "workstation": {
        "probe_channels": (32, 64, 128),
        "probe_steps": 4000,
        "probe_batch": 64,
        "follow": ("autoencoder",),
    },
    "published": {"probe_steps": 300},
    "paper": {"size": 256, "probe_channels": (64, 128, 256, 512), "probe_steps": 20_000, "probe_batch": 64},
}


class LatentProbe(Critic):
    """Reads every variable off a latent, and keeps its mean reading of each level (columns) on images of each (rows).

    - `inputs`, `outputs`, `channels`, `grid`: As of `Critic`; one output per entry of a code.
    """

    means: Tensor

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], grid: int) -> None:
        super().__init__(inputs, outputs, channels, grid)
        self.register_buffer("means", torch.zeros(outputs, outputs))


class LatentShift(DirectGenerator):
    """Shifts latents along the gradient of a probe.

    >>> LatentShift(size=32, preset="tiny").config.turns
    4
    """

    settings = LatentShiftConfig
    config: LatentShiftConfig
    kind = "latent-shift"

    def build(self, conditions: Conditions, *, seed: int) -> None:
        """Build autoencoder and probe."""
        config, latent = self.config, self.config.latent_config()
        with seeded(seed, "autoencoder"):
            self.autoencoder = Autoencoder(latent.autoencoder, latent.image_channels).to(self.device)
        with seeded(seed, "latent-probe"):
            channels = latent.autoencoder.latent_channels
            probe = LatentProbe(channels, conditions.width, config.probe_channels, config.probe_grid)
            self.probe = probe.to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """Name autoencoder and probe."""
        return {"autoencoder": self.autoencoder, "latent_probe": self.probe}

    def learn(self, prepared: Prepared) -> None:
        """Train autoencoder and probe, and take the probe's mean readings of each level."""
        latent, sets, conditions = self.config.latent_config(), prepared.sets, prepared.conditions
        averaged = dataclasses.replace(prepared.session, ema=latent.ema, patience=latent.patience)
        session = averaged.keyed(*(data.mark for data in sets), *latent.autoencoder_depends_on())
        train_autoencoder(session, latent.autoencoder, self.autoencoder, *sets)
        z = [
            latents(session, self.autoencoder, data, name=name)
            for data, name in zip(sets, ("train", "validation"), strict=True)
        ]
        self._train_probe(prepared, z)
        scores = [self._scores_of(some) for some in z]
        for variable in conditions.attributes:
            columns = level_columns(conditions, variable.name)
            # A continuous attribute is read in its own unit and needs no means.
            if not variable.levels:
                continue
            # Validation images are none that the probe knows by heart; a level that they lack is read off the training
            # split's.
            for which in (0, 1):
                own, log_odds = prepared.codes[which][:, columns], _log_odds(scores[which][:, columns])
                seen = (own.sum(dim=0) > 0).numpy()
                means = (own.T @ log_odds / own.sum(dim=0).clamp_min(1)[:, None]).to(self.device)
                self.probe.means[np.ix_(columns[seen], columns)] = means[seen]
            self.report[f"latent_auroc_{variable.name}"] = _auroc(log_odds, own)

    def _train_probe(self, prepared: Prepared, z: Sequence[Rows]) -> None:
        config, conditions, session = self.config, prepared.conditions, self.keyed(prepared)
        learner = session.learner(self.probe, rate=config.probe_rate, weight_decay=1e-2)

        def loss(rows: npt.NDArray[np.int64], which: int) -> Tensor:
            x = Stream(z[which])[rows].to(session.device)
            runner = learner.runner if self.probe.training else self.probe
            scores = runner(x, x.new_zeros(len(x), 0)).float()
            codes = prepared.codes[which][rows].to(session.device)
            return torch.stack(
                [_loss_of(conditions, variable, scores, codes) for variable in conditions.variables]
            ).sum()

        def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
            rows = session.rows(len(z[0]), part="probe", step=step, batch=config.probe_batch)
            return {"loss": session.trainer.descend(loss(rows, 0), learner)}

        def validate() -> float:
            parts = [np.arange(part.start, part.stop) for part in spans(min(len(z[1]), VALIDATION), 64)]
            return float(np.mean([float(loss(rows, 1)) for rows in parts]))

        budget = session.budget(config.probe_steps, batch=config.probe_batch, rate=config.probe_rate)
        session.train("latent-probe", {"probe": learner}, update, budget, validate)

    @torch.no_grad()
    def _scores_of(self, z: Rows) -> Tensor:
        parts = [Stream(z)[part].to(self.device) for part in spans(len(z), 64)]
        return torch.cat([self.probe(x, x.new_zeros(len(x), 0)).cpu() for x in parts])

    def posterior(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images; their codes are not needed."""
        mean, deviation = self.autoencoder.moments(images)
        standard = (mean - self.autoencoder.centre) / self.autoencoder.spread
        return standard, deviation / self.autoencoder.spread

    def render(self, latent: Tensor, factual: Tensor, requested: Tensor, free: Tensor, guidance: float) -> Tensor:
        """Shift latents to the requested codes, and decode."""
        return self.autoencoder.decode(self.shift(latent, factual, requested, guidance))

    def shift(self, latent: Tensor, factual: Tensor, requested: Tensor, guidance: float = 1.0) -> Tensor:
        """Move latents so that the probe reads the requested codes instead of the factual ones.

        Each turn goes the shortest way, to first order, to the line where the reading has moved by its share of the
        difference between the levels' mean readings, and at a right angle to the gradients of all other readings:
        `z <- z + way d / (d.g)`, d being the reading's gradient g less its part along the others' gradients.

        Shapes: `latent` (n, c, h, w), `factual, requested` (n, width); gives (n, c, h, w).
        """
        for variable in self.conditions.attributes:
            columns = level_columns(self.conditions, variable.name)
            if torch.equal(factual[:, columns], requested[:, columns]):
                continue
            way = guidance * self._way(variable, columns, factual, requested) / self.config.turns
            for _ in range(self.config.turns):
                latent = self._step(latent, variable, requested[:, columns], way)
        return latent

    def _way(self, variable: Variable, columns: npt.NDArray[np.int64], factual: Tensor, requested: Tensor) -> Tensor:
        """How far the reading of the requested level is to move: zero where that is the factual one."""
        own, new = factual[:, columns], requested[:, columns]
        if not variable.levels:
            return (new - own)[:, 0]
        means = self.probe.means[np.ix_(columns, columns)]
        # What images of the requested level, and of the image's own, read as log-odds of the requested one on average.
        chosen, other = (new * (new @ means)).sum(dim=1), (new * (own @ means)).sum(dim=1)
        same = (own == new).all(dim=1)
        return torch.where(same, torch.zeros_like(chosen), chosen - other)

    def _step(self, latent: Tensor, variable: Variable, level: Tensor, way: Tensor) -> Tensor:
        with torch.enable_grad():
            x = latent.detach().requires_grad_(True)
            scores = self.probe(x, x.new_zeros(len(x), 0))
            readings = [self._reading(variable, scores, level)]
            readings += [self._reading(other, scores, None) for other in self.conditions.held]
            gradients = [torch.autograd.grad(reading.sum(), x, retain_graph=True)[0].flatten(1) for reading in readings]
        direction = gradients[0]
        if len(gradients) > 1:
            fixed = torch.stack(gradients[1:], dim=2)
            # Least squares by the (ridged) normal equations: what of the direction the fixed gradients explain.
            gram = fixed.transpose(1, 2) @ fixed
            gram = gram + 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None].clamp_min(1e-12) * torch.eye(
                gram.shape[1], device=gram.device
            )
            share = torch.linalg.solve(gram, fixed.transpose(1, 2) @ direction[:, :, None])
            direction = direction - (fixed @ share)[:, :, 0]
        gain = (direction * gradients[0]).sum(dim=1).clamp_min(1e-8)
        return latent + (way / gain)[:, None, None, None] * direction.reshape(latent.shape)

    def _reading(self, variable: Variable, scores: Tensor, level: Tensor | None) -> Tensor:
        """Log-odds of a level, or a number; for a held variable those of its likeliest level."""
        columns = level_columns(self.conditions, variable.name)
        values = scores[:, columns]
        if not variable.levels:
            return values[:, 0]
        chosen = level
        if chosen is None:
            chosen = functional.one_hot(values.argmax(dim=1), values.shape[1]).to(values)
        return (_log_odds(values) * chosen).sum(dim=1)


def _loss_of(conditions: Conditions, variable: Variable, scores: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of a set of levels, squared error of a number; rows without a value count for nothing."""
    columns = level_columns(conditions, variable.name)
    given = 1 - codes[:, conditions.span(variable.name).stop - 1]
    if variable.levels:
        each = -(codes[:, columns] * functional.log_softmax(scores[:, columns], dim=1)).sum(dim=1)
    else:
        each = (scores[:, columns[0]] - codes[:, columns[0]]).square()
    return (each * given).mean()


def _log_odds(scores: Tensor) -> Tensor:
    """Log-odds of each level against all others, (n, levels)."""
    probability = functional.log_softmax(scores, dim=1)
    return probability - torch.log1p(-probability.exp().clamp_max(1 - 1e-6))


def _auroc(log_odds: Tensor, own: Tensor) -> float | None:
    """Mean AUROC over the levels that are present on both sides."""
    found = [
        float(roc_auc_score(own[:, k].numpy(), log_odds[:, k].numpy()))
        for k in range(own.shape[1])
        if 0 < float(own[:, k].sum()) < len(own)
    ]
    return float(np.mean(found)) if found else None
