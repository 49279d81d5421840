"""The steps from a raw table to a validated one; each leaves rows out with a count, or refuses with a sentence."""

import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from citlr.data.flow import FlowRecorder
from citlr.data.images import DICOM_SUFFIXES, PLAIN_SUFFIXES, is_dicom
from citlr.data.pixels.source import inside
from citlr.data.tables.columns import refuse_unsafe_paths, require_unique
from citlr.data.tables.levels import MOST_VALUES, with_counts
from citlr.data.tables.printable import require_exact, require_printable
from citlr.data.tables.spellings import UNSTATED, VIEWS, fold, is_stated, require_one_spelling
from citlr.data.tables.vocabulary import VIEW, findings, raw_text
from citlr.errors import InputError, did_you_mean, require_known
from citlr.run.files import kind_of_path
from citlr.text import listed_few, shortened

Uncertain = Literal["error", "ignore", "zeros", "ones"]
Lateral = Literal["drop", "keep"]
Blank = Literal["ignore", "zeros"]
UNCERTAIN: tuple[Uncertain, ...] = get_args(Uncertain)
SUFFIXES = (*PLAIN_SUFFIXES, *DICOM_SUFFIXES)
# A column of no more different numbers may be codes.
MAX_CODES = 20
# What stands for patients who are not known, beside what does for any attribute.
_NOBODY = UNSTATED | {"none", "anonymous", "anonymized", "anonymised", "anon", "deidentified", "de-identified", "no id"}
# What is behind the name of a patient of whom each side counts as one.
_SIDE = re.compile(
    r"(?P<whole>.+?)(?:[ _.-]*(?P<word>left|right)|[ _.-]+(?P<short>l|r|od|os|le|re))(?:\.\w{2,5})?", re.IGNORECASE
)
_OF_SIDE = {"left": "l", "l": "l", "os": "l", "le": "l", "right": "r", "r": "r", "od": "r", "re": "r"}
# One patient has so many images, and so many times as many as any other, only where it is no patient.
_MANY, _TIMES = 10, 10


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
    recorder.frame["image_id"] = recorder.frame["image_id"].astype(str).str.strip()
    for column in ("image_id", "patient_id", "path"):
        require_printable(recorder.frame[column], f"{source}: the column '{column}'")
    require_unique(recorder.frame["image_id"], source=source, what="image ids")
    require_own_files(recorder.frame, source=source)
    require_exact(recorder.frame["patient_id"], source=source, what="patients")
    require_one_spelling(recorder.frame["patient_id"], source=source, what="patient")
    _note_nobody(recorder)
    _note_sides(recorder)


def _note_sides(recorder: FlowRecorder) -> None:
    """Tell in the flow of patients of whom the left and the right side are two, such as `10_left` and `10_right`."""
    sides = dict[str, set[str]]()
    for name in recorder.frame["patient_id"].unique():
        found = _SIDE.fullmatch(name)
        if found:
            side = found["word"] or found["short"]
            sides.setdefault(fold(found["whole"]), set()).add(_OF_SIDE[side.lower()])
    both = [whole for whole, found in sides.items() if len(found) > 1]
    # As many as no other way of naming gives by chance.
    if len(both) > max(len(sides) / 2, recorder.frame["patient_id"].nunique() / 4):
        recorder.start(
            "patient",
            f"{len(both)} patients stand there as two, a left and a right one, such as '{shortened(both[0], 40)}': "
            "these may lie in two splits, and intervals come out too narrow; give both sides one patient",
        )


def _note_nobody(recorder: FlowRecorder) -> None:
    """Tell in the flow of a patient who may be many: an identifier that stands for "not known"."""
    counts = recorder.frame["patient_id"].value_counts()
    images = counts.to_numpy()
    alone = images[0] >= _MANY and len(images) > 1 and images[0] >= _TIMES * images[1]
    called = [name for name in counts.index[images > 1] if fold(name) in _NOBODY]
    for name in dict.fromkeys([*called, *(counts.index[:1] if alone else ())]):
        recorder.start(
            "patient",
            f"{counts[name]} images are of the one patient '{shortened(name, 40)}': if that stands for 'not known', "
            "leave it blank, or these images count as one patient's",
        )


