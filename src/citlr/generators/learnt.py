"""What all generators that are trained share: fitting, redrawing, saving and loading, around the networks of each."""

import dataclasses
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from citlr.console import Narrator, Ticker, silent
from citlr.data.cohort import Cohort
from citlr.errors import InputError, StateError
from citlr.generators.base import BATCH, FORMAT, Images, batches, check_images
from citlr.generators.conditions import Conditions, two_levels
from citlr.generators.preparation import Prepared, prepare, splits
from citlr.generators.redrawing import Lesson, Redrawing
from citlr.generators.request import Batches, Redraw, Request, redraw_in_batches
from citlr.generators.settings import ABDUCTIONS, GeneratorSettings, require_known_value
from citlr.learning.checkpoints import load_module, save_state, weights_fingerprint
from citlr.learning.devices import is_alone, on_devices
from citlr.learning.session import Pace, Pacing, Session
from citlr.learning.trainer import Trainer, full_precision
from citlr.run.files import read_json, write_json


class LearntGenerator(Redrawing):
    """A generator that is trained. A new one names its settings and fills in the abstract methods.

    - `size`, `hold`, `preset`, `**overrides`: Fields of its settings, or all of them as `config`.

    Attributes: `config`; `report`, what training found out; `splits`, what it learnt from, while it is in memory: the
    probes that judge it learn from the same patients; `seen`, marks of the patients it learnt from, kept with it: no
    image of theirs may be audited.
    """

    settings: ClassVar[type[GeneratorSettings]]
    # What it is called in a configuration, see `citlr.config.kinds`.
    kind: ClassVar[str]
    # Settings that make this kind of generator, below those that a caller gives.
    own_settings: ClassVar[Mapping[str, Any]] = {}
    config: GeneratorSettings

    def __init__(
        self,
        size: int = 64,
        *,
        hold: Sequence[str] = (),
        preset: str = "laptop",
        config: GeneratorSettings | None = None,
        **overrides: Any,
    ) -> None:
        given = {"size": size, "hold": hold, **self.own_settings, **overrides}
        self.config = config or self.settings.preset_of(preset, **given)
        self.size, self.hold = self.config.size, self.config.hold
        self.report: dict[str, Any] = {}
        self.splits: tuple[Cohort, Cohort] | None = None
        self.seen: tuple[str, ...] = ()
        self._conditions: Conditions | None = None
        self.device = torch.device("cpu")
        self._saved: Path | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Go to another process as the folder that it was read from, where there is one: the device is chosen there."""
        if self._saved is None:
            return super().__reduce_ex__(protocol)
        return _loaded_again, (type(self), self._saved, self.fingerprint())

    @abstractmethod
    def build(self, conditions: Conditions, *, seed: int) -> None:
        """Build the networks on `device`, untrained."""

    @abstractmethod
    def learn(self, prepared: Prepared) -> None:
        """Train the networks, and fill `report`."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Name all that is to be saved: file stem to module."""

    @abstractmethod
    def redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Redraw images (n, c, s, s), not clipped, with factual codes (n, width): (n, levels, draws, c, s, s)."""

    @abstractmethod
    def reconstruct_batch(self, images: Tensor) -> Tensor:
        """Encode and decode images (n, c, s, s), told nothing of them."""

    def keyed(self, prepared: Prepared) -> Session:
        """Give the session whose checkpoints are of these data and settings."""
        marks = (*(data.mark for data in prepared.sets), prepared.mark)
        return prepared.session.keyed(self.kind, *marks, *self.config.weights_depend_on())

    def facts(self) -> dict[str, Any]:
        """Name what belongs to the trained generator beside its weights, for `config.json`."""
        return {}

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take up what `facts` gave."""

    def per_batch(self, request: Request) -> int:
        """Images that are redrawn at a time."""
        return BATCH

    def redrawn_in_fit(self) -> int:
        """Training images, at most, that are redrawn after the training to measure by how much it is off."""
        return 0

    def weight(self) -> float:
        """Weight of the intervention where a request gives none."""
        return 1.0

    def abduction(self) -> str:
        """Say what happens to the unknown of an image where a request does not."""
        return "noise"

    def check_inversion(self, draws: int) -> None:
        """Refuse draws that inversion would make all alike."""
        if draws != 1:
            raise InputError(
                f"Inversion gives one image per level, but {draws} draws were asked for; set draws=1 or "
                "abduction='noise'."
            )

    @property
    def channels(self) -> int:
        """Channels of its images: 1 of grey, 3 of colour."""
        return self.config.image_channels

    @property
    def conditions(self) -> Conditions:
        """The variables that it was trained with."""
        if self._conditions is None:
            raise StateError("The generator is not trained yet: call fit(), or load_generator() on a saved one.")
        return self._conditions

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What can be intervened on, the coin among it; a continuous attribute has no levels. Known after `fit`."""
        return {variable.name: variable.levels for variable in self.conditions.attributes}

    @property
    def spans(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value in training of every number that can be intervened on."""
        return {one.name: one.span for one in self.conditions.attributes if one.span is not None}

    def for_channels(self, channels: int) -> Self:
        """Take images of so many channels, before it is trained."""
        if channels != self.config.image_channels:
            self.config = self.settings.from_json({**self.config.to_json(), "image_channels": channels})
        return self

    def untrained(self) -> Self:
        """Give another one of the same settings, not trained yet."""
        return type(self)(config=self.config)

    def rehearse(self) -> None:
        """Build the networks for an attribute of two levels and drop them: what cannot be built is found here."""
        self.build(two_levels(), seed=0)

    def learn_from(self, lesson: Lesson) -> Self:
        """Train all parts."""
        self._saved = None
        self.for_channels(lesson.train.channels)
        if self.config.devices > 1 and is_alone():
            return self._fit_on_devices(lesson)
        prepared = prepare(self.config, lesson)
        self._follow(prepared)
        return self._learnt_from(prepared)

    def pilot(
        self, train: Cohort, validation: Cohort, *, images: int, seconds: float, directory: Path, narrator: Narrator
    ) -> dict[str, Pace]:
        """Train every part for some seconds as it would be trained on so many images; how fast, by part.

        What is between the parts is done on the images that are given, a sample. What it then redraws is no picture.
        """
        self.for_channels(train.channels)
        self.config = self.config.for_images(images, _gpu_memory(Trainer(self.config.accelerator).device))
        prepared = prepare(self.config, Lesson(train, validation, 0, directory, narrator))
        session = Pacing(**vars(prepared.session), seconds=seconds)
        self._learnt_from(dataclasses.replace(prepared, session=session))
        return session.paces

    def _learnt_from(self, prepared: Prepared) -> Self:
        self.device, self.report = prepared.session.device, {}
        self.build(prepared.conditions, seed=prepared.session.seed)
        self.learn(prepared)
        self._conditions = prepared.conditions
        self.report |= prepared.remarks()
        self.splits, self.seen = prepared.splits, prepared.seen
        return self

    def _follow(self, prepared: Prepared) -> None:
        """Fix what follows from the images and the device, and say it; a training that goes on keeps what it had."""
        if not self.config.follow:
            return
        session, images = prepared.session, len(prepared.splits[0])
        file, names = None if session.directory is None else session.directory / "config.json", self.config.follow
        if file is not None and file.is_file():
            self.config = self.settings.from_json(read_json(file))
        else:
            self.config = self.config.for_images(images, _gpu_memory(session.device))
            if file is not None:
                write_json(file, self.config.to_json())
        fixed = self.config.to_json()
        said = ", ".join(f"{name}={fixed[name]}" for name in names)
        session.narrator.say(
            f"Preset '{self.config.preset}', {images} images of {self.size} pixels, {session.device.type}: {said}."
        )

    def _fit_on_devices(self, lesson: Lesson) -> Self:
        """Train in a process for each device, and take up what the first one has saved."""
        config = self.config
        with tempfile.TemporaryDirectory(prefix="citlr-") as temporary:
            folder, precision = Path(temporary), full_precision(config.accelerator, config.precision)
            # Who shows the progress does not travel: each process has its own.
            asked = (lesson.train, lesson.validation, lesson.seed, lesson.directory or folder / "training")
            where, quiet = folder / "trained", lesson.narrator.quiet
            on_devices(config.devices, config.accelerator, precision, _fit_and_save, self, asked, where, quiet)
            vars(self).update(vars(self.load(where)))
        self._saved = None
        self.splits = splits(lesson)
        return self

    def held_codes(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Give the codes (n, m) of what is held, see `Conditions.encode`; no columns where nothing is."""
        conditions = self.conditions
        return np.asarray(conditions.encode(frame)[:, conditions.columns(conditions.held)].numpy())

    def redraw(self, images: Images, frame: pd.DataFrame, request: Request, tick: Ticker = silent) -> Images:
        """Answer a request with this generator's own settings where it names none."""
        drawn = self.in_batches(images, frame, request, self.redraw_batch, tick)
        return np.clip(drawn, 0.0, 1.0, out=drawn)

    @torch.no_grad()
    def in_batches(
        self, images: Images, frame: pd.DataFrame, request: Request, redraw: Redraw, tick: Ticker = silent
    ) -> Images:
        """Check and complete a request, and answer it with `redraw` a batch at a time."""
        conditions, abduction = self.conditions, request.abduction or self.abduction()
        require_known_value("abduction", abduction, ABDUCTIONS)
        if abduction == "inversion":
            self.check_inversion(request.draws)
        weight = self.weight() if request.guidance is None else request.guidance
        whole = dataclasses.replace(request, guidance=weight, abduction=abduction)
        # Unknown names and levels are found before anything is computed.
        whole.of_rows([0][: len(images)]).requested(conditions, conditions.nothing(min(1, len(images))))
        own = Batches(redraw, conditions, self.per_batch(request), self.device.type == "cpu")
        return redraw_in_batches(images, frame, whole, own, tick)

    @torch.no_grad()
    def reconstruct(self, images: Images) -> Images:
        """Give what the generator's representation keeps of images (n, c, size, size) in [0, 1]."""
        check_images(images, self.size, self.channels)
        out, _ = np.empty_like(images), self.conditions
        for part, _rows, filled in batches(images):
            decoded = self.reconstruct_batch(torch.from_numpy(filled).to(self.device)).clamp(0, 1)
            out[part] = decoded.cpu().numpy()[: part.stop - part.start]
        return out

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings and all weights: generators that draw other images have another one."""
        head = [FORMAT, self.kind, self.config.to_json(), self.conditions.to_json(), self.facts()]
        return weights_fingerprint(self.modules(), head)

    def save(self, directory: Path) -> None:
        """Write `config.json` and the weights as safetensors; the JSON last, so that half a generator is none."""
        directory, conditions = Path(directory), self.conditions
        for name, module in self.modules().items():
            save_state(directory / f"{name}.safetensors", module.state_dict(), {"part": name})
        content = {
            "kind": self.kind,
            "format": FORMAT,
            "config": self.config.to_json(),
            "conditions": conditions.to_json(),
            **self.facts(),
            "report": self.report,
            "seen": list(self.seen),
        }
        write_json(directory / "config.json", content)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a generator that `save` wrote, onto the processor or the configured device."""
        content = read_json(directory / "config.json")
        model = cls(config=cls.settings.from_json(content["config"]))
        config, model.report, model.seen = model.config, content["report"], tuple(content["seen"])
        model.device = Trainer(config.accelerator, config.precision).device
        conditions = Conditions.from_json(content["conditions"])
        model.build(conditions, seed=0)
        model.take(content)
        for name, module in model.modules().items():
            load_module(module, directory / f"{name}.safetensors")
            module.eval()
        model._conditions, model._saved = conditions, Path(directory).absolute()
        return model


def _gpu_memory(device: torch.device) -> float | None:
    """Give the memory of a GPU, in 10^9 bytes; None where there is none."""
    return torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else None


def _fit_and_save(
    generator: LearntGenerator, asked: tuple[Cohort, Cohort | None, int, Path], where: Path, quiet: bool
) -> None:
    """Train as one process of several, of which the first one speaks and saves."""
    zero = Trainer(generator.config.accelerator).fabric.is_global_zero
    generator.learn_from(Lesson(*asked, Narrator(quiet=quiet or not zero)))
    if zero:
        generator.save(where)


def _loaded_again(kind: type[LearntGenerator], directory: Path, fingerprint: str) -> LearntGenerator:
    """Read a generator again, which has to be the same one."""
    model = kind.load(directory)
    if model.fingerprint() != fingerprint:
        raise StateError(f"The generator in '{directory}' was replaced while it was used: run the same command again.")
    return model
