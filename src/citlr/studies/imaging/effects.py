"""Numbers of the imaging study that an audit does not give: AUROC by level, the paired t-test, the true effect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from citlr.audit.prediction import ORIGINAL
from citlr.data.cohort import Cohort
from citlr.invariance.effects.auroc import clustered_auroc
from citlr.run.rows import Row
from citlr.studies.imaging.study import ImagingStudy

Floats = npt.NDArray[np.float64]


def factual_auroc(responses: pd.DataFrame, test: Cohort, study: ImagingStudy) -> list[Row]:
    """Give the AUROC of every label on the original images of every level, and of all: Tables 2 and 3."""
    originals = responses[responses["draw"] == ORIGINAL]
    frame, rows = test.frame, []
    for label in study.labels:
        own = originals[originals["label"] == label].set_index("image_id")["probability"]
        score = own.loc[frame["image_id"]].to_numpy(float)
        for level in ("all", *study.levels):
            here = np.ones(len(frame), bool) if level == "all" else (frame[study.attribute] == level).to_numpy()
            area = clustered_auroc(
                score[here], frame[label].to_numpy(float)[here], frame["patient_id"].to_numpy(str)[here]
            )
            rows.append({"label": label, "level": level, **vars(area)})
    return rows


def paired_change(responses: pd.DataFrame, label: str, contrast: tuple[str, str]) -> Row:
    """Test that the mean output is the same under both levels: Tables 12 and 13.

    Draws are averaged within an image and images within a patient, so that patients are the pairs of the t-test.
    """
    own = responses[(responses["draw"] >= 0) & (responses["label"] == label)]
    means = own.pivot_table(
        index=["patient_id", "image_id"], columns="level", values="probability", aggfunc="mean", observed=True
    )
    change = (means[contrast[1]] - means[contrast[0]]).groupby("patient_id").mean().to_numpy(float)
    found = {"paired_t": 0.0, "paired_p": 1.0, "paired_difference": float(change.mean())}
    if len(change) > 1 and np.ptp(change) > 0:
        test = stats.ttest_1samp(change, 0.0)
        found |= {"paired_t": float(test.statistic), "paired_p": float(test.pvalue)}
    return {**found, "paired_patients": len(change)}


def true_values(
    outcome: Mapping[str, Floats],
    decided: Mapping[str, npt.NDArray[np.bool_]],
    factual: npt.NDArray[np.str_],
    contrast: tuple[str, str],
) -> Row:
    """Give the true psi, mean effect and ECA from outputs on the true images under every level.

    Shapes: `outcome` (n,), `decided` (n,), `factual` (n,).
    """
    change = outcome[contrast[1]] - outcome[contrast[0]]
    levels = list(decided)
    table = np.stack([decided[level] for level in levels], axis=1)
    own = table[np.arange(len(factual)), [levels.index(level) for level in factual]]
    return {
        "true_psi": float(np.mean(change**2)),
        "true_mean_effect": float(np.mean(change)),
        "true_eca": float((table == own[:, None]).mean()),
    }
