"""What a test without a generator gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ObservationalResult:
    """One test on (Z, A, Yhat).

    - `method`: "distilled_crt", "gcm" or "rms_lower_bound".
    - `contrast`: `(a, a')`.
    - `statistic`, `pvalue`: The test's statistic; p in (0, 1].
    - `log10_pvalue`: log10 of p; where a randomisation p is at its floor, of the tail fitted to the redraws, for
      ranking only.
    - `effect`, `low`, `high`: Mean effect of the level, weighted by `p (1 - p)`, with its interval; NaN for
      "rms_lower_bound".
    - `rms_low`: Lower confidence bound of the root mean square effect `sqrt(E[(g(a',Z) - g(a,Z))^2])`; NaN for the
      other tests.
    - `n_images`, `n_patients`: Images and patients at the two levels.
    - `propensity`: Whether `p(A|Z)` was given. Only then is the distilled test exact.
    - `learners`: What estimated `E[Yhat|Z]` and `p(A|Z)`.
    """

    method: str
    contrast: tuple[str, str]
    statistic: float
    pvalue: float
    log10_pvalue: float
    effect: float
    low: float
    high: float
    rms_low: float
    n_images: int
    n_patients: int
    propensity: Literal["known", "estimated"]
    learners: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class ObservationalAssessment:
    """The battery without a generator.

    - `tests`: Distilled test, GCM and lower bound.
    - `verdict`: By the distilled test alone; a large p says nothing.
    """

    tests: tuple[ObservationalResult, ...]
    verdict: Literal["dependence", "inconclusive"]
    reason: str
