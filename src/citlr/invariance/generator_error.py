r"""How far measured effects may be off because the generator learnt from a finite sample.

The randomisation test and the intervals of `effects` take the generator as given. A generator that was trained on
other patients would have drawn a somewhat different effect of the attribute, and a model that makes nothing of the true
effect is moved by that error. So the first draw of some images is moved by replicates :math:`\varepsilon_k` of the
generator's mean effect, and with the differences of the output :math:`d_{ik} = D_{ik} - D_i` the effects have the
errors

.. math:: s^2_{mean} = \tfrac1K \sum_k \Big[\bar d_k^2 - v_k / n\Big], \qquad
          s^2_{psi} = \tfrac1K \sum_k \Big[\overline{(2 D d_k + d_k^2)}^2 - w_k / n\Big],

where the variances over images, :math:`v_k` and :math:`w_k`, are subtracted so that a small sample does not count as
error. Of decisions, :math:`d` is the change of a kernel estimate of the share above the threshold, and :math:`|d|`
takes the place of :math:`d^2`. Intervals recover the variances of both parts (MOVER; Zou and Donner 2008), a p-value
against a margin is that of a normal deviate whose variance grows alike. Errors are stretched by t with K degrees of
freedom over the normal quantile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats
from scipy.special import logit

from citlr.invariance.effects.at_originals import at_originals
from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.estimates import Effects, Outcome, outcome_values
from citlr.invariance.effects.intervals import Interval
from citlr.invariance.operating_point import thresholds
from citlr.invariance.responses import Responses


@dataclass(frozen=True, eq=False)
class Replicates:
    """The model's outputs on images moved by replicates of the generator's mean effect.

    - `rows` (n,): Which images of the responses were moved.
    - `values` (n, levels - 1, replicates, labels): Probabilities, for every level but the first, which stays as it was
      drawn.
    """

    rows: np.ndarray
    values: Floats


@dataclass(frozen=True, eq=False)
class GeneratorError:
    """Standard errors of one contrast's effects that come from the generator's training sample; one entry per label.

    - `mean`, `psi`: 0 where the generator's error does not move the model.
    - `drawn_psi`: Of psi as the draws show it.
    - `replicates`: How many they rest on.
    """

    mean: Floats
    psi: Floats
    drawn_psi: Floats
    replicates: int


def contrast_error(
    responses: Responses,
    replicates: Replicates,
    *,
    contrast: tuple[int, int],
    outcome: Outcome,
    threshold: float | Mapping[str, float],
    shared_seeds: bool = True,
) -> GeneratorError:
    """Measure the error of one contrast."""
    drawn, moved = responses.values[replicates.rows], replicates.values
    values = outcome_values(responses, outcome=outcome, threshold=threshold).mean(axis=2)
    settled = values
    if outcome == "decision" and shared_seeds:
        found = at_originals(responses, threshold=threshold)
        settled = np.where(found.known, found.mean, values)
    if outcome == "decision":
        drawn, moved = _softened(drawn, moved, thresholds(threshold, responses.labels))
    first = np.repeat(drawn[:, :1, :1], moved.shape[2], axis=2)
    every = np.concatenate([first, moved], axis=1)
    a, b = contrast
    change = every[:, b] - every[:, a] - (drawn[:, b, :1] - drawn[:, a, :1])
    own = np.abs(change) if outcome == "decision" else change**2
    psi, drawn_psi = (
        _error(2 * (taken[:, b] - taken[:, a])[replicates.rows, None] * change + own) for taken in (settled, values)
    )
    return GeneratorError(_error(change), psi, drawn_psi, moved.shape[2])


def _softened(drawn: Floats, moved: Floats, cut: Floats) -> tuple[Floats, Floats]:
    """Turn probabilities (n, levels, draws, labels) into decisions that change gradually around the threshold.

    Few images lie so near the threshold that a replicate carries them over it. The kernel estimate of how many there
    are asks those around it too; its bandwidth on the logit scale is Silverman's (1986). Outputs that are decisions
    already stay what they are.
    """
    if np.isin(drawn, (0.0, 1.0)).all():
        return (drawn >= cut).astype(float), (moved >= cut).astype(float)
    scores, others = (logit(np.clip(part, 1e-6, 1 - 1e-6)) for part in (drawn, moved))
    first = scores[:, :, 0].reshape(-1, scores.shape[-1])
    quartiles = np.quantile(first, [0.25, 0.75], axis=0)
    spread = np.minimum(first.std(axis=0), (quartiles[1] - quartiles[0]) / 1.349)
    width = np.maximum(0.9 * spread * len(scores) ** -0.2, 1e-6)
    middle = logit(np.clip(cut, 1e-6, 1 - 1e-6))
    return special.ndtr((scores - middle) / width), special.ndtr((others - middle) / width)


def widened(effects: Effects, error: GeneratorError, *, alpha: float) -> Effects:
    """Widen the intervals of the mean effect and of psi by the generator's error."""
    psi = widen(effects.psi, error, "psi", alpha)
    return replace(
        effects,
        mean_effect=widen(effects.mean_effect, error, "mean", alpha),
        psi=psi,
        drawn_psi=widen(effects.drawn_psi, error, "drawn_psi", alpha),
        rms_effect=Interval(*(np.sqrt(np.maximum(part, 0.0)) for part in (psi.estimate, psi.low, psi.high))),
    )


def widened_pvalue(pvalue: Floats, distance: Floats, error: Floats, *, alpha: float, replicates: int) -> Floats:
    """Weaken a one-sided p-value of a bound at this distance beyond the estimate.

    >>> widened_pvalue(np.array([0.001, 0.001]), np.array([0.02, 0.02]), np.array([0.0, 0.01]), alpha=0.05,
    ...     replicates=12).round(3)
    array([0.001, 0.057])
    """
    z = stats.norm.isf(np.clip(pvalue, 1e-300, 1.0))
    own = np.where(z > 0, distance / np.where(z > 0, z, 1.0), 0.0)
    extra = error * stats.t.isf(alpha, replicates) / stats.norm.isf(alpha)
    total = np.sqrt(own**2 + extra**2)
    touched = (error > 0) & (distance > 0) & (z > 0)
    weaker = stats.norm.sf(distance / np.where(touched, total, 1.0))
    return np.where(touched, np.maximum(weaker, pvalue), pvalue)


def _error(shifts: Floats) -> Floats:
    """Root mean square over replicates of the mean over images (n, replicates, labels), free of the sample's noise."""
    noise = shifts.var(axis=0, ddof=1) / len(shifts) if len(shifts) > 1 else np.zeros(shifts.shape[1:])
    return np.asarray(np.sqrt(np.maximum((shifts.mean(axis=0) ** 2 - noise).mean(axis=0), 0.0)))


def widen(interval: Interval, error: GeneratorError | None, effect: str, alpha: float) -> Interval:
    """Widen the interval of one effect, "mean", "psi" or "drawn_psi", by the generator's error, if that is known."""
    if error is None:
        return interval
    least = -1.0 if effect == "mean" else 0.0
    reach = float(stats.t.isf(alpha / 2, error.replicates)) * np.asarray(getattr(error, effect))
    estimate = interval.estimate
    low = estimate - np.hypot(estimate - interval.low, reach)
    high = estimate + np.hypot(interval.high - estimate, reach)
    # An estimate outside of the range has its interval inside: nothing is to be drawn nearer.
    return Interval(
        estimate=estimate,
        low=np.where(reach > 0, np.clip(np.minimum(low, interval.low), least, 1.0), interval.low),
        high=np.where(reach > 0, np.clip(np.maximum(high, interval.high), least, 1.0), interval.high),
    )
