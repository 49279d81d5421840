"""Values of a column that tell a level: nearly all of its images have them, and images of other levels hardly do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.tables.numbers import MAX_CATEGORIES

# Share of images of other levels up to which a mark of one level counts as its own; as many of its own may lack it.
SHARED = 0.05
# Patients that each of several marks needs, and each of two levels that are held against each other alone.
FEW = 5
# Marks of one level that are named.
SHOWN = 5
# A cell without a value, as it is shown.
BLANK = "(blank)"
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Marks:
    """How many images and patients of every level of an attribute have the values of a column.

    - `images`, `patients` (levels, values): `BLANK` is a value where there are cells without one.
    - `people` (levels,): Patients of every level.
    - `number`: Whether the values are a scale, of which no two together are a mark.
    """

    column: str
    levels: tuple[str, ...]
    values: tuple[object, ...]
    images: Counts
    patients: Counts
    people: Counts
    number: bool

    @classmethod
    def of(cls, frame: pd.DataFrame, attribute: str, column: str) -> Self:
        """Count them in a table with one row per image."""
        frame = frame[frame[attribute].notna()]
        given = frame[column]
        level, levels = pd.factorize(frame[attribute], sort=True)
        value, values = pd.factorize(given.astype(object).where(given.notna(), BLANK))
        place = pd.Series(level * len(values) + value, index=frame.index)
        once = place[~pd.DataFrame({"place": place, "patient": frame["patient_id"]}).duplicated()]
        shape = len(levels), len(values)
        images, patients = (np.bincount(part, minlength=shape[0] * shape[1]).reshape(shape) for part in (place, once))
        number = pd.api.types.is_numeric_dtype(given) and given.nunique() > MAX_CATEGORIES
        people = np.array([frame["patient_id"][level == place].nunique() for place in range(len(levels))])
        return cls(column, tuple(levels), tuple(values), images, patients, people, number)

    def told(self, level: str) -> str:
        """Say by which marks images of a level are told from the others, or from those of one; "" if by none."""
        row = self.levels.index(level)
        for images in self._readings(row):
            own = images[row]
            for others, who in self._opposite(images, row):
                marks = self._between(own, others, self.patients[row])
                if len(marks):
                    mine, theirs = own[marks].sum(), others[marks].sum()
                    which = f"all {mine} images" if mine == own.sum() else f"{mine} of the {own.sum()} images"
                    stated = "" if own.sum() == self.images[row].sum() else " that state it"
                    of = f"{theirs} of the {others.sum()} {who}"
                    return f"{which} of '{level}'{stated} have the {self.column} {self._named(marks)}, and {of}"
        return ""

    def _readings(self, row: int) -> Iterator[Counts]:
        """Give the counts of stated values, where most images on both sides state one, and those with blanks.

        A few blanks hide no mark, and to be blank may be the mark.
        """
        stated = self.images * np.array([value != BLANK for value in self.values])
        sides = np.arange(len(self.levels)) == row
        if all(stated[side].sum() > self.images[side].sum() / 2 for side in (sides, ~sides)):
            yield stated
        yield self.images

    def _opposite(self, images: Counts, row: int) -> Iterator[tuple[Counts, str]]:
        """Give the counts of all other levels together, then of each alone: two levels may share a mark."""
        yield images.sum(axis=0) - images[row], "others"
        enough = self.people >= FEW
        if enough[row] and len(images) > 2:
            others = (other for other in np.flatnonzero(enough) if other != row)
            yield from ((images[other], f"of '{self.levels[other]}'") for other in others)

    def _between(self, own: Counts, others: Counts, patients: Counts) -> Counts:
        """Give the places of the values that nearly all images of a level have and others hardly have, if there are."""
        none = np.empty(0, dtype=np.int64)
        if not own.sum() or not others.sum():
            return none
        mine, theirs = own / own.sum(), others / others.sum()
        order = np.argsort(-mine, kind="stable")
        marks = order[(mine >= SHARED)[order] & (mine > theirs)[order]]
        if len(marks) > 1:
            # Of many rare values some are one level's by chance.
            marks = marks[:1] if self.number else marks[patients[marks] >= FEW]
        return marks if mine[marks].sum() >= 1 - SHARED and theirs[marks].sum() <= SHARED else none

    def _named(self, marks: Counts) -> str:
        named = [BLANK if self.values[mark] == BLANK else f"'{str(self.values[mark])[:80]}'" for mark in marks[:SHOWN]]
        return " or ".join([*named, f"{len(marks) - SHOWN} more"] if len(marks) > SHOWN else named)
