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
from citlr.invariance.randomization.groups import product_statistic
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
        if found is not None and psi[k] < 1:
            over, before = found.null - found.cut, found.original - found.cut
            low, high = 0.0, float(2 * max(np.abs(over).max(), np.abs(before).max()) + 1)
            for _ in range(50):
                middle = (low + high) / 2
                low, high = (middle, high) if _turned(over, middle) < psi[k] else (low, middle)
            whole[k] = max(psi[k], _turned(np.repeat(before[:, None], 2, axis=1), high))
    return whole


def _turned(over: Floats, shift: float) -> float:
    """Psi of scores (units, draws), counted from the threshold, that are moved up or down."""
    positive = over >= 0
    both = np.stack([np.stack([positive, over + sign * shift >= 0], axis=1) for sign in (-1, 1)], axis=-1)
    return float(product_statistic(both.astype(float), shared_seeds=True).mean())


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
