"""From a table and an image folder to a validated cohort: `read_cohort`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data import steps
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.pixels.checks import Check, drop_unreadable
from citlr.data.pixels.colour import require_channels
from citlr.data.pixels.square import FITS, Fit
from citlr.data.pixels.survey import KIND, SIZES
from citlr.data.preconditions import aside_covariates, note_marks, raw_counts, require_levels_to_learn, require_roles
from citlr.data.splits import assign_splits, read_split_names, require_disjoint
from citlr.data.tables.bins import UNCLEAR, cut_bins, is_age, numbers_of, read_ages
from citlr.data.tables.columns import pick_columns, wanted_columns
from citlr.data.tables.levels import levels_of, merge_covariate, name_levels, with_counts
from citlr.data.tables.numbers import asked_as_number, banded, is_number, note_codes, read_number, require_support
from citlr.data.tables.spellings import is_stated
from citlr.data.tables.vocabulary import OLDEST, Policy, raw_text
from citlr.errors import InputError, require_kind, require_known, require_names
from citlr.values import CountOrNone, check_value

_OPTIONAL = ("image_id", "age", "view")


@dataclass(frozen=True)
class _Roles:
    """What the columns of a table are to be."""

    source: str
    columns: Mapping[str, str]
    attributes: tuple[str, ...]
    labels: tuple[str, ...]
    covariates: tuple[str, ...]
    levels: Mapping[str, Any] | None
    bins: Mapping[str, Sequence[float]]

    def rules(self, attribute: str) -> Any:
        """Give the levels that were asked for of one attribute."""
        return levels_of(self.levels, attribute, self.attributes)


def _require_kinds(table: Any, images: Any, mappings: Mapping[str, Any]) -> None:
    require_kind(table, (str, os.PathLike, pd.DataFrame), "table", "a table of pandas, or the path of one")
    require_kind(images, (str, os.PathLike), "images", "the folder of the images")
    for name, given in mappings.items():
        require_kind({} if given is None else given, Mapping, name, "a mapping, such as {name: ...}")


def read_cohort(
    table: str | os.PathLike[str] | pd.DataFrame,
    *,
    images: str | os.PathLike[str],
    attribute: str,
    labels: Sequence[str],
    attributes: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    levels: Mapping[str, Any] | None = None,
    bins: Mapping[str, Sequence[float]] | None = None,
    keep: Mapping[str, Sequence[str] | str] | None = None,
    split: str | None = None,
    fractions: Sequence[float] = (0.65, 0.10, 0.25),
    seed: int = 0,
    fit: Fit = "pad",
    lateral: steps.Lateral = "drop",
    uncertain: steps.Uncertain = "error",
    conflicts: Policy = "drop",
    check: Check = "decode",
    max_unreadable: float = 0.01,
    min_patients_per_level: int = 20,
    workers: int = 2,
    narrator: Narrator = QUIET,
    channels: int = 1,
) -> Cohort:
    """Read a table and an image folder into a validated cohort, with the flow of exclusions.

    Parameters
    ----------
    table : path-like or DataFrame
        CSV, TSV, parquet or Excel, one row per image.
    images : path-like
        The folder that the table's paths are relative to.
    attribute : str
        The sensitive attribute; the split is stratified by it.
    labels : sequence of str
        Findings: 0, 1, blank, or -1 under `uncertain`.
    attributes : sequence of str, optional
        Further attributes.
    covariates : sequence of str
        Columns to carry along, such as `view`.
    columns : mapping of str to str, optional
        Our names (`image_id`, `path`, `patient_id`, `split`, `age`, `view`, attributes, labels, covariates) to the
        table's, where they differ. The path is the identifier where the table has no `image_id`.
    levels : mapping, optional
        Attribute to {raw value: level name} or to the list of allowed values; for a single attribute the inner mapping
        alone will do. Values that it does not name stop the run. Spellings of a listed value are read as that value;
        spellings of a sex are one level without being asked, and other values that differ by case only stop the run.
        Of a number of more than eight different values, such as an age, they are the numbers that it is to be redrawn
        at, `[30, 50, 70]`: it stays a number, and all rows are kept.
    bins : mapping of str to sequence of float, optional
        Attribute to the inner edges of groups of a number: `{"age_group": [40, 60]}`; ages are read as the column `age`
        is.
    keep : mapping, optional
        Column to the values (after `levels`) of the rows to keep.
    split : str, optional
        The column with a given split; a seeded split by patient is drawn without it.
    fractions : sequence of three floats
        Shares of patients in train, validation and test of a drawn split.
    seed : int
        Seed of a drawn split.
    fit : {"pad", "crop", "stretch"}
        How rectangles become squares.
    lateral : {"drop", "keep"}
        Whether images known to be lateral are left out, by `view` or the header of a DICOM file.
    uncertain : {"error", "ignore", "zeros", "ones"}
        What a label of -1 means.
    conflicts : {"drop", "first", "majority"}
        What to do with a patient whose records disagree on sex, race or ethnicity.
    check : {"decode", "structure", "exists", "none"}
        How thoroughly the image files are looked at; see `citlr.data.pixels.checks.drop_unreadable`.
    max_unreadable : float
        The share of unreadable images above which the run stops.
    min_patients_per_level : int
        The fewest patients that each level of `attribute` may have in the test split.
    workers : int
        Threads that look at the images.
    narrator : Narrator
        Shows progress.
    channels : {1, 3}
        Grey, which colour pictures are turned into, or red, green and blue.

    Returns
    -------
    Cohort

    Raises
    ------
    InputError
        For everything in the table or the folder that an audit could not stand on, in one sentence.
    """
    _require_kinds(table, images, {"columns": columns, "bins": bins, "keep": keep})
    attributes = require_names(() if attributes is None else attributes, "attributes")
    labels, covariates = require_names(labels, "labels"), require_names(covariates, "covariates")
    require_known(lateral, get_args(steps.Lateral), f"lateral='{lateral}' is not known")
    require_known(fit, FITS, f"fit='{fit}' is not known")
    workers = check_value("workers", workers, CountOrNone)
    min_patients_per_level = check_value("min_patients_per_level", min_patients_per_level, CountOrNone)
    source = "The table" if isinstance(table, pd.DataFrame) else str(table)
    names = (attribute, *(name for name in attributes if name != attribute))
    wanted = wanted_columns(
        [*names, *labels, *covariates, *(keep or {})], columns or {}, split=split, optional=_OPTIONAL
    )
    roles = _Roles(source, wanted, names, tuple(labels), tuple(covariates), levels, bins or {})
    require_roles(names, labels, covariates, wanted)
    recorder = FlowRecorder(pick_columns(table, wanted, source=source, optional=_OPTIONAL))
    recorder.start("table", f"rows of {Path(source).name}")
    steps.identify(recorder, source=source)
    raw = {f"raw {name}": raw_text(recorder.frame[name]) for name in names}
    recorder.frame = recorder.frame.assign(**raw)
    named = _read_attributes(recorder, roles, conflicts)
    _read_covariates(recorder, roles)
    steps.apply_keep(recorder, keep or {})
    for label in labels:
        recorder.frame[label] = steps.read_labels(recorder.frame[label], uncertain=uncertain, source=source)
        steps.note_absent(recorder, label)
    if "age" not in names:
        _read_age(recorder, roles)
    root = Path(images)
    steps.complete_paths(recorder, root)
    if lateral == "drop":
        steps.drop_lateral(recorder, root)
    require_channels(channels)
    white = drop_unreadable(
        recorder,
        root,
        check=check,
        max_unreadable=max_unreadable,
        workers=workers,
        narrator=narrator,
        channels=channels,
    )
    note_marks(recorder, names, covariates)
    done = recorder.frame
    number = is_number(done[attribute])
    for name in names:
        if not is_number(done[name]):
            steps.require_levels(done, name, source=source, wanted=roles.rules(name))
    if split is None:
        done["split"] = assign_splits(done, fractions=fractions, stratify=banded(done[attribute]), seed=seed)
    else:
        done["split"] = read_split_names(done["split"])
        require_disjoint(done)
    if number:
        values = [str(level) for level in roles.rules(attribute)]
        ages = is_age((attribute, wanted[attribute]), recorder.frame[f"raw {attribute}"])
        require_support(recorder, attribute, values, source=source, minimum=min_patients_per_level, ages=ages)
    else:
        steps.require_patients_per_level(done, attribute, minimum=min_patients_per_level)
    if not number and min_patients_per_level and (done["split"] == "train").any():
        require_levels_to_learn(done, attribute)
    kept = aside_covariates(recorder, covariates)
    for remark in recorder.remarks():
        narrator.say(f"Remark: {remark}.")
    return Cohort(
        done.drop(columns=[*raw, *{*SIZES, KIND}.difference(wanted)], errors="ignore"),
        root,
        attributes=names,
        labels=roles.labels,
        covariates=kept,
        flow=tuple(recorder.steps),
        raw=raw_counts(done, raw, named),
        fit=fit,
        white=white,
        channels=channels,
    )


def _read_attributes(recorder: FlowRecorder, roles: _Roles, conflicts: Policy) -> dict[str, dict[str, str]]:
    """Read the attributes; give the levels that raw values were named, where they were."""
    for name in roles.bins:
        require_known(name, roles.attributes, f"`bins` names '{name}', which is no attribute here")
    named = {}
    for name in roles.attributes:
        column, rules = roles.columns[name], roles.rules(name)
        number = name not in roles.bins and asked_as_number(recorder.frame[name], rules, source=roles.source)
        if number or name in roles.bins:
            stated = is_stated(recorder.frame[name])
            words = raw_text(recorder.frame[name])[~stated]
            recorder.keep(stated, name, f"{name}: not stated{with_counts(words)}")
        if name in roles.bins:
            raw = recorder.frame[name]
            ages = is_age((name, column), raw)
            numbers = numbers_of(raw, source=roles.source, ages=ages, column=column)
            note_codes(recorder, name, numbers, step=name, ages=ages)
            binned = cut_bins(raw, roles.bins[name], source=roles.source, ages=ages, column=column)
            recorder.frame[name] = binned
            recorder.keep(binned.notna() | (raw_text(raw) == ""), name, f"{name}: {UNCLEAR}")
        steps.drop_blank(recorder, name, step=name, what=name)
        if number:
            read_number(recorder, name, source=roles.source, column=column)
            continue
        levels = name_levels(recorder, name, rules, source=roles.source, column=column, conflicts=conflicts)
        if name not in roles.bins:
            named[name] = levels
    return named


def _read_age(recorder: FlowRecorder, roles: _Roles) -> None:
    if "age" not in recorder.frame:
        return
    stated = is_stated(recorder.frame["age"])
    if not stated.all():
        words = with_counts(raw_text(recorder.frame["age"])[~stated])
        recorder.start("covariates", f"'age' is a number: words count as not stated{words}")
    raw = recorder.frame["age"].where(stated)
    try:
        recorder.frame["age"] = read_ages(raw, source=roles.source, column=roles.columns["age"])
    except InputError as error:
        if "age" in roles.covariates:
            raise
        # Nobody asked for it: it stops nothing, and no subgroup is made of it.
        recorder.frame["age"] = np.nan
        recorder.start("covariates", f"the age is not used: {error}")
        return
    note_codes(recorder, "age", recorder.frame["age"], ages=True)
    above = int((recorder.frame["age"].isna() & (raw_text(raw) != "")).sum())
    if above:
        recorder.start("covariates", f"ages above {OLDEST:g} years count as not stated ({above})")


def _read_covariates(recorder: FlowRecorder, roles: _Roles) -> None:
    for name in roles.covariates:
        if name not in (*roles.labels, "age"):
            raw = recorder.frame[name]
            recorder.frame[name] = steps.read_numbers(raw, source=roles.source)
            words = raw[recorder.frame[name].isna() & raw.notna()].astype(str)
            if len(words):
                recorder.start("covariates", f"'{name}' is a number: words count as not stated{with_counts(words)}")
            merge_covariate(recorder, name)
            if is_number(recorder.frame[name]):
                note_codes(recorder, name, recorder.frame[name])
