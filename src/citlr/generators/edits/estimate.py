"""Which edits an attribute makes: kinds of change compete, and stay only where they bring redrawn images closer.

Every image is edited to the middle of the attribute's levels and measured again, registration included; the difference
between levels that is left says what the edits still miss (Gauss-Newton steps with a prior). Kinds of change enter one
at a time, fine structure among them. Which one is told by patients who were left out of the estimate, in numbers that
no edit is fitted to (`quality/left.py`): shade passes for contrast, and a grain for displacement, as long as one only
looks at what was fitted. A kind that brings those patients' images no closer is left out, and so is one that drives
their mean images apart, pixel by pixel: thin lines make for more contrast everywhere, in numbers that have no place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.edits.family import CHANNELS, Family, Frame
from citlr.generators.edits.fine import FRAMES, chance, differences, placed
from citlr.generators.edits.shrinkage import Floats, Shrunk, nothing, shrink
from citlr.generators.edits.significance import fine_bands, shown
from citlr.generators.edits.summaries import edited, frame_of, summaries
from citlr.generators.effects.contrasts import Design
from citlr.generators.effects.whitening import Whitening
from citlr.generators.quality.left import Yardstick, describe, error_of

# Kinds whose first guess of the evidence is below this share of the best one's are not tried.
PROMISING = 0.1
# By what share of the difference a kind has to bring left-out images closer, and by how many of its standard errors.
SHARE, ERRORS = 0.02, 2.0
FIRST_STEPS, STEPS = 3, 2
# By how much the squared difference of mean images, in units of its error, may grow by chance.
SLACK = 0.1
# Levels that are looked at one by one; of a number, these quantiles.
MOST_LEVELS, LOW_AND_HIGH = 10, torch.tensor([0.1, 0.9])
# Level of the test of "nothing is shown".
ALPHA = 0.01


@dataclass(frozen=True)
class Edit:
    """What one attribute does to an image: smooth changes, and fine structure at fixed places.

    - `coefficients` (contrasts, width): of the family.
    - `fine`: by frame (`film`, `atlas`), maps (contrasts, s, s).
    """

    coefficients: Floats
    fine: dict[str, Tensor]

    @classmethod
    def none(cls, contrasts: int, family: Family) -> Edit:
        """Give the edit that changes nothing."""
        still = torch.zeros(contrasts, family.size, family.size)
        return cls(np.zeros((contrasts, family.width)), dict.fromkeys(FRAMES, still))


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

    def middle(self, edit: Edit) -> Tensor:
        """Edit every image (n, 1, s, s) to the middle of the levels."""
        return self.edited_to(torch.zeros(self.coded.shape[1]), edit)

    def edited_to(self, code: Tensor, edit: Edit) -> Tensor:
        """Edit every image (n, 1, s, s) to one code (contrasts,)."""
        change = code - self.coded
        own = change @ torch.from_numpy(edit.coefficients).float()
        return edited(self.family, self.images, own, self.frame, placed(change, edit.fine, self.frame.back))

    def measure(self, edit: Edit) -> Seen:
        """Measure images at the middle of the levels, registered anew."""
        images = self.middle(edit)
        forth = self.frame.forth if images is self.images else frame_of(images, self.atlas).forth
        return Seen(
            summaries(images, forth).double().numpy(),
            images.flatten(1).double().numpy(),
            differences(images, forth, self.design),
        )


@dataclass(frozen=True)
class Seen:
    """What was measured of images: summaries (n, width), pixels (n, s * s), and `fine.differences` of the levels."""

    summaries: Floats
    pixels: Floats
    fine: Floats


@dataclass(frozen=True)
class Learnt:
    """What was found of one attribute.

    - `kinds`: Kinds of change that were kept, the first one first.
    - `edit`, and its smooth part `shrunk` by contrast.
    - `p`: P value of "nothing is shown".
    - `left`: Share of the difference that is left in images of left-out patients, after each kind.
    - `answers`: By contrast, what summaries answer to edits, in units of the error.
    """

    kinds: tuple[str, ...]
    edit: Edit
    shrunk: tuple[Shrunk, ...]
    p: float
    left: dict[str, float] = field(default_factory=dict)
    answers: tuple[Floats, ...] = ()

    def draws(self, count: int, random: np.random.Generator) -> Floats:
        """Draw what the images leave open of the coefficients: (count, contrasts, width)."""
        pairs = zip(self.shrunk, self.answers, strict=True)
        return np.stack([one.draws(own, count, random) for one, own in pairs], axis=1)


@dataclass(frozen=True)
class State:
    """Where a search stands.

    - `kinds`, `edit`, `shrunk`: the edits.
    - `left` (contrasts, width): the difference that is left, in units of its error; `fine`: of fine structure.
    - `evidence`: log evidence against no edit.
    """

    kinds: tuple[str, ...]
    edit: Edit
    shrunk: tuple[Shrunk, ...]
    left: Floats
    fine: Floats
    evidence: float


class Search:
    """The search for the edits of one attribute in some cases, whose `table` says how summaries answer to edits."""

    def __init__(self, cases: Cases, table: Floats, random: np.random.Generator) -> None:
        self.cases, self.table, self.blocks = cases, table, cases.family.blocks.numpy()
        none, design = Edit.none(cases.coded.shape[1], cases.family), cases.design
        seen = cases.measure(none)
        self.errors = [Whitening.of(own) for own in design.influences(seen.summaries)]
        self.under_null = design.influences(seen.summaries, null=True)
        self.pixels_under_null = design.influences(seen.pixels, null=True)
        self.answers = tuple(whiten(table) for whiten in self.errors)
        self.first = self._whitened(seen)
        self.chance = chance(cases.images, cases.frame.forth, design, random)
        shrunk = tuple(nothing(self.blocks) for _ in self.errors)
        self.start = State((), none, shrunk, self.first, seen.fine, 0.0)

    def p(self, random: np.random.Generator) -> float:
        """P value of "no edit is shown", the smallest of the contrasts' (Bonferroni)."""
        found = []
        for influences, pixels in zip(self.under_null, self.pixels_under_null, strict=True):
            found.append(shown(self.cases.family, self.table, influences, pixels, random))
        return min(1.0, min(found) * len(found))

    def steps(self, state: State, kinds: Sequence[str], count: int) -> State:
        """Go some Gauss-Newton steps with these kinds of change, and keep the best of them."""
        best: State | None = None
        for _ in range(count):
            shrunk = self._shrunk(state, kinds)
            fine, cost = self._fine(state, kinds)
            edit = Edit(np.stack([one.mean for one in shrunk]), fine)
            seen = self.cases.measure(edit)
            left = self._whitened(seen)
            fit = 0.5 * float((self.first**2).sum() - (left**2).sum())
            if set(kinds) & set(FRAMES):  # moving an image blurs it a little, which is no fit of fine structure
                fit += self.chance.fit(self.start.fine) - self.chance.fit(seen.fine)
            evidence = fit - cost + sum(one.penalty(own) for one, own in zip(shrunk, self.answers, strict=True))
            state = State(tuple(kinds), edit, shrunk, left, seen.fine, evidence)
            best = state if best is None or evidence > best.evidence else best
        assert best is not None
        return best

    def promises(self, state: State) -> dict[str, float]:
        """Evidence that every further kind could add, before any step is gone; of fine structure, where it is shown."""
        now = sum(one.evidence for one in self._shrunk(state, state.kinds)) if state.kinds else 0.0
        found = {
            kind: sum(one.evidence for one in self._shrunk(state, (*state.kinds, kind))) - now
            for kind in CHANNELS
            if kind not in state.kinds
        }
        shown = [frame for frame in FRAMES if frame not in state.kinds and self._fine(state, (frame,))[1] > 0]
        return found | dict.fromkeys(shown, math.inf)

    def _shrunk(self, state: State, kinds: Sequence[str]) -> tuple[Shrunk, ...]:
        """Solve for the coefficients of some kinds, from where a state stands."""
        allowed, found = np.asarray(self.cases.family.columns(tuple(kinds)).numpy(), dtype=np.bool_), []
        if not allowed.any():
            return tuple(nothing(self.blocks) for _ in self.answers)
        for own, left, one in zip(self.answers, state.left, state.shrunk, strict=True):
            found.append(shrink(own, left + own @ one.mean, self.blocks, allowed))
        return tuple(found)

    def _fine(self, state: State, kinds: Sequence[str]) -> tuple[dict[str, Tensor], float]:
        """Solve for the fine structure of some kinds, and say what their priors' widths cost."""
        found, cost = dict(self.start.edit.fine), 0.0
        for number, frame in enumerate(FRAMES):
            if frame in kinds:
                own = fine_bands(state.edit.fine[frame].flatten(1).double().numpy())
                there = state.fine.copy()
                there[number] += own
                found[frame], one = self.chance.shrunk(there, frame)
                cost += one
        return found, cost

    def _whitened(self, seen: Seen) -> Floats:
        own = self.cases.design.difference(seen.summaries)
        return np.stack([whiten(one) for whiten, one in zip(self.errors, own, strict=True)])


