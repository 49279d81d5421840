"""From responses to verdicts: every label at every contrast, tested, sized up and judged in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil

import pandas as pd

from citlr.errors import InputError, require_kind
from citlr.invariance.effects.at_originals import psi_at_originals
from citlr.invariance.effects.equivalence import check_margin, equivalence_test
from citlr.invariance.effects.estimates import Outcome, contrast_effects, outcome_values
from citlr.invariance.effects.intervals import check_alpha
from citlr.invariance.effects.room import room
from citlr.invariance.generator_error import Replicates, contrast_error, widened
from citlr.invariance.power import detectable
from citlr.invariance.randomization.test import FEWEST_RANDOMIZATIONS, contrast_tests, omnibus_test
from citlr.invariance.records import SEVERITY, ContrastTest, OmnibusRow, Verdict, count_verdicts
from citlr.invariance.responses import Responses
from citlr.invariance.rows import Measured, adjust, contrast_rows, decide, omnibus_rows
from citlr.randomness import hashed_seed
from citlr.text import listed_few, visible
from citlr.values import Count, Flag, Number, Seed, Thresholds, check_value, checked

# The smallest p-value that randomisations can give, times the number of tests, is at most alpha over this.
SPARE = 4
MOST_RANDOMIZATIONS = 1_000_000


@dataclass(frozen=True)
class Assessment:
    """All that was found for one attribute.

    Parameters
    ----------
    attribute : str
    levels, labels : tuple of str
    tests : tuple of ContrastTest
        Label by label, contrasts within; each holds its own verdict and reason.
    omnibus : tuple of OmnibusRow
        Shown beside the verdict; empty with two levels.
    verdict : {"dependence", "equivalent", "inconclusive"}
        The worst of the rows.
    reason : str
        The reason of the row that set it.
    alpha, margin : float
    """

    attribute: str
    levels: tuple[str, ...]
    labels: tuple[str, ...]
    tests: tuple[ContrastTest, ...]
    omnibus: tuple[OmnibusRow, ...]
    verdict: Verdict
    reason: str
    alpha: float
    margin: float

    def __repr__(self) -> str:
        """Say the verdict and its reason, and count the others; the numbers are `to_frame()`."""
        return visible(
            f"Assessment of {self.attribute} ({listed_few(self.levels)}) on {listed_few(self.labels)}: {self.verdict}\n"
            f"  {self.reason}\n"
            f"  {count_verdicts(self.tests)}, margin {self.margin:g}, alpha {self.alpha:g}; to_frame() has the numbers"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per test; intervals become columns such as psi_low."""
        rows = []
        for test in self.tests:
            row = asdict(test)
            for name in ("mean_effect", "psi", "drawn_psi", "rms_effect", "flip_rate"):
                bounds = row.pop(name)
                row |= {name: bounds["estimate"], f"{name}_low": bounds["low"], f"{name}_high": bounds["high"]}
            rows.append(row)
        return pd.DataFrame(rows)


