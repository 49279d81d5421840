"""The dose-response of an audit: a curve per label and outcome, as a table and as a figure."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pandas as pd

from citlr.config import TestConfig
from citlr.invariance.effects.doses import dose_response
from citlr.invariance.effects.estimates import Outcome
from citlr.invariance.generator_error import Replicates
from citlr.invariance.records import DoseResponse
from citlr.invariance.responses import Responses
from citlr.randomness import hashed_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DoseCurves:
    """Curves of the output against a number that is intervened on; none of an attribute with levels."""

    curves: tuple[DoseResponse, ...] = ()

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[DoseResponse]:
        return iter(self.curves)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per label, outcome and value.

        The columns are `label, outcome, level, dose, output, change, low, high, reference`: the mean output, and its
        change from the reference with the band that holds for all values at once.
        """
        names = ["label", "outcome", "level", "dose", "output", "change", "low", "high", "reference"]
        rows = [
            (curve.label, curve.outcome, one.level, one.dose, one.output, change.estimate, change.low, change.high, low)
            for curve in self.curves
            for one in curve.points
            for change, low in [(one.change, curve.reference)]
        ]
        return pd.DataFrame(rows, columns=names)

    def plot(self) -> Figure:
        """Return a panel per label: change from the reference, with its band."""
        # Opened by name: a result does not know its page.
        figures = importlib.import_module("citlr.report.charts.figures")
        return cast("Figure", figures.dose_curves(self))


def measure_doses(
    responses: Responses, *, settings: TestConfig, seed: int, replicates: Replicates | None = None
) -> DoseCurves:
    """Estimate the curves of an attribute that is a number: the outcome under test first, then the other one."""
    if not responses.number:
        return DoseCurves()
    decisions = bool(((responses.values == 0) | (responses.values == 1)).all())
    other: Outcome = "probability" if settings.outcome == "decision" else "decision"
    outcomes: list[Outcome] = [settings.outcome] if decisions else [settings.outcome, other]
    curves = [
        dose_response(
            responses,
            alpha=settings.alpha,
            outcome=outcome,
            threshold=settings.threshold,
            seed=hashed_seed("dose-response", seed) % 2**32,
            replicates=replicates,
        )
        for outcome in outcomes
    ]
    return DoseCurves(tuple(one for each in zip(*curves, strict=True) for one in each))


def largest_change(curve: DoseResponse) -> str:
    """Say in a sentence by how much the output changes at most.

    >>> from citlr.invariance.records import Estimate
    >>> print(largest_change(DoseResponse("edema", "decision", "30", (), ("30", "70"), Estimate(0.1, 0.04, 0.16))))
    edema: the largest change of the share of positive decisions is +0.1000 [+0.0400, +0.1600], at 70 against 30.
    """
    what = "the share of positive decisions" if curve.outcome == "decision" else "the mean output"
    size = curve.largest
    return (
        f"{curve.label}: the largest change of {what} is {size.estimate:+.4f} [{size.low:+.4f}, {size.high:+.4f}], at "
        f"{curve.contrast[1]} against {curve.contrast[0]}."
    )
