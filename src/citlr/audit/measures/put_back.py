"""What moving an image and putting it back does to the answers: the control of edits.

Edits are drawn without noise, and a null intervention is the image itself, which nobody moved. So neither the coin nor
further draws show what interpolation leaves on an image that was moved: a model that reads those marks answers edited
images in another way than originals, whatever the level. An image that is moved as far and put back has the same
anatomy as before and twice the marks. What of an effect it leaves is the model's own: psi less the mean square change
by moving, and the mean effect less the change of images that have the one level and were moved to the other.
"""

from dataclasses import dataclass

import numpy as np

from citlr.audit.results.statistics import outcome_of
from citlr.config import TestConfig
from citlr.invariance.effects.clusters import Clusters, clustered_mean, signed_mean
from citlr.invariance.effects.intervals import signed_interval, skew_interval
from citlr.invariance.generator_error import Replicates, contrast_error, widen
from citlr.invariance.randomization.groups import product_statistic
from citlr.invariance.records import Estimate
from citlr.invariance.responses import Responses


@dataclass(frozen=True)
class PutBack:
    """What moving does to one label's answers, and what is left of the effects of one contrast without it.

    - `turned`: Mean square change by moving and putting back; of decisions, the share that it turns.
    - `psi`, `mean_effect`: Beyond that, with the generator's error in their intervals.
    """

    label: str
    contrast: tuple[str, str]
    turned: Estimate
    psi: Estimate
    mean_effect: Estimate


def measure_put_back(
    responses: Responses, *, settings: TestConfig, replicates: Replicates | None
) -> tuple[PutBack, ...]:
    """Measure every label at every contrast; nothing where no image was put back."""
    if responses.put_back is None or responses.original is None or responses.factual is None:
        return ()
    labels, clusters = responses.labels, Clusters.of(responses.patients)
    before, after, drawn = (
        np.stack([outcome_of(answers[..., k], label, settings) for k, label in enumerate(labels)], axis=-1)
        for answers in (responses.original, responses.put_back, responses.values)
    )
    marks = after - before
    decisions = settings.outcome == "decision"
    turned = skew_interval(clustered_mean(marks**2, clusters), alpha=settings.alpha, decisions=decisions)
    found = {}
    for contrast in responses.contrasts:
        pair = drawn[:, list(contrast)]
        psi = product_statistic(pair, shared_seeds=True) - marks**2
        # The image that has the one level was moved under the other.
        sign = np.array([(responses.factual == side).astype(float) for side in contrast])
        mean = (pair[:, 1] - pair[:, 0]).mean(axis=1) - (sign[0] - sign[1])[:, None] * marks
        error = None
        if replicates is not None:
            error = contrast_error(
                responses, replicates, contrast=contrast, outcome=settings.outcome, threshold=settings.threshold
            )
        intervals = [
            widen(signed_interval(signed_mean(values, clusters), alpha=settings.alpha), error, part, settings.alpha)
            for values, part in ((psi, "psi"), (np.clip(mean, -1, 1), "mean"))
        ]
        names = (responses.levels[contrast[0]], responses.levels[contrast[1]])
        for k, label in enumerate(labels):
            found[label, contrast] = PutBack(label, names, turned.at(k), *(one.at(k) for one in intervals))
    return tuple(found[label, contrast] for label in labels for contrast in responses.contrasts)
