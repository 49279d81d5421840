"""What an edit generator is built from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from citlr.generators.settings import GeneratorSettings
from citlr.values import Positive, Whole


@dataclass(frozen=True)
class EditSettings(GeneratorSettings):
    """What an edit generator is built from; further fields as of `GeneratorSettings`.

    - `images`: Training images that are used, at most; patients are drawn by the seed where there are more.
    - `chosen_on`: Images on which kinds of change are chosen, at most.
    - `guidance`: Weight of the intervention: 2 gives twice the edit.
    """

    images: Annotated[Whole, Field(ge=20, le=100_000)] = 6000
    chosen_on: Annotated[Whole, Field(ge=20, le=100_000)] = 1500
    guidance: Positive = 1.0

    afterwards: ClassVar[frozenset[str]] = GeneratorSettings.afterwards | {"guidance"}

    def check(self) -> None:
        """Every field is checked by its own limits."""

    @classmethod
    def presets(cls) -> Mapping[str, Mapping[str, Any]]:
        """One way for all sizes; the names are those of other generators, so that a configuration can be moved."""
        many = {"images": 20_000, "chosen_on": 3000}
        return {"tiny": {"images": 1500, "chosen_on": 600}, "laptop": {}, "workstation": many, "paper": many}
