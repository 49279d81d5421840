"""How likely each level is by what else is known of an image, and weights under which the two are independent."""

from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
# No image counts for more than this many.
HEAVIEST = 20.0


class Propensity:
    """`p(a | held)` by a logistic regression (Rosenbaum and Rubin 1983).

    >>> level, held = np.array([0, 0, 0, 1, 1, 1]), np.array([[0.0], [0], [1], [0], [1], [1]])
    >>> weights = Propensity().fit(level, held).weights(level, held, shares=np.array([0.5, 0.5]))
    >>> bool(weights[2] > weights[0])  # the rarer kind of its level counts more
    True
    """

    def fit(self, index: Integers, held: npt.NDArray[np.floating]) -> Self:
        """Fit the regression.

        Shapes: `index` (n,), `held` (n, m).
        """
        self._model = LogisticRegression(max_iter=1000).fit(held, index)
        return self

    def log_odds(self, held: npt.NDArray[np.floating]) -> Floats:
        """Give `log p(a | held)`.

        Shapes: `held` (n, m); gives (n, levels that occurred).

        >>> held = np.zeros((4, 1))
        >>> Propensity().fit(np.array([0, 0, 0, 1]), held).log_odds(held[:1]).round(3).tolist()
        [[-0.288, -1.386]]
        """
        return np.asarray(self._model.predict_log_proba(held))

    def weights(
        self, index: Integers, held: npt.NDArray[np.floating], *, shares: Floats, heaviest: float = HEAVIEST
    ) -> Floats:
        """Give `p(a) / p(a | held)`, under which level and held covariates are independent.

        Shapes: `shares` (levels,); gives (n,).

        >>> index, held = np.array([0, 0, 0, 1]), np.zeros((4, 1))
        >>> Propensity().fit(index, held).weights(index, held, shares=np.array([0.5, 0.5])).round(2).tolist()
        [0.67, 0.67, 0.67, 2.0]
        """
        every = self._model.predict_proba(held)
        own = every[np.arange(len(index)), np.searchsorted(self._model.classes_, index)]
        return np.asarray(np.minimum(shares[index] / np.maximum(own, 1e-6), heaviest))
