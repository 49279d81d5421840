"""What of a data set becomes a cohort: one set of choices, and one way through them, for every source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pandas as pd

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder, count_raw
from citlr.data.pixels.checks import Check, drop_unreadable
from citlr.data.pixels.square import Fit
from citlr.data.preconditions import note_marks
from citlr.data.splits import assign_splits, require_disjoint
from citlr.data.steps import Blank, read_labels, require_levels, require_own_files
from citlr.data.tables.bins import cut_bins
from citlr.data.tables.columns import refuse_unsafe_paths, require_unique
from citlr.data.tables.levels import with_counts
from citlr.data.tables.numbers import note_codes
from citlr.data.tables.printable import require_exact
from citlr.data.tables.vocabulary import FRONTAL, RACES, SEX, STUDY_RACES, UNKNOWN, Policy, raw_text, resolve, translate
from citlr.errors import InputError, require_known

Views = Literal["frontal", "all"]
SplitChoice = Literal["auto", "official", "drawn"]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The choices of a study; every default is the publication's where it states one.

    - `attributes`: Sensitive attributes, the main one first: `race`, `sex`, `hispanic`, `age_group`, as far as the
      source has them; the source's own default without it.
    - `labels`: Findings, by the data set's own names; the source's own default without it.
    - `views`: Whether lateral, oblique and unstated views are left out.
    - `races`: The levels of `race` that are studied.
    - `conflicts`: What to do with a patient whose records disagree on an attribute.
    - `uncertain`: What a label of -1 becomes: not stated, absent or present.
    - `blank`: What a label that the report does not mention becomes: absent, as CheXpert's baseline reads it, or not
      stated.
    - `age_edges`: Inner edges of `age_group`.
    - `age_cap`: The one value that every age above 89 gets; None keeps ages as they are.
    - `min_age`: Younger patients, and those without a stated age, are left out when this is above 0.
    - `allow_unknown`: Whether strings outside the vocabulary count as unknown instead of stopping the run.
    - `split`: The data set's own split, a seeded one by patient, or the own one if it has a test part.
    - `fractions`: Shares of patients of a drawn split.
    - `check`: How thoroughly image files are looked at.
    - `max_unreadable`: The share of missing or unreadable images above which the run stops.
    - `fit`: How rectangles become squares.
    """

    attributes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    views: Views = "frontal"
    races: tuple[str, ...] = STUDY_RACES
    conflicts: Policy = "drop"
    uncertain: Literal["ignore", "zeros", "ones"] = "ignore"
    blank: Blank = "zeros"
    age_edges: tuple[float, ...] = (40.0, 60.0)
    age_cap: float | None = 90.0
    min_age: float = 0.0
    allow_unknown: bool = False
    split: SplitChoice = "auto"
    fractions: tuple[float, float, float] = (0.65, 0.10, 0.25)
    seed: int = 0
    check: Check = "exists"
    max_unreadable: float = 0.01
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        hints = get_type_hints(Study)
        choices = [(name, get_args(hint)) for name, hint in hints.items() if get_origin(hint) is Literal]
        given = [(name, getattr(self, name), allowed) for name, allowed in choices]
        for name, value, allowed in (*given, *(("races", race, RACES[:-1]) for race in self.races)):
            require_known(value, allowed, f"{name}='{value}' is not a choice")
        if self.age_cap is not None and any(edge > self.age_cap for edge in self.age_edges):
            raise InputError(
                f"age_edges={self.age_edges} has an edge above age_cap={self.age_cap:g}, the one age of everybody "
                "older; take the edge out, or keep ages as they are with --age-cap 0."
            )


DEFAULT = Study()


@dataclass(frozen=True)
class Source:
    """What a data set is, as far as its own file has to tell the way through.

    - `attributes`: What it records: the choices, in the order of the default.
    - `default_attributes`: Which of them are taken without a choice.
    - `channels`: 1 where its images are read as grey, 3 where in colour.

    What it wrote for an attribute is in the column `raw_NAME` of the frame, where there is one.
    """

    name: str
    root: Path
    attributes: tuple[str, ...]
    default_attributes: tuple[str, ...]
    covariates: tuple[str, ...] = ("view", "age")
    channels: int = 1