def require_own_files(frame: pd.DataFrame, *, source: str) -> None:
    """Refuse rows that name one image file: one picture would count as several images."""
    plain = frame["path"].map(posixpath.normpath)
    require_unique(plain.rename("path"), source=source, what="image files")


def complete_paths(recorder: FlowRecorder, root: Path) -> None:
    """Read `scan/17` as `scan/17.png` where only the latter is there, and tell it in the flow.

    So it is with letters that have marks, such as the umlauts: macOS writes them as two characters, others as one.
    """
    if not root.is_dir():
        return
    paths: list[str] = recorder.frame["path"].tolist()
    found: dict[bool, list[str]] = {True: [], False: []}
    for row, path in enumerate(paths):
        bare = Path(path).suffix.lower() not in SUFFIXES
        if (bare or not path.isascii()) and not kind_of_path(root / path):
            files = files_meant(root, path, bare)
            if len(files) == 1:
                paths[row] = files[0]
                found[bare].append(files[0])
    said = {
        True: "have no suffix, and the file stands there with one",
        False: "are written with other characters than their files, which look the same",
    }
    for bare, files in found.items():
        if files:
            recorder.start("path", f"{len(files)} paths {said[bare]} ({files[0]})")
    if any(found.values()):
        recorder.frame["path"] = paths
        require_own_files(recorder.frame, source="The table with the names of its files")


def files_meant(root: Path, path: str, bare: bool) -> list[str]:
    """Give the files that a path which is not there may mean; on some systems one file has several of the names."""
    forms = dict.fromkeys([path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))])
    for ends in (SUFFIXES, tuple(map(str.upper, SUFFIXES))) if bare else (("",),):
        for form in forms:
            found = [form + end for end in ends if kind_of_path(root / (form + end)) == "a file"]
            if found:
                return found
    return []


def drop_blank(recorder: FlowRecorder, column: str, *, step: str, what: str) -> None:
    """Leave out the rows in which `column` is blank, and count them."""
    blank = _is_blank(recorder.frame[column])
    recorder.keep(~blank, step, f"no {what} ({int(blank.sum())} blank)")


def _is_blank(values: pd.Series) -> pd.Series:
    return values.isna() | (values.astype("string").str.strip() == "").fillna(True).astype(bool)


def to_numbers(values: pd.Series, *, source: str) -> pd.Series:
    """Read a column as numbers; blanks are NaN and anything else that is no number is refused with its row.

    >>> to_numbers(pd.Series(["1", None, "2.5"], name="age"), source="a.csv").tolist()
    [1.0, nan, 2.5]
    """
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    # Words such as "inf" are numbers to a computer and to nobody who fills in tables.
    numbers = numbers.where(np.isfinite(numbers))
    bad = values[numbers.isna() & ~_is_blank(values)]
    if len(bad):
        comma = " Write decimal points, not commas." if bad.astype(str).str.fullmatch(r"-?\d+,\d+").any() else ""
        raise InputError(
            f"{source}: the column '{values.name}' holds {len(bad)} values that are no numbers, the first in row "
            f"{bad.index[0] + 1}: '{str(bad.iloc[0])[:80]}'.{comma}"
        )
    return numbers


