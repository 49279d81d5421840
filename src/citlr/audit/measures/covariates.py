"""What is held, and what else is recorded of an image, as columns of numbers that a regression can take."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

# A number of no more different values than this has a column for each.
FEW_VALUES = 10


def coded(frame: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Code columns as numbers (n, m): a column per value but the first, standardised numbers, flags of missing ones."""
    parts: list[npt.NDArray[np.float64]] = []
    for name in dict.fromkeys(names):
        column = frame[name]
        missing = column.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > FEW_VALUES:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            centre, spread = np.nanmean(values), np.nanstd(values) or 1.0
            parts.append(np.asarray(np.where(missing, 0.0, (values - centre) / spread)[:, None], dtype=np.float64))
        else:
            text = column.astype(str).to_numpy()
            others = np.unique(text[~missing])[1:]
            parts.append(((text[:, None] == others) & ~missing[:, None]).astype(np.float64))
        if missing.any() and not missing.all():
            parts.append(missing[:, None].astype(np.float64))
    return np.concatenate([np.empty((len(frame), 0)), *parts], axis=1)
