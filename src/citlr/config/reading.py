"""Reading settings from YAML or plain values, with every problem in words; and what differs between two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from citlr.config.audit import AuditConfig
from citlr.config.sections import Section
from citlr.config.written import alternatives, inside, read_yaml
from citlr.errors import InputError, did_you_mean
from citlr.text import shortened, shown
from citlr.values import said

S = TypeVar("S", bound=Section)
# More problems than these are of one cause, most often.
MOST_PROBLEMS = 5


def read_config(path: str | Path) -> AuditConfig:
    """Read and validate a YAML configuration; paths in it become absolute."""
    source = Path(path)
    return parse_config(read_yaml(source, AuditConfig, "configuration"), str(source)).resolved(source.resolve().parent)


def parse_config(content: Mapping[str, Any], where: str) -> AuditConfig:
    """Validate plain settings; `where` is named in the error."""
    return parse_section(AuditConfig, content, f"In '{shortened(where)}'")


def parse_section(section: type[S], content: Any, where: str) -> S:
    """Validate plain settings as a section; the error begins with `where`."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        problems = error.errors()
        single = isinstance(content, Mapping) and "model" in content
        # An entry that is refused makes its list too short as well.
        entries = {problem["loc"][:-1] for problem in problems}
        told = [one for one in problems if not (one["type"] == "too_short" and one["loc"] in entries)]
        sentences = list(dict.fromkeys(_sentence(problem, section, single) for problem in told))
        more = f"; and {len(sentences) - MOST_PROBLEMS} more" if len(sentences) > MOST_PROBLEMS else ""
        text = "; ".join(sentences[:MOST_PROBLEMS]) + more
        raise InputError(f"{where}: {text}{'' if text.endswith('?') else '.'}") from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return "key: old -> new" for every setting that differs between two dumped configurations."""
    changed: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return changed


def _short(value: Any) -> str:
    return shortened(str(value)) if isinstance(value, str | int | float) else shown(value)


def _sentence(problem: Any, root: type[Section], one_model: bool) -> str:
    """Turn one pydantic problem into words: the key, what was found, what would do."""
    # "#..." and "[key]" are pydantic's: which form of a value is meant, and that a name of a mapping is.
    location = [str(part) for part in problem["loc"] if not str(part).startswith("#") and part != "[key]"]
    if location == ["models"] and problem["type"] == "dict_type":
        found = shown(problem["input"])
        return f"'models' is {found}, not a mapping of names to models, such as {{ours: {{source: ...}}}}"
    if location == ["models"] or (location[:1] == ["models"] and one_model):
        location = ["model", *location[2:]]  # as it is written for one model
    key = shortened(".".join(location))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{did_you_mean(location[-1], _keys(root, location[:-1]))}".rstrip(".")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    if problem["type"] in ("model_type", "model_attributes_type"):
        held = f"'{key}' is {shown(problem['input'])}, not" if key else f"it holds {shown(problem['input'])}, not"
        return f"{held} a mapping of the keys {', '.join(_keys(root, location))}"
    message = shortened(said(problem), 600)
    # What several keys together cannot be is told by a sentence that names them.
    whole = isinstance(problem["input"], Mapping | Section)
    if whole and message.startswith("'"):
        return f"in '{key}' {message}" if key else message
    if whole:
        return f"in '{key}': {message}" if key else message
    return f"'{key}' is {shown(problem['input'])}: {message}" if key else message


def _keys(root: type[Section], location: list[str]) -> list[str]:
    """Return the names that the section at `location` may have."""
    kinds: list[Any] = [root]
    for part in location:
        kinds = alternatives(inside(kinds, part))
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
    return [name for section in sections for name in (*section.model_fields, *section.besides)]
