"""Quality that needs redrawn images to be redrawn again: cycles of null interventions, and there and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.quality.measures import similarity
from citlr.generators.variables import as_level


@dataclass(frozen=True)
class Cycle:
    """What a number of null interventions in a row leaves of images.

    - `difference`: Mean absolute difference from the images, grey values in [0, 1].
    - `similarity`: Structural similarity with them; 1 is perfect.
    """

    difference: float
    similarity: float


def cycle_composition(
    generator: CounterfactualGenerator,
    images: Images,
    frame: pd.DataFrame,
    *,
    attribute: str,
    cycles: int = 10,
    seed: int = 0,
) -> dict[int, Cycle]:
    """Redraw images (n, c, s, s) under their factual level again and again (Monteiro et al. 2023, composition)."""
    current, found = images, {}
    for cycle in range(1, cycles + 1):
        current = redraw_as(generator, current, frame, attribute=attribute, levels=frame[attribute], seed=seed + cycle)
        found[cycle] = Cycle(float(np.abs(current - images).mean()), similarity(images, current[:, None]))
    return found


def there_and_back(
    generator: CounterfactualGenerator, images: Images, frame: pd.DataFrame, *, attribute: str, seed: int = 0
) -> float:
    """Redraw images under another level and then back (Monteiro et al. 2023, reversibility).

    On the way back the rows say the level that the image then has, as a generator told the factual level needs it. With
    more than two levels the other level is the next one; a continuous attribute changes places with another image's.
    """
    known = generator.attributes[attribute]
    own: pd.Series = frame[attribute].map(as_level)
    if known:
        other: pd.Series = own.map({level: known[(k + 1) % len(known)] for k, level in enumerate(known)})
    else:
        other = pd.Series(np.roll(frame[attribute].to_numpy(), 1), index=frame.index)
    there = redraw_as(generator, images, frame, attribute=attribute, levels=other, seed=seed)
    back = redraw_as(
        generator, there, frame.assign(**{attribute: other.to_numpy()}), attribute=attribute, levels=own, seed=seed + 1
    )
    return float(np.abs(back - images).mean())


def redraw_as(
    generator: CounterfactualGenerator,
    images: Images,
    frame: pd.DataFrame,
    *,
    attribute: str,
    levels: Sequence[str] | pd.Series,
    seed: int,
) -> Images:
    """Redraw each image once, under a level of its own: (n, c, s, s) in [0, 1]."""
    if not generator.attributes[attribute]:
        # Of a number nearly every image has a value of its own, and a batch of its own would be filled up with copies.
        values = np.asarray(levels, dtype=np.float64)
        return generator.generate(images, frame, attribute=attribute, levels=[values], seed=seed)[:, 0, 0]
    wanted = np.asarray([as_level(level) for level in levels])
    out = np.empty_like(images)
    for level in np.unique(wanted):
        rows = np.flatnonzero(wanted == level)
        part = frame.iloc[rows].reset_index(drop=True)
        out[rows] = generator.generate(images[rows], part, attribute=attribute, levels=[level], seed=seed)[:, 0, 0]
    return out
