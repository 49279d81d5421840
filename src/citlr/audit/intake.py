"""The first stage: the cohort that the configuration names, from a table or from `citlr prepare`."""

from dataclasses import replace

import pandas as pd

from citlr.config import CohortConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.pixels.checks import Check
from citlr.data.pixels.shards import CachePixels
from citlr.data.preconditions import (
    aside_covariates,
    blank_unlearnt,
    note_labels,
    require_levels_to_learn,
    require_roles,
)
from citlr.data.reading import read_cohort
from citlr.data.splits import require_disjoint
from citlr.data.steps import drop_blank, require_levels, require_own_files, require_patients_per_level
from citlr.data.tables.bins import is_age
from citlr.data.tables.columns import require_unique
from citlr.data.tables.levels import require_few, with_counts
from citlr.data.tables.numbers import MAX_CATEGORIES, is_number, require_support
from citlr.data.tables.printable import require_printable
from citlr.data.tables.spellings import level_text
from citlr.doses import as_numbers
from citlr.errors import InputError, require_known
from citlr.text import joined, shortened


def audited_cohort(settings: CohortConfig, *, narrator: Narrator, check: Check = "decode") -> Cohort:
    """Read the cohort of an audit, split by patient; `check` is how thoroughly image files are looked at."""
    require_roles(_parts(settings), settings.labels, settings.covariates)
    if settings.combine:
        require_roles((settings.attribute,), settings.labels, settings.covariates)
    if settings.images is None:
        return _prepared(settings, narrator)
    joint = bool(settings.combine)
    cohort = read_cohort(
        settings.table,
        images=settings.images,
        attribute=_parts(settings)[0],
        attributes=_parts(settings),
        labels=settings.labels,
        covariates=settings.covariates,
        columns=settings.columns,
        levels=None if joint or settings.levels is None else {settings.attribute: list(settings.levels)},
        bins=settings.bins,
        keep=settings.keep or None,
        uncertain=settings.uncertain,
        split=settings.split,
        fractions=settings.fractions,
        seed=settings.split_seed,
        fit=settings.fit or "pad",
        channels=settings.channels or 1,
        check=check,
        max_unreadable=settings.max_unreadable,
        # Levels of a part are not what is compared: one without a test patient may be in no combination that is.
        min_patients_per_level=0 if joint else settings.min_patients_per_level,
        narrator=narrator,
    )
    if not joint:
        return _checked(cohort, settings, narrator)
    combined = _combined(cohort, settings)
    drawn = combined if settings.split else replace(combined, frame=combined.frame.drop(columns="split"))
    return _checked(drawn, settings, narrator)


def _parts(settings: CohortConfig) -> tuple[str, ...]:
    """Name the columns that the attribute is made of."""
    return settings.combine or (settings.attribute,)


def _combined(cohort: Cohort, settings: CohortConfig) -> Cohort:
    """Make the joint attribute of several: its levels are the combinations that occur, or those asked for."""
    parts = cohort.frame[list(settings.combine)].astype(str)
    for name in settings.combine:
        if is_number(cohort.frame[name]):  # of a prepared cohort, and named as a table's own is
            parts[name] = level_text(cohort.frame[name])
            require_few(parts[name].unique(), name, str(settings.table))
    joint = parts.agg(", ".join, axis=1)
    _require_apart(joint, parts)
    there, parted = {*joint}, ", ".join(settings.combine)
    for level in sorted(settings.levels or ()):
        require_known(level, there, f"No image has the combination '{level}' of {parted} (cohort.levels)")
    made = replace(cohort, frame=cohort.frame.assign(**{settings.attribute: joint}), attributes=(settings.attribute,))
    return _of_levels(made, settings)


def _of_levels(cohort: Cohort, settings: CohortConfig) -> Cohort:
    """Leave out the images of other levels than were asked for, and count them in the flow."""
    name, recorder = settings.attribute, FlowRecorder(cohort.frame, steps=cohort.flow)
    chosen = cohort.frame[name].isin(settings.levels or [*cohort.frame[name]])
    if not chosen.any():  # refused below, with the levels that there are
        return cohort.take([])
    if settings.levels:
        others = with_counts(cohort.frame.loc[~chosen, name].astype(str))
        recorder.keep(chosen, name, f"{name} is not {shortened(joined(settings.levels, 'or'), 400)}{others}")
    return replace(cohort, frame=recorder.frame, flow=tuple(recorder.steps))


