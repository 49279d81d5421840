"""Many labels, contrasts and attributes: Holm for verdicts, Benjamini-Hochberg for screening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from citlr.errors import InputError
from citlr.invariance.effects.clusters import Floats


@dataclass(frozen=True, eq=False)
class Adjusted:
    """P-values adjusted within one family, in the shape they came in.

    - `holm`: Controls the chance of any false verdict, under every dependence of the tests.
    - `benjamini_hochberg`: Controls the expected share of false discoveries; shown, never decided on.
    """

    holm: Floats
    benjamini_hochberg: Floats


def adjust(pvalues: ArrayLike) -> Adjusted:
    """Adjust p-values of any shape as one family."""
    p = np.asarray(pvalues, dtype=np.float64)
    if p.size == 0 or not bool(np.all((p >= 0) & (p <= 1))):
        raise InputError(f"Adjusting needs at least one p-value, all in [0, 1]; found {p.size} with {p.ravel()[:3]}.")
    screened = np.asarray(multipletests(p.ravel(), method="fdr_bh")[1]).reshape(p.shape)
    return Adjusted(holm=_holm(p.ravel()).reshape(p.shape), benjamini_hochberg=screened)


def _holm(p: Floats) -> Floats:
    """Holm (1979): the k-th smallest p times the number of those not smaller, made monotone.

    statsmodels' own runs a full garbage collection in every call, a third of a second where torch is loaded; the tests
    hold this one against it.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
