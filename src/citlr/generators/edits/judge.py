"""The judge of edits: by how much they bring images of left-out patients closer, and where they harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from citlr.generators.edits.estimate import Cases, Edit, State
from citlr.generators.edits.shrinkage import Floats
from citlr.generators.edits.warps import gradient
from citlr.generators.effects.aligned import Aligned
from citlr.generators.effects.axes import axes
from citlr.generators.effects.whitening import LEAST
from citlr.generators.probes.linear import describe
from citlr.generators.quality.left import Yardstick, error_of

# By what share of a difference a kind has to bring left-out images closer, and by how many of its standard errors.
SHARE, ERRORS = 0.02, 2.0
# By how much the squared difference of mean images, in units of its error, may grow by chance.
SLACK = 0.1


class Judge:
    """Says how much of the difference edits leave in some cases, which they were not estimated on."""

    def __init__(self, cases: Cases, random: np.random.Generator) -> None:
        self.cases = cases
        self.measure = Yardstick(describe(cases.images.numpy()), cases.design, random)
        self.pixels = axes(cases.images).flatten(1).double().numpy()
        errors = ((own**2).sum(axis=0) + 1e-12 for own in cases.design.influences(self.pixels))
        self.pixel_error = [np.maximum(own, LEAST**2) for own in errors]
        self.steep = steepness(cases.images)

    def look(self, edit: Edit, aligned: Aligned | None = None) -> Looked:
        """Look at what the way to the middle of the levels changes more than the way from it does.

        Moving an image blurs it, and a blurred grain differs less: by itself a displacement passes for a cure of it.
        The alignment of what is left moves nothing: what it changes counts whole.
        """
        there, back = (self.cases.moved(edit, way) for way in (-1.0, 1.0))
        described = describe(self.cases.images.numpy()) + (describe(there.numpy()) - describe(back.numpy())) / 2
        pixels = self.pixels + axes((there - back) / 2).flatten(1).double().numpy()
        steep = self.steep + (steepness(there) - steepness(back)) / 2
        if aligned is not None:
            alike = aligned.taken_off(there, self.cases.codes)
            described += describe(alike.numpy()) - describe(there.numpy())
            pixels += axes(alike - there).flatten(1).double().numpy()
            steep += steepness(alike) - steepness(there)
        return Looked(self.measure.shares(described), self._squared(pixels, self.pixel_error), self._squared(steep))

    def _squared(self, maps: Floats, errors: Sequence[Floats] | None = None) -> Floats:
        """Give what every patient adds (patients,) to the mean squared difference of maps (n, k)."""
        found = np.zeros(self.cases.design.patients)
        for number, own in enumerate(self.cases.design.influences(maps, null=True)):
            scaled = own if errors is None else own / errors[number]
            found += (scaled @ own.sum(axis=0) - (scaled * own).sum(axis=1)) / own.shape[1]
        return found


def steepness(images: Tensor) -> Floats:
    """Squared slope of the grey values (n, s * s) of images (n, c, s, s)."""
    return (gradient(axes(images)[:, :1])[:, 0] ** 2).sum(dim=1).flatten(1).double().numpy()


@dataclass(frozen=True)
class Looked:
    """What a judge sees of the difference between levels: what every patient adds (patients,) to its square.

    - `left`: in numbers that no edit is fitted to, by their covariance: what anatomy hardly varies counts most.
    - `apart`: of mean images, pixel by pixel, in units of the error of a pixel: what shows in the picture counts most.
    - `steep`: of mean squared slopes, in no units: what varies most counts most.
    """

    left: npt.NDArray[np.floating]
    apart: npt.NDArray[np.floating]
    steep: npt.NDArray[np.floating]

    @classmethod
    def of(cls, judges: Sequence[Judge], states: Sequence[State], aligned: Sequence[Aligned | None] = ()) -> Looked:
        """Let every judge look at the edits of the other half, and at the alignment of what they leave."""
        pairs = zip(judges, states, aligned or [None] * len(states), strict=True)
        each = [judge.look(state.edit, one) for judge, state, one in pairs]
        left, apart, steep = (
            np.concatenate(own) for own in zip(*((a.left, a.apart, a.steep) for a in each), strict=True)
        )
        return cls(left, apart / len(each), steep / len(each))

    def gain(self, now: Looked, first: Looked) -> float:
        """Give the shares of both differences that are gone since `now`, added.

        It is 0 where neither has shrunk beyond some of its errors, and where one of them has grown beyond its error.
        """
        if self.harms(now, first) or not any(self._closer(now, first, ERRORS)):
            return 0.0
        return sum(gained / whole for gained, _, whole, _ in self._since(now, first))

    def closer(self, now: Looked, first: Looked, *, in_means: bool) -> bool:
        """Whether a difference, or that of mean images, has shrunk since `now` by more than an error, none grown.

        Numbers tell more than mean images do: where these are all that has come closer, numbers may not grow at all.
        """
        left, apart = self._closer(now, first, 1.0)
        grown = float(self.left.sum()) > float(now.left.sum())
        return not self.harms(now, first) and ((apart and not grown) or (left and not in_means))

    def _closer(self, now: Looked, first: Looked, errors: float) -> list[bool]:
        """Whether each difference has shrunk since `now` by more than some of its errors."""
        return [
            gained >= max(slack, SHARE * whole, errors * error)
            for gained, error, whole, slack in self._since(now, first)
        ]

    def harms(self, now: Looked, first: Looked) -> bool:
        """Whether one of the differences has grown beyond its error since `now`, that of slopes beyond two.

        A grain in a black surround is known so well that what takes it off may do anything to what varies, strokes of
        digits, say, as long as one looks in units of an error.
        """
        if any(gained < -max(slack, error) for gained, error, _, slack in self._since(now, first)):
            return True
        steeper = self.steep - now.steep
        return float(steeper.sum()) > max(SHARE * float(first.steep.sum()), ERRORS * error_of(steeper))

    def _since(self, now: Looked, first: Looked) -> list[tuple[float, float, float, float]]:
        """By difference: what is gone of it since `now`, the error of that, all that there was, and its slack."""
        wholes = float(first.left.sum()), max(float(first.apart.sum()), 1.0)
        gone = (now.left - self.left, SHARE * wholes[0]), (now.apart - self.apart, SLACK)
        return [
            (float(gained.sum()), error_of(gained), whole, slack)
            for (gained, slack), whole in zip(gone, wholes, strict=True)
        ]
