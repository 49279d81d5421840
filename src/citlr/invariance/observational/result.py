"""What a test without a generator gives back."""

from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar, Literal

import pandas as pd

from citlr.invariance.parity import ParityResult
from citlr.values import plain


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
    - `pvalue_fitted`: Of the distilled test, as fitted; `pvalue` is the largest over shares of misfit.
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
    pvalue_fitted: float = 1.0


@dataclass(frozen=True)
class ObservationalAssessment:
    """The battery without a generator at one contrast.

    - `tests`: Distilled test, GCM and lower bound.
    - `pvalue_adjusted`: Of the distilled test, by Holm over the contrasts; the larger of its p and the GCM's where the
      attribute varies within patients.
    - `overlap`: Mean of p (1 - p) over that of a p that Z says nothing of: 1 there, 0 where Z says the level surely.
    - `foretold`: p of whether the level is still foretold from Z where p(A|Z) is fitted; small withholds the verdict.
    - `verdict`: By that p-value; a large one says nothing.
    """

    tests: tuple[ObservationalResult, ...]
    pvalue_adjusted: float
    overlap: float
    foretold: float = 1.0
    verdict: Literal["dependence", "inconclusive"] = "inconclusive"
    reason: str = ""


@dataclass(frozen=True)
class Observed:
    """What (Z, A, Yhat) say of one model: `citlr.observe`.

    Parameters
    ----------
    verdict : {"dependence", "inconclusive"}
        The worst over the contrasts. There is no third: see `never`.
    assessments : tuple of ObservationalAssessment
        The tests given Z, one for each contrast.
    associations : tuple of ParityResult
        Parity and AUROC gaps: beside the verdict, never part of it.
    alpha : float
        Error rate of the verdict.
    """

    verdict: Literal["dependence", "inconclusive"]
    assessments: tuple[ObservationalAssessment, ...]
    associations: tuple[ParityResult, ...]
    alpha: float

    never: ClassVar[str] = (
        "Without counterfactuals no verdict can be 'equivalent': (Z, A, Yhat) bound an effect from below, never "
        "from above, and the bound holds as far as Z holds all that the model may rightly use and nothing of the "
        "attribute."
    )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per test and association; a number that a method does not give is missing."""
        every: list[tuple[ObservationalResult | ParityResult, float, float]]
        every = [(test, test.effect, test.rms_low) for one in self.assessments for test in one.tests]
        every += [(one, one.estimate, nan) for one in self.associations]
        rows = [
            {
                "method": one.method,
                "contrast": f"{one.contrast[1]} - {one.contrast[0]}",
                "estimate": estimate,
                "low": one.low,
                "high": one.high,
                "rms_low": rms_low,
                "pvalue": one.pvalue,
                "n_images": one.n_images,
                "n_patients": one.n_patients,
                "note": one.note,
            }
            for one, estimate, rms_low in every
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; a number that does not exist is None."""
        told = ("reason", "verdict", "pvalue_adjusted", "overlap")
        return {
            "schema": "citlr.observed/1",
            "verdict": self.verdict,
            "never": self.never,
            "alpha": self.alpha,
            "contrasts": [{name: getattr(one, name) for name in told} for one in self.assessments],
            "tests": plain(self.to_frame().to_dict("records")),
        }

    def __str__(self) -> str:
        """One sentence per contrast, what is never said, then the table."""
        frame = self.to_frame()
        notes = dict.fromkeys(
            f"{method}: {note}" for method, note in zip(frame["method"], frame["note"], strict=True) if note
        )
        table = frame.drop(columns="note").to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="")
        return "\n".join([self.verdict, *(one.reason for one in self.assessments), self.never, "", table, "", *notes])
