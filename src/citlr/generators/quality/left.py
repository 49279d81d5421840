r"""What recorded levels still differ by once all images are redrawn under one level: a criterion that needs no truth.

Images of held-out patients are described by numbers that no generator is fitted to. Beside what is held, real images of
different levels differ by d. Redrawn under a level a, all of them, a generator that carries the attribute leaves
nothing of it: whatever else is different about the patients of a level is held, or not of the images. With whitened
influences g_p of the patients under the null of no difference,

.. math:: D = \Big\| \sum_p g_p \Big\|^2 - \sum_p \| g_p \|^2

estimates the squared difference without bias (a U-statistic), and `left` is D after redrawing over D before: 1 where
nothing was carried, 0 where redrawn images cannot be told apart from real ones of that level by these numbers, above 1
where redrawing made matters worse. What redrawing changes is put into the originals (`put_in`): a generator that loses
under any level what it cannot draw would else leave no difference, and carry nothing.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from citlr.generators.base import Images
from citlr.generators.effects.contrasts import Design, design_of
from citlr.generators.effects.whitening import Whitening
from citlr.generators.quality.records import Left
from citlr.learning.store import spans

Floats = npt.NDArray[np.float64]
Described = npt.NDArray[np.floating]
# Redraws of the test that nothing is different, and its level.
REDRAWS, ALPHA = 999, 0.01
# Few patients are halved several times, at most so often: which half measures which matters as much there as the
# difference between two generators. As often as makes so many patients in all.
HALVINGS, ENOUGH = 10, 2000


class Yardstick:
    """Measures differences of described images between levels: each half of the patients in units of the other's error.

    In units of its own error, the difference that is measured would pass for a direction in which nobody varies.
    """

    def __init__(self, described: Described, design: Design, random: np.random.Generator) -> None:
        first = random.permutation(design.patients) < design.patients // 2
        self.halves = (first[design.patient], ~first[design.patient])
        # In the order of names, as a design counts its patients.
        self.members = [np.unique(design.patient[half].astype(str)).astype(np.intp) for half in self.halves]
        self.designs = [design.part(half) for half in self.halves]
        pairs = zip(self.designs[::-1], self.halves[::-1], strict=True)
        self.errors = [[Whitening.of(own) for own in part.influences(described[half])] for part, half in pairs]

    def influences(self, described: Described) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
        """Give the members and their whitened influences (patients of a half, width), by half and contrast.

        Under the null of no difference: they add up to the difference.
        """
        for members, design, half, errors in zip(self.members, self.designs, self.halves, self.errors, strict=True):
            for whiten, own in zip(errors, design.influences(described[half], null=True), strict=True):
                yield members, whiten(own.T).T

    def shares(self, described: Described) -> npt.NDArray[np.floating]:
        """Give what every patient adds (patients,) to the squared difference of images (n, width).

        They add up to 0 on average by chance. Twice what they vary by is the error of their sum (Hoeffding).
        """
        found = np.zeros(sum(len(members) for members in self.members))
        for members, own in self.influences(described):
            found[members] += _shares(own)
        return found

    def by_chance(self, described: Described, signs: npt.NDArray[np.int8]) -> tuple[Floats, Floats]:
        """Give the squared length of the difference (redraws,) when patients have other signs (redraws, patients).

        And what every patient adds to it, as `shares` does.
        """
        found, shares = np.zeros(len(signs)), np.zeros(sum(len(members) for members in self.members))
        for members, own in self.influences(described):
            shares[members] += _shares(own)
            for part in spans(len(signs)):
                found[part] += ((signs[part, members].astype(np.float64) @ own) ** 2).sum(axis=1)
        return found, shares


def _shares(own: Floats) -> Floats:
    """Give what every patient adds (patients,) to a square, from influences (patients, width)."""
    found: Floats = own @ own.sum(axis=0) - (own**2).sum(axis=1)
    return found


def error_of(shares: npt.NDArray[np.floating]) -> float:
    """Give the standard error of the sum of patients' shares (patients,)."""
    return float(2 * np.sqrt(((shares - shares.mean()) ** 2).sum()))


def what_is_left(own: Described, redrawn: dict[str, Described], design: Design, random: np.random.Generator) -> Left:
    """Compare descriptions (n, width) of real images with those of the same under each level, see `put_in`."""
    signs = random.choice([-1.0, 1.0], size=(REDRAWS + 1, design.patients)).astype(np.int8)
    signs[0] = 1
    chance = np.zeros(REDRAWS + 1)
    before, after = np.zeros(design.patients), {level: np.zeros(design.patients) for level in redrawn}
    # One yardstick at a time: they are as large as all descriptions.
    for _ in range(min(HALVINGS, max(1, ENOUGH // design.patients))):
        measure = Yardstick(own, design, random)
        found, shares = measure.by_chance(own, signs)
        # A half that knows some direction badly would outweigh all others.
        spread = max(float(found[1:].std()), 1e-12)
        chance += found / spread
        before += shares / spread
        for level, described in redrawn.items():
            after[level] += measure.shares(described) / spread
    p, distance = float((chance >= chance[0]).mean()), float(before.sum())
    shown = after if p <= ALPHA else {}
    left = {level: float(shares.sum()) / distance for level, shares in shown.items()}
    error = {level: error_of(shares - left[level] * before) / distance for level, shares in shown.items()}
    return Left(distance / max(float(chance[1:].std()), 1e-12), p, left, error)


def put_in(originals: Images, redrawn: Images, own: npt.NDArray[np.integer[Any]]) -> Images:
    """Add to images what redrawing changed; images of the own level (n,) stay bit for bit.

    Shapes: `originals` (n, c, s, s) in [0, 1], `redrawn` and what is given (n, levels, c, s, s) in [0, 1].
    """
    null = redrawn[np.arange(len(redrawn)), own]
    shown: Images = np.clip(originals[:, None] + (redrawn - null[:, None]), 0, 1)
    return shown


def design_between(recorded: npt.NDArray[np.int64], levels: int, held: Floats, patients: npt.ArrayLike) -> Design:
    """Make the design of recorded levels (n,), beside what is held (n, k)."""
    return design_of(np.eye(levels)[recorded][:, 1:], held, patients)
