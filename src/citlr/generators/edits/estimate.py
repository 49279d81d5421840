"""Which edits an attribute makes: kinds of change compete, and stay only where the images show them.

Every image is edited to the middle of the attribute's levels and measured again, registration included; the difference
between levels that is left says what the edits still miss (Gauss-Newton steps with a prior). Kinds of change enter one
at a time, each judged by the evidence after such steps, not before: shade passes for contrast, and contrast for
displacement, until the edited images are looked at. A kind that brings little is left out, and so is one that drives
the levels' mean images apart, which no summary holds at their full size: it fits the numbers, not the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.edits.contrasts import Design
from citlr.generators.edits.family import CHANNELS, Family, Frame
from citlr.generators.edits.shrinkage import Floats, Shrunk, error_root, nothing, shown, shrink, whitened
from citlr.generators.edits.summaries import edited, frame_of, summaries

# Kinds whose first guess of the evidence is below this share of the best one's are not tried.
PROMISING = 0.25
# What a further kind has to add: nats, and a share of all the evidence.
GAIN, SHARE = 8.0, 0.02
FIRST_STEPS, STEPS = 3, 2
# Level of the test of "nothing is shown", and its redraws.
ALPHA, REDRAWS = 0.01, 999
# By how much the squared difference of mean images, in units of its error, may grow by chance.
SLACK = 0.1


@dataclass(frozen=True)
class Cases:
    """Images of an attribute's levels, and what they are compared by.

    - `family`, `atlas`: of the edits.
    - `images` (n, 1, s, s), `frame`: their registration.
    - `coded` (n, contrasts): codes of their levels.
    - `design`: of these images.
    """

    family: Family
    atlas: Tensor
    images: Tensor
    frame: Frame
    coded: Tensor
    design: Design

    def middle(self, coefficients: Floats) -> Tensor:
        """Edit every image (n, 1, s, s) to the middle of the levels, by coefficients (contrasts, width)."""
        own = -self.coded @ torch.from_numpy(coefficients).float()
        return edited(self.family, self.images, own, self.frame)

    def measure(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Measure images at the middle of the levels: summaries (n, width), registered anew, pixels (n, s * s)."""
        images = self.middle(coefficients) if coefficients.any() else self.images
        frame = frame_of(images, self.atlas) if coefficients.any() else self.frame
        return summaries(images, frame.forth).double().numpy(), images.flatten(1).double().numpy()


@dataclass(frozen=True)
class Learnt:
    """What was found of one attribute.

    - `kinds`: Kinds of change that were kept, the first one first.
    - `shrunk`: By contrast.
    - `p`: P value of "nothing is shown".
    - `gains`: By kind that was kept, log evidence that it brought.
    - `answers`: By contrast, what summaries answer to edits, in units of the error.
    """

    kinds: tuple[str, ...]
    shrunk: tuple[Shrunk, ...]
    p: float
    gains: dict[str, float] = field(default_factory=dict)
    answers: tuple[Floats, ...] = ()

    @property
    def coefficients(self) -> Floats:
        """Coefficients (contrasts, width)."""
        return np.stack([one.mean for one in self.shrunk])

    def draws(self, count: int, random: np.random.Generator) -> Floats:
        """Draw what the images leave open of the coefficients: (count, contrasts, width)."""
        pairs = zip(self.shrunk, self.answers, strict=True)
        return np.stack([one.draws(own, count, random) for one, own in pairs], axis=1)


@dataclass(frozen=True)
class State:
    """Where a search stands.

    - `kinds`, `shrunk`: the edits.
    - `left` (contrasts, width): the difference that is left, in units of its error.
    - `apart`: squared difference of mean images, in units of its error: 1 is chance.
    - `evidence`: log evidence against no edit.
    """

    kinds: tuple[str, ...]
    shrunk: tuple[Shrunk, ...]
    left: Floats
    apart: float
    evidence: float

    @property
    def coefficients(self) -> Floats:
        """Coefficients (contrasts, width)."""
        return np.stack([one.mean for one in self.shrunk])


