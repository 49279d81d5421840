"""Any table and image folder: a study's own data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from citlr.data.cohort import Cohort, read_cohort
from citlr.errors import InputError, did_you_mean

# What `read_cohort` takes beyond the arguments below.
CHOICES = (
    *("attributes", "covariates", "columns", "levels", "bins", "keep", "split", "fractions", "seed", "fit"),
    *("lateral", "uncertain", "conflicts", "check", "max_unreadable", "workers", "narrator"),
)


def prepare_table(
    table: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    attribute: str,
    labels: Sequence[str],
    min_patients_per_level: int = 0,
    **choices: Any,
) -> Cohort:
    """Prepare a table with one row per image."""
    for name in choices:
        if name not in CHOICES:
            raise InputError(f"'{name}' is not a choice for a table.{did_you_mean(name, CHOICES)}")
    return read_cohort(
        table,
        images=Path(table).parent if images is None else images,
        attribute=attribute,
        labels=labels,
        min_patients_per_level=min_patients_per_level,
        **choices,
    )
