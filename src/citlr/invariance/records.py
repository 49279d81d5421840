"""What the statistics say, one frozen record a row: the rows of an assessment are those of an audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from citlr.values import Real

Verdict = Literal["dependence", "equivalent", "inconclusive"]
# From best to worst: an audit of several labels is only as good as its worst label.
SEVERITY: tuple[Verdict, ...] = ("equivalent", "inconclusive", "dependence")
# What the reason of every dependence says, and no other.
DEPENDS = "the output depends on the level ("
# The default test, by whether draws share their noise.
METHODS = {True: "randomization_sign_flip", False: "randomization_permutation"}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts."""
    return max(verdicts, key=SEVERITY.index)


def count_verdicts(rows: Sequence[TestRow]) -> str:
    """Count the verdicts of some tests, the gravest first."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in reversed(SEVERITY)}
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    return f"{len(rows)} {'test' if len(rows) == 1 else 'tests'}{f': {told}' if told else ''}"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval (95 % unless the test's alpha says otherwise)."""

    estimate: Real
    low: Real
    high: Real


def psi_bound(margin: float, outcome: str) -> float:
    """Give what psi is held against: of probabilities, whose psi is a mean square, the square of the margin.

    >>> psi_bound(0.02, "decision"), round(psi_bound(0.02, "probability"), 6)
    (0.02, 0.0004)
    """
    return margin if outcome == "decision" else margin**2


@dataclass(frozen=True)
class TestRow:
    """One label under one contrast of one attribute: everything that the verdict rests on.

    - `method`: "randomization_sign_flip" (shared seeds) or "randomization_permutation" (independent draws).
    - `statistic`: The standardised statistic that decided.
    - `pvalue`, `pvalue_adjusted`, `pvalue_screening`, `log10_pvalue`: Of the default test; Holm and Benjamini-Hochberg
      over labels and contrasts; log10 with its asymptotic tail.
    - `mean_effect`, `psi`, `flip_rate`, `within_flip_rate`, `eca`: See `citlr.invariance.effects.estimates`.
    - `equivalence_pvalue`: The larger of the p-values of the mean effect and of psi against the margin.
    - `detectable_effect`: Smallest psi that the test finds with 80 % power in these data, whatever the other tests say
      (at alpha over their number).
    - `reason`: Why the verdict is what it is.
    - `mean_error`, `psi_error`: Standard errors of the two effects that come from the generator's training sample, part
      of the intervals and of the equivalence p-value (`citlr.invariance.generator_error`); None where not known.
    - `carried`: Share of the attribute that the counterfactuals carry at least: equivalence is judged after dividing
      the mean effect by it, and psi by its square; None where it was not taken into account.
    """

    __test__ = False  # pytest: not a test class

    attribute: str
    contrast: tuple[str, str]
    label: str
    outcome: str
    method: str
    n_images: int
    n_patients: int
    draws: int
    statistic: Real
    pvalue: Real
    pvalue_adjusted: Real
    pvalue_screening: Real
    log10_pvalue: Real
    mean_effect: Estimate
    psi: Estimate
    flip_rate: Estimate
    within_flip_rate: Real
    eca: Real
    margin: Real
    equivalence_pvalue: Real
    detectable_effect: Real
    verdict: Verdict
    reason: str
    mean_error: float | None = None
    psi_error: float | None = None
    carried: float | None = None

    @property
    def psi_margin(self) -> float:
        """What psi is held against (`psi_bound`)."""
        return psi_bound(self.margin, self.outcome)

    def beyond(self, psi: Estimate, mean_effect: Estimate) -> bool:
        """Say whether effects are shown to be larger than the margin."""
        return psi.low > self.psi_margin or mean_effect.low > self.margin or mean_effect.high < -self.margin


@dataclass(frozen=True, kw_only=True)
class ContrastTest(TestRow):
    """A row of an assessment: with what decides its verdict, and no audit hands on.

    - `component`: Which statistic decided: "mean" or "product".
    - `rms_effect`, `eca_corrected`: See `citlr.invariance.effects.estimates`.
    - `replicates`: Of the generator's error; 0 where it is not known.
    - `drawn_psi`, `drawn_error`, `drawn_pvalue`: Psi, its error and the equivalence p-value as the draws show them, not
      divided by `carried`: what the test, which looks at the draws, is held against.
    - `noiseless`: Whether all draws of a level are alike, by a generator whose error is known in part (`replicates`).
    - `room`: How large an effect could be at all (`citlr.invariance.effects.room`).
    """

    component: str
    rms_effect: Estimate
    eca_corrected: float
    drawn_psi: Estimate
    replicates: int = 0
    drawn_error: float | None = None
    drawn_pvalue: float = 1.0
    noiseless: bool = False
    room: float = 1.0


@dataclass(frozen=True)
class OmnibusRow:
    """One label over all levels at once, where there are three or more: shown beside the verdicts, which are per pair.

    `component` says what decided it ("mean" or "product"); `pvalue_adjusted` (Holm) and `pvalue_screening`
    (Benjamini-Hochberg) are over the labels.
    """

    levels: tuple[str, ...]
    label: str
    statistic: Real
    component: str
    pvalue: Real
    pvalue_adjusted: Real
    pvalue_screening: Real
    log10_pvalue: Real


@dataclass(frozen=True)
class DosePoint:
    """One value of a number that was intervened on: the mean output there, and its change from the reference."""

    level: str
    dose: float
    output: float
    change: Estimate


@dataclass(frozen=True)
class DoseResponse:
    """How one label's output changes with a number that is intervened on (`citlr.invariance.effects.doses`).

    - `outcome`: "decision" (shares of positive decisions) or "probability" (mean outputs).
    - `reference`: The lowest value; the intervals of `points` hold for all of them at once.
    - `contrast`, `largest`: The two values between which the output changes most, and by how much; the interval holds
      for all pairs of values at once.
    """

    label: str
    outcome: str
    reference: str
    points: tuple[DosePoint, ...]
    contrast: tuple[str, str]
    largest: Estimate


@dataclass(frozen=True)
class SubgroupRow:
    """The effects of one contrast on one label in one part of the test set: a description, never a verdict.

    `subgroup` names the variables and their values; the attribute's own name stands for the recorded level. Intervals
    are clustered by patient and not adjusted for the number of parts. `note` says why nothing is said, where there is a
    single patient; the intervals are then the whole range.
    """

    attribute: str
    subgroup: tuple[tuple[str, str], ...]
    contrast: tuple[str, str]
    label: str
    n_images: int
    n_patients: int
    mean_effect: Estimate
    psi: Estimate
    flip_rate: Estimate
    note: str = ""
