"""What outputs leave room for: where nearly all decisions are alike, no model could be found to exceed a margin."""

import numpy as np

from citlr.invariance.effects.clusters import Floats
from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.estimates import Outcome, contrast_effects, outcome_values
from citlr.invariance.responses import Responses
from citlr.values import Thresholds


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
    and could exceed it: those of two images differ by as much on average (root mean square). Answers that are decisions
    are what they are. Of probabilities it is how far the largest is from the smallest. A model that says the same of
    every image depends on nothing.
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
        effects = contrast_effects(responses, contrast=contrast, alpha=alpha, outcome="probability")
        same = equivalence_test(effects.mean, effects.most, margin=margin, outcome="probability", alpha=alpha)
        asked &= (same.pvalue >= alpha) | (np.sqrt(2) * probabilities.std(axis=(0, 1, 2)) < margin)
    return np.where(asked, rarer, 1.0)
