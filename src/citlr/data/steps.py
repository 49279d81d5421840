"""The steps from a raw table to a validated one; each leaves rows out with a count, or refuses with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from citlr.data.columns import refuse_unsafe_paths, require_unique
from citlr.data.flow import FlowRecorder
from citlr.data.images import PLAIN_SUFFIXES, is_dicom
from citlr.data.pixels import inside
from citlr.data.vocabulary import UNKNOWN, VIEW
from citlr.errors import InputError, did_you_mean

Uncertain = Literal["error", "ignore", "zeros", "ones"]
Lateral = Literal["drop", "keep"]
Blank = Literal["ignore", "zeros"]
UNCERTAIN: tuple[Uncertain, ...] = get_args(Uncertain)
# More levels than this are a number or free text read as categories; contrasts grow with the square.
MAX_LEVELS = 12
_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "positive": 1.0, "negative": 0.0}


def identify(recorder: FlowRecorder, *, source: str) -> None:
    """Make `path`, `image_id` and `patient_id` safe and whole: no blank, no path out of the folder, no image twice."""
    for column, what in (("path", "image path"), ("patient_id", "patient")):
        drop_blank(recorder, column, step=what, what=what)
    frame = recorder.frame
    frame["path"] = refuse_unsafe_paths(frame["path"], source=source)
    frame["patient_id"] = frame["patient_id"].astype(str).str.strip()
    if "image_id" not in frame.columns:
        frame.insert(0, "image_id", frame["path"])
    drop_blank(recorder, "image_id", step="image id", what="image id")
    recorder.frame["image_id"] = recorder.frame["image_id"].astype(str)
    require_unique(recorder.frame["image_id"], source=source, what="image ids")


def levels_of(levels: Mapping[str, Any] | None, attribute: str, attributes: Sequence[str]) -> Any:
    """Find the rules of one attribute: `levels` may hold them by attribute or, for a single attribute, directly."""
    if levels is None or attribute in levels:
        return None if levels is None else levels[attribute]
    flat = all(isinstance(value, str) for value in levels.values())
    if len(attributes) == 1 and flat:
        return levels
    for name in levels:
        if name not in attributes:
            raise InputError(f"`levels` names '{name}', which is no attribute here.{did_you_mean(name, attributes)}")
    return None


def drop_blank(recorder: FlowRecorder, column: str, *, step: str, what: str) -> None:
    """Leave out the rows in which `column` is blank, and count them."""
    values = recorder.frame[column]
    blank = values.isna() | (values.astype("string").str.strip() == "").fillna(True)
    recorder.keep(~blank.astype(bool), step, f"no {what} ({int(blank.sum())} blank)")


def name_levels(
    recorder: FlowRecorder, attribute: str, levels: Mapping[str, str] | Sequence[str] | None, *, source: str
) -> None:
    """Turn the raw values of an attribute into level names; values that no rule covers stop the run with their counts.

    Parameters
    ----------
    recorder : FlowRecorder
        Its frame has the column `attribute` without blanks.
    attribute : str
        The column.
    levels : mapping or sequence, optional
        Raw value to level name, or the values allowed; every value is its own name without it.
    source : str
        What an error calls the table.

    Raises
    ------
    InputError
        For values outside `levels`, for a single level, for more than `MAX_LEVELS`.
    """
    raw = recorder.frame[attribute].astype(str).str.strip()
    rules = _rules(levels)
    if rules is not None:
        strange = raw[~raw.isin(rules)].value_counts()
        if len(strange):
            listed = ", ".join(f"'{value}' ({count} images)" for value, count in strange.head(20).items())
            hint = did_you_mean(str(strange.index[0]), rules)
            raise InputError(
                f"{source}: '{attribute}' holds values that its levels do not name: {listed}.{hint} "
                "Add them to `levels`, or leave those rows out with `keep`."
            )
        raw = raw.map(rules)
    found = sorted(raw.unique())
    if len(found) > MAX_LEVELS:
        raise InputError(
            f"{source}: '{attribute}' has {len(found)} levels ({', '.join(found[:5])}, ...), at most {MAX_LEVELS} can "
            "be compared; give `bins` for a number, or merge values with `levels`."
        )
    recorder.frame[attribute] = raw


def _rules(levels: Mapping[str, str] | Sequence[str] | None) -> dict[str, str] | None:
    if levels is None:
        return None
    if isinstance(levels, Mapping):
        return {str(raw).strip(): str(name).strip() for raw, name in levels.items()}
    return {str(name).strip(): str(name).strip() for name in levels}


def cut_bins(values: pd.Series, edges: Sequence[float], *, source: str) -> pd.Series:
    """Turn a number into groups such as `0-39`, `40-59` and `60+`; blanks stay blank.

    Examples
    --------
    >>> cut_bins(pd.Series(["39", "40", "75", None], name="age"), [40, 60], source="a.csv").tolist()
    ['0-39', '40-59', '60+', nan]
    """
    inner = sorted({float(edge) for edge in edges if edge > 0})
    if not inner:
        raise InputError(f"The bins of '{values.name}' are {list(edges)}; give at least one edge above 0, such as 60.")
    numbers = to_numbers(values, source=source)
    starts = [0.0, *inner]
    names = [f"{low:g}-{high - 1:g}" for low, high in zip(starts, inner, strict=False)] + [f"{inner[-1]:g}+"]
    place = np.searchsorted(np.asarray(inner), numbers.to_numpy(), side="right")
    cut = pd.Series(
        np.asarray(names, dtype=object)[np.minimum(place, len(inner))], index=values.index, name=values.name
    )
    return cut.where(numbers.notna() & (numbers >= 0))


def to_numbers(values: pd.Series, *, source: str) -> pd.Series:
    """Read a column as numbers; blanks are NaN and anything else that is no number is refused with its row.

    Examples
    --------
    >>> to_numbers(pd.Series(["1", None, "2.5"], name="age"), source="a.csv").tolist()
    [1.0, nan, 2.5]
    """
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = values[numbers.isna() & values.notna()]
    if len(bad):
        raise InputError(
            f"{source}: the column '{values.name}' holds {len(bad)} values that are no numbers, the first in row "
            f"{bad.index[0] + 1}: '{bad.iloc[0]}'."
        )
    return numbers


def read_labels(
    values: pd.Series, *, uncertain: Uncertain = "error", blank: Blank = "ignore", source: str
) -> pd.Series:
    """Read a finding as 1.0, 0.0 or NaN (not stated).

    Parameters
    ----------
    values : Series
        0, 1, -1 (uncertain, as CheXpert's labeller writes it), blank, or true/false, yes/no, positive/negative.
    uncertain : {"error", "ignore", "zeros", "ones"}
        What becomes of -1: refused, NaN, 0 or 1.
    blank : {"ignore", "zeros"}
        What becomes of a blank: NaN or 0.
    source : str
        What an error calls the table.

    Returns
    -------
    Series of float

    Examples
    --------
    >>> read_labels(pd.Series(["1.0", "-1", None], name="edema"), uncertain="zeros", source="a.csv").tolist()
    [1.0, 0.0, nan]
    """
    if uncertain not in UNCERTAIN:
        raise InputError(f"uncertain='{uncertain}' is not a policy.{did_you_mean(uncertain, UNCERTAIN)}")
    text = values.astype("string").str.strip().str.lower()
    numbers = pd.to_numeric(
        text.map(_TRUTH).astype("Float64").fillna(pd.to_numeric(text, errors="coerce").astype("Float64"))
    )
    floats = pd.Series(numbers.to_numpy(dtype=float, na_value=np.nan), index=values.index, name=values.name)
    allowed = floats.isin([0.0, 1.0, -1.0])
    strange = values[~allowed & values.notna() & (text != "").fillna(False)]
    if len(strange):
        listed = ", ".join(f"'{value}' ({count})" for value, count in strange.value_counts().head(10).items())
        raise InputError(f"{source}: the label '{values.name}' must be 0, 1, -1 or blank, and holds {listed}.")
    doubtful = floats == -1.0
    if uncertain == "error" and doubtful.any():
        raise InputError(
            f"{source}: the label '{values.name}' has {int(doubtful.sum())} uncertain values (-1); choose what they "
            "mean with uncertain='ignore', 'zeros' or 'ones'."
        )
    if blank == "zeros":
        floats = floats.fillna(0.0)
    return floats.mask(doubtful, {"zeros": 0.0, "ones": 1.0}.get(uncertain, np.nan))


def apply_keep(recorder: FlowRecorder, keep: Mapping[str, Sequence[str] | str]) -> None:
    """Keep the rows whose value is among those listed, column by column; what was left out is counted by value."""
    for column, allowed in keep.items():
        if column not in recorder.frame.columns:
            raise InputError(
                f"`keep` names the column '{column}'.{did_you_mean(column, map(str, recorder.frame.columns))}"
            )
        listed = [str(allowed)] if isinstance(allowed, str | int | float) else [str(value) for value in allowed]
        values = recorder.frame[column].astype("string").str.strip()
        inside = values.isin(listed).fillna(False).astype(bool)
        outside = values[~inside].fillna("(blank)").value_counts()
        seen = ", ".join(f"{value}: {count}" for value, count in outside.head(20).items())
        recorder.keep(inside, f"keep {column}", f"{column} is not {' or '.join(listed)} ({seen})")


def drop_lateral(recorder: FlowRecorder, root: Path) -> None:
    """Leave out lateral views, as the table's `view` or, where that is blank, the header of a DICOM file states them.

    A view that is stated nowhere, or in words that the vocabulary does not know, is kept: nothing says it is lateral.
    """
    frame = recorder.frame
    view = frame["view"].astype("string") if "view" in frame.columns else pd.Series(pd.NA, frame.index, dtype="string")
    silent = view.isna() & ~frame["path"].str.lower().str.endswith(PLAIN_SUFFIXES)
    if silent.any():
        from citlr.data.dicom import read_header

        paths: pd.Series = frame.loc[silent, "path"]
        view = view.fillna(paths.map(lambda path: _stated_view(read_header, root, str(path))).astype("string"))
        frame["view"] = view
    side = view.fillna("").str.strip().str.lower().map(VIEW).fillna(UNKNOWN)
    seen = view[side == "lateral"].value_counts()
    listed = ", ".join(f"{name}: {count}" for name, count in seen.items())
    recorder.keep(side != "lateral", "view", f"lateral view ({listed})")


def _stated_view(read: Callable[[Path], Any], root: Path, path: str) -> str | None:
    try:
        file = inside(root, path)
        return read(file).view or None if is_dicom(file) else None
    except InputError:
        # The check of the files names it; here it only has no view.
        return None


def require_levels(frame: pd.DataFrame, attribute: str, *, source: str) -> None:
    """Refuse an attribute with a single level: there is nothing to compare."""
    found = sorted(frame[attribute].astype(str).unique())
    if len(found) < 2:
        raise InputError(
            f"{source}: '{attribute}' has the single level '{found[0]}' after all exclusions; an audit compares two "
            "or more."
        )


def require_patients_per_level(frame: pd.DataFrame, attribute: str, *, minimum: int, split: str = "test") -> None:
    """Refuse a split in which a level has fewer than `minimum` patients.

    Raises
    ------
    InputError
        With every such level and its number of patients.

    Examples
    --------
    >>> table = pd.DataFrame({"patient_id": ["a", "b"], "sex": ["f", "m"], "split": ["test", "test"]})
    >>> require_patients_per_level(table, "sex", minimum=1)
    """
    inside = frame[frame["split"] == split]
    patients = inside.groupby(attribute)["patient_id"].nunique()
    few = {str(level): int(patients.get(level, 0)) for level in sorted(frame[attribute].unique())}
    few = {level: count for level, count in few.items() if count < minimum}
    if few:
        listed = ", ".join(f"'{level}' has {count}" for level, count in few.items())
        raise InputError(
            f"Too few patients in the {split} split to test '{attribute}': {listed}, {minimum} are needed. Merge "
            "levels, leave the level out with `keep`, give the split a larger share, or lower `min_patients_per_level` "
            "knowingly."
        )
