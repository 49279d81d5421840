"""What each column of a table seems to be, by its name and its values, with the reason."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from citlr.data.sources.study import DEFAULT
from citlr.data.splits import SYNONYMS
from citlr.data.tables.bins import is_age, read_ages
from citlr.data.tables.levels import MOST_VALUES
from citlr.data.tables.printable import require_printable
from citlr.data.tables.spellings import VIEWS, fold, is_stated, level_text, words_of
from citlr.doses import MOST_LEVELS
from citlr.errors import InputError
from citlr.text import shortened

Kind = Literal["constant", "attribute", "split", "view", "age", "label", "few", "number", "other"]
_PRESENT, _ABSENT = {"1", "true", "yes", "positive"}, {"0", "false", "no", "negative"}
# What a patient's identifier is called, in lower case and without signs.
_PATIENT = re.compile("(patient|patienten|pat|subject|person|participant)(id|number|no|key)?|pid|mrn")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    - `kind`: What it seems to be; "few" has few values and could be an attribute or a covariate.
    - `why`: How that is known, to stand in a sentence.
    - `counts`: Rows by value, the commonest first; empty where the values are many, or may name somebody.
    - `uncertain`: Rows of a label that say -1.
    - `edges`: Of a number, where its groups may begin.
    """

    name: str
    kind: Kind
    why: str
    counts: Mapping[str, int] = field(default_factory=dict)
    uncertain: int = 0
    edges: tuple[float, ...] = ()

    def summary(self) -> str:
        """Say in a few words what it holds."""
        listed = ", ".join(f"{shortened(value, 40)} {count}" for value, count in [*self.counts.items()][:8])
        more = f" and {len(self.counts) - 8} more" if len(self.counts) > 8 else ""
        return f"{listed}{more}" if listed else self.why


def describe_columns(frame: pd.DataFrame) -> tuple[Column, ...]:
    """Look at every column of a table as it was read."""
    require_printable(frame.columns, "The table has a column whose name")
    return tuple(_describe(str(name), frame[name].dropna()) for name in frame.columns)


def patient_columns(names: Sequence[str]) -> list[str]:
    """Give the columns that are called as a patient's identifier is.

    >>> patient_columns(["Patient ID", "PatientAge", "subject_id", "study"])
    ['Patient ID', 'subject_id']
    """
    return [name for name in names if _PATIENT.fullmatch(re.sub(r"[^a-z]", "", name.lower()))]


def _describe(name: str, given: pd.Series) -> Column:
    text = level_text(given)
    distinct = [str(value) for value in text.value_counts().index[: MOST_VALUES + 1]]
    if len(distinct) < 2:
        return Column(name, "constant", "it is blank" if not distinct else "it has one value")
    if len(distinct) <= MOST_VALUES:
        found = _by_values(name, text, distinct)
        if found is not None:
            return found
    return _by_measure(name, given, text)


def _by_values(name: str, text: pd.Series, distinct: Sequence[str]) -> Column | None:
    """Recognise what the vocabulary knows, splits and findings."""
    counts = {str(value): int(count) for value, count in text.value_counts().items()}
    folded = {fold(value) for value in distinct}
    words = words_of((name,), distinct)
    if words is not None and len(distinct) > 1:
        return Column(name, "attribute", f"its name or its values are those of {words.name}", counts)
    if folded <= SYNONYMS.keys() and {SYNONYMS[value] for value in folded} >= {"train", "test"}:
        return Column(name, "split", "its values are the names of splits", counts)
    if _is_view(name, folded):
        return Column(name, "view", "its name or its values are those of views", counts)
    if folded <= _PRESENT | _ABSENT | {"-1"} and folded & _PRESENT and folded & _ABSENT:
        uncertain = sum(count for value, count in counts.items() if fold(value) == "-1")
        positive = sum(count for value, count in counts.items() if fold(value) in _PRESENT)
        return Column(name, "label", f"present in {positive} of {len(text)} rows", counts, uncertain)
    return None


def _is_view(name: str, folded: set[str]) -> bool:
    tokens = {token.lower() for token in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    known = all(value in VIEWS.table for value in folded)
    return (bool(tokens & {"view", "projection"}) and len(folded) <= MOST_LEVELS) or (
        known and any(VIEWS.table[value] in VIEWS.levels for value in folded)
    )


def _by_measure(name: str, given: pd.Series, text: pd.Series) -> Column:
    """Tell numbers, few values and everything else; of the latter no value is repeated, for it may name somebody."""
    if is_age([name], given):
        try:
            return _number(name, "age", read_ages(given[is_stated(given)].rename(name), source=name))
        except InputError:
            pass  # groups of ages, or words: as any other column
    count = int(text.nunique())
    if count <= MOST_LEVELS and count < len(text):
        counts = {str(value): int(rows) for value, rows in text.value_counts().items()}
        return Column(name, "few", f"{count} values", counts)
    numbers = pd.to_numeric(given, errors="coerce")
    if numbers.notna().all():
        return _number(name, "number", numbers)
    return Column(name, "other", f"{count} different values")


def _number(name: str, kind: Literal["age", "number"], values: pd.Series) -> Column:
    """Describe a number; ages are cut where `citlr prepare` cuts them, if there are any on both sides."""
    low, high, middle = float(values.min()), float(values.max()), float(values.median())
    usual = tuple(edge for edge in DEFAULT.age_edges if low < edge <= high) if kind == "age" else ()
    return Column(name, kind, f"{kind}s from {low:g} to {high:g}", edges=usual or (float(f"{middle:.3g}"),))