class Judge:
    """Says how much of the difference edits leave in some cases, which they were not estimated on."""

    def __init__(self, cases: Cases, random: np.random.Generator) -> None:
        self.cases = cases
        self.measure = Yardstick(describe(cases.images.numpy()), cases.design, random)
        codes = torch.unique(cases.coded, dim=0)
        # Of a number, one low and one high.
        self.ends = codes if len(codes) <= MOST_LEVELS else torch.quantile(cases.coded, LOW_AND_HIGH, dim=0)
        influences = cases.design.influences(cases.images.flatten(1).double().numpy())
        self.pixel_error = (influences**2).sum(axis=1) + 1e-12

    def look(self, edit: Edit) -> Looked:
        """Look at images redrawn under each level, beside those that have it.

        Not at the middle of the levels, as the estimate does: there both sides are blurred alike by being moved.
        """
        ends = [self.cases.edited_to(end, edit) for end in self.ends]
        mean = [self.cases.design.difference(images.flatten(1).double().numpy()) for images in ends]
        apart = float(np.mean([(one**2 / self.pixel_error).mean() for one in mean]))
        return Looked(np.mean([self.measure.shares(describe(images.numpy())) for images in ends], axis=0), apart)


@dataclass(frozen=True)
class Looked:
    """What a judge sees of the difference between levels.

    - `left`: what every patient adds (patients,) to the squared difference.
    - `apart`: squared difference of mean images, in units of its error: 1 is chance.
    """

    left: npt.NDArray[np.floating]
    apart: float

    @classmethod
    def of(cls, judges: Sequence[Judge], states: Sequence[State]) -> Looked:
        """Let every judge look at the edits of the other half."""
        each = [judge.look(state.edit) for judge, state in zip(judges, states, strict=True)]
        return cls(np.concatenate([one.left for one in each]), float(np.mean([one.apart for one in each])))


