"""What all studies of images are asked for: which images, and a preset of how much of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from citlr.errors import InputError, did_you_mean

PHANTOM = "phantom"
Effort = TypeVar("Effort")


@dataclass(frozen=True)
class Source:
    """Which images a study is of.

    - `cohort`: "phantom", an audit's YAML, or a `cohort.parquet`.
    - `attribute`, `labels`, `hold`: What is intervened on, the findings, and what the generator keeps; without them
      what the cohort says.
    - `correlation`: Of the attribute with the findings, in the phantom.
    - `seed`: Of the phantom and of the splits.
    """

    cohort: str = PHANTOM
    attribute: str | None = None
    labels: tuple[str, ...] = ()
    hold: tuple[str, ...] | None = None
    correlation: float = 0.8
    seed: int = 0


def effort_of(presets: Mapping[str, Effort], preset: str) -> Effort:
    """Look a preset up."""
    if preset not in presets:
        raise InputError(f"There is no preset '{preset}'.{did_you_mean(preset, presets)}")
    return presets[preset]