def read_numbers(values: pd.Series, *, source: str) -> pd.Series:
    """Read a covariate as numbers where it is one, as a table that knows types does; codes such as 01 stay text.

    >>> read_numbers(pd.Series(["1.5", "20", None]), source="a.csv").tolist()
    [1.5, 20.0, nan]
    >>> read_numbers(pd.Series(["01", "20"]), source="a.csv").tolist()
    ['01', '20']

    Words for "not known" beside many numbers are blanks; beside few, which may be codes, they are levels.
    """
    given = values.dropna()
    if not len(given) or pd.api.types.is_bool_dtype(given):
        return values
    if pd.api.types.is_numeric_dtype(given):
        return to_numbers(values, source=source)
    text = given.astype(str).str.strip()
    if text.str.match(r"-?0\d").any():
        return values
    number = text.str.fullmatch(r"[+-]?(?:\d+[.,]?\d*|\.\d+)(?:[eE][+-]?\d+)?")
    stated = is_stated(values)
    if text[stated].nunique() <= MAX_CODES:
        return to_numbers(values, source=source) if number.all() else values
    # Many numbers and a few words are a column of numbers with typing errors, which are named; words alone are levels.
    if number[stated].mean() <= 0.9:
        return values
    return to_numbers(values.where(stated), source=source)


def read_labels(
    values: pd.Series, *, uncertain: Uncertain = "error", blank: Blank = "ignore", source: str
) -> pd.Series:
    """Read a finding as 1.0, 0.0 or NaN (not stated)."""
    require_known(uncertain, UNCERTAIN, f"uncertain='{uncertain}' is not a policy")
    floats = findings(values)
    allowed = floats.isin([0.0, 1.0, -1.0])
    strange = values[~allowed & values.notna() & (values.astype("string").str.strip() != "").fillna(False)]
    if len(strange):
        seen = ", ".join(f"'{value}' ({count})" for value, count in strange.value_counts().head(10).items())
        raise InputError(f"{source}: the label '{values.name}' must be 0, 1, -1 or blank, and holds {seen}.")
    doubtful = floats == -1.0
    if uncertain == "error" and doubtful.any():
        raise InputError(
            f"{source}: the label '{values.name}' has {int(doubtful.sum())} uncertain values (-1); choose what they "
            "mean: ignore, zeros or ones (`cohort.uncertain` of a configuration, --uncertain, or uncertain= in Python)."
        )
    if blank == "zeros":
        floats = floats.fillna(0.0)
    return floats.mask(doubtful, {"zeros": 0.0, "ones": 1.0}.get(uncertain, np.nan))


def note_absent(recorder: FlowRecorder, label: str) -> None:
    """Tell in the flow of a finding that is present wherever it is stated: blank may have been meant as absent."""
    values = recorder.frame[label]
    blank = int(values.isna().sum())
    if blank and (values == 1).sum() == len(values) - blank > 0:
        recorder.start(
            "labels",
            f"'{label}' is 1 wherever it is stated, and blank in {blank} images, which count as not stated: write 0 "
            "where it is absent",
        )


def apply_keep(recorder: FlowRecorder, keep: Mapping[str, Sequence[str] | str]) -> None:
    """Keep the rows whose value is among those listed, column by column; what was left out is counted by value."""
    for column, allowed in keep.items():
        require_known(column, recorder.frame.columns, f"`keep` names the column '{column}'")
        kept = [str(allowed)] if isinstance(allowed, str | int | float) else [str(value) for value in allowed]
        values = recorder.frame[column].astype("string").str.strip()
        known = set(values.dropna())
        absent = [value for value in kept if value not in known]
        # 1 and 1.0 are one number; words are compared letter by letter, and those left out are counted below.
        numbers = {fold(value) for value in absent if fold(value)[:1].isdigit()}
        folded = values.fillna("").map(fold) if numbers else values
        inside = (values.isin(kept).fillna(False) | (folded.isin(numbers) if numbers else False)).astype(bool)
        numbers &= set(folded)
        if strange := [f"'{value}'" for value in absent if fold(value) not in numbers]:
            named = f"{listed_few(strange)}, which {'is' if len(strange) == 1 else 'are'} to be kept"
            there = f"; there are {listed_few(values.dropna().unique())}" if len(known) <= MOST_VALUES else ""
            recorder.start(f"keep {column}", f"no row has the {column} {named}{there}")
        seen = with_counts(values[~inside].fillna("(blank)"))
        recorder.keep(inside, f"keep {column}", f"{column} is not {shortened(' or '.join(kept), 400)}{seen}")


