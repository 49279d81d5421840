r"""How large the dependence is: each effect with an interval that is clustered by patient.

For image i, draw r and the contrast (a, a'), :math:`D_{ir} = Y[i, a', r] - Y[i, a, r]`:

=================  ===================================================================================================
mean effect        mean of D: what a change of level does on average; effects of both signs cancel.
psi                mean of U, unbiased for E[(g(a', Z) - g(a, Z))^2]: what changes beyond the generator's noise, in
                   decisions or (squared) in probabilities; zero exactly under counterfactual invariance. Of decisions
                   it is taken at the original's own score where that is known (`effects.at_originals`).
RMS effect         sqrt(max(psi, 0)): a typical individual effect on the scale of the output.
flip rate          share of outputs whose decision differs between the two levels (same draw where seeds are shared,
                   all pairs of draws where they are not); holds generator noise as well.
within flip rate   share of decisions that differ between two draws at one level: generator noise alone. With
                   independent draws, psi = flip rate - within flip rate, image by image.
ECA                share of factual decisions kept when the level is redrawn uniformly from all levels (1 for the
                   factual level itself); `eca_corrected` takes U for the flips: generator noise does not count.
=================  ===================================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from citlr.errors import InputError, require_kind, require_known
from citlr.invariance.effects.at_originals import at_originals
from citlr.invariance.effects.clusters import ClusteredMean, Clusters, Floats, SignedMean, clustered_mean, signed_mean
from citlr.invariance.effects.intervals import Interval, check_alpha, signed_interval, skew_interval, wilson_interval
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.responses import Responses

Outcome = Literal["decision", "probability"]
# What every image adds to psi, and what it adds at most, (units, labels) each.
Parts = tuple[Floats, Floats]
ROUNDING = 1e-9  # of the parts of psi


@dataclass(frozen=True, eq=False)
class Effects:
    """The effects of one contrast; every array has one entry per label.

    - `contrast` (str, str): Levels (a, a').
    - `mean_effect`, `psi`, `rms_effect`, `flip_rate`: Two-sided 1 - alpha intervals.
    - `within_flip_rate`, `eca`, `eca_corrected`: Shares in [0, 1] (`eca_corrected` is unbiased and may fall a little
      outside).
    - `mean`, `product`, `most`: What the intervals of the mean effect and of psi were made from; psi's upper limit is
      no less than that of `most`, which is what equivalence is tested by.
    - `drawn_psi`, `drawn`: Psi and U as the draws show them, which the test looks at.
    """

    contrast: tuple[str, str]
    labels: tuple[str, ...]
    mean_effect: Interval
    psi: Interval
    rms_effect: Interval
    flip_rate: Interval
    within_flip_rate: Floats
    eca: Floats
    eca_corrected: Floats
    mean: SignedMean
    product: ClusteredMean
    most: ClusteredMean
    drawn_psi: Interval
    drawn: ClusteredMean


def outcome_values(
    responses: Responses, *, outcome: Outcome = "decision", threshold: float | Mapping[str, float] = 0.5
) -> Floats:
    """Return what is tested, shape (units, levels, draws, labels): decisions (0 or 1) or the probabilities."""
    require_kind(responses, Responses, "responses", "Responses, such as Responses.from_arrays(values)")
    require_known(outcome, get_args(Outcome), f"outcome is '{outcome}'")
    return responses.decisions(threshold) if outcome == "decision" else responses.values


def psi_parts(
    responses: Responses,
    *,
    contrast: tuple[int, int],
    outcome: Outcome = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    shared_seeds: bool = True,
) -> Parts:
    """Return what every image adds to psi, and at most: of decisions at the originals' scores where known.

    Noise that draws do not share would not cancel there, and of probabilities psi has no threshold to be blurred at.
    """
    pair = outcome_values(responses, outcome=outcome, threshold=threshold)[:, list(contrast)]
    drawn = product_statistic(pair, shared_seeds=shared_seeds)
    if outcome != "decision" or not shared_seeds:
        return drawn, drawn
    settled = at_originals(responses, threshold=threshold)
    found, most = (np.where(settled.known, part, drawn) for part in settled.turned(contrast))
    return found, most


def contrast_effects(
    responses: Responses,
    *,
    contrast: tuple[int, int] = (0, 1),
    alpha: float = 0.05,
    outcome: Outcome = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    shared_seeds: bool = True,
    parts: Parts | None = None,
) -> Effects:
    """Estimate every effect of one contrast for all labels; `parts` are of `psi_parts`, if taken of more images."""
    check_alpha(alpha)
    _check_contrast(contrast, len(responses.levels))
    options: dict[str, Any] = {"outcome": outcome, "threshold": threshold, "shared_seeds": shared_seeds}
    decisions = responses.decisions(threshold)
    values = outcome_values(responses, outcome=outcome, threshold=threshold)
    clusters = Clusters.of(responses.patients)
    pair, pair_decisions = values[:, list(contrast)], decisions[:, list(contrast)]
    discrete = outcome == "decision"
    mean = signed_mean((pair[:, 1] - pair[:, 0]).mean(axis=1), clusters)
    drawn = clustered_mean(product_statistic(pair, shared_seeds=shared_seeds), clusters)
    if parts is None:
        parts = psi_parts(responses, contrast=contrast, **options)
    found, upmost = parts
    # Noise takes from an effect where scores lie just beyond the threshold: the mean change then turns fewer as well.
    upmost = np.where(found.mean(axis=0) > upmost.mean(axis=0), found, upmost)
    product, most = (clustered_mean(part, clusters) for part in (found, upmost))
    flips = clustered_mean(flip_shares(pair_decisions, shared_seeds=shared_seeds), clusters)
    psi, above = (skew_interval(part, alpha=alpha, decisions=discrete) for part in (product, most))
    drawn_psi = skew_interval(drawn, alpha=alpha, decisions=discrete)
    psi = replace(
        psi, low=_low_with_noise(psi.low, drawn_psi.low, parts, pair.shape[2]), high=np.maximum(psi.high, above.high)
    )
    eca, corrected = counterfactual_accuracy(decisions, responses.factual, shared_seeds=shared_seeds)
    return Effects(
        contrast=(responses.levels[contrast[0]], responses.levels[contrast[1]]),
        labels=responses.labels,
        mean_effect=signed_interval(mean, alpha=alpha),
        psi=psi,
        rms_effect=Interval(*(np.sqrt(np.maximum(part, 0.0)) for part in (psi.estimate, psi.low, psi.high))),
        flip_rate=wilson_interval(flips, alpha=alpha),
        within_flip_rate=within_flip_shares(pair_decisions).mean(axis=0),
        eca=eca,
        eca_corrected=corrected,
        mean=mean,
        product=product,
        most=most,
        drawn_psi=drawn_psi,
        drawn=drawn,
    )


def _low_with_noise(low: Floats, drawn: Floats, parts: Parts, draws: int) -> Floats:
    """Lower psi's limit at the originals towards that of the draws, by as much as noise that they do not share decides.

    What is extrapolated from such noise is no more than a guess where scores lie closer together than it is wide: it
    gave models that depend on nothing a psi of 5 to 9 %. The images tell, of which single draws say otherwise than
    their mean. Of a model that depends on nothing these are all that turn but those whose draws agree by chance.
    """
    found, most = parts
    apart = np.abs(found - most) > ROUNDING
    turning = (np.abs(found) > ROUNDING) | (most > ROUNDING)
    noisy = np.minimum(1.0, apart.sum(axis=0) / np.maximum(turning.sum(axis=0), 1) / (1 - 2.0 ** (1 - draws)))
    return np.asarray(np.where(noisy < 1, low - noisy * np.maximum(low - drawn, 0.0), np.minimum(low, drawn)))


def flip_shares(decisions: Floats, *, shared_seeds: bool) -> Floats:
    """Share of differing decisions of each image and label, for decisions (units, 2, draws, labels)."""
    if shared_seeds:
        return np.asarray(np.abs(decisions[:, 1] - decisions[:, 0]).mean(axis=1))
    rate = decisions.mean(axis=2)
    return np.asarray(rate[:, 0] * (1 - rate[:, 1]) + rate[:, 1] * (1 - rate[:, 0]))


def within_flip_shares(decisions: Floats) -> Floats:
    """Share of pairs of draws at one level whose decisions differ, averaged over levels; (units, labels)."""
    draws = decisions.shape[2]
    positive = decisions.sum(axis=2)
    return np.asarray((2 * positive * (draws - positive) / (draws * (draws - 1))).mean(axis=1))


def counterfactual_accuracy(
    decisions: Floats, factual: np.ndarray | None, *, shared_seeds: bool = True
) -> tuple[Floats, Floats]:
    r"""ECA, E[1{f(X_do(A=a)) = f(X_do(A=a'))}] with a factual and a' uniform over the levels, raw and noise-corrected.

    Shapes: `decisions` (units, levels, draws, labels), `factual` (units,); gives (labels,).
    """
    n, levels, _, labels = decisions.shape
    raw, excess = np.zeros((n, labels)), np.zeros((n, labels))
    for a in range(levels):
        for b in range(a + 1, levels):
            # The pair counts where one of its levels is the factual one; unknown: either may be, each with 1/levels.
            weight = np.full(n, 2 / levels) if factual is None else ((factual == a) | (factual == b)).astype(float)
            pair = decisions[:, [a, b]]
            raw += weight[:, None] * flip_shares(pair, shared_seeds=shared_seeds)
            excess += weight[:, None] * product_statistic(pair, shared_seeds=shared_seeds)
    return 1 - raw.mean(axis=0) / levels, 1 - excess.mean(axis=0) / levels


def _check_contrast(contrast: tuple[int, int], levels: int) -> None:
    a, b = contrast
    if a == b or not (0 <= a < levels and 0 <= b < levels):
        raise InputError(f"A contrast is two different level indices below {levels}; found {contrast}.")
