"""What each randomisation is summed up by, for all columns at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citlr.invariance.randomization.groups import Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over images of the contrast vector W and the product statistic U; row 0 is the observed assignment.

    - `sums` (rows, d, columns): Sum of W.
    - `products` (rows, columns): Sum of U.
    - `outer` (rows, d, d, columns): Sum of W W^T; only needed with more than two levels.
    - `squares` (rows, columns): Sum of U^2; only needed with more than two levels.
    """

    sums: Floats
    products: Floats
    outer: Floats | None = None
    squares: Floats | None = None

    def two_level(self) -> tuple[Floats, Floats]:
        """|sum D| and sum U, each (rows, columns)."""
        return np.abs(self.sums[:, 0]), self.products

    def studentised(self) -> tuple[Floats, Floats]:
        """Wald statistic of the sums and self-normalised sum of U, each (rows, columns).

        Both have a variance estimated within the same randomisation, which keeps the omnibus asymptotically valid where
        the levels have equal means but are not exchangeable.
        """
        if self.outer is None or self.squares is None:
            raise ValueError("the second moments were not collected")
        d = self.sums.shape[1]
        outer = np.moveaxis(self.outer, 3, 1).astype(np.float64)
        sums = np.moveaxis(self.sums, 2, 1).astype(np.float64)[..., None]
        trace = np.trace(outer, axis1=2, axis2=3)
        quiet = trace <= 0
        # A direction without any variance has no sum either; the ridge only keeps the solver from dividing by it.
        ridge = np.where(quiet, 1.0, 1e-6 * trace)
        solved = np.linalg.solve(outer + ridge[..., None, None] * np.eye(d), sums)
        wald = np.where(quiet, 0.0, (sums * solved).sum(axis=(2, 3)))
        root = np.sqrt(np.maximum(self.squares, 0))
        product = np.where(root > 0, self.products / np.where(root > 0, root, 1.0), 0.0)
        return np.maximum(wald, 0.0), product
