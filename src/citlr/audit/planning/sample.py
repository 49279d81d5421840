"""A few images of every split that a pilot is made on: every level and every held value is among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.preconditions import blank_unlearnt
from citlr.data.tables.numbers import MAX_CATEGORIES


def sample_of(cohort: Cohort, counts: dict[str, int], *, seed: int) -> Cohort:
    """Keep about so many images of every split, of different patients where there are as many."""
    frame, random = cohort.frame, np.random.default_rng(seed)
    kept = [some(frame[frame["split"] == split], cohort, count, random) for split, count in counts.items()]
    found = cohort.take(np.sort(np.concatenate(kept)))
    recorder = FlowRecorder(found.frame)
    # What the few training images do not have counts as not stated, as it would in a cohort of these images.
    blank_unlearnt(recorder, found.covariates)
    return replace(found, frame=recorder.frame)


def some(part: pd.DataFrame, cohort: Cohort, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw rows of a split: in turn one of every value of every column of few values, until there are enough."""
    order = part.index.to_numpy()[random.permutation(len(part))]
    repeat = part.loc[order].groupby("patient_id").cumcount().to_numpy()
    order = order[np.argsort(repeat, kind="stable")]
    columns = [*cohort.attributes, *cohort.labels, *cohort.covariates]
    queues = [
        list(order[(part.loc[order, name] == value).to_numpy()])
        for name in columns
        if part[name].nunique() <= MAX_CATEGORIES
        for value in part[name].dropna().unique()
    ]
    chosen: dict[int, None] = {}
    while len(chosen) < min(count, len(part)) and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue:
                chosen[queue.pop(0)] = None
    return np.fromiter(chosen, dtype=np.int64)
