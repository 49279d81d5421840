"""Which kinds of change an attribute's edits are made of: left-out patients are the judge.

Kinds of change enter one at a time, fine structure among them. Which one is told by patients who were left out of the
estimate, in numbers that no edit is fitted to (`quality/left.py`): shade passes for contrast, and a grain for
displacement, as long as one only looks at what was fitted. A kind that brings those patients' images no closer is left
out, and so is one that drives their mean images apart, pixel by pixel: thin lines make for more contrast everywhere, in
numbers that have no place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from torch import Tensor

from citlr.generators.edits.axes import axes
from citlr.generators.edits.estimate import Cases, Edit, Learnt, Search, State
from citlr.generators.edits.family import DISPLACEMENTS
from citlr.generators.edits.fine import FRAMES
from citlr.generators.edits.shrinkage import Floats
from citlr.generators.edits.warps import gradient
from citlr.generators.effects.whitening import LEAST
from citlr.generators.probes.linear import describe
from citlr.generators.quality.left import Yardstick, error_of

# Kinds whose first guess of the evidence is below this share of the best one's are not tried.
PROMISING = 0.1
# By what share of a difference a kind has to bring left-out images closer, and by how many of its standard errors.
SHARE, ERRORS = 0.02, 2.0
# Gauss-Newton steps of a kind on trial, and further ones in the end.
FIRST_STEPS, STEPS = 3, 2
# By how much the squared difference of mean images, in units of its error, may grow by chance.
SLACK = 0.1
# What no edit may be able to write of a difference, as a share of the variance of its error.
MISFITS = (0.3, 1.0, 3.0)
# What is said of all kinds of smooth change at once.
TOGETHER = "together"
# Level of the test of "nothing is shown".
ALPHA = 0.01


class Judge:
    """Says how much of the difference edits leave in some cases, which they were not estimated on."""

    def __init__(self, cases: Cases, random: np.random.Generator) -> None:
        self.cases = cases
        self.measure = Yardstick(describe(cases.images.numpy()), cases.design, random)
        self.pixels = axes(cases.images).flatten(1).double().numpy()
        errors = ((own**2).sum(axis=0) + 1e-12 for own in cases.design.influences(self.pixels))
        self.pixel_error = [np.maximum(own, LEAST**2) for own in errors]
        self.steep = steepness(cases.images)

    def look(self, edit: Edit) -> Looked:
        """Look at what the way to the middle of the levels changes more than the way from it does.

        Moving an image blurs it, and a blurred grain differs less: by itself a displacement passes for a cure of it.
        """
        there, back = (self.cases.moved(edit, way) for way in (-1.0, 1.0))
        described = describe(self.cases.images.numpy()) + (describe(there.numpy()) - describe(back.numpy())) / 2
        pixels = self.pixels + axes((there - back) / 2).flatten(1).double().numpy()
        steep = self.steep + (steepness(there) - steepness(back)) / 2
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
    found: Floats = (gradient(axes(images)[:, :1])[:, 0] ** 2).sum(dim=1).flatten(1).double().numpy()
    return found


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
    def of(cls, judges: Sequence[Judge], states: Sequence[State]) -> Looked:
        """Let every judge look at the edits of the other half."""
        each = [judge.look(state.edit) for judge, state in zip(judges, states, strict=True)]
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


def choose(
    searches: Sequence[Search], judges: Sequence[Judge], whole: Search, random: np.random.Generator
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Take in kinds until none brings left-out images closer; each search is judged on the other half's patients.

    Gives the kinds, and what share of the difference was left after each. `whole` is the search in all patients.
    """
    states = [search.start for search in searches]
    first = now = Looked.of(judges, states)
    shares: dict[str, float] = {}
    while first.left.sum() > 0:
        tried = {}
        for kind in _promising(searches, states):
            ends = [search.steps(search.start, (*states[0].kinds, kind), FIRST_STEPS) for search in searches]
            tried[kind] = Looked.of(judges, ends), ends
        best = max(tried, key=lambda kind: tried[kind][0].gain(now, first), default=None)
        if best is None or tried[best][0].gain(now, first) <= 0:
            break
        if best in DISPLACEMENTS:
            # Both kinds write much the same, and what is left says little of which it is: the likelier one.
            able = [kind for kind in DISPLACEMENTS if kind in tried and not tried[kind][0].harms(now, first)]
            best = _likelier(able, whole, states[0].kinds)
        now, states = tried[best]
        shares[best] = round(float(now.left.sum() / first.left.sum()), 4)
    kinds = states[0].kinds
    if first.left.sum() > 0 and whole.p_along(random) <= ALPHA:
        # Alone a kind of what real groups differ by shows little, and so all of them are tried together as well.
        every = (*kinds, *(kind for kind in whole.cases.family.kinds if kind not in kinds))
        misfit = foretelling_best(searches)
        together = Looked.of(judges, [search.steps(search.start, every, FIRST_STEPS) for search in searches])
        # Where fine structure is all that was taken, so many kinds make up for it in numbers that have no place: for a
        # thin line by contrast everywhere, whose mark on mean images the others hide. Larger bodies show in these too.
        if together.closer(now, first, in_means=bool(kinds) and set(kinds) <= set(FRAMES)):
            # What is missing stays, and the error of twice as many patients has half the variance.
            whole.allow(2 * misfit, along=True)
            shares[TOGETHER] = round(float(together.left.sum() / first.left.sum()), 4)
            return every, shares
    return kinds, shares