def drop_lateral(recorder: FlowRecorder, root: Path) -> None:
    """Leave out lateral views, as the table's `view` or, where that is blank, the header of a DICOM file states them.

    A view that is stated nowhere, or in words that the vocabulary does not know, is kept: nothing says it is lateral.
    """
    frame = recorder.frame
    view = frame["view"].astype("string") if "view" in frame.columns else pd.Series(pd.NA, frame.index, dtype="string")
    silent = view.isna()
    if silent.any():
        from citlr.data.pixels.dicom import read_header

        paths: pd.Series = frame.loc[silent, "path"]
        stated = paths.map(lambda path: _stated_view(read_header, root, str(path))).astype("string")
        if stated.notna().any():
            frame["view"] = view = view.fillna(stated)
    said = raw_text(view)
    words = {value: fold(value) for value in said.unique()}
    # Beside an R, an L is the left side of the body, as of eyes and breasts.
    left = {"l"} if "r" in words.values() else set()
    side = said.map({value: "" if word in left else VIEW.get(word, "") for value, word in words.items()})
    strange, lateral = side == "", side == "lateral"
    # Where no word is known, the column is not about what is lateral.
    if strange.any() and (side.isin(VIEWS.levels)).any():
        reason = f"views in words that are not known are kept, also where they are lateral{with_counts(said[strange])}"
        recorder.start("view", reason)
    recorder.keep(~lateral, "view", f"lateral view{with_counts(view[lateral])}")


def _stated_view(read: Callable[[Path], Any], root: Path, path: str) -> str | None:
    try:
        file = inside(root, path)
        dicom = is_dicom(file) or file.suffix.lower() in DICOM_SUFFIXES
        return read(file).view or None if dicom else None
    except InputError:
        # The check of the files names it; here it only has no view.
        return None


def require_levels(frame: pd.DataFrame, attribute: str, *, source: str, wanted: Any = None) -> None:
    """Refuse an attribute with a single level, where there is nothing to compare, and a listed level without images."""
    levels = sorted(frame[attribute].astype(str).unique())
    named = [] if wanted is None or isinstance(wanted, Mapping) else [str(level).strip() for level in wanted]
    absent = [level for level in named if level not in levels]
    if absent:
        raise InputError(
            f"{source}: no image has the level '{absent[0]}' of '{attribute}' (`levels`) after all exclusions."
            f"{did_you_mean(absent[0], levels)}"
        )
    if len(levels) < 2:
        raise InputError(
            f"{source}: '{attribute}' has the single level '{levels[0]}' after all exclusions; an audit compares two "
            "or more."
        )


def require_patients_per_level(frame: pd.DataFrame, attribute: str, *, minimum: int) -> None:
    """Refuse a test split in which a level has fewer than `minimum` patients."""
    inside = frame[frame["split"] == "test"]
    patients = inside.groupby(attribute)["patient_id"].nunique()
    few = {str(level): int(patients.get(level, 0)) for level in sorted(frame[attribute].unique())}
    few = {level: count for level, count in few.items() if count < minimum}
    if few:
        everyone = frame.groupby(attribute)["patient_id"].nunique()
        counts = ", ".join(
            f"'{level}' has {count}"
            + (f" (about {math.ceil(int(everyone[level]) * minimum / count)} in all splits would do)" if count else "")
            for level, count in few.items()
        )
        raise InputError(
            f"Too few patients in the test split to test '{attribute}': {counts}, {minimum} are needed. Merge levels, "
            "leave one out (`levels`), give the split a larger share (`fractions`), or lower `min_patients_per_level` "
            "knowingly; all are keys of `cohort`."
        )
