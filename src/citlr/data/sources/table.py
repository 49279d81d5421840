"""Any table and image folder: a study's own data."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from citlr.data.cohort import Cohort
from citlr.data.reading import read_cohort
from citlr.errors import require_known

# What `read_cohort` takes beyond the arguments below.
_OWN = ("table", "images", "attribute", "labels", "min_patients_per_level")
CHOICES = tuple(name for name in inspect.signature(read_cohort).parameters if name not in _OWN)


def prepare_table(
    table: str | Path, *, images: str | Path | None = None, attribute: str, labels: Sequence[str], **choices: Any
) -> Cohort:
    """Prepare a table with one row per image."""
    for name in choices:
        require_known(name, CHOICES, f"'{name}' is not a choice for a table")
    return read_cohort(
        table,
        images=Path(table).parent if images is None else images,
        attribute=attribute,
        labels=labels,
        min_patients_per_level=0,
        **choices,
    )
