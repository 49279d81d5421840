r"""What becomes of the decision on the original under every level, without the noise of the draws.

Draws differ around an image by the generator's noise, and near the threshold a decision flips with it, under one level
as under the other. Averaged over the noise a decision changes little where the level moves the output by less than the
noise does, and psi, the square of that, hardly at all: of a flip rate of 2 to 5 % a fifth was read. Yet where draws of
an image share their noise, it cancels in what the level does to the score. So decisions are taken at the original's own
score, and psi is the share of images whose decision the level turns there:

.. math:: \tilde Y_i(a) = 1\{s_i + c_i(a) \ge t\}, \qquad c_{ir}(a) = S[i, a, r] - S[i, a_i, r],

where :math:`s_i` is the logit of the output on the original, :math:`S` that on a draw, :math:`a_i` the recorded level
(or, of a number, the image's own value) and :math:`t` the threshold's. Edits of the original have no noise, and their
decisions stay as they are.

*What draws do not share* stays in the change, and turns decisions near the threshold also of a model that depends on
nothing: a share in proportion to the noise. A change of one draw has all of it, :math:`f_1`, the mean change of R draws
:math:`1/\sqrt R` of it, :math:`f_R`; what is left without any is extrapolated from both (Cook and Stefanski 1994),

.. math:: \psi = (\sqrt R f_R - f_1) / (\sqrt R - 1).

It is exact where the level does nothing, and where it moves scores by more than that noise does; in between it is too
small. :math:`f_R` is not, where scores are fewer the nearer they are to the threshold: the share of them that a change
carries over it is then convex in the change, so that noise adds to it (Jensen). Where most lie just beyond it, noise
takes from it, from :math:`f_1` more than from :math:`f_R`, and psi is the larger one. Upper limits, and with them
"equivalent", rest on the larger of :math:`f_R` and psi. Both are too small where noise is wider than such scores lie
apart (`benchmarks/edges.py`).

The p-value is not touched: it is that of the decisions on the draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.operating_point import reaches, thresholds
from citlr.invariance.responses import Responses

# Of the noise of the draws, how much may be left in the change between levels: 1 is noise that draws do not share.
MOST_NOISE_LEFT = 0.5
# Outputs that are nearer to 0 or 1 than this are as certain as those: 1 less a smaller step is 1 in double precision.
LEAST_STEP = 1e-12


@dataclass(frozen=True, eq=False)
class AtOriginals:
    """Decisions on the originals under every level.

    - `each` (units, levels, draws, labels), `mean` (units, levels, labels): By the change of each draw, and by the mean
      change of all of them.
    - `known` (labels,): Where they can be told; 0 elsewhere.
    """

    each: Floats
    mean: Floats
    known: NDArray[np.bool_]

    def turned(self, contrast: tuple[int, int]) -> tuple[Floats, Floats]:
        """Give what every image adds to psi of two levels, and what it adds at most, (units, labels) each."""
        one, other = contrast
        root = np.sqrt(self.each.shape[2])
        by_one = np.abs(self.each[:, other] - self.each[:, one]).mean(axis=1)
        by_all = np.abs(self.mean[:, other] - self.mean[:, one])
        return np.asarray((root * by_all - by_one) / (root - 1)), by_all


def at_originals(responses: Responses, *, threshold: float | Mapping[str, float]) -> AtOriginals:
    """Decide every image under every level from its original's score.

    A label is not known where the recorded level or the outputs on the originals are not, where outputs are decisions
    already, and where draws turn out to share little of their noise.
    """
    cut = thresholds(threshold, responses.labels)
    each = np.zeros_like(responses.values)
    mean, known = np.zeros_like(each[:, :, 0]), np.zeros(len(cut), dtype=bool)
    for k, operating_point in enumerate(cut):
        found = _scores(responses, k, float(operating_point))
        if found is not None and responses.original is not None:
            own = reaches(responses.original[:, k], operating_point)[:, None, None]
            by_all = found.change.mean(axis=2, keepdims=True)
            one, every = (
                np.where(change == 0, own, found.original[:, None, None] + change >= found.cut)
                for change in (found.change, by_all)
            )
            # To the last bit: a draw whose null intervention is the original is what becomes of that.
            exact = (found.null == found.original[:, None])[:, None]
            alike = exact.all(axis=2, keepdims=True) & (found.drawn == found.drawn[..., :1]).all(axis=2, keepdims=True)
            decided = reaches(responses.values[..., k], operating_point)
            each[..., k] = np.where(exact, decided, one)
            mean[..., k] = np.where(alike, decided[..., :1], every)[..., 0]
            known[k] = True
    return AtOriginals(each, mean, known)


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

    @cached_property
    def change(self) -> Floats:
        """What a level does to the score of each draw, (units, levels, draws)."""
        return self.drawn - self.null[:, None]


def _scores(responses: Responses, k: int, cut: float) -> _Scores | None:
    """Give the scores of label k; None where they do not tell what becomes of the original."""
    null, original = responses.null, responses.original
    if null is None or original is None or null.shape[1] != responses.n_draws:
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
    led_away = (found.change != 0).any(axis=2)
    apart = found.drawn.var(axis=2) + found.null.var(axis=1)[:, None]
    whole = float(apart[led_away].sum())
    return float(found.change.var(axis=2)[led_away].sum()) / whole if whole > 0 else 0.0


def _smallest_step(*outputs: Floats) -> float | None:
    """Give the least distance of an output to the certainty next to it, which stands in for that of 0 and 1 themselves.

    None where all outputs are 0 or 1.

    >>> _smallest_step(np.array([0.0, 0.02, 1.0])), _smallest_step(np.array([0.0, 1.0]))
    (0.02, None)
    """
    values = np.concatenate([part.ravel() for part in outputs])
    apart = np.minimum(values, 1 - values)
    return max(float(apart[apart > 0].min()), LEAST_STEP) if bool((apart > 0).any()) else None
