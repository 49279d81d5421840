"""How large the edits of some kinds are: Gauss-Newton steps on what the levels of an attribute still differ by.

Every image is edited to the middle of the attribute's levels and measured again, registration included; the difference
between levels that is left says what the edits still miss. Coefficients have a prior of one variance a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from citlr.generators.conditions import Conditions
from citlr.generators.edits.family import CHANNELS, Family, Frame
from citlr.generators.edits.fine import FRAMES, chance, differences, placed
from citlr.generators.edits.shrinkage import ROUNDS, Floats, Modes, Shrunk, nothing, shrink
from citlr.generators.edits.significance import fine_bands, shown, shown_along
from citlr.generators.edits.summaries import edited, summaries, way_of
from citlr.generators.effects.aligned import Aligned
from citlr.generators.effects.axes import axes
from citlr.generators.effects.contrasts import Design
from citlr.generators.effects.whitening import Whitening

# Rounds in which a search is foretold.
FEW_ROUNDS = 8
# What no edit can write where an attribute acts, as shares of what it does to a number.
UNWRITTEN = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Edit:
    """What one attribute does to an image: smooth changes, and fine structure at fixed places.

    - `coefficients` (contrasts, width): of the family.
    - `fine`: by frame (`film`, `atlas`), maps (contrasts, c * s, s): the axes one below the other.
    """

    coefficients: Floats
    fine: dict[str, Tensor]

    @classmethod
    def none(cls, contrasts: int, family: Family) -> Edit:
        """Give the edit that changes nothing."""
        still = torch.zeros(contrasts, family.channels * family.size, family.size)
        return cls(np.zeros((contrasts, family.width)), dict.fromkeys(FRAMES, still))

    def faded(self, family: Family, blend: Blend) -> Edit:
        """Keep the kinds that a blend keeps whole, and of the others what it leaves them."""
        fine = {frame: own * blend.rest_of(frame) for frame, own in self.fine.items()}
        return Edit(self.coefficients * blend.weights(family), fine)


@dataclass(frozen=True)
class Blend:
    """Edits averaged with the alignment: two estimates of one change, whose errors are not alike.

    - `whole`: Kinds that are not averaged. Images that these bring to the middle of the levels are aligned.
    - `share`: Of the alignment; of the other kinds, the rest is taken.
    """

    whole: tuple[str, ...]
    share: float

    def rest_of(self, kind: str) -> float:
        """Give what is taken of a kind."""
        return 1.0 if kind in self.whole else 1.0 - self.share

    def weights(self, family: Family) -> Floats:
        """Give what is taken of each coefficient (width,)."""
        whole: Floats = family.columns(self.whole).double().numpy()
        return whole + (1 - whole) * (1.0 - self.share)


@dataclass(frozen=True)
class Cases:
    """Images of an attribute's levels, and what they are compared by.

    - `images` (n, c, s, s), `frame`: their registration.
    - `coded` (n, contrasts): codes of their levels.
    - `conditions`, `codes` (n, width): of the attribute alone, beside all else that is recorded or held.
    """

    family: Family
    atlas: Tensor
    images: Tensor
    frame: Frame
    coded: Tensor
    design: Design
    conditions: Conditions
    codes: Tensor

    def aligned(self, edit: Edit, seed: int, *, doubt: bool = False) -> Aligned:
        """Align what an edit leaves of these images; with `doubt`, find what they leave open of it too."""
        images, patients = self.moved(edit, -1.0), self.design.patient
        left = Aligned(self.conditions, self.family.channels, self.family.size)
        left.fit(images, self.codes, seed=seed, patients=patients)
        return left.doubt(images, patients, self.codes, seed=seed) if doubt else left

    def moved(self, edit: Edit, way: float) -> Tensor:
        """Edit every image (n, c, s, s) to the middle of the levels (`way` -1), or as far from it (1)."""
        coded = way * self.coded
        own = coded @ torch.from_numpy(edit.coefficients).float()
        return edited(self.family, self.images, own, self.frame, placed(coded, edit.fine, self.frame.back))

    def _keeps_luminance(self, edit: Edit) -> bool:
        changed = any(bool(one[:, : self.family.size].any()) for one in edit.fine.values())
        return not (changed or edit.coefficients[:, self.family.columns(tuple(CHANNELS)).numpy()].any())

    def measure(self, edit: Edit) -> Seen:
        """Measure images at the middle of the levels, registered anew where their luminance is another."""
        images = self.moved(edit, -1.0)
        forth = self.frame.forth if self._keeps_luminance(edit) else way_of(images, self.atlas)
        return Seen(
            summaries(images, forth).double().numpy(),
            axes(images).flatten(1).double().numpy(),
            differences(images, forth, self.design),
        )


@dataclass(frozen=True)
class Seen:
    """What was measured of images: summaries (n, width), axes (n, c * s * s), and `fine.differences` of the levels."""

    summaries: Floats
    pixels: Floats
    fine: Floats


@dataclass(frozen=True)
class Learnt:
    """What was found of one attribute.

    - `kinds`: Kinds of change that were kept, the first one first.
    - `edit`, and its smooth part `shrunk` by contrast.
    - `p`: P value of "nothing is shown".
    - `left`: Share of the difference that is left in images of left-out patients, after each kind; of a blend, what is
      expected of an estimate of all patients (`Judge.expect`).
    - `answers`: By contrast, what summaries answer to edits, in units of the error.
    - `aligned`: The alignment of what edits leave, where it was kept; with `blend`, averaged with them.
    - `unwritten`: By contrast, the share of a difference that errors were widened by, see `Search.unwritten`.
    """

    kinds: tuple[str, ...]
    edit: Edit
    shrunk: tuple[Shrunk, ...]
    p: float
    left: dict[str, float] = field(default_factory=dict)
    answers: tuple[Floats, ...] = ()
    aligned: Aligned | None = None
    blend: Blend | None = None
    unwritten: tuple[float, ...] = ()

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
        self.none, design = Edit.none(cases.coded.shape[1], cases.family), cases.design
        self.seen = cases.measure(self.none)
        influences = design.influences(self.seen.summaries)
        self.exact = [Whitening.of(own) for own in influences]
        self.modes = Modes.of(table, np.concatenate(influences))
        self.under_null = design.influences(self.seen.summaries, null=True)
        self.pixels_under_null = design.influences(self.seen.pixels, null=True)
        self.chance = chance(cases.images, cases.frame.forth, design, random)
        self.allow(0.0, along=False)

    def allow(self, misfit: float, along: bool) -> None:
        """Start with an error that is larger by a misfit, and with edits along what people vary by, or not."""
        self.errors, self.along = [whiten.softened(misfit) for whiten in self.exact], along
        self.answers = tuple(whiten(self.table) for whiten in self.errors)
        self.first = self._whitened(self.seen)
        shrunk = tuple(nothing(self.blocks) for _ in self.errors)
        self.start = State((), self.none, shrunk, self.first, self.seen.fine, 0.0)

    def widen(self, unwritten: Sequence[float]) -> None:
        """Start with errors that are wider by what no edit can write (contrasts,), see `unwritten`."""
        self.exact = [self._widened(*each) for each in enumerate(unwritten)]
        self.allow(0.0, along=False)

    def _widened(self, contrast: int, share: float) -> Whitening:
        """Widen the error of a contrast's difference by a share of it, number by number."""
        whiten, own = self.exact[contrast], self.cases.design.difference(self.seen.summaries)[contrast]
        return whiten.widened(share**2 * np.maximum((own / whiten.deviation) ** 2 - 1, 0.0))

    def unwritten(self) -> tuple[float, ...]:
        """Find what no edit can write of each contrast's difference, as a share of it in every number.

        What the family lacks is large where an attribute does much: the edge of a lung under a veil, say. There it is
        many errors large, and without this the numbers that hardly vary decide what happens to those that do. The share
        is that of the largest evidence, for all smooth kinds beside the fine structure that is shown.
        """
        shown, every = self._fine_shown(self.start), np.ones(len(self.blocks), dtype=np.bool_)
        fine = Edit(self.none.coefficients, self._fine(self.start, shown)[0])
        seen = self.cases.measure(fine) if shown else self.seen
        found = []
        for contrast, own in enumerate(self.cases.design.difference(seen.summaries)):
            best, share = -math.inf, 0.0
            for tried in UNWRITTEN:
                whiten = self._widened(contrast, tried)
                aim = whiten(own)
                fitted = shrink(whiten(self.table), aim, self.blocks, every, rounds=FEW_ROUNDS)
                evidence = fitted.evidence - 0.5 * float(aim @ aim) - 0.5 * whiten.log_size
                if evidence <= best:
                    break
                best, share = evidence, tried
            found.append(share)
        return tuple(found)

    def _fine_shown(self, state: State) -> tuple[str, ...]:
        """Frames that a state has no fine structure of, although it is shown there."""
        return tuple(frame for frame in FRAMES if frame not in state.kinds and self._fine(state, (frame,))[1] > 0)

    def foretold(self, misfit: float, along: bool) -> Floats:
        """Foretell the difference (contrasts, width) that edits of all kinds write, as far as answers are linear."""
        self.allow(misfit, along)
        found = self._shrunk(self.start, self.cases.family.kinds, rounds=FEW_ROUNDS)
        return np.stack([self.table @ one.coefficients for one in found])

    def nearer(self, one: Floats, other: Floats) -> float:
        """Say by how much one foretold difference (contrasts, width) is nearer to these patients' than another is.

        In squared errors of every number.
        """
        gained, difference = 0.0, self.cases.design.difference(self.seen.summaries)
        for a, b, own, whiten in zip(one, other, difference, self.exact, strict=True):
            gained += float(((a - b) / whiten.deviation**2) @ (2 * own - a - b))
        return gained

    def p(self, random: np.random.Generator) -> float:
        """P value of "no edit is shown", the smallest of the contrasts' (Bonferroni)."""
        found = []
        for influences, pixels in zip(self.under_null, self.pixels_under_null, strict=True):
            found.append(shown(self.cases.family, self.table, influences, pixels, random))
        return min(1.0, min(found) * len(found))

    def p_along(self, random: np.random.Generator) -> float:
        """P value of "nothing is different in what patients vary by", the smallest of the contrasts' (Bonferroni)."""
        found = [shown_along(influences, random) for influences in self.under_null]
        return min(1.0, min(found) * len(found))

    def steps(self, state: State, kinds: Sequence[str], count: int) -> State:
        """Go some Gauss-Newton steps with these kinds of change, and keep the best of them."""
        best: State | None = None
        for _ in range(count):
            shrunk = self._shrunk(state, kinds)
            fine, cost = self._fine(state, kinds)
            edit = Edit(np.stack([one.coefficients for one in shrunk]), fine)
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
            for kind in self.cases.family.kinds
            if kind not in state.kinds
        }
        return found | dict.fromkeys(self._fine_shown(state), math.inf)

    def _shrunk(self, state: State, kinds: Sequence[str], *, rounds: int = ROUNDS) -> tuple[Shrunk, ...]:
        """Solve for the coefficients of some kinds, from where a state stands."""
        allowed, found = np.asarray(self.cases.family.columns(tuple(kinds)).numpy(), dtype=np.bool_), []
        if not allowed.any():
            return tuple(nothing(self.blocks) for _ in self.answers)
        ways = self.modes.directions(allowed) if self.along else None
        for own, left, one in zip(self.answers, state.left, state.shrunk, strict=True):
            aim = left + own @ one.coefficients
            found.append(shrink(own, aim, self.blocks, allowed, directions=ways, rounds=rounds))
        return tuple(found)

    def _fine(self, state: State, kinds: Sequence[str]) -> tuple[dict[str, Tensor], float]:
        """Solve for the fine structure of some kinds, and say what their priors' widths cost."""
        found, cost = dict(self.start.edit.fine), 0.0
        for number, frame in enumerate(FRAMES):
            if frame in kinds:
                own = fine_bands(state.edit.fine[frame].flatten(1).double().numpy(), self.cases.family.channels)
                there = state.fine.copy()
                there[number] += own
                found[frame], one = self.chance.shrunk(there, frame)
                cost += one
        return found, cost

    def _whitened(self, seen: Seen) -> Floats:
        own = self.cases.design.difference(seen.summaries)
        return np.stack([whiten(one) for whiten, one in zip(self.errors, own, strict=True)])
