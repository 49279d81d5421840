r"""Is the dependence too small to matter? An intersection-union of the mean effect and psi against one margin.

*Equivalent* at margin m needs both, each at level alpha: the mean effect inside (-m, m) by two one-sided tests
(Schuirmann 1987), and psi below m by its upper limit. Both, because a uniform shift of 10 points has psi = 0.01 only
and a flip of equally many images each way has mean effect 0. By the intersection-union principle (Berger 1982) no
correction is due: the larger p-value is that of the whole.

*Attenuation.* Counterfactuals that carry a share s of the attribute show less of a dependence than there is. Where each
image carries s of the change, a response in proportion to it has the mean effect and every single effect times s, and
psi, their mean square, times s squared; where s of the images carry all of it and the rest nothing, both are times s.
So the upper bounds are divided by s and by s squared, which covers both, before they are compared with the margin; that
is, they are held against a margin times s and times s squared. A dependence is not made any larger by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from citlr.errors import InputError
from citlr.invariance.effects.clusters import ClusteredMean, Floats, SignedMean
from citlr.invariance.effects.intervals import beyond_pvalue, negate, upper_pvalue
from citlr.invariance.generator_error import GeneratorError, widened_pvalue


@dataclass(frozen=True, eq=False)
class Equivalence:
    """P-values of non-equivalence; one entry per label.

    - `mean_pvalue`: Two one-sided tests of the mean effect against -margin and margin.
    - `psi_pvalue`: Of psi >= margin.
    """

    margin: float
    mean_pvalue: Floats
    psi_pvalue: Floats

    @property
    def pvalue(self) -> Floats:
        """The larger of the two: small where both the mean effect and psi are below the margin."""
        return np.maximum(self.mean_pvalue, self.psi_pvalue)


def check_margin(margin: float) -> None:
    """Raise `InputError` unless the margin is in (0, 1).

    >>> check_margin(0.02)
    """
    if not 0 < margin < 1:
        raise InputError(
            f"margin is {margin}; give the largest change of the output that does not matter, above 0 and below 1 "
            "(0.02 is two outputs in a hundred)."
        )


def equivalence_test(
    mean: SignedMean,
    product: ClusteredMean,
    *,
    margin: float,
    decisions: bool = True,
    error: GeneratorError | None = None,
    alpha: float = 0.05,
    carried: float = 1.0,
) -> Equivalence:
    """Test both effects against the margin, which has been checked."""
    shift, excess = margin * carried, margin * carried**2
    above = beyond_pvalue(mean, shift)
    below = beyond_pvalue(negate(mean), shift)
    psi = upper_pvalue(product, excess, decisions=decisions)
    if error is not None:
        weaken = partial(widened_pvalue, alpha=alpha, replicates=error.replicates)
        above = weaken(above, shift - mean.whole.estimate, error.mean)
        below = weaken(below, shift + mean.whole.estimate, error.mean)
        psi = weaken(psi, excess - product.estimate, error.psi)
    return Equivalence(margin=margin, mean_pvalue=np.maximum(above, below), psi_pvalue=psi)
