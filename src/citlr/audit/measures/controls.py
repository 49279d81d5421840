"""Controls of the whole chain: a coin and further draws that must not show, and a planted bias that must."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from citlr.audit.results.records import Controls, Placebo, PlantedBias, Regeneration
from citlr.audit.results.statistics import outcome_of
from citlr.config import ControlsConfig, TestConfig
from citlr.invariance.effects.estimates import outcome_values
from citlr.invariance.randomization.test import contrast_tests
from citlr.invariance.records import psi_bound
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess
from citlr.randomness import COIN, PLACEBO, hashed_seed

# The power at which a planted bias counts as found (the usual 80 %).
POWER = 0.80
# Randomisations of each bootstrap sample: enough to reject at 5 %, few enough for hundreds of samples.
BOOTSTRAP_RANDOMIZATIONS = 199


def audit_placebo(
    frame: pd.DataFrame, *, settings: TestConfig, shared_seeds: bool, seed: int
) -> tuple[Placebo | None, bool]:
    """Audit the coin."""
    if not (frame["attribute"] == PLACEBO).any():
        return None, False
    assessment = assess(
        Responses.from_frame(frame, attribute=PLACEBO, levels=COIN),
        **settings.model_dump(),
        shared_seeds=shared_seeds,
        seed=seed,
    )
    first = min(assessment.tests, key=lambda row: row.pvalue_adjusted)
    passed = all(row.verdict != "dependence" for row in assessment.tests)
    detectable = float(first.detectable_effect) if np.isfinite(first.detectable_effect) else None
    return Placebo(first.pvalue_adjusted, float(first.psi.estimate), first.n_images, detectable), passed


def audit_regeneration(responses: Responses, *, settings: TestConfig, seed: int) -> Regeneration | None:
    """Audit the first half of each level's draws against the second half: the level is the same, so nothing may show.

    It costs no image and no output: the draws are there.
    """
    half = responses.n_draws // 2
    if half < 2:
        return None
    found = []
    for k, level in enumerate(responses.levels):
        drawn = responses.values[:, k]
        halves = np.stack([drawn[:, :half], drawn[:, half : 2 * half]], axis=1)
        # Draws under one level share no noise with each other, so they are permuted, not flipped.
        pair = replace(
            responses, values=halves, levels=("first draws", "last draws"), factual=None, original=None, number=False
        )
        test = assess(
            pair, **settings.model_dump(), shared_seeds=False, seed=hashed_seed("regeneration", seed, level) % 2**32
        )
        found += list(test.tests)
    first = min(found, key=lambda row: row.pvalue_adjusted)
    corrected = min(1.0, first.pvalue_adjusted * len(responses.levels))
    changed = _changed(responses, settings)
    return Regeneration(corrected, float(first.psi.estimate), first.n_images, changed)


def _changed(responses: Responses, settings: TestConfig) -> float | None:
    """Return how many outputs redrawing under the own level changes, in the label where it is most."""
    null = responses.null
    if responses.original is None or null is None:
        return None
    shares = []
    for k, label in enumerate(responses.labels):
        before = outcome_of(responses.original[:, k], label, settings)
        shares.append(float(np.abs(outcome_of(null[..., k], label, settings) - before[:, None]).mean()))
    return max(shares)


def plant(responses: Responses, detector: npt.NDArray[np.float64], strength: float, level: int) -> Responses:
    """Add `strength` times an attribute detector to the logit of every output.

    Shapes: `detector` (units, levels, draws, levels).

    >>> values = np.full((2, 2, 2, 1), 0.5)
    >>> model = Responses.from_arrays(values, patients=["p", "q"], levels=["F", "M"], labels=["x"])
    >>> sure = np.zeros((2, 2, 2, 2))
    >>> sure[:, 0, :, 0] = sure[:, 1, :, 1] = 1
    >>> plant(model, sure, 1.0, level=1).values[0, :, 0, 0].round(3)
    array([0.5  , 0.731])
    """
    # An output of exactly 0 or 1 has no logit: such a model is taken at the edge of double precision.
    inside = np.clip(responses.values, 1e-12, 1 - 1e-12)
    return replace(responses, values=expit(logit(inside) + strength * detector[..., level][..., None]))


def planted_ladder(
    responses: Responses,
    detector: npt.NDArray[np.float64],
    *,
    controls: ControlsConfig,
    settings: TestConfig,
    shared_seeds: bool,
    seed: int,
) -> tuple[tuple[PlantedBias, ...], float | None]:
    """Plant a bias of growing strength and see from where on it is found.

    `detected` is the verdict on the model as it is; `power` is that of the test, of a model that depends on nothing
    besides (see `_null`).
    """
    last = len(responses.levels) - 1
    found_in = Counter[tuple[float, str]]()
    for number in range(controls.bootstraps):
        rows_of, null = _null(responses, np.random.default_rng(hashed_seed("planted", seed, number)))
        where = detector[rows_of]
        for strength in controls.planted:
            tried = plant(null, where, strength, last)
            found_in.update((strength, label) for label in _found(tried, settings, shared_seeds, seed))
    rows: list[PlantedBias] = []
    for strength in controls.planted:
        biased = plant(responses, detector, strength, last)
        whole = assess(biased, **settings.model_dump(), shared_seeds=shared_seeds, seed=seed)
        for label in responses.labels:
            best = min((row for row in whole.tests if row.label == label), key=lambda row: row.pvalue_adjusted)
            found = any(row.verdict == "dependence" for row in whole.tests if row.label == label)
            power = found_in[strength, label] / controls.bootstraps
            rows.append(PlantedBias(label, strength, found, best.pvalue_adjusted, float(best.psi.estimate), power))
    return tuple(rows), detection_limit(rows)


def detection_limit(rows: Sequence[PlantedBias]) -> float | None:
    """Return the smallest strength from which on every label is found with 80 % power, and called dependent.

    >>> def rung(strength, power, detected=True):
    ...     return PlantedBias("x", strength, detected, 0.01, 0.1, power)
    >>> detection_limit([rung(0.5, 0.9), rung(1.0, 0.7), rung(2.0, 0.8), rung(4.0, 1.0)])
    2.0
    >>> detection_limit([rung(0.5, 0.9, detected=False), rung(1.0, 0.9)])  # it may be significant, and equivalent
    1.0
    """
    found: float | None = None
    for strength in sorted({row.strength for row in rows}, reverse=True):
        if any(row.power < POWER or not row.detected for row in rows if row.strength == strength):
            break
        found = strength
    return found


def run_controls(
    frame: pd.DataFrame,
    responses: Responses,
    detector: npt.NDArray[np.float64] | None,
    *,
    controls: ControlsConfig,
    settings: TestConfig,
    shared_seeds: bool,
    seed: int,
) -> tuple[Controls, bool]:
    """Run all three controls; the flag says whether the coin passed (False when it was not tossed)."""
    placebo, passed = audit_placebo(frame, settings=settings, shared_seeds=shared_seeds, seed=seed)
    notes = [] if placebo is not None else ["No placebo: no image was redrawn under a coin."]
    bound = psi_bound(settings.margin, settings.outcome)
    if placebo is not None and placebo.detectable is not None and placebo.detectable > bound:
        notes.append(
            f"The coin's {placebo.n_images} images show a psi of {placebo.detectable:.3f} with 80 % power: a fault of "
            f"the generator between the margin ({bound:g}) and that may go unnoticed."
        )
    again = audit_regeneration(responses, settings=settings, seed=seed)
    if again is None:
        notes.append(f"No regeneration under the same level: {responses.n_draws} draws are no two halves of two.")
    decisions = bool(np.isin(responses.values, (0.0, 1.0)).all())
    if detector is None or decisions or not controls.planted or controls.bootstraps == 0:
        why = "the attribute probe reads no better than chance" if detector is None else "it is switched off"
        why = "the model gives decisions, which have no logit to plant one on" if decisions else why
        notes.append(f"No planted bias: {why}.")
        return Controls(placebo, (), None, tuple(notes), again), passed
    planted, limit = planted_ladder(
        responses, detector, controls=controls, settings=settings, shared_seeds=shared_seeds, seed=seed
    )
    return Controls(placebo, planted, limit, tuple(notes), again), passed


def _found(biased: Responses, settings: TestConfig, shared_seeds: bool, seed: int) -> set[str]:
    """Name the labels in which the test finds a dependence: by the first step of Holm, never more than an audit finds.

    The p-value is the asymptotic one where randomisations are too few for one so small: with ten tests or more no label
    could be found else.
    """
    values = outcome_values(biased, outcome=settings.outcome, threshold=settings.threshold)
    tested = contrast_tests(values, shared_seeds=shared_seeds, randomizations=BOOTSTRAP_RANDOMIZATIONS, seed=seed)
    least = tested.log10_pvalue.min(axis=0) + np.log10(tested.pvalue.size)
    return {label for label, one in zip(biased.labels, least, strict=True) if one < np.log10(settings.alpha)}


def _null(responses: Responses, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Responses]:
    """Draw as many patients as there are, with replacement, and shuffle the levels within every draw of an image.

    So nothing of the effect that the data have, by chance or not, is left to be found with the planted one. Gives the
    rows that were drawn, too.
    """
    codes, names = pd.factorize(responses.patients)
    rows_of = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    chosen = rng.integers(0, len(names), len(names))
    rows = np.concatenate([rows_of[patient] for patient in chosen])
    again = np.repeat(np.arange(len(chosen)), [len(rows_of[patient]) for patient in chosen])
    values = responses.values[rows]
    order = rng.random(values.shape[:3]).argsort(axis=1)
    shuffled = np.take_along_axis(values, order[..., None], axis=1)
    null = Responses.from_arrays(shuffled, patients=again, levels=responses.levels, labels=responses.labels)
    return rows, null