def chosen_attributes(study: Study, source: Source) -> tuple[str, ...]:
    """Give the attributes of the study; one that the source does not record is refused."""
    chosen = study.attributes or source.default_attributes
    for name in chosen:
        require_known(name, source.attributes, f"{source.name} does not record '{name}'")
    return tuple(chosen)


def chosen_labels(study: Study, known: Sequence[str], default: Sequence[str], *, source: str) -> tuple[str, ...]:
    """Give the labels of the study; one that the source does not have is refused with the nearest."""
    labels = tuple(study.labels or default)
    for label in labels:
        require_known(label, known, f"{source} has no label '{label}'")
    return labels


def class_labels(
    frame: pd.DataFrame, study: Study, known: Sequence[str], default: Sequence[str], *, source: str, table: str
) -> tuple[str, ...]:
    """Add a column of 0 and 1 for each label of the study, a class of `diagnosis`; one that is not known is refused."""
    labels, found = chosen_labels(study, known, default, source=source), frame["diagnosis"]
    strange = sorted({*found} - {*known, ""})
    if strange and not study.allow_unknown:
        raise InputError(
            f"{table} holds classes that it is not known to have: {', '.join(strange[:10])}. Use --allow-unknown to "
            "count them as none of the labels."
        )
    for label in labels:
        frame[label] = (found == label).astype(float).where(found != "")
    return labels


def add_sex(frame: pd.DataFrame, study: Study, *, source: str) -> None:
    """Keep the sex as it is recorded, and put it in this project's words."""
    frame["raw_sex"] = frame["sex"]
    frame["sex"] = translate(frame["sex"], SEX, source=source, what="sex", allow_unknown=study.allow_unknown)


def begin(frame: pd.DataFrame, study: Study, source: Source, *, table: str) -> FlowRecorder:
    """Start the flow of a table, whose rows are all there: what a patient's records disagree on is settled first.

    The columns are those of `complete`, as far as they are known by now; `table` names the file for the flow.
    """
    for name in source.attributes:
        if name in frame and name != "age_group":
            frame[f"named_{name}"] = frame[name]
            _resolve_within(frame, name, study.conflicts)
    recorder = FlowRecorder(frame)
    recorder.start("table", f"rows of {table}")
    return recorder


def complete(
    recorder: FlowRecorder, study: Study, source: Source, *, labels: Sequence[str], narrator: Narrator = QUIET
) -> Cohort:
    """Go the way that all sources share: views, attributes, labels, files, split.

    The recorder is that of `begin`. Its frame needs one row per image, with the columns

    - `image_id`, `patient_id`, `path`: Text; the path is relative to `source.root`.
    - `view`, `age`: By the vocabulary (`data/tables/vocabulary.py: translate`, `read_age`).
    - one per attribute of the source, by the vocabulary, but `age_group`, which is made of `age`; "no record" for a
      patient whom a table of demographics lacks.
    - `raw_NAME`: What the source wrote for an attribute; may be missing.
    - one per label: 1, 0, -1 (uncertain) or missing.
    - `official_split`: "train", "validation", "test", or "" for none; may be missing.
    """
    frame = recorder.frame
    frame["path"] = refuse_unsafe_paths(frame["path"], source=source.name)
    require_unique(frame["image_id"], source=source.name, what="image ids")
    require_own_files(frame, source=source.name)
    require_exact(frame["patient_id"], source=source.name, what="patients")
    attributes = chosen_attributes(study, source)
    # Counted on all rows of the table, before anything is left out.
    before = {name: raw_text(frame[f"raw_{name}"]) for name in source.attributes if f"raw_{name}" in frame}
    # As named before conflicts were resolved: the level of a patient may be another than that of his row.
    levels = {name: dict(zip(raw, frame[f"named_{name}"], strict=True)) for name, raw in before.items()}
    if "age" in frame:
        note_codes(recorder, "age", frame["age"], ages=True)
    _keep_views(recorder, study)
    _keep_ages(recorder, study, attributes)
    for name in attributes:
        _keep_known(recorder, name, study)
    for label in labels:
        values = read_labels(recorder.frame[label], uncertain=study.uncertain, blank=study.blank, source=source.name)
        recorder.frame[label] = values
    white = drop_unreadable(
        recorder,
        source.root,
        check=study.check,
        max_unreadable=study.max_unreadable,
        narrator=narrator,
        channels=source.channels,
    )
    noted = len(recorder.steps)
    note_marks(recorder, attributes, source.covariates)
    for remark in recorder.remarks(noted):
        narrator.say(f"Remark: {remark}.")
    for name in attributes:
        require_levels(recorder.frame, name, source=source.name)
    _split(recorder, study, source, attributes[0])
    counts = [
        one
        for name, raw in before.items()
        for one in count_raw(name, raw, raw_text(recorder.frame[f"raw_{name}"]), levels[name])
    ]
    extra = [name for name in ("hispanic", "race", "sex") if name in recorder.frame and name not in attributes]
    columns = ["image_id", "path", "patient_id", "split", *source.covariates, *attributes, *labels, *extra]
    columns += [name for name in ("official_split",) if name in recorder.frame]
    return Cohort(
        recorder.frame[columns].reset_index(drop=True),
        source.root,
        attributes=attributes,
        labels=tuple(labels),
        covariates=source.covariates,
        flow=tuple(recorder.steps),
        raw=tuple(counts),
        fit=study.fit,
        white=white,
        channels=source.channels,
    )