@checked
def assess(
    responses: Responses,
    *,
    margin: Number,
    alpha: Number = 0.05,
    outcome: Outcome = "decision",
    threshold: Thresholds = 0.5,
    randomizations: Count = 4999,
    shared_seeds: Flag = True,
    seed: Seed = 0,
    replicates: Replicates | None = None,
    carried: Mapping[str, float] | None = None,
) -> Assessment:
    """Test every label at every contrast and say what follows.

    A row is *equivalent* where the mean effect and psi (of probabilities its root) are both shown to lie below the
    margin (that takes precedence over a dependence that is significant but negligible, and the reason says so); else
    *dependence* where the Holm-adjusted p-value is below alpha and the effect exceeds what the generator's training
    sample leaves open; else *inconclusive*.

    Parameters
    ----------
    responses : Responses
        Two levels or more, two draws or more (four are advised).
    margin : float
        Largest change of the output that does not matter, in (0, 1).
    alpha : float
        Error rate of "dependence" over all rows together, and of "equivalent" for each row by itself, so that the
        verdict over all, which needs every row, keeps it too. Intervals have confidence 1 - alpha.
    outcome : {"decision", "probability"}
        What is tested: `value >= threshold`, or the probability itself.
    threshold : float or mapping from label to float
        Operating point of the decisions.
    randomizations : int
        At least 19; the smallest p-value is 1/(randomizations + 1). With many labels and contrasts there are as many as
        it takes for one of them to be significant after adjustment.
    shared_seeds : bool
        Whether draw r of all levels of an image used the same generator noise.
    seed : int
        Same seed, same result.
    replicates : Replicates, optional
        Outputs on images moved by replicates of the generator's mean effect; without them the generator is taken as
        given.
    carried : mapping of str to float, optional
        Share of the attribute that the counterfactuals carry at least, by level: what is shown to be small has to be so
        after division by it (`citlr.invariance.effects.equivalence`). A contrast takes the smaller of its two levels.

    Returns
    -------
    Assessment

    Raises
    ------
    InputError
        When a setting is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> base = np.broadcast_to(rng.random((400, 1, 1, 1)), (400, 2, 4, 1))
    >>> assess(Responses.from_arrays(base), margin=0.02).verdict
    'equivalent'
    >>> shifted = np.concatenate([base[:, :1], np.minimum(base[:, 1:] + 0.1, 1)], axis=1)
    >>> print(assess(Responses.from_arrays(shifted), margin=0.02).verdict)
    dependence
    """
    check_margin(margin)
    check_alpha(alpha)
    values = outcome_values(responses, outcome=outcome, threshold=threshold)
    family = len(responses.contrasts) * len(responses.labels)
    options = {"shared_seeds": shared_seeds, "randomizations": enough(randomizations, family, alpha)}
    tests = contrast_tests(values, contrasts=responses.contrasts, seed=seed, **options)  # type: ignore[arg-type]
    omnibus: tuple[OmnibusRow, ...] = ()
    if len(responses.levels) > 2:
        omnibus = omnibus_rows(responses, omnibus_test(values, seed=hashed_seed("omnibus", seed), **options))  # type: ignore[arg-type]
    columns = []
    for row, contrast in enumerate(responses.contrasts):
        effects = contrast_effects(
            responses, contrast=contrast, alpha=alpha, outcome=outcome, threshold=threshold, shared_seeds=shared_seeds
        )
        error = None
        if replicates is not None:
            require_kind(replicates, Replicates, "replicates", "the Replicates of these responses")
            error = contrast_error(
                responses,
                replicates,
                contrast=contrast,
                outcome=outcome,
                threshold=threshold,
                shared_seeds=shared_seeds,
            )
            effects = widened(effects, error, alpha=alpha)
        share = None if carried is None else smallest_share(carried, [responses.levels[k] for k in contrast])
        weigh = partial(equivalence_test, effects.mean, margin=margin, outcome=outcome, alpha=alpha)
        equivalence = weigh(effects.most, error=error, carried=1.0 if share is None else share)
        drawn = weigh(effects.drawn, error=None if error is None else replace(error, psi=error.drawn_psi))
        smallest, _ = detectable(
            effects,
            tests.spread(row),
            responses,
            alpha=alpha / family,
            decisions=outcome == "decision",
            shared_seeds=shared_seeds,
        )
        if outcome == "decision" and shared_seeds:
            smallest = psi_at_originals(responses, smallest, threshold=threshold)
        space = room(responses, contrast=contrast, outcome=outcome, threshold=threshold, margin=margin, alpha=alpha)
        found = Measured(effects, smallest, tests, row, equivalence, drawn, share, error, space)
        columns.append(contrast_rows(responses, found, outcome=outcome, shared_seeds=shared_seeds))
    rows = tuple(column[k] for k in range(len(responses.labels)) for column in columns)
    draft = Assessment(
        attribute=responses.attribute,
        levels=responses.levels,
        labels=responses.labels,
        tests=rows,
        omnibus=omnibus,
        verdict="inconclusive",
        reason="",
        alpha=alpha,
        margin=margin,
    )
    return judge_together([draft])[0]


def enough(randomizations: int, tests: int, alpha: float) -> int:
    """Give the randomisations with which one of so many tests can be significant: Holm multiplies p by their number.

    >>> enough(4999, 20, 0.05), enough(4999, 300, 0.05)
    (4999, 23999)
    """
    needed = ceil(SPARE * tests / alpha) - 1
    if needed > max(randomizations, MOST_RANDOMIZATIONS):
        raise InputError(
            f"{tests} tests at an alpha of {alpha:g} take {needed} randomisations, as Holm's adjustment multiplies "
            "every p-value by their number: test fewer labels or levels, or raise alpha."
        )
    return max(randomizations, needed) if randomizations >= FEWEST_RANDOMIZATIONS else randomizations


def judge_together(assessments: Sequence[Assessment]) -> tuple[Assessment, ...]:
    """Adjust over labels x contrasts x attributes as one family, and decide every row anew."""
    if not assessments or len({a.alpha for a in assessments}) != 1:
        raise InputError(f"Judging together needs assessments at one alpha; found {len(assessments)} of them.")
    adjusted = adjust([test.pvalue for a in assessments for test in a.tests])
    pairs = iter(zip(adjusted.holm.tolist(), adjusted.benjamini_hochberg.tolist(), strict=True))
    return tuple(_judged(a, [next(pairs) for _ in a.tests]) for a in assessments)


def smallest_share(carried: Mapping[str, float], levels: Sequence[str]) -> float:
    """Give the smallest share carried of some levels, as a divisor: above 0, and no more than 1.

    >>> smallest_share({"F": 1.02, "M": 0.9}, ["F", "M"]), smallest_share({"F": 1.02, "M": -0.1}, ["F", "M"])
    (0.9, 1e-06)
    """
    if isinstance(carried, pd.Series):
        carried = carried.to_dict()
    require_kind(carried, Mapping, "carried", "a mapping with a share for every level")
    missing = [level for level in levels if level not in carried]
    if missing:
        raise InputError(f"carried names no share for the level '{missing[0]}': name every level.")
    shares = [check_value(f"carried['{level}']", carried[level], Number) for level in levels]  # NaN would count as 1
    return float(min(1.0, *(max(share, 1e-6) for share in shares)))


def _judged(assessment: Assessment, pvalues: list[tuple[float, float]]) -> Assessment:
    tests = []
    for test, (holm, screened) in zip(assessment.tests, pvalues, strict=True):
        drafted = replace(test, pvalue_adjusted=holm, pvalue_screening=screened)
        verdict, reason = decide(drafted, assessment.alpha)
        tests.append(replace(drafted, verdict=verdict, reason=reason))
    worst = max(tests, key=lambda test: SEVERITY.index(test.verdict))
    return replace(assessment, tests=tuple(tests), verdict=worst.verdict, reason=worst.reason)
