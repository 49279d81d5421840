r"""Is the dependence too small to matter? An intersection-union of the mean effect and psi against one margin.

*Equivalent* at margin m needs both, each at level alpha: the mean effect inside (-m, m) by two one-sided tests
(Schuirmann 1987), and psi below its bound by its upper limit. Both, because a flip of equally many images each way has
mean effect 0. By the intersection-union principle (Berger 1982) no correction is due: the larger p-value is that of the
whole.

*The bound of psi* is m for decisions, whose psi is a share, and m squared for probabilities, whose psi is a mean
square: half of the patients 13 points up and half of them 13 down have a psi of .017. Then the mean change of single
images, whatever its sign, is below m as well. A kind of patient of whom none was met may change by 1, and as many as m
of them have to be ruled out: p is at least (1 - m)^n, as it is for decisions.

*Attenuation.* Counterfactuals that carry a share s of the attribute show less of a dependence than there is. Where each
image carries s of the change, a response in proportion to it has the mean effect and every single effect times s, and
psi, their mean square, times s squared; where s of the images carry all of it and the rest nothing, both are times s.
So the upper bounds are divided by s and by s squared, which covers both, before they are compared with the margin; that
is, they are held against a margin times s and times s squared. A dependence is not made any larger by it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from citlr.errors import InputError
from citlr.invariance.effects.clusters import ClusteredMean, Floats, SignedMean
from citlr.invariance.effects.intervals import beyond_pvalue, negate, upper_pvalue
from citlr.invariance.generator_error import GeneratorError, widened_pvalue
from citlr.invariance.records import psi_bound


@dataclass(frozen=True, eq=False)
class Equivalence:
    """P-values of non-equivalence; one entry per label.

    - `mean_pvalue`: Two one-sided tests of the mean effect against -margin and margin.
    - `psi_pvalue`: Of psi >= its bound.
    """

    margin: float
    mean_pvalue: Floats
    psi_pvalue: Floats

    @property
    def pvalue(self) -> Floats:
        """The larger of the two: small where both the mean effect and psi are below their bounds."""
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
    outcome: str = "decision",
    error: GeneratorError | None = None,
    alpha: float = 0.05,
    carried: float = 1.0,
) -> Equivalence:
    """Test both effects against the margin, which has been checked."""
    shift, excess = margin * carried, psi_bound(margin, outcome) * carried**2
    above = beyond_pvalue(mean, shift)
    below = beyond_pvalue(negate(mean), shift)
    psi = upper_pvalue(product, excess, unseen=excess if outcome == "decision" else shift)
    if error is not None:
        weaken = partial(widened_pvalue, alpha=alpha, replicates=error.replicates)
        above = weaken(above, shift - mean.whole.estimate, error.mean)
        below = weaken(below, shift + mean.whole.estimate, error.mean)
        psi = weaken(psi, excess - product.estimate, error.psi)
    return Equivalence(margin=margin, mean_pvalue=np.maximum(above, below), psi_pvalue=psi)