def choose(searches: Sequence[Search], judges: Sequence[Judge]) -> tuple[tuple[str, ...], dict[str, float]]:
    """Take in kinds until none brings left-out images closer; each search is judged on the other half's patients.

    Gives the kinds, and what share of the difference was left after each.
    """
    states = [search.start for search in searches]
    now = Looked.of(judges, states)
    first, shares = float(now.left.sum()), {}
    while first > 0:
        tried = {}
        for kind in _promising(searches, states):
            kinds = (*states[0].kinds, kind)
            ends = [search.steps(search.start, kinds, FIRST_STEPS) for search in searches]
            seen = Looked.of(judges, ends)
            if seen.apart <= now.apart + SLACK:
                tried[kind] = seen, ends
        if not tried:
            break
        best = min(tried, key=lambda kind: float(tried[kind][0].left.sum()))
        gained = now.left - tried[best][0].left
        if gained.sum() < max(SHARE * first, ERRORS * error_of(gained)):
            break
        now, states = tried[best]
        shares[best] = round(float(now.left.sum()) / first, 4)
    return states[0].kinds, shares


def _promising(searches: Sequence[Search], states: Sequence[State]) -> list[str]:
    """Kinds that are worth steps: fine structure that is shown, and what could add evidence."""
    each = [search.promises(state) for search, state in zip(searches, states, strict=True)]
    total = {kind: sum(one.get(kind, 0.0) for one in each) for one in each for kind in one}
    enough = max(0.0, PROMISING * max((gain for gain in total.values() if gain < math.inf), default=0.0))
    return [kind for kind in (*CHANNELS, *FRAMES) if total.get(kind, -1.0) >= enough]


def find(halves: Sequence[Cases], every: Cases, table: Floats, random: np.random.Generator) -> Learnt:
    """Choose the kinds on two halves of the patients, estimate them on all; where nothing is shown, change nothing."""
    whole = Search(every, table, random)
    still = Learnt((), whole.start.edit, whole.start.shrunk, whole.p(random), {}, whole.answers)
    if still.p > ALPHA:
        return still
    searches = [Search(half, table, random) for half in halves]
    kinds, left = choose(searches, [Judge(half, random) for half in reversed(halves)])
    if not kinds:
        return still
    last = whole.steps(whole.start, kinds, FIRST_STEPS + STEPS)
    return Learnt(last.kinds, last.edit, last.shrunk, still.p, left, whole.answers)