class Search:
    """The search for the edits of one attribute in some cases, whose `table` says how summaries answer to edits."""

    def __init__(self, cases: Cases, table: Floats) -> None:
        self.cases, self.blocks = cases, cases.family.blocks.numpy()
        first, pixels = cases.measure(np.zeros((cases.coded.shape[1], cases.family.width)))
        influences = cases.design.influences(first)
        self.roots = [error_root(own) for own in influences]
        self.table, self.under_null = table, cases.design.influences(first, null=True)
        self.pixels_under_null = cases.design.influences(pixels, null=True)
        self.answers = tuple(whitened(root, table) for root in self.roots)
        self.first = self._whitened(first)
        none = tuple(nothing(self.blocks) for _ in self.roots)
        self.pixel_error = (cases.design.influences(pixels) ** 2).sum(axis=1) + 1e-12
        self.start = State((), none, self.first, self._apart(pixels), 0.0)

    def p(self, random: np.random.Generator) -> float:
        """P value of "no edit is shown", the smallest of the contrasts' (Bonferroni)."""
        found = []
        parts = {kind: self.table[:, self._allowed((kind,))] for kind in CHANNELS}
        for influences, pixels in zip(self.under_null, self.pixels_under_null, strict=True):
            found.append(shown(parts, influences, pixels, random, redraws=REDRAWS))
        return min(1.0, min(found) * len(found))

    def run(self) -> tuple[State, dict[str, float]]:
        """Take in kinds until none brings enough; give the state, and what every kind brought."""
        state, gains = self.start, {}
        while candidates := self._promising(state):
            tried = [self.steps(self.start, (*state.kinds, kind), FIRST_STEPS) for kind in candidates]
            tried = [one for one in tried if one.apart <= state.apart + SLACK]
            if not tried:
                break
            best = max(tried, key=lambda one: one.evidence)
            gain = best.evidence - state.evidence
            if gain < max(GAIN, SHARE * best.evidence):
                break
            gains[best.kinds[-1]] = round(gain, 1)
            state = best
        return state, gains

    def steps(self, state: State, kinds: Sequence[str], count: int, *, last: bool = False) -> State:
        """Go some Gauss-Newton steps with these kinds of change, and keep the best of them."""
        best: State | None = None
        for _ in range(count):
            shrunk = self._shrunk(state, kinds)
            coefficients = np.stack([one.mean for one in shrunk])
            measured, pixels = self.cases.measure(coefficients)
            left = self._whitened(measured)
            fit = 0.5 * float((self.first**2).sum() - (left**2).sum())
            evidence = fit + sum(one.penalty(own) for one, own in zip(shrunk, self.answers, strict=True))
            state = State(tuple(kinds), shrunk, left, self._apart(pixels), evidence)
            best = state if best is None or last or evidence > best.evidence else best
        assert best is not None
        return best

    def _promising(self, state: State) -> list[str]:
        """Kinds that could add something, by the evidence before any step is gone."""
        with_all = {
            kind: sum(one.evidence for one in self._shrunk(state, (*state.kinds, kind)))
            for kind in CHANNELS
            if kind not in state.kinds
        }
        now = sum(one.evidence for one in self._shrunk(state, state.kinds)) if state.kinds else 0.0
        gains = {kind: value - now for kind, value in with_all.items()}
        enough = PROMISING * max(gains.values(), default=0.0)
        return [kind for kind, gain in gains.items() if gain >= enough]

    def _shrunk(self, state: State, kinds: Sequence[str]) -> tuple[Shrunk, ...]:
        """Solve for the coefficients of some kinds, from where a state stands."""
        allowed, found = self._allowed(kinds), []
        for own, left, one in zip(self.answers, state.left, state.shrunk, strict=True):
            found.append(shrink(own, left + own @ one.mean, self.blocks, allowed))
        return tuple(found)

    def _allowed(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.asarray(self.cases.family.columns(tuple(kinds)).numpy(), dtype=np.bool_)

    def _apart(self, pixels: Floats) -> float:
        return float((self.cases.design.difference(pixels) ** 2 / self.pixel_error).mean())

    def _whitened(self, measured: Floats) -> Floats:
        differences = self.cases.design.difference(measured)
        return np.stack([whitened(root, own) for root, own in zip(self.roots, differences, strict=True)])


def find(some: Cases, every: Cases, table: Floats, random: np.random.Generator) -> Learnt:
    """Choose the kinds on some cases, and estimate them on all; nothing is changed where nothing is shown."""
    search = Search(some, table)
    whole = search if every is some else Search(every, table)
    p = whole.p(random)
    if p > ALPHA:
        return Learnt((), whole.start.shrunk, p, {}, whole.answers)
    chosen, gains = search.run()
    if not chosen.kinds:
        return Learnt((), whole.start.shrunk, p, {}, whole.answers)
    measured, pixels = every.measure(chosen.coefficients)
    start = State(chosen.kinds, chosen.shrunk, whole._whitened(measured), whole._apart(pixels), 0.0)
    last = whole.steps(start, chosen.kinds, STEPS, last=True)
    return Learnt(last.kinds, last.shrunk, p, gains, whole.answers)