def foretelling_best(searches: Sequence[Search]) -> float:
    """Let both halves of the patients go along what people vary by, with the misfit that foretells the other best.

    The family of edits is not rich enough for what an attribute does. Where a number is known well, what is missing
    there is many errors large, and edits that make up for it do harm where numbers are known less well.
    """
    pairs = list(zip(searches, reversed(searches), strict=True))
    plain = [search.foretold(0.0, along=True) for search in searches]
    gained = {0.0: 0.0} | {
        misfit: sum(
            other.nearer(search.foretold(misfit, along=True), before)
            for (search, other), before in zip(pairs, plain, strict=True)
        )
        for misfit in MISFITS
    }
    best = max(gained, key=lambda misfit: gained[misfit])
    for search in searches:
        search.allow(best, along=True)
    return best


def _likelier(kinds: Sequence[str], whole: Search, beside: tuple[str, ...]) -> str:
    """Choose the kind of the larger evidence in all patients: half of them know too little of a small organ."""
    if len(kinds) == 1:
        return kinds[0]
    return max(kinds, key=lambda kind: whole.steps(whole.start, (*beside, kind), FIRST_STEPS).evidence)


def _promising(searches: Sequence[Search], states: Sequence[State]) -> list[str]:
    """Kinds that are worth steps: fine structure that is shown, and what could add evidence."""
    each = [search.promises(state) for search, state in zip(searches, states, strict=True)]
    total = {kind: sum(one.get(kind, 0.0) for one in each) for one in each for kind in one}
    enough = max(0.0, PROMISING * max((gain for gain in total.values() if gain < math.inf), default=0.0))
    kinds = searches[0].cases.family.kinds
    return [kind for kind in (*kinds, *FRAMES) if total.get(kind, -1.0) >= enough]


def find(halves: Callable[[], Sequence[Cases]], every: Cases, table: Floats, random: np.random.Generator) -> Learnt:
    """Choose the kinds on two halves of the patients, estimate them on all; where nothing is shown, change nothing.

    `halves` are cut only where something is shown, which takes eight patients at least.
    """
    # Systems of some hundred equations, by the thousand: a second thread of theirs waits by spinning, which beside
    # other programs makes each twenty times slower or more.
    with threadpool_limits(1, user_api="blas"):
        return _found(halves, every, table, random)


def _found(halves: Callable[[], Sequence[Cases]], every: Cases, table: Floats, random: np.random.Generator) -> Learnt:
    """Do what `find` says."""
    whole = Search(every, table, random)
    still = Learnt((), whole.start.edit, whole.start.shrunk, whole.p(random), {}, whole.answers)
    if still.p > ALPHA:
        return still
    both = halves()
    searches = [Search(half, table, random) for half in both]
    kinds, left = choose(searches, [Judge(half, random) for half in reversed(both)], whole, random)
    if not kinds:
        return still
    last = whole.steps(whole.start, kinds, FIRST_STEPS + STEPS)
    return Learnt(last.kinds, last.edit, last.shrunk, still.p, left, whole.answers)