def _resolve_within(frame: pd.DataFrame, name: str, policy: Policy) -> None:
    """Give the images of a patient whose records disagree one value; images without a record are left as they are."""
    resolved = resolve(frame, key="patient_id", value=name, policy=policy).set_index("patient_id")
    conflicting = resolved.index[resolved["conflict"]]
    hit = frame["patient_id"].isin(conflicting) & (frame[name] != UNKNOWN)
    frame.loc[hit, name] = frame.loc[hit, "patient_id"].map(resolved[name])


def _keep_views(recorder: FlowRecorder, study: Study) -> None:
    if study.views == "all" or "view" not in recorder.frame:
        return
    view = recorder.frame["view"]
    frontal = view.isin(FRONTAL)
    recorder.keep(frontal, "view", f"not a frontal view{with_counts(view[~frontal])}")


def _keep_ages(recorder: FlowRecorder, study: Study, attributes: Sequence[str]) -> None:
    if study.min_age > 0:
        age = recorder.frame["age"]
        recorder.keep(age >= study.min_age, "age", f"younger than {study.min_age:g} years, or no age stated")
    if "age_group" in attributes:
        groups = cut_bins(recorder.frame["age"], study.age_edges, source="age", ages=True)
        recorder.frame["age_group"] = groups.fillna(UNKNOWN)


def _keep_known(recorder: FlowRecorder, name: str, study: Study) -> None:
    """Leave out unknown and conflicting values, then, for race, what the study does not compare."""
    values = recorder.frame[name]
    column = f"raw_{name}" if f"raw_{name}" in recorder.frame else name
    for bad, why in (
        ("no record", "the patient is not in the table of demographics"),
        ("conflicting", "the records of the patient disagree"),
        (UNKNOWN, "not stated"),
    ):
        hit = values == bad
        recorder.keep(~hit, name, f"{name}: {why}{with_counts(raw_text(recorder.frame[column])[hit])}")
        values = recorder.frame[name]
    if name == "race":
        outside = ~values.isin(study.races)
        raw = raw_text(recorder.frame[column])[outside]
        recorder.keep(~outside, name, f"race is not {', '.join(study.races)}{with_counts(raw)}")


def _split(recorder: FlowRecorder, study: Study, source: Source, attribute: str) -> None:
    frame = recorder.frame
    official = frame["official_split"] if "official_split" in frame else pd.Series("", index=frame.index)
    usable = bool((official == "test").any())
    if study.split == "official" and not usable:
        raise InputError(
            f"{source.name} has no official test split among the files found; give the file, or use split='drawn'."
        )
    if study.split == "drawn" or not usable:
        frame["split"] = assign_splits(frame, fractions=study.fractions, stratify=attribute, seed=study.seed)
        recorder.start("split", f"drawn by patient, stratified by {attribute}, seed {study.seed}")
        return
    recorder.keep(official != "", "split", "in no part of the official split")
    recorder.frame["split"] = recorder.frame["official_split"]
    require_disjoint(recorder.frame)
    recorder.start("split", "the data set's own")
