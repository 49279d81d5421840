r"""What becomes of the decision on the original under every level, without the noise of the draws.

Draws differ around an image by the generator's noise, and near the threshold a decision flips with it, under one level
as under the other. Averaged over the noise a decision changes little where the level moves the output by less than the
noise does, and psi, the square of that, hardly at all: of a flip rate of 2 to 5 % a fifth was read. Yet where draws of
an image share their noise, it cancels in what the level does to the score. So psi of decisions is taken at the
original's own score,

.. math:: \tilde Y[i, a, r] = 1\{s_i + S[i, a, r] - S[i, a_i, r] \ge t\},

where :math:`s_i` is the logit of the output on the original, :math:`S` that on a draw, :math:`a_i` the recorded level
(or, of a number, the image's own value) and :math:`t` the threshold's. Products of different draws keep it free of what
noise draws do not share. Edits of the original have no noise, and their decisions stay as they are.

The p-value is not touched: it is that of the decisions on the draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.operating_point import reaches, thresholds
from citlr.invariance.responses import Responses

# Of the noise of the draws, how much may be left in the change between levels: 1 is noise that draws do not share.
MOST_NOISE_LEFT = 0.5
# Outputs that are nearer to 0 or 1 than this are as certain as those: 1 less a smaller step is 1 in double precision.
LEAST_STEP = 1e-12


def decisions_at_originals(responses: Responses, *, threshold: float | Mapping[str, float]) -> Floats:
    """Decide every image under every level from its original's score, (units, levels, draws, labels).

    A label keeps the decisions on its draws where the recorded level or the outputs on the originals are not known,
    where outputs are decisions already, and where draws turn out to share little of their noise.
    """
    cut = thresholds(threshold, responses.labels)
    decisions = reaches(responses.values, cut).astype(float)
    for k, operating_point in enumerate(cut):
        found = _scores(responses, k, float(operating_point))
        if found is not None and responses.original is not None:
            change = found.drawn - found.null[:, None]
            moved = found.original[:, None, None] + change >= found.cut
            # Where nothing changes it is the model's own decision, to the last bit.
            own = reaches(responses.original[:, k], operating_point)[:, None, None]
            decisions[..., k] = np.where(change == 0, own, moved)
    return decisions


def psi_at_originals(responses: Responses, psi: Floats, *, threshold: float | Mapping[str, float]) -> Floats:
    """Say what a psi of the draws' decisions, (labels,), is at the originals: how much more than the draws show of it.

    It is that of a level which moves all scores by the same, up in half of the images and down in the others: by as
    much as gives the draws this psi. A label whose psi is that of the draws keeps it.
    """
    whole = psi.copy()
    for k, operating_point in enumerate(thresholds(threshold, responses.labels)):
        found = _scores(responses, k, float(operating_point))
        if found is not None:
            shift = _shift_of(psi[k], found.null - found.cut)
            # Half of the images move towards the threshold.
            whole[k] = max(psi[k], 0.5 * np.mean(np.abs(found.original - found.cut) <= shift))
    return whole


def _shift_of(psi: float, over: Floats) -> float:
    """Give the shift, up or down, of scores (units, draws), counted from the threshold, whose decisions have this psi.

    Of an image whose j-th draw turns at a shift, 2 (j - 1) of the draws (draws - 1) products of two draws do.

    >>> _shift_of(0.25, np.array([[0.1, 0.2], [-0.5, -0.3]])), _shift_of(0.9, np.array([[0.1, 0.2]]))
    (0.2, inf)
    """
    draws = over.shape[1]
    weight = np.arange(draws) * 2 / (draws * (draws - 1))
    turns = [np.sort(np.where(side, np.abs(over), np.inf), axis=1) for side in (over < 0, over >= 0)]
    at, weights = np.concatenate(turns).ravel(), np.tile(weight, 2 * len(over))
    order = np.argsort(at, kind="stable")
    # Either half of the images moves towards the threshold, the other away from it.
    reached = np.cumsum(np.where(np.isfinite(at[order]), weights[order], 0.0)) / (2 * len(over))
    first = int(np.searchsorted(reached, psi - 1e-12))
    return float(at[order][first]) if first < len(order) else np.inf


@dataclass(frozen=True, eq=False)
class _Scores:
    """Logits of one label: `drawn` (units, levels, draws), `null` (units, draws), `original` (units,), and of `cut`."""

    drawn: Floats
    null: Floats
    original: Floats
    cut: float


def _scores(responses: Responses, k: int, cut: float) -> _Scores | None:
    """Give the scores of label k; None where they do not tell what becomes of the original."""
    null, original = responses.null, responses.original
    if null is None or original is None:
        return None
    outputs = (responses.values[..., k], null[..., k], original[:, k])
    step = _smallest_step(*outputs)
    if step is None:
        return None
    drawn, at_null, before, at_cut = (logit(np.clip(part, step / 2, 1 - step / 2)) for part in (*outputs, cut))
    found = _Scores(drawn, at_null, before, float(at_cut))
    return found if _noise_left(found) <= MOST_NOISE_LEFT else None


def _noise_left(found: _Scores) -> float:
    """Share of the draws' variance that stays in what a level changes: 0 where they share all noise, 1 where none."""
    change = found.drawn - found.null[:, None]
    led_away = (change != 0).any(axis=2)
    apart = found.drawn.var(axis=2) + found.null.var(axis=1)[:, None]
    whole = float(apart[led_away].sum())
    return float(change.var(axis=2)[led_away].sum()) / whole if whole > 0 else 0.0


def _smallest_step(*outputs: Floats) -> float | None:
    """Give the least distance of an output to the certainty next to it, which stands in for that of 0 and 1 themselves.

    None where all outputs are 0 or 1.

    >>> _smallest_step(np.array([0.0, 0.02, 1.0])), _smallest_step(np.array([0.0, 1.0]))
    (0.02, None)
    """
    values = np.concatenate([part.ravel() for part in outputs])
    apart = np.minimum(values, 1 - values)
    return max(float(apart[apart > 0].min()), LEAST_STEP) if bool((apart > 0).any()) else None
