r"""How many training images would do: the share carried against the number of training images, extrapolated.

What is not carried falls with the number n of training images about as a power of it, so that

.. math:: \log(1 - s(n)) = \alpha + \beta \log n

is fitted to every level, each point weighted by its interval. A share that is nearer to 1 than its error, or above, is
taken as 1 less its error. The points share their test images and probes, so that their errors go together: the error of
the slope is rather too large than too small.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Self

import numpy as np
import numpy.typing as npt

from citlr.audit.results.records import CurvePoint
from citlr.invariance.records import Estimate
from citlr.text import joined

Floats = npt.NDArray[np.float64]
# Standard errors from an estimate to its bound: that the curve rises is asked in one direction, at 5 %.
BOUND = 1.645
# The same of the intervals of shares, which are two-sided, of 95 %.
_TWO_SIDED = 1.96
# Nothing is said beyond so many times the images at hand.
FARTHEST = 10
_STEPS = 500


@dataclass(frozen=True)
class Line:
    """The line through log(1 - share) against log(images), around the points' weighted centre (`x`, `y`).

    - `slope`: Below 0 where more images carry more.
    - `height_error`, `slope_error`: Standard errors, by the points' intervals.
    - `scatter`: How many times farther than that the points lie from the line, at least 1.
    """

    x: float
    y: float
    slope: float
    height_error: float
    slope_error: float
    scatter: float

    @classmethod
    def through(cls, images: Floats, shares: Sequence[Estimate]) -> Self:
        """Fit the line to two points or more; `images` (n,)."""
        errors = np.maximum([(share.high - share.low) / 2 / _TWO_SIDED for share in shares], 1e-6)
        left = np.maximum(1 - np.array([share.estimate for share in shares]), errors)
        x, y, weight = np.log(images), np.log(left), (left / errors) ** 2
        centre, height = np.average(x, weights=weight), np.average(y, weights=weight)
        across = float(weight @ (x - centre) ** 2)
        slope = float(weight @ ((x - centre) * y)) / across
        free = len(x) - 2
        misfit = float(weight @ (y - height - slope * (x - centre)) ** 2)
        scatter = max(1.0, misfit / free) ** 0.5 if free else 1.0
        return cls(float(centre), float(height), slope, float(weight.sum()) ** -0.5, across**-0.5, scatter)

    @property
    def rises(self) -> bool:
        """Whether more images carry more, beyond the error of the slope."""
        return self.slope < -BOUND * self.slope_error

    def reach(self, limit: float, images: int) -> tuple[float, float, float]:
        """Give how many images carry the limit: estimate and bounds, no fewer than those at hand, inf for too many."""
        if limit >= 1:
            return inf, inf, inf
        many = np.linspace(np.log(images), np.log(FARTHEST * images), _STEPS)
        line = self.y + self.slope * (many - self.x)
        band = BOUND * self.scatter * np.hypot(self.height_error, self.slope_error * (many - self.x))
        estimate, low, high = (_first(many, one <= np.log(1 - limit)) for one in (line, line - band, line + band))
        return estimate, low, high


def _first(many: Floats, enough: npt.NDArray[np.bool_]) -> float:
    return float(np.exp(many[enough.argmax()])) if enough.any() else inf


def foretell(points: Sequence[CurvePoint], limit: float) -> str:
    """Say in a sentence how many training images would carry the limit in the level that needs most."""
    short = [level for level, share in points[-1].shares.items() if share.estimate < limit]
    lines = {level: line for level in short if (line := _line(points, level)) is not None}
    if len(lines) < len(short):
        who = joined(f"'{level}'" for level in short if level not in lines)
        return f"How the share carried of {who} grows with the training images is not known."
    if not short:
        return f"The {points[-1].images:,} training images at hand carry {limit:.0%} in every level."
    sizes = joined(f"{one.images:,}" for one in points) + " training images"
    # A generator that leaves out what it is not sure of draws nothing until it has enough: that is no flat curve.
    nothing = [f"'{level}'" for level in short if not _shown(points, level)]
    if nothing:
        return (
            f"Nothing of {joined(nothing)} is carried beyond its error at {sizes}: from that nobody can tell how many "
            "would do."
        )
    flat = [f"'{level}'" for level, line in lines.items() if not line.rises]
    if flat:
        return (
            f"The share carried of {joined(flat)} at {sizes} does not rise beyond its error: more images of this kind "
            "do not show to help."
        )
    reached = {level: line.reach(limit, points[-1].images) for level, line in lines.items()}
    level = max(reached, key=lambda name: reached[name])
    amount = _amount(*reached[level], points[-1].images)
    return f"By the share carried at {sizes}, it would take {amount} to carry {limit:.0%} in '{level}'."


def _shown(points: Sequence[CurvePoint], level: str) -> bool:
    """Say whether anything of a level is carried at any size, beyond its error."""
    return any(one.shares[level].low > 0 for one in points if level in one.shares)


def _line(points: Sequence[CurvePoint], level: str) -> Line | None:
    """Fit the line of a level; None where fewer than two points know it."""
    known = [one for one in points if level in one.shares]
    if len(known) < 2:
        return None
    return Line.through(np.array([one.images for one in known], float), [one.shares[level] for one in known])


def _amount(estimate: float, low: float, high: float, at_hand: int) -> str:
    if estimate == inf:
        return f"more than ten times the {at_hand:,} at hand"
    upper = f"more than {FARTHEST * at_hand:,}" if high == inf else _round(high)
    return f"about {_round(estimate)} ({_round(low)} to {upper})"


def _round(images: float) -> str:
    """Write a number of images with two digits that count."""
    step = 10 ** max(int(np.floor(np.log10(images))) - 1, 0)
    return f"{round(images / step) * step:,}"
