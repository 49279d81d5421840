"""The levels of an attribute: named once, never two for one thing, and one for every patient where it cannot change."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from citlr.data.flow import FlowRecorder
from citlr.data.tables.printable import require_printable
from citlr.data.tables.spellings import UNSTATED, VIEWS, Words, fold, groups, level_text, only_numbers_differ, words_of
from citlr.data.tables.vocabulary import UNKNOWN, Policy, raw_text, resolve
from citlr.doses import MOST_LEVELS
from citlr.errors import InputError, did_you_mean, require_known
from citlr.text import listed, shortened

# More patients than this share whose records disagree are no typing errors, but another column than is thought.
MAX_UNMATCHED = 0.5
# A vocabulary has at most some 40 values; a column of more is no list of levels.
MOST_VALUES = 60
# What a spreadsheet makes of a group such as 1-9, and such groups.
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T][\d:.]+)?|\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{1,2}")
_RANGE = re.compile(r"\d+ ?[-\u2013] ?\d+")
# What codebooks write for "not known", "refused" and the like, beside levels that are numbered.
_CODE = re.compile(r"-[1-9]|-?(?:77+|88+|99+)|[789]")
Rules = Mapping[str, str] | Sequence[str] | None


def levels_of(levels: Any, attribute: str, attributes: Sequence[str]) -> Any:
    """Find the rules of one attribute: `levels` may hold them by attribute or, for a single attribute, directly."""
    if levels is None:
        return None
    if not isinstance(levels, Mapping):
        if len(attributes) == 1 and not isinstance(levels, str | int | float):
            return [*levels]
        raise InputError(
            f"`levels` is {str(levels)[:80]!r}; map every attribute to its levels, or give a list of them."
        )
    flat = all(isinstance(value, str) for value in levels.values())
    if len(attributes) == 1 and flat and attribute not in levels:
        return levels
    for name in levels:
        require_known(name, attributes, f"`levels` names '{name}', which is no attribute here")
    return levels.get(attribute)


def name_levels(
    recorder: FlowRecorder,
    attribute: str,
    levels: Rules,
    *,
    source: str,
    column: str | None = None,
    conflicts: Policy = "drop",
) -> dict[str, str]:
    """Turn the raw values of an attribute into level names, one for each patient where the attribute cannot change.

    Gives the name of every raw value that is stated (`raw_text`).
    """
    written = raw_text(recorder.frame[attribute])
    raw = level_text(recorder.frame[attribute])
    counts = raw.value_counts()
    require_printable(counts.index, f"{source}: a value of '{attribute}'")
    dates, ranges = ([value for value in counts.index if one.fullmatch(value)] for one in (_DATE, _RANGE))
    if dates and ranges:
        recorder.start(
            attribute,
            f"{attribute}: '{dates[0]}' stands beside '{ranges[0]}', and a spreadsheet makes dates of groups such as "
            "1-9: export the column as text",
        )
    words = words_of((attribute, column or attribute), [str(value) for value in counts.index])
    if levels is None:
        names = _by_vocabulary(counts, words, attribute, source)
    else:
        names = _by_rules(counts, levels, words, attribute, source)
    _require_apart([name for name in names.values() if name != UNKNOWN], attribute, source)
    recorder.frame[attribute] = raw.map(names)
    _note_spellings(recorder, attribute, names, counts)
    if levels is None:
        _note_code(recorder, attribute, names)
    if levels is None and UNKNOWN in names.values():
        stated = recorder.frame[attribute] != UNKNOWN
        recorder.keep(stated, attribute, f"{attribute}: not stated{with_counts(raw[~stated])}")
        written = written[stated.to_numpy()]
    # Before conflicts are resolved: the level of a patient may be another than that of his row.
    named = dict(zip(written, recorder.frame[attribute], strict=True))
    if words is not None:
        resolve_patients(recorder, attribute, conflicts)
    else:
        _note_changing(recorder, attribute)
    return named


def _by_vocabulary(counts: pd.Series, words: Words | None, attribute: str, source: str) -> dict[str, str]:
    """Name each value by itself; spellings of one level become one, or stop the run where two could be meant."""
    values = [str(value) for value in counts.index]
    if words is not None and words.merged:
        _refuse_mixture(counts, words, attribute, source)
    together = groups(values, words)
    several = {key: spellings for key, spellings in together.items() if len(spellings) > 1 and key != UNKNOWN}
    names = {value: value for value in values} | dict.fromkeys(together.get(UNKNOWN, []), UNKNOWN)
    for spellings in several.values():
        if words is not None and words.merged:
            continue
        if not only_numbers_differ(spellings):
            raise InputError(_ask_to_merge(spellings, counts, attribute, source))
        names.update(dict.fromkeys(spellings, _plainest(spellings)))
    if several and words is not None and words.merged:
        # All levels are then called as the named data sets call them, not one of two by its commonest spelling.
        known = (*words.levels, UNKNOWN)
        chosen = {key: key if key in known else _plainest(spellings) for key, spellings in together.items()}
        names = {value: chosen[key] for key, spellings in together.items() for value in spellings}
    return names


def _plainest(spellings: Sequence[str]) -> str:
    """Choose the commonest spelling, of a number the shortest."""
    return min(spellings, key=len) if only_numbers_differ(spellings) else spellings[0]


def _refuse_mixture(counts: pd.Series, words: Words, attribute: str, source: str) -> None:
    """Refuse words of the vocabulary beside codes that it does not know: F, M and 1 are three levels of two."""
    known = [value for value in map(str, counts.index) if words.table.get(fold(value)) in words.levels]
    strange = [value for value in map(str, counts.index) if fold(value) not in {*words.table, *UNSTATED}]
    if known and strange and len(known) + len(strange) > 2:
        raise InputError(
            f"{source}: '{attribute}' holds {_quoted(known, counts)}, and beside them {_quoted(strange, counts)}, "
            f"which the vocabulary of {words.name} does not know; say what every value means, such as --level "
            f"{shlex.quote(f'{strange[0]}={known[0]}')} (in Python `levels`), or leave rows out with `keep`."
        )


def _ask_to_merge(spellings: Sequence[str], counts: pd.Series, attribute: str, source: str) -> str:
    best = max(spellings, key=lambda value: int(counts[value]))
    merge = " ".join(f"--level {shlex.quote(f'{value}={best}')}" for value in spellings if value != best)
    return (
        f"{source}: '{attribute}' holds {_quoted(spellings, counts)}, which look like spellings of one level; list the "
        f"levels (`levels`: ['{best}', ...]) to merge spellings that differ by case or blanks, or name every value: "
        f"{merge[:200]} merges these."
    )


def _by_rules(counts: pd.Series, levels: Any, words: Words | None, attribute: str, source: str) -> dict[str, str]:
    """Name each value by the rules; where these are a list, a value may also be a spelling of one of them."""
    exact = isinstance(levels, Mapping)
    pairs = levels.items() if exact else ((name, name) for name in levels)
    rules = {str(raw).strip(): str(name).strip() for raw, name in pairs}
    require_printable(rules.values(), f"A level of '{attribute}'")
    names: dict[str, str] = {}
    hint = ""
    for value in map(str, counts.index):
        # The same number is the same value; otherwise a mapping means what it says, letter by letter.
        near = [rule for rule in rules if rule != value and _spells(value, rule, words, numbers_only=exact)]
        if value in rules:
            names[value] = rules[value]
        elif len(near) == 1:
            names[value] = rules[near[0]]
        elif not hint:
            alike = [rule for rule in rules if _spells(value, rule, words, numbers_only=False)]
            hint = did_you_mean(value, rules)
            if alike:
                merge = shlex.quote(f"{value}={rules[alike[0]]}")
                hint = f" '{value}' looks like a spelling of '{alike[0]}': --level {merge} merges them."
    strange = [value for value in map(str, counts.index) if value not in names]
    if strange:
        raise InputError(
            f"{source}: '{attribute}' holds values that its levels do not name: {_quoted(strange, counts)}.{hint} "
            "Add them to `levels`, or leave those rows out with `keep`."
        )
    if not exact:
        absent = [rule for rule in rules if rule not in names.values()]
        if absent:
            near_by = did_you_mean(absent[0], map(str, counts.index))
            raise InputError(f"{source}: no image has the level '{absent[0]}' of '{attribute}' (`levels`).{near_by}")
    return names


def _spells(value: str, rule: str, words: Words | None, *, numbers_only: bool) -> bool:
    if only_numbers_differ([value, rule]):
        return fold(value) == fold(rule)
    return not numbers_only and len(groups([value, rule], words)) == 1


def _require_apart(names: Sequence[str], attribute: str, source: str) -> None:
    distinct = list(dict.fromkeys(names))
    require_printable(distinct, f"{source}: a level of '{attribute}'")
    by_fold: dict[str, str] = {}
    for name in distinct:
        other = by_fold.setdefault(fold(name), name)
        if other != name:
            raise InputError(
                f"{source}: the levels '{other}' and '{name}' of '{attribute}' differ by case, blanks or a .0 only; "
                "give them one name, or names that can be told apart."
            )
    require_few(distinct, attribute, source)


def require_few(levels: Collection[str], attribute: str, source: str) -> None:
    """Refuse more levels than can be compared, as those of a number that is not cut into groups."""
    if len(levels) > MOST_LEVELS:
        shown = ", ".join(name[:40] for name in sorted(levels)[:5])
        raise InputError(
            f"{source}: '{attribute}' has {len(levels)} levels ({shown}, ...), at most {MOST_LEVELS} can be "
            "compared: of a number give values to redraw it at (`levels`: [30, 50]) or `bins`, else merge values with "
            "`levels`."
        )


def _note_spellings(recorder: FlowRecorder, attribute: str, names: Mapping[str, str], counts: pd.Series) -> None:
    """Tell in the flow which spellings were read as one level."""
    level_of: dict[str, list[str]] = {}
    for raw, name in names.items():
        if name != UNKNOWN:
            level_of.setdefault(name, []).append(raw)
    merged = {name: spellings for name, spellings in level_of.items() if len(spellings) > 1}
    if merged:
        said = "; ".join(f"{name} from {_counted(spellings, counts)}" for name, spellings in merged.items())
        recorder.start(attribute, f"{attribute}: several values are one level ({said})")


def _note_code(recorder: FlowRecorder, attribute: str, names: Mapping[str, str]) -> None:
    """Tell in the flow of a level that looks like "not known": a -1, 9 or 99 beside levels that are counted through."""
    levels = {*names.values()} - {UNKNOWN}
    if not all(re.fullmatch(r"-?\d{1,4}", level) for level in levels):
        return
    codes = sorted((level for level in levels if _CODE.fullmatch(level)), key=int)
    rest = sorted(int(level) for level in levels.difference(codes))
    through = len(rest) > 1 and rest in ([*range(len(rest))], [*range(1, len(rest) + 1)])
    if not through or any(0 < int(code) <= 2 * rest[-1] for code in codes):
        return
    for code in codes:
        recorder.start(
            attribute,
            f"{attribute}: '{code}' is taken as a level of its own "
            f"({int((recorder.frame[attribute] == code).sum())} images): leave blank what stands for 'not known'",
        )


def resolve_patients(recorder: FlowRecorder, attribute: str, policy: Policy) -> None:
    """Give every patient one level of what cannot change; under "drop" those whose records disagree are left out."""
    frame = recorder.frame
    resolved = resolve(frame, key="patient_id", value=attribute, policy=policy).set_index("patient_id")
    conflicting = frame["patient_id"].isin(resolved.index[resolved["conflict"]]) & (frame[attribute] != UNKNOWN)
    if not conflicting.any():
        return
    seen = (
        frame[conflicting]
        .groupby("patient_id")[attribute]
        .agg(lambda levels: " / ".join(sorted(set(levels.astype(str)))))
    )
    reason = (
        f"{attribute}: the records of the patient disagree{with_counts(frame.loc[conflicting, 'patient_id'].map(seen))}"
    )
    patients = frame["patient_id"].nunique()
    if policy == "drop" and len(seen) > MAX_UNMATCHED * patients:
        raise InputError(
            f"{len(seen)} of {patients} patients have several values of '{attribute}' ('{seen.iloc[0]}' first), which "
            "does not change; is 'patient_id' the column of the patients, and the attribute the patient's own?"
        )
    if policy == "drop":
        recorder.keep(~conflicting, attribute, reason)
        return
    recorder.frame.loc[conflicting, attribute] = frame.loc[conflicting, "patient_id"].map(resolved[attribute])
    recorder.start(attribute, reason.replace(" (", f", the {policy} record counts (", 1))


def _note_changing(recorder: FlowRecorder, attribute: str) -> None:
    """Tell how many patients have several levels of an attribute that may change, such as a scanner."""
    pairs = recorder.frame[["patient_id", attribute]].drop_duplicates()
    several = int(pairs.loc[pairs["patient_id"].duplicated(), "patient_id"].nunique())
    if several:
        recorder.start(attribute, f"{attribute}: {several} patients have images of several levels, each as recorded")


def merge_covariate(recorder: FlowRecorder, name: str) -> None:
    """Read spellings of one value of a covariate as the commonest of them, and tell it in the flow."""
    column = recorder.frame[name]
    given = column.dropna()
    if not len(given) or pd.api.types.is_numeric_dtype(given):
        return
    text = level_text(given)
    counts = text.value_counts()
    if len(counts) > MOST_VALUES:
        recorder.start(
            "covariates",
            f"'{name}' has {len(counts)} different values, such as '{shortened(str(counts.index[0]), 40)}', and each "
            "is taken as a level of its own: write a number in digits alone, or leave the column out",
        )
    require_printable(counts.index, f"A value of '{name}'")
    together = groups([str(value) for value in counts.index], VIEWS if name == "view" else None)
    # Groups are in the order of the counts: the commonest spelling is the first.
    names = {value: spellings[0] for spellings in together.values() for value in spellings}
    recorder.frame[name] = text.map(names).reindex(column.index)
    _note_spellings(recorder, name, names, counts)


def with_counts(raw: pd.Series) -> str:
    """Give raw values with their counts in parentheses, as the reasons of the flow end."""
    counts = raw.replace("", "(blank)").value_counts()
    return f" ({listed(f'{value}: {count}' for value, count in counts.head(40).items())})" if len(counts) else ""


def _counted(values: Sequence[str], counts: pd.Series) -> str:
    return ", ".join(f"{value}: {int(counts[value])}" for value in values[:20])


def _quoted(values: Sequence[str], counts: pd.Series) -> str:
    shown = ", ".join(f"'{value[:60]}' ({int(counts[value])} images)" for value in values[:10])
    return shown if len(values) <= 10 else f"{shown} and {len(values) - 10} more"
