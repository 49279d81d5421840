"""What outputs leave room for: where nearly all decisions are alike, no model could be found to exceed a margin."""

from dataclasses import replace

import numpy as np

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.estimates import Outcome, contrast_effects, outcome_values
from citlr.invariance.responses import Responses
from citlr.values import Thresholds

# Quantiles between which nearly all probabilities lie.
SPANNED = (0.005, 0.995)


def room(
    responses: Responses,
    *,
    contrast: tuple[int, int],
    outcome: Outcome,
    threshold: Thresholds,
    margin: float,
    alpha: float,
) -> Floats:
    """Give how large an effect could be at all, (labels,): 1 where that is no question.

    Of decisions it is the share of the rarer one. A threshold that is not the model's makes them all alike, and so
    "equivalent" whatever the attribute does; not so where the probabilities are shown to stay within the margin too,
    as they are and stretched over what nearly all images span: those of a rare finding are all near 0. Answers that are
    decisions are what they are. Of probabilities it is how far the largest is from the smallest. A model that says the
    same of every image depends on nothing.
    """
    levels = list(contrast)
    probabilities = responses.values[:, levels]
    apart = np.asarray(np.ptp(probabilities, axis=(0, 1, 2)))
    if outcome == "probability":
        return np.where(apart == 0, 1.0, apart)
    positive = outcome_values(responses, outcome=outcome, threshold=threshold)[:, levels].mean(axis=(0, 1, 2))
    rarer = np.minimum(positive, 1 - positive)
    asked = (rarer < margin) & (apart > 0) & ~np.isin(probabilities, (0, 1)).all(axis=(0, 1, 2))
    if asked.any():
        low, high = np.quantile(probabilities, SPANNED, axis=(0, 1, 2))
        stretched = np.clip((responses.values - low) / np.maximum(high - low, np.finfo(float).tiny), 0, 1)
        shown = np.ones_like(asked)
        for values in (responses.values, stretched):
            effects = contrast_effects(
                replace(responses, values=values), contrast=contrast, alpha=alpha, outcome="probability"
            )
            same = equivalence_test(effects.mean, effects.most, margin=margin, outcome="probability", alpha=alpha)
            shown &= same.pvalue < alpha
        asked &= ~shown
    return np.where(asked, rarer, 1.0)