def _require_apart(joint: pd.Series, parts: pd.DataFrame) -> None:
    """Refuse two combinations that are written alike, as "a, b" with "c" and "a" with "b, c": one level of two."""
    distinct = parts.assign(joint=joint).drop_duplicates()
    alike = distinct[distinct["joint"].duplicated(keep=False)]
    if len(alike):
        name = alike["joint"].iloc[0]
        first, second = (
            " with ".join(f"'{value}'" for value in row)
            for row in alike.loc[alike["joint"] == name, parts.columns].head(2).to_numpy()
        )
        raise InputError(
            f"The combinations {first} and {second} of {', '.join(map(str, parts.columns))} are both called '{name}': "
            "take the commas out of these values, or leave them out with `keep`."
        )


def _checked(cohort: Cohort, settings: CohortConfig, narrator: Narrator) -> Cohort:
    """Draw the split if there is none, and refuse what is too small to audit."""
    if "split" not in cohort.frame:
        parts = cohort.split(fractions=settings.fractions, stratify=settings.attribute, seed=settings.split_seed)
        split = {image: part.frame["split"].iloc[0] for part in parts for image in part.frame["image_id"]}
        cohort = replace(cohort, frame=cohort.frame.assign(split=cohort.frame["image_id"].map(split)))
    frame, attribute, where = cohort.frame, settings.attribute, str(settings.table)
    recorder = FlowRecorder(frame, steps=cohort.flow)
    if not is_number(frame[attribute]):
        require_printable(frame[attribute].unique(), f"{where}: a level of '{attribute}'")
        require_levels(frame, attribute, source=where, wanted=settings.levels)
        require_patients_per_level(frame, attribute, minimum=settings.min_patients_per_level)
        require_levels_to_learn(frame, attribute)
    elif settings.images is None:  # a table's own was looked at when it was read
        assert settings.levels is not None
        minimum, ages = settings.min_patients_per_level, is_age((attribute,), frame[attribute])
        require_support(recorder, attribute, settings.levels, source=where, minimum=minimum, ages=ages)
    kept = aside_covariates(recorder, cohort.covariates)
    blank_unlearnt(recorder, kept)
    note_labels(recorder, cohort.labels)
    for remark in recorder.remarks(len(cohort.flow)):
        narrator.say(f"Remark: {remark}.")
    return replace(cohort, frame=recorder.frame, covariates=kept, flow=tuple(recorder.steps))


def _prepared(settings: CohortConfig, narrator: Narrator) -> Cohort:
    """Open a cohort that `citlr prepare` wrote, and cut it down to what the audit needs."""
    where = str(settings.table)
    whole = Cohort.from_parquet(settings.table, cache=settings.cache)
    if isinstance(whole.source, CachePixels):
        narrator.say(f"cohort: pixels up to {whole.source.size} x {whole.source.size} from {whole.source.folder}")
    read = ("columns", "keep", "fit", "channels", "bins", "uncertain", "max_unreadable")
    for key in (*read, "split", "fractions", "split_seed"):
        if getattr(settings, key) != CohortConfig.model_fields[key].default:
            raise InputError(
                f"cohort.{key} cannot be set for the prepared cohort '{where}': prepare it that way instead."
            )
    for name in (*_parts(settings), *settings.labels, *settings.covariates):
        require_known(name, whole.frame, f"The prepared cohort '{where}' has no column '{name}'")
    require_unique(whole.frame["image_id"], source=where, what="image ids")
    require_own_files(whole.frame, source=where)
    require_disjoint(whole.frame)
    recorder = FlowRecorder(whole.frame, steps=whole.flow)
    for name in _parts(settings):
        drop_blank(recorder, name, step=name, what=name)
    whole = replace(whole, frame=recorder.frame, flow=tuple(recorder.steps))
    kept = _combined(whole, settings) if settings.combine else _with_levels(whole, settings)
    narrowed = replace(kept, attributes=(settings.attribute,), labels=settings.labels, covariates=settings.covariates)
    return _checked(narrowed, settings, narrator)


def _with_levels(cohort: Cohort, settings: CohortConfig) -> Cohort:
    """Keep the images of the levels that were asked for; a number that is to be redrawn at some values stays whole."""
    name, levels = settings.attribute, settings.levels
    column = cohort.frame[name]
    if (
        is_number(column)
        and levels is not None
        and as_numbers(levels) is not None
        and column.nunique() > MAX_CATEGORIES
    ):
        return cohort
    if is_number(column):
        cohort = replace(cohort, frame=cohort.frame.assign(**{name: level_text(column)}))
        require_few(cohort.frame[name].unique() if levels is None else (), name, str(settings.table))
    return _of_levels(cohort, settings)
