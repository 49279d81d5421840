"""Which kinds of change an attribute's edits are made of: left-out patients are the judge.

Kinds of change enter one at a time, fine structure among them. Which one is told by patients who were left out of the
estimate, in numbers that no edit is fitted to (`quality/left.py`): shade passes for contrast, and a grain for
displacement, as long as one only looks at what was fitted. A kind that brings those patients' images no closer is left
out, and so is one that drives their mean images apart, pixel by pixel: thin lines make for more contrast everywhere, in
numbers that have no place. In the end the same patients say whether the alignment of what is left is taken too, or
instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from citlr.generators.edits.estimate import Blend, Cases, Learnt, Search, State
from citlr.generators.edits.family import DISPLACEMENTS, GAINS
from citlr.generators.edits.fine import FRAMES
from citlr.generators.edits.judge import Judge, Looked, Way
from citlr.generators.edits.shrinkage import Floats
from citlr.generators.effects.aligned import ALIGNMENT

# Kinds whose first guess of the evidence is below this share of the best one's are not tried.
PROMISING = 0.1
# Gauss-Newton steps of a kind on trial, and further ones in the end.
FIRST_STEPS, STEPS = 3, 2
# What no edit may be able to write of a difference, as a share of the variance of its error.
MISFITS = (0.3, 1.0, 3.0)
# What is said of all kinds of smooth change at once.
TOGETHER = "together"
# What the alignment may have a share of, and the kinds of edits that it cannot take the place of.
SHARES, FOLLOWING = (0.25, 0.5, 0.75), (*GAINS, *DISPLACEMENTS)
# Level of the test of "nothing is shown".
ALPHA = 0.01


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    - `kinds`, and what share of the difference was `left` after each.
    - `states`: The edits of each half of the patients.
    - `first`, `now`: What the other half saw, before all edits and now.
    - `blend`: How edits and alignment are averaged, where they are.
    """

    kinds: tuple[str, ...]
    left: dict[str, float]
    states: Sequence[State]
    first: Looked
    now: Looked
    blend: Blend | None = None

    def with_alignment(self, searches: Sequence[Search], judges: Sequence[Judge], seed: int) -> Choice:
        """Take the alignment of what edits leave too, or of the images as they are instead: whatever comes closer."""
        ways: list[tuple[tuple[str, ...], Sequence[State]]] = [((), [search.start for search in searches])]
        ways += [(self.kinds, self.states)] if self.kinds else []
        tried = []
        for kinds, states in ways:
            aligned = [search.cases.aligned(one.edit, seed) for search, one in zip(searches, states, strict=True)]
            now = Looked.of(judges, states, aligned)
            tried.append(self._then(kinds, states, now))
        return self._best(tried)

    def blended(self, taken: Choice, searches: Sequence[Search], judges: Sequence[Judge], seed: int) -> Choice:
        """Average these edits and the alignment, where that comes closer than what was `taken` of the two.

        Averages of estimates whose errors are not alike err less than each (stacking, Wolpert 1992; Breiman 1996).
        """
        family, edits = searches[0].cases.family, [state.edit for state in self.states]
        plain, ways = Way.of(judges, edits), {}
        for whole in dict.fromkeys(((), tuple(kind for kind in self.kinds if kind in FOLLOWING), self.kinds)):
            some = [edit.faded(family, Blend(whole, 1.0)) for edit in edits]
            aligned = [search.cases.aligned(one, seed) for search, one in zip(searches, some, strict=True)]
            ways[whole] = Way.of(judges, some, aligned)
        now = (plain if taken is self else ways[taken.edited]).look(judges)
        looked = {
            Blend(whole, share): plain.towards(other, share).look(judges)
            for whole, other in ways.items()
            for share in SHARES
        }
        best = max(looked, key=lambda blend: looked[blend].gain(now, self.first))
        if looked[best].gain(now, self.first) <= 0:
            return taken
        return self._then(self.kinds, self.states, looked[best], best)

    def _then(self, kinds: tuple[str, ...], states: Sequence[State], now: Looked, blend: Blend | None = None) -> Choice:
        """Give the choice of some kinds and the alignment."""
        left = {kind: share for kind, share in self.left.items() if kinds}
        left[ALIGNMENT] = round(float(now.left.sum() / self.first.left.sum()), 4)
        return Choice((*kinds, ALIGNMENT), left, states, self.first, now, blend)

    @property
    def edited(self) -> tuple[str, ...]:
        """Its kinds of edits."""
        return tuple(kind for kind in self.kinds if kind != ALIGNMENT)

    def _best(self, tried: Sequence[Choice]) -> Choice:
        """Give the choice that comes closest, or this one where none comes closer."""
        best = max((self, *tried), key=lambda one: one.now.gain(self.now, self.first))
        return best if best.now.gain(self.now, self.first) > 0 else self


