"""How an attribute is coded, and what its summaries differ by: by patient, beside what is held.

An attribute of K levels has K - 1 contrasts that add up to nothing over the levels (Helmert's), a number has one. The
difference that belongs to a contrast is a weighted sum of summaries: weighted least squares with an intercept, the
held covariates and the other attributes beside it, every patient counting once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import helmert
from torch import Tensor

from citlr.generators.conditions import Conditions
from citlr.generators.variables import Variable
from citlr.learning.store import spans

Floats = npt.NDArray[np.float64]
# A number is taken to act in proportion, no further than this many standard deviations.
FAR = 3.0
# Numbers of a summary whose influences are in work at a time.
NUMBERS = 256


def by_patient(patients: npt.ArrayLike) -> tuple[npt.NDArray[np.intp], Floats]:
    """Give the number of each image's patient (n,), and its weight, 1 / (images of the patient): (n,).

    >>> number, weights = by_patient(["b", "a", "b"])
    >>> number.tolist(), weights.tolist()
    ([1, 0, 1], [0.5, 1.0, 0.5])
    """
    _, number, count = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    return number, 1 / count[number]


def contrasts(variable: Variable) -> Tensor:
    """Code of every column of a variable's code but the last, (columns, contrasts): two levels are -1/2 and 1/2."""
    if not variable.levels:
        return torch.ones(1, 1)
    return -torch.from_numpy(helmert(len(variable.levels)).T.copy()).float() / 2**0.5


def coded(conditions: Conditions, variable: Variable, codes: Tensor) -> Tensor:
    """Contrasts (n, contrasts) of codes (n, width); of a missing value, the middle."""
    own = codes[:, conditions.span(variable.name)][:, :-1]
    values = own @ contrasts(variable).to(codes)
    return values if variable.levels else values.clamp(-FAR, FAR)


@dataclass(frozen=True)
class Design:
    """What a contrast's difference is read by, of n images of some patients.

    - `weights` (contrasts, n): the difference is `weights @ summaries`.
    - `image` (n,): weight of every image, 1 / (images of the patient).
    - `columns` (n, k): intercept and what is beside the contrasts, and these last.
    - `patient` (n,): number of the patient.
    """

    weights: Floats
    image: Floats
    columns: Floats
    patient: npt.NDArray[np.intp]

    @property
    def patients(self) -> int:
        """Number of patients."""
        return int(self.patient.max()) + 1

    def part(self, rows: npt.NDArray[np.bool_]) -> Design:
        """Make the design of some images: a mask (n,)."""
        count = len(self.weights)
        return design_of(self.columns[rows, -count:], self.columns[rows, 1:-count], self.patient[rows])

    def _rounds(self) -> list[npt.NDArray[np.intp]]:
        """Give the rows of everybody's first image, of their second one, and so on: added at once, as no two meet."""
        order = np.argsort(self.patient, kind="stable")
        sorted_ = self.patient[order]
        place = np.arange(len(order)) - np.searchsorted(sorted_, sorted_)
        by_place = np.argsort(place, kind="stable")
        return np.split(order[by_place], np.cumsum(np.bincount(place))[:-1])

    def difference(self, summaries: Floats) -> Floats:
        """Differences (contrasts, width) of summaries (n, width)."""
        return self.weights @ summaries

    def influences(self, summaries: npt.NDArray[np.floating], *, null: bool = False) -> Floats:
        """Give what every patient adds to the error of the differences: (contrasts, patients, width).

        With `null`, as if no contrast made a difference: what patients add up to is the difference itself then.
        """
        columns = self.columns[:, : self.columns.shape[1] - len(self.weights)] if null else self.columns
        root, rounds = np.sqrt(self.image)[:, None], self._rounds()
        found = np.zeros((len(self.weights), self.patients, summaries.shape[1]))
        # Some numbers at a time: all at once, what is fitted and left would be held several times over.
        for some in spans(summaries.shape[1], NUMBERS):
            own = np.asarray(summaries[:, some], dtype=np.float64)
            fitted, *_ = np.linalg.lstsq(root * columns, root * own, rcond=None)
            rest = own - columns @ fitted
            del own
            for contrast, weights in enumerate(self.weights):
                for rows in rounds:
                    each = rest[rows]
                    each *= weights[rows, None]
                    found[contrast, self.patient[rows], some] += each
                    del each
        if null:
            return found
        free = max(self.patients - self.columns.shape[1], 1)
        scaled: Floats = found * np.sqrt(self.patients / free)
        return scaled


def design(conditions: Conditions, variable: Variable, codes: Tensor, patients: npt.ArrayLike) -> Design:
    """Make the design of one attribute, beside what the cohort records and what is held; the coin is beside nothing."""
    own = coded(conditions, variable, codes).double().numpy()
    beside = [np.empty((len(own), 0))]
    for other in (*conditions.recorded, *conditions.held):
        if other.name != variable.name:
            part = codes[:, conditions.span(other.name)].double().numpy()
            beside.append(part[:, 1:] if other.levels else part)
    return design_of(own, np.concatenate(beside, axis=1), patients)


def design_of(own: Floats, beside: Floats, patients: npt.ArrayLike) -> Design:
    """Make the design of contrasts (n, contrasts) beside other columns (n, k) and an intercept."""
    rest = np.column_stack([np.ones(len(own)), beside])
    number, image = by_patient(np.asarray(patients).astype(str))
    root = np.sqrt(image)[:, None]
    # The contrasts, less what is beside them: least squares by residuals (Frisch, Waugh, Lovell).
    fitted, *_ = np.linalg.lstsq(root * rest, root * own, rcond=None)
    alone = own - rest @ fitted
    weights = np.linalg.pinv((alone * image[:, None]).T @ own) @ (alone * image[:, None]).T
    return Design(weights, image, np.concatenate([rest, own], axis=1), number)
