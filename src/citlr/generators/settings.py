"""What the configurations of all trained generators have in common: fields, presets, and their own JSON."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from citlr.data.pixels.colour import Channels
from citlr.errors import require_known
from citlr.text import shortened
from citlr.values import (
    Accelerator,
    Count,
    Few,
    Flag,
    Name,
    Names,
    NotNegative,
    Precision,
    Share,
    Whole,
    check_fields,
    check_value,
    require_fields,
)

ABDUCTIONS = ("noise", "inversion")
# Names that presets had before they were called after the budget that they ask for.
FORMER = {"small": "laptop"}
# Images that sizes are shown for while nobody knows how many there are.
MANY_IMAGES = 100_000


@dataclasses.dataclass(frozen=True)
class GeneratorSettings(ABC):
    """What every trained generator is built from and trained with.

    - `size`: Side of the images, 32 to 256.
    - `image_channels`: 1 of grey images, 3 of colour; `fit` takes it from the cohort.
    - `attributes`: What can be intervened on; the cohort's attributes without it. The coin is always added.
    - `preset`: Where the values came from, for the record.
    - `ema`: Decay of the moving average of the weights.
    - `patience`: Validations without progress before a part stops.
    - `accelerator`, `precision`, `compiled`: See `Trainer`.
    - `devices`: Processes that share every batch, one per GPU.
    - `follow`: Fields that follow from the images and the device, see `for_images`; one that is given follows nothing.
    """

    size: Annotated[Whole, Field(ge=32, le=256)] = 64
    hold: Names = ()
    attributes: Names | None = None
    preset: Name = "laptop"
    ema: Share = 0.99
    patience: Count = 1_000_000
    checkpoint_minutes: NotNegative = 2.0
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"
    devices: Few = 1
    follow: Names = ()
    compiled: Flag = False
    image_channels: Channels = 1

    # What no weights depend on.
    afterwards: ClassVar[frozenset[str]] = frozenset(
        {"preset", "checkpoint_minutes", "accelerator", "devices", "follow", "compiled"}
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self.check()

    def check(self) -> None:  # noqa: B027 (most values need no more than their field's own limits)
        """Refuse values that do not go together; InputError naming the field."""

    @classmethod
    @abstractmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """Name the presets, and the fields that each sets."""

    @classmethod
    def preset_of(cls, preset: str, **overrides: Any) -> Self:
        """Take a preset, with single fields overridden; InputError for a name that is not known."""
        preset, known = check_value("preset", preset, Name), cls.presets()
        preset = FORMER.get(preset, preset)
        require_known(preset, (*known, *FORMER), f"The preset '{shortened(preset)}' is not known")
        cls.require_known(overrides)
        content = {"preset": preset, **known[preset], **overrides}
        follow = [name for name in content.pop("follow", ()) if "follow" in overrides or name not in overrides]
        found = cls.following(int(content.get("size", cls.size)), MANY_IMAGES, None) if follow else {}
        return cls.from_json({**content, **{name: found[name] for name in follow}, "follow": tuple(follow)})

    @classmethod
    def following(cls, size: int, images: int, memory_gb: float | None) -> Mapping[str, Any]:
        """Give the fields that can follow from the size and number of images and the memory of a GPU; None: no GPU."""
        return {}

    def for_images(self, images: int, memory_gb: float | None) -> Self:
        """Give the settings for so many training images on a GPU of so much memory, or on none: nothing follows then.

        >>> from citlr.generators.diffusion.settings import LDMConfig
        >>> config = LDMConfig.preset_of("workstation", size=128, denoiser_batch=8)
        >>> few, many = config.for_images(1000, None), config.for_images(200_000, 80.0)
        >>> [(one.denoiser.denoiser_batch, one.autoencoder.ae_batch, one.follow) for one in (few, many)]
        [(8, 16, ()), (8, 64, ())]
        """
        if not self.follow:
            return self
        found = self.following(self.size, images, memory_gb)
        return self.from_json({**self.to_json(), **{name: found[name] for name in self.follow}, "follow": ()})

    @classmethod
    def require_known(cls, options: Mapping[str, Any]) -> None:
        """Refuse a name that is no field."""
        require_fields(cls, options)

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON: tuples become lists; of grey images it does not speak of channels."""
        every = {name: list(one) if isinstance(one, tuple) else one for name, one in dataclasses.asdict(self).items()}
        return {name: one for name, one in every.items() if name != "image_channels" or one != 1}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a configuration from `to_json`."""
        return cls(**content)

    def weights_depend_on(self) -> list[str]:
        """Name and value of every setting that trained weights depend on."""
        return [f"{name}={value}" for name, value in sorted(self.to_json().items()) if name not in self.afterwards]


def require_known_value(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of those that a setting can have."""
    require_known(value, known, f"{name}='{value}' is not known")
