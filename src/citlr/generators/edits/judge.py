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


@dataclass(frozen=True)
class Change:
    """What is changed of images.

    - `numbers` (n, k): that no edit is fitted to.
    - `pixels` (n, c * s * s), `steep` (n, s * s): grey values, and squared slopes.
    """

    numbers: npt.NDArray[np.floating]
    pixels: Floats
    steep: Floats

    def __add__(self, other: Change) -> Change:
        return Change(self.numbers + other.numbers, self.pixels + other.pixels, self.steep + other.steep)

    def __sub__(self, other: Change) -> Change:
        return self + -1.0 * other

    def __rmul__(self, share: float) -> Change:
        return Change(share * self.numbers, share * self.pixels, share * self.steep)


class Judge:
    """Says how much of the difference edits leave in some cases, which they were not estimated on."""

    def __init__(self, cases: Cases, random: np.random.Generator) -> None:
        self.cases = cases
        numbers, pixels = describe(cases.images.numpy()), axes(cases.images).flatten(1).double().numpy()
        self.own, self.pixels = Change(numbers, pixels, steepness(cases.images)), pixels
        self.measure = Yardstick(numbers, cases.design, random)
        errors = ((own**2).sum(axis=0) + 1e-12 for own in cases.design.influences(pixels))
        self.pixel_error = [np.maximum(own, LEAST**2) for own in errors]

    def look(self, edit: Edit, aligned: Aligned | None = None) -> Looked:
        """Look at images from which edits and the alignment of what they leave took the attribute."""
        return self.see(self.own + self.changes(edit, aligned))

    def expect(self, change: Change, own: Change) -> Looked:
        """Look at what a change would leave that all patients tell.

        `own` is the change as the judge's own patients tell it. The two differ by the errors of either half, and an
        estimate of both halves has half of the error of one: a quarter of the squared difference is taken off. Where
        there are still more patients (`chosen_on` of them are halved), it would be more.
        """
        left, between = self.see(self.own + change), self.see(change - own)
        return Looked(*(one - other / 4 for one, other in zip(left.parts(), between.parts(), strict=True)))

    def changes(self, edit: Edit, aligned: Aligned | None = None) -> Change:
        """Give what the way to the middle of the levels changes more than the way from it does.

        Moving an image blurs it, and a blurred grain differs less: by itself a displacement passes for a cure of it.
        The alignment of what is left moves nothing: what it changes counts whole.
        """
        there, back = (self.cases.moved(edit, way) for way in (-1.0, 1.0))
        found = 0.5 * difference(there, back)
        return found if aligned is None else found + difference(aligned.taken_off(there, self.cases.codes), there)

    def see(self, images: Change) -> Looked:
        """Say what every patient adds to what the levels of described images differ by."""
        numbers, pixels = self.measure.shares(images.numbers), self._squared(images.pixels, self.pixel_error)
        return Looked(numbers, pixels, self._squared(images.steep))

    def _squared(self, maps: Floats, errors: Sequence[Floats] | None = None) -> Floats:
        """Give what every patient adds (patients,) to the mean squared difference of maps (n, k)."""
        found = np.zeros(self.cases.design.patients)
        for number, own in enumerate(self.cases.design.influences(maps, null=True)):
            scaled = own if errors is None else own / errors[number]
            found += (scaled @ own.sum(axis=0) - (scaled * own).sum(axis=1)) / own.shape[1]
        return found


def difference(images: Tensor, others: Tensor) -> Change:
    """Say by what images (n, c, s, s) differ from others."""
    numbers = describe(images.numpy()) - describe(others.numpy())
    pixels = axes(images - others).flatten(1).double().numpy()
    return Change(numbers, pixels, steepness(images) - steepness(others))


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
        return cls.together([judge.look(state.edit, one) for judge, state, one in pairs])

    @classmethod
    def together(cls, each: Sequence[Looked]) -> Looked:
        """Put together what the judges see."""
        left, apart, steep = (
            np.concatenate(own) for own in zip(*((a.left, a.apart, a.steep) for a in each), strict=True)
        )
        return cls(left, apart / len(each), steep / len(each))

    def parts(self) -> tuple[npt.NDArray[np.floating], ...]:
        """Give the three."""
        return self.left, self.apart, self.steep

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
        # What seems to be below nothing is nothing: to come back from there is no harm.
        grown = float(steeper.sum()) + min(float(now.steep.sum()), 0.0)
        return grown > max(SHARE * float(first.steep.sum()), ERRORS * error_of(steeper))

    def _since(self, now: Looked, first: Looked) -> list[tuple[float, float, float, float]]:
        """By difference: what is gone of it since `now`, the error of that, all that there was, and its slack."""
        wholes = float(first.left.sum()), max(float(first.apart.sum()), 1.0)
        gone = (now.left - self.left, SHARE * wholes[0]), (now.apart - self.apart, SLACK)
        return [
            (float(gained.sum()), error_of(gained), whole, slack)
            for (gained, slack), whole in zip(gone, wholes, strict=True)
        ]


@dataclass(frozen=True)
class Way:
    """What edits and alignments change of the images of every judge.

    - `told`: as the other half of the patients tells it.
    - `own`: as the judge's own tell it.
    """

    told: Sequence[Change]
    own: Sequence[Change]

    @classmethod
    def of(cls, judges: Sequence[Judge], edits: Sequence[Edit], aligned: Sequence[Aligned | None] = ()) -> Way:
        """Change the images of two judges by the estimates of both halves; the first judge has the second one's."""
        pairs = list(zip(edits, aligned or [None] * len(edits), strict=True))
        told, own = (
            [judge.changes(*pair) for judge, pair in zip(judges, order, strict=True)] for order in (pairs, pairs[::-1])
        )
        return cls(told, own)

    def towards(self, other: Way, share: float) -> Way:
        """Go a share of the way to another one."""
        return Way(
            *(
                [(1 - share) * one + share * there for one, there in zip(mine, its, strict=True)]
                for mine, its in ((self.told, other.told), (self.own, other.own))
            )
        )

    def look(self, judges: Sequence[Judge]) -> Looked:
        """Say what it is expected to leave when all patients tell it."""
        each = zip(judges, self.told, self.own, strict=True)
        return Looked.together([judge.expect(told, own) for judge, told, own in each])
