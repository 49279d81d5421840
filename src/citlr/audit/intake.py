"""The first stage: the cohort that the configuration names, from a table or from `citlr prepare`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from citlr.config import CohortConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort, read_cohort
from citlr.data.shards import CachePixels
from citlr.data.steps import require_levels, require_patients_per_level
from citlr.errors import InputError, did_you_mean


def take_in(settings: CohortConfig, *, narrator: Narrator) -> Cohort:
    """Read the cohort of an audit, split by patient.

    Parameters
    ----------
    settings : CohortConfig
        A table with its image folder, or a prepared `cohort.parquet` (then `images` is left out).
    narrator : Narrator
        Says what goes on.

    Returns
    -------
    Cohort
        With the attribute first, and the labels and covariates that the audit needs.

    Raises
    ------
    InputError
        If the cohort cannot carry the audit; says what was found and what would do.
    """
    if settings.images is None:
        return _prepared(settings, narrator)
    return read_cohort(
        settings.table,
        images=settings.images,
        attribute=settings.attribute,
        labels=settings.labels,
        covariates=settings.covariates,
        columns=settings.columns,
        levels=None if settings.levels is None else {settings.attribute: list(settings.levels)},
        keep=settings.keep or None,
        split=settings.split,
        fractions=settings.fractions,
        seed=settings.split_seed,
        fit=settings.fit or "pad",
        max_unreadable=settings.max_unreadable,
        min_patients_per_level=settings.min_patients_per_level,
        narrator=narrator,
    )


def _prepared(settings: CohortConfig, narrator: Narrator) -> Cohort:
    """Open a cohort that `citlr prepare` wrote, and cut it down to what the audit needs."""
    where = str(settings.table)
    whole = Cohort.from_parquet(settings.table, cache=settings.cache)
    if isinstance(whole.source, CachePixels):
        narrator.say(f"cohort: pixels up to {whole.source.size} x {whole.source.size} from {whole.source.folder}")
    for key in ("columns", "keep", "split", "fit"):
        if getattr(settings, key):
            raise InputError(
                f"cohort.{key} cannot be set for the prepared cohort '{where}': prepare it that way instead."
            )
    for name in (settings.attribute, *settings.labels, *settings.covariates):
        if name not in whole.frame:
            near = did_you_mean(name, map(str, whole.frame.columns))
            raise InputError(f"The prepared cohort '{where}' has no column '{name}'.{near}")
    level = whole.frame[settings.attribute]
    chosen = level.notna() & (level.isin(settings.levels) if settings.levels is not None else True)
    kept = whole.take(np.flatnonzero(chosen.to_numpy()))
    narrowed = replace(kept, attributes=(settings.attribute,), labels=settings.labels, covariates=settings.covariates)
    if "split" not in narrowed.frame:
        parts = narrowed.split(fractions=settings.fractions, stratify=settings.attribute, seed=settings.split_seed)
        split = {image: part.frame["split"].iloc[0] for part in parts for image in part.frame["image_id"]}
        narrowed = replace(narrowed, frame=narrowed.frame.assign(split=narrowed.frame["image_id"].map(split)))
    require_levels(narrowed.frame, settings.attribute, source=where)
    require_patients_per_level(narrowed.frame, settings.attribute, minimum=settings.min_patients_per_level)
    return narrowed
