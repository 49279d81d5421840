"""What generators that redraw in one pass share, without a walk through noise: request, batches, saving, loading."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from citlr.console import Narrator, Ticker, silent
from citlr.errors import InputError, StateError, did_you_mean
from citlr.generators.base import FORMAT, Images, Level
from citlr.generators.batches import BATCH, batches, check_images
from citlr.generators.conditions import Conditions, two_levels
from citlr.generators.diffusion.settings import ABDUCTIONS
from citlr.generators.preparation import prepare
from citlr.learning.checkpoints import load_module, save_state, weights_fingerprint
from citlr.learning.loop import Trainer
from citlr.learning.store import Dataset
from citlr.randomness import hashed_seed, keyed_noise
from citlr.run.files import read_json, write_json
from citlr.text import shortened
from citlr.values import (
    Accelerator,
    Count,
    Few,
    Name,
    Names,
    NotNegative,
    Positive,
    Precision,
    Whole,
    check_fields,
    check_value,
    require_fields,
)

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort


@dataclasses.dataclass(frozen=True)
class DirectConfig(ABC):
    """What every generator of this kind is built from.

    - `size`: Side of the images, 32 to 256.
    - `hold`: Covariates kept at their observed values.
    - `attributes`: What can be intervened on; the cohort's attributes without it. The coin is always added.
    - `preset`: Where the values came from, for the record.
    - `abduction`: Whether a draw takes its latent from the posterior at random, or all draws the posterior's mean.
    - `guidance`: Weight of the intervention.
    - `patience`, `checkpoint_minutes`, `accelerator`, `precision`, `devices`: As in `LDMConfig`.
    """

    size: Annotated[Whole, Field(ge=32, le=256)] = 64
    hold: Names = ()
    attributes: Names | None = None
    preset: Name = "small"
    abduction: Name = "noise"
    guidance: Positive = 1.0
    patience: Count = 1_000_000
    checkpoint_minutes: NotNegative = 2.0
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"
    devices: Few = 1

    # What no weights depend on.
    afterwards: ClassVar[frozenset[str]] = frozenset(
        {"preset", "checkpoint_minutes", "accelerator", "devices", "guidance", "abduction"}
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self.check()

    @classmethod
    @abstractmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """Name the presets, and the fields that each sets."""

    @classmethod
    def preset_of(cls, preset: str, **overrides: Any) -> Self:
        """Take a preset, with single fields overridden; InputError for a name that is not known."""
        preset, known = check_value("preset", preset, Name), cls.presets()
        if preset not in known:
            raise InputError(f"The preset '{shortened(preset)}' is not known.{did_you_mean(preset, known)}")
        require_fields(cls, overrides)
        return cls.from_json({"preset": preset, **known[preset], **overrides})

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON: tuples become lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`."""
        return cls(**content)

    def check(self) -> None:
        """Refuse values that do not go together; InputError naming the field."""
        if self.abduction not in ABDUCTIONS:
            raise InputError(f"abduction='{self.abduction}' is not known.{did_you_mean(self.abduction, ABDUCTIONS)}")


@dataclasses.dataclass(frozen=True)
class Material:
    """What a training works with: decoded splits, codes (n, width), the device, the seed, and a name for all of it."""

    train: Dataset
    validation: Dataset
    codes: tuple[Tensor, Tensor]
    trainer: Trainer
    seed: int
    key: str
    directory: Path | None
    narrator: Narrator


