"""Principal components of more rows than memory holds: block power iteration, a pass over the rows for each power.

With the rows R (n, width) and a random start it is `Q <- R' (R Q)`, kept well conditioned, and the components are those
of `R Q` in the last Q (randomised subspace iteration, Halko, Martinsson and Tropp 2011). Memory holds (width, count)
numbers and one piece of the rows.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg import lu

Singles = npt.NDArray[np.float32]
# Powers of `R' R`, and columns that are carried along beside those that are wanted.
POWERS, SPARE = 4, 10
TINY = 1e-12


def principal_components(
    pieces: Callable[[], Iterator[Singles]], *, width: int, count: int, random: np.random.Generator
) -> Singles:
    """Find the widest principal components (width, count) of centred rows; `pieces` gives them anew, (k, width)."""
    columns = min(count + SPARE, width)
    basis = random.standard_normal((width, columns), dtype=np.float32)
    for _ in range(POWERS):
        moved = np.zeros_like(basis)
        for rows in pieces():
            moved += rows.T @ (rows @ basis)
        # The lower triangle spans the same space; ten times as fast as the orthogonal basis, which is needed last only.
        basis = np.asarray(lu(moved, permute_l=True, check_finite=False)[0], dtype=np.float32)
    values, vectors = np.linalg.eigh(basis.T.astype(np.float64) @ basis)
    basis = (basis @ (vectors / np.sqrt(np.maximum(values, values[-1] * TINY)))).astype(np.float32)
    gram = np.zeros((columns, columns))
    for rows in pieces():
        parts = (rows @ basis).astype(np.float64)
        gram += parts.T @ parts
    vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :count]
    return np.ascontiguousarray(basis @ vectors.astype(np.float32))
