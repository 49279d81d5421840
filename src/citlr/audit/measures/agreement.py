"""Does the model answer null interventions as it answers originals? If not, redrawing has taken what it looks at.

A null intervention redraws an image under the level that it has. A model that reads what the generator does not draw
(texture finer than its pixels, say) gives other answers there, and its answers under other levels say nothing of how it
treats real images.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

from citlr.audit.results.records import Agreement
from citlr.audit.results.statistics import recorded_of
from citlr.config import TestConfig
from citlr.invariance.effects.clusters import Clusters, clustered_mean
from citlr.invariance.effects.intervals import wilson_interval
from citlr.invariance.operating_point import reaches, thresholds
from citlr.invariance.records import Estimate
from citlr.invariance.responses import Responses

Floats = npt.NDArray[np.float64]


def measure_agreement(responses: Responses, cohort: pd.DataFrame, *, settings: TestConfig) -> tuple[Agreement, ...]:
    """Compare the model's outputs on null interventions and on originals, label by label."""
    null, recorded = responses.null, responses.recorded
    if responses.original is None or null is None or recorded is None:
        note = "no image was redrawn under the level that it has"
        return tuple(Agreement(label, 0, 0, None, None, note=note) for label in responses.labels)
    known = recorded_of(cohort, responses.units)
    found = []
    for k, label in enumerate(responses.labels):
        truth = known[label].to_numpy(float) if label in known else None
        sides = (responses.original[:, k], null[..., k])
        found.append(_of_label(label, *sides, recorded, truth, responses.patients, settings))
    return tuple(found)


def _of_label(
    label: str,
    before: Floats,
    after: Floats,
    recorded: npt.NDArray[np.object_],
    truth: Floats | None,
    patients: npt.NDArray[np.object_],
    settings: TestConfig,
) -> Agreement:
    """Compare outputs on originals (n,) with those on null interventions (n, draws)."""
    cut = thresholds(settings.threshold, [label])[0]
    same = (reaches(after, cut) == reaches(before, cut)[:, None]).mean(axis=1)
    mean = clustered_mean(same[:, None], Clusters.of(patients))
    share = wilson_interval(mean, alpha=settings.alpha)
    decisions = Estimate(*(float(part[0]) for part in (share.estimate, share.low, share.high)))
    rank = float(np.mean([_rank(before, after[:, draw]) for draw in range(after.shape[1])]))
    attribute = {
        level: found
        for level in dict.fromkeys(sorted(recorded.tolist()))
        if (found := _aurocs(recorded == level, before, after)) is not None
    }
    of_label = None
    if truth is not None:
        given = ~np.isnan(truth)
        of_label = _aurocs(truth[given] == 1, before[given], after[given])
    flat = [side for side, of in (("the originals", before), ("images redrawn as they are", after)) if np.ptp(of) == 0]
    note = f"{' and '.join(flat)} all get one and the same output" if flat else ""
    return Agreement(label, len(before), len(np.unique(patients)), decisions, rank, attribute, of_label, note)


def _rank(a: Floats, b: Floats) -> float:
    """Rank correlation; 1 where both are the same everywhere, 0 where only one is: that says nothing of the other."""
    flat = (np.ptp(a) == 0, np.ptp(b) == 0)
    if any(flat):
        return float(all(flat))
    return float(stats.spearmanr(a, b).statistic)


def _aurocs(positive: npt.NDArray[np.bool_], before: Floats, after: Floats) -> tuple[float, float] | None:
    """AUROC of the outputs on originals, and its mean over draws of null interventions; None with one outcome only."""
    if positive.all() or not positive.any():
        return None
    drawn = [float(roc_auc_score(positive, after[:, draw])) for draw in range(after.shape[1])]
    return float(roc_auc_score(positive, before)), float(np.mean(drawn))