class DirectGenerator(ABC):
    """A generator that abducts a latent, changes the condition, and decodes.

    - `config`: What it is built from.
    - `report`: What training found out.
    """

    kind: ClassVar[str]

    def __init__(self, config: DirectConfig) -> None:
        self.settings = config
        self.size = config.size
        self.hold = config.hold
        self.report: dict[str, Any] = {}
        # As in `LatentDiffusion`: what it learnt from, in memory and as marks.
        self.splits: tuple[Cohort, Cohort] | None = None
        self.seen: tuple[str, ...] = ()
        self._conditions: Conditions | None = None
        self.device = torch.device("cpu")

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What can be intervened on, the coin among it; a continuous attribute has no levels. Known after `fit`."""
        return {variable.name: variable.levels for variable in self.conditions.attributes}

    @property
    def conditions(self) -> Conditions:
        """The variables that it was trained with."""
        if self._conditions is None:
            raise StateError("The generator is not trained yet: call fit(), or load_generator() on a saved one.")
        return self._conditions

    @abstractmethod
    def _build(self, conditions: Conditions, seed: int) -> None:
        """Build the networks, untrained."""

    @abstractmethod
    def _train(self, material: Material) -> None:
        """Train them, and fill `report`."""

    @abstractmethod
    def _modules(self) -> dict[str, nn.Module]:
        """Name the networks, for saving and moving."""

    @abstractmethod
    def _posterior(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latent given images (n, 1, s, s) and their factual codes (n, width)."""

    @abstractmethod
    def _render(self, latent: Tensor, factual: Tensor, wanted: Tensor, free: Tensor, guidance: float) -> Tensor:
        """Give images of latents under the codes `wanted`; `free` has the null code where `wanted` intervenes."""

    def rehearse(self) -> None:
        """Build the networks for an attribute of two levels: what cannot be built is found here; `fit` builds anew."""
        self._build(two_levels(), 0)
        self._conditions = None

    def fit(
        self,
        train: Cohort,
        validation: Cohort | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        narrator: Narrator | None = None,
    ) -> Self:
        """Train; parameters, resuming and errors as of `LatentDiffusion.fit`."""
        config, narrator = self.settings, narrator or Narrator()
        prepared = prepare(config, train, validation, seed=seed, directory=directory, narrator=narrator)
        own = config.to_json()
        marks = [f"{name}={own[name]}" for name in sorted(set(own) - config.afterwards)]
        self.device = prepared.trainer.device
        self._build(prepared.conditions, seed)
        key = f"{hashed_seed(seed, self.kind, *(data.mark for data in prepared.sets), prepared.mark, *marks):016x}"
        self._train(Material(*prepared.sets, prepared.codes, prepared.trainer, seed, key, directory, narrator))
        self.report |= prepared.remarks()
        self.splits, self.seen = prepared.splits, prepared.seen
        return self

    @torch.no_grad()
    def generate(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: str | Sequence[str],
        levels: Sequence[Level],
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        abduction: str | None = None,
        tick: Ticker = silent,
    ) -> Images:
        """Redraw images under each level; parameters as of `LatentDiffusion.generate`."""
        conditions = self.conditions
        check_images(images, self.size)
        chosen = abduction or self.settings.abduction
        self._check(images, frame, levels, draws, chosen)
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        codes = conditions.encode(frame)
        weight = self.settings.guidance if guidance is None else float(guidance)
        free = conditions.intervene(codes, names, None)
        wanted = [conditions.intervene(codes, names, level) for level in levels]
        ids = frame["image_id"].astype(str).tolist()
        out = np.empty((len(images), len(levels), draws, 1, self.size, self.size), dtype=np.float32)
        for part, filled in batches(images):
            rows = [min(row, part.stop - 1) for row in range(part.start, part.start + BATCH)]
            x, own = torch.from_numpy(filled).to(self.device), codes[rows].to(self.device)
            mean, deviation = self._posterior(x, own)
            for k, level in enumerate(levels):
                mine = () if shared_seeds else (level,)
                for draw in range(draws):
                    latent = mean
                    if chosen == "noise":
                        keys = [(seed, ids[row], draw, self.kind, *mine) for row in rows]
                        latent = mean + deviation * keyed_noise(keys, tuple(mean.shape[1:])).to(self.device)
                    target = wanted[k][rows].to(self.device), free[rows].to(self.device)
                    redrawn = self._render(latent, own, *target, weight).clamp(0, 1).cpu().numpy()
                    out[part, k, draw] = redrawn[: part.stop - part.start]
            tick(part.stop)
        return out

    def _check(self, images: Images, frame: pd.DataFrame, levels: Sequence[Level], draws: int, abduction: str) -> None:
        if len(frame) != len(images):
            raise InputError(f"{len(images)} images came with {len(frame)} rows; every image needs its row.")
        if abduction not in ABDUCTIONS:
            raise InputError(f"abduction='{abduction}' is not known.{did_you_mean(abduction, ABDUCTIONS)}")
        if not levels or draws < 1:
            raise InputError(f"{len(levels)} levels and {draws} draws were asked for; at least one of each is needed.")
        if abduction == "inversion" and draws != 1:
            raise InputError(
                f"Inversion gives one image per level, but {draws} draws were asked for; set draws=1 or "
                "abduction='noise'."
            )

    @torch.no_grad()
    def reconstruct(self, images: Images) -> Images:
        """Encode and decode images (n, 1, size, size) in [0, 1], told nothing of them; errors as of `check_images`."""
        check_images(images, self.size)
        null = self.conditions.nothing(BATCH).to(self.device)
        out = np.empty_like(images)
        for part, filled in batches(images):
            mean, _ = self._posterior(torch.from_numpy(filled).to(self.device), null)
            decoded = self._render(mean, null, null, null, 1.0).clamp(0, 1).cpu().numpy()
            out[part] = decoded[: part.stop - part.start]
        return out

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings and all weights: generators that draw other images have another one."""
        head = [FORMAT, self.kind, self.settings.to_json(), self.conditions.to_json()]
        return weights_fingerprint(self._modules(), head)

    def save(self, directory: Path) -> None:
        """Write `config.json` and the weights as safetensors; the JSON last, so that half a generator is none."""
        directory = Path(directory)
        conditions = self.conditions
        for name, module in self._modules().items():
            save_state(directory / f"{name}.safetensors", module.state_dict(), {"part": name})
        content = {
            "kind": self.kind,
            "format": FORMAT,
            "config": self.settings.to_json(),
            "conditions": conditions.to_json(),
            "report": self.report,
            "seen": list(self.seen),
        }
        write_json(directory / "config.json", content)

    def restore(self, directory: Path, content: Mapping[str, Any]) -> Self:
        """Take weights, conditions and report from a folder that `save` wrote; `content` is its `config.json`."""
        settings = self.settings
        self.device = Trainer(settings.accelerator, settings.precision, settings.devices).device
        self._build(Conditions.from_json(content["conditions"]), 0)
        for name, module in self._modules().items():
            load_module(module, directory / f"{name}.safetensors")
            module.eval()
        self.report, self.seen = content["report"], tuple(content["seen"])
        return self


def load_direct(kind: type[DirectGenerator], config: type[DirectConfig], directory: Path) -> DirectGenerator:
    """Read a generator of this class that `DirectGenerator.save` wrote; errors as of `restore`."""
    content = read_json(directory / "config.json")
    model = kind.__new__(kind)
    DirectGenerator.__init__(model, config.from_json(content["config"]))
    return model.restore(directory, content)


def level_columns(conditions: Conditions, name: str) -> npt.NDArray[np.int64]:
    """Columns of a code that name the levels of a variable (or hold its number), without the flag for "not given".

    Examples
    --------
    >>> frame = pd.DataFrame({"patient_id": [1, 2], "sex": ["F", "M"]})
    >>> level_columns(Conditions.of(frame, attributes=["sex"], hold=[], coin_seed=0), "sex")
    array([0, 1])
    """
    part = conditions.span(name)
    return np.arange(part.start, part.stop - 1)