def choose(searches: Sequence[Search], judges: Sequence[Judge], whole: Search, random: np.random.Generator) -> Choice:
    """Take in kinds until none brings left-out images closer; each search is judged on the other half's patients.

    `whole` is the search in all patients.
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
        ends = [search.steps(search.start, every, FIRST_STEPS) for search in searches]
        together = Looked.of(judges, ends)
        # Where fine structure is all that was taken, so many kinds make up for it in numbers that have no place: for a
        # thin line by contrast everywhere, whose mark on mean images the others hide. Larger bodies show in these too.
        if together.closer(now, first, in_means=bool(kinds) and set(kinds) <= set(FRAMES)):
            # What is missing stays, and the error of twice as many patients has half the variance.
            whole.allow(2 * misfit, along=True)
            shares[TOGETHER] = round(float(together.left.sum() / first.left.sum()), 4)
            return Choice(every, shares, ends, first, together)
    return Choice(kinds, shares, states, first, now)


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


def find(
    halves: Callable[[], Sequence[Cases]], every: Cases, table: Floats, random: np.random.Generator, seed: int
) -> Learnt:
    """Choose the kinds on two halves of the patients, estimate them on all; where nothing is shown, change nothing.

    `halves` are cut only where something is shown, which takes eight patients at least.
    """
    # Systems of some hundred equations, by the thousand: a second thread of theirs waits by spinning, which beside
    # other programs makes each twenty times slower or more.
    with threadpool_limits(1, user_api="blas"):
        return _found(halves, every, table, random, seed)


def _chosen(
    searches: Sequence[Search], judges: Sequence[Judge], whole: Search, random: np.random.Generator
) -> tuple[Choice, tuple[float, ...]]:
    """Choose the kinds, and give what no edit can write by contrast, where the errors that told were widened by it.

    Whether there is anything smooth is told strictly, for wider errors let it make up for a thin line. What it is, and
    how much of it, is told by errors that hold what no edit can write.
    """
    unwritten = whole.unwritten()
    choice = choose(searches, judges, whole, random)
    if not any(unwritten) or set(choice.kinds) <= set(FRAMES):
        return choice, ()
    for search in (whole, *searches):
        search.widen(unwritten)
    return choose(searches, judges, whole, random), unwritten


def _found(
    halves: Callable[[], Sequence[Cases]], every: Cases, table: Floats, random: np.random.Generator, seed: int
) -> Learnt:
    """Do what `find` says."""
    whole = Search(every, table, random)
    still = Learnt((), whole.start.edit, whole.start.shrunk, whole.p(random), {}, whole.answers)
    if still.p > ALPHA:
        return still
    both = halves()
    searches = [Search(half, table, random) for half in both]
    judges = [Judge(half, random) for half in reversed(both)]
    choice, unwritten = _chosen(searches, judges, whole, random)
    if choice.first.left.sum() > 0:
        taken = choice.with_alignment(searches, judges, seed)
        choice = choice.blended(taken, searches, judges, seed) if choice.kinds else taken
    if not choice.kinds:
        return still
    kinds = choice.edited
    last = whole.steps(whole.start, kinds, FIRST_STEPS + STEPS) if kinds else whole.start
    blend, edit, at_middle = choice.blend, last.edit, last.edit
    if blend is not None:
        edit, at_middle = edit.faded(every.family, blend), edit.faded(every.family, Blend(blend.whole, 1.0))
    aligned = every.aligned(at_middle, seed, doubt=True) if ALIGNMENT in choice.kinds else None
    return Learnt(choice.kinds, edit, last.shrunk, still.p, choice.left, whole.answers, aligned, blend, unwritten)
