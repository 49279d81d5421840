"""What a cohort has to bring before anything long starts: roles that do not clash, levels to learn from, variation."""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from citlr.data.flow import FlowRecorder, RawCount, count_raw
from citlr.data.pixels.survey import KIND, SIZES
from citlr.data.tables.levels import with_counts
from citlr.data.tables.marks import Marks
from citlr.data.tables.numbers import MAX_CATEGORIES
from citlr.errors import InputError

# What a cohort writes itself: identifiers, and the split where it is drawn.
_TAKEN = ("image_id", "path", "patient_id", "split")


def require_roles(
    attributes: Sequence[str],
    labels: Sequence[str],
    covariates: Sequence[str],
    columns: Mapping[str, str] | None = None,
) -> None:
    """Refuse a column that is the attribute and a label or a covariate at once, and a name that is given twice.

    And one that is called as what is written into every cohort: it would be overwritten without a word.
    """
    taken = {*_TAKEN, *(f"raw {name}" for name in attributes)}
    for role, names in (("attribute", attributes), ("label", labels), ("covariate", covariates)):
        lost = next((name for name in names if name in taken), None)
        if lost is not None:
            raise InputError(
                f"The {role} '{lost}' is called as a column that every cohort has of its own: give it another name "
                f"(`columns`: {{another: {lost}}})."
            )
        double = [name for place, name in enumerate(names) if name in names[:place]]
        if double:
            raise InputError(f"The {role} '{double[0]}' is named twice; name it once.")
    column = {name: (columns or {}).get(name, name) for name in (*attributes, *labels, *covariates)}
    for attribute in attributes:
        for role, names in (("label", labels), ("covariate", covariates)):
            for name in names:
                # An age and its groups may both be made of one column; two names of one role may not.
                if name == attribute or (role == "label" and column[name] == column[attribute]):
                    raise InputError(
                        f"'{attribute}' is the attribute and a {role} ('{column[name]}' of the table) at once; what is "
                        "changed can neither be predicted nor held: take it off one of the two."
                    )


def require_levels_to_learn(frame: pd.DataFrame, attribute: str) -> None:
    """Refuse a training split that lacks a level: there is no image to learn its look from."""
    train = frame[frame["split"] == "train"]
    if not len(train):
        raise InputError(
            f"The training split has no image, and a generator learns from it; give rows of the split 'train', or "
            f"leave the split column out (attribute '{attribute}')."
        )
    absent = sorted(set(frame[attribute].astype(str)) - set(train[attribute].astype(str)))
    if absent:
        raise InputError(
            f"The training split has no image with the level '{absent[0]}' of '{attribute}'; put patients of every "
            "level into it, or leave the level out."
        )


def aside_covariates(recorder: FlowRecorder, covariates: Sequence[str]) -> tuple[str, ...]:
    """Leave covariates aside that say nothing, with a remark in the flow; give the others.

    One value in all images, or in those that are learnt from, tells nothing of what it goes with.
    """
    frame = recorder.frame
    train = frame[frame["split"] == "train"] if "split" in frame else frame
    kept = []
    for name in covariates:
        where = next(
            (
                (part, place)
                for part, place in ((frame, "in all images"), (train, "in the training split"))
                if len(part) and part[name].nunique(dropna=True) < 2
            ),
            None,
        )
        if where is None:
            kept.append(name)
            continue
        values = where[0][name].dropna().unique()
        what = f"has the one value '{str(values[0])[:80]}'" if len(values) else "is blank"
        recorder.start("covariates", f"'{name}' {what} {where[1]} and is left aside, also where it was to be held")
    return tuple(kept)


def blank_unlearnt(recorder: FlowRecorder, covariates: Sequence[str]) -> None:
    """Take values of a covariate that the training split does not have as not stated, and tell it in the flow."""
    train = recorder.frame["split"] == "train"
    for name in covariates:
        values = recorder.frame[name]
        if not train.any() or (pd.api.types.is_numeric_dtype(values) and values[train].nunique() > MAX_CATEGORIES):
            continue
        strange = values.notna() & ~values.isin(values[train].dropna().unique())
        if strange.any():
            seen = with_counts(values[strange].astype(str))
            recorder.frame[name] = values.mask(strange)
            recorder.start("covariates", f"values of '{name}' that no training image has count as not stated{seen}")


def note_marks(recorder: FlowRecorder, attributes: Sequence[str], covariates: Sequence[str]) -> None:
    """Tell in the flow where images of a level have marks that images of other levels hardly have.

    One hospital, one scanner, one size or kind of the files: whatever is learnt of the attribute may be that of the
    scanner. Of the readings of a file's size, the first that tells a level is told.
    """
    frame = recorder.frame
    for attribute, columns in itertools.product(attributes, (SIZES, (KIND,), *((name,) for name in covariates))):
        if pd.api.types.is_float_dtype(frame[attribute]):
            continue
        read = [Marks.of(frame, attribute, name) for name in columns if name in frame and name != attribute]
        for level in read[0].levels if read else ():
            told = next(filter(None, (marks.told(level) for marks in read)), None)
            if told:
                recorder.start(
                    "levels",
                    f"{told}: what is learnt of '{attribute}' may be that of the hospital or the scanner; add images "
                    "that have one and not the other",
                )


def note_labels(recorder: FlowRecorder, labels: Sequence[str]) -> None:
    """Tell in the flow which labels have one value in the training or the test split."""
    for split in ("train", "test"):
        part = recorder.frame[recorder.frame["split"] == split]
        for label in labels:
            values = part[label].dropna().unique()
            if len(part) and len(values) < 2:
                what = "is blank" if not len(values) else f"is {'present' if values[0] else 'absent'} everywhere"
                recorder.start(
                    "labels", f"'{label}' {what} in the {split} split: it cannot be learnt, held or judged there"
                )


def raw_counts(
    frame: pd.DataFrame, before: Mapping[str, pd.Series], named: Mapping[str, Mapping[str, str]]
) -> tuple[RawCount, ...]:
    """Count the raw values of attributes before and after the exclusions, where they are not the levels themselves."""
    rows: list[RawCount] = []
    for name, levels in named.items():
        column = f"raw {name}"
        counts = count_raw(name, before[column], frame[column], levels)
        if any(one.level and one.level != one.raw for one in counts):
            rows += counts
    return tuple(rows)
