"""What all studies of images are asked for: which images, and what about them."""

from __future__ import annotations

from dataclasses import dataclass

PHANTOM = "phantom"


@dataclass(frozen=True)
class Source:
    """Which images a study is of.

    - `cohort`: "phantom", an audit's YAML, or a `cohort.parquet`.
    - `attribute`, `labels`, `hold`: What is intervened on, the findings, and what the generator keeps; without them
      what the cohort says.
    - `correlation`: Of the attribute with the findings, in the phantom.
    """

    cohort: str = PHANTOM
    attribute: str | None = None
    labels: tuple[str, ...] = ()
    hold: tuple[str, ...] | None = None
    correlation: float = 0.8
    seed: int = 0
