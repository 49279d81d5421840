"""The page of every key of `audit.yaml`, from the sections themselves: type, default and meaning."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from citlr.config import AuditConfig, InputConfig, ModelConfig, OutputConfig, Section

HEAD = """# Every key of audit.yaml

This page is made from the code. A key that is not here is an error, which names the nearest one. Paths are relative to
the configuration file. A key without a default has to be given.

`model:` takes the keys of one model; `models:` takes several by name. The smallest configuration names a table, an
attribute, a label and a model:

```yaml
cohort:
  table: study.csv
  images: scans
  attribute: sex
  labels: [pneumonia]
model:
  source: model.onnx
```
"""


def page() -> str:
    """Return the whole page, a table for every section."""
    sections = {
        name: field.annotation
        for name, field in AuditConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    sections |= {"model": ModelConfig, "model.input": InputConfig, "model.output": OutputConfig}
    parts = [HEAD, "## The file\n", *_table(AuditConfig)]
    for name, section in sections.items():
        parts += [f"\n## {name}\n", f"{inspect.cleandoc(section.__doc__ or '')}\n", *_table(section)]
    return "\n".join(parts) + "\n"


def keys_of(section: type[Section] = AuditConfig) -> dict[str, FieldInfo]:
    """Return every field of a configuration, under its dotted name."""
    found: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        found[name] = field
        for kind in _kinds(field.annotation):
            if isinstance(kind, type) and issubclass(kind, Section):
                found |= {f"{name}.{inner}": one for inner, one in keys_of(kind).items()}
    return found


def _table(section: type[Section]) -> list[str]:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        meaning = " ".join((field.description or "").split())
        cells = (f"`{name}`", type_of(field), default_of(field), meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def default_of(field: FieldInfo) -> str:
    """Return the default as YAML writes it; a dash where the key has to be given."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, Section):
        return ""
    return f"`{_yaml(field.default)}`" if field.default not in (None, "") else "none"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(one) for one in value)}]"
    return "{}" if value == {} else str(value)


def type_of(field: FieldInfo) -> str:
    """Say in words what a field takes, with its limits."""
    said = [_say(kind) for kind in _kinds(field.annotation) if kind is not type(None)]
    limits = _limits(field.metadata)
    return " or ".join(dict.fromkeys(said)) + (f", {limits}" if limits else "")


def _kinds(kind: Any) -> list[Any]:
    """Take apart a union; annotated kinds stay whole, for their limits."""
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in _kinds(part)]
    if get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) in (Union, types.UnionType):
        return _kinds(get_args(kind)[0])
    return [kind]


def _say(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        limits = _limits(notes)
        return _say(inner) + (f", {limits}" if limits else "")
    origin = get_origin(kind)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    if origin is tuple:
        return "list of " + _say(next(one for one in get_args(kind) if one is not Ellipsis))
    if origin is dict:
        return "mapping of name to " + _say(get_args(kind)[1])
    if isinstance(kind, type) and issubclass(kind, Section):
        return "section"
    words = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Any: "any value"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _limits(notes: Any) -> str:
    """Say the tightest limits; those that only keep numbers finite or in memory are no news."""
    low = high = ""
    for note in notes:
        for one in getattr(note, "metadata", None) or [note]:
            for sign, name in (("≥", "ge"), (">", "gt")):
                value = getattr(one, name, None)
                low = f"{sign} {value:g}" if value is not None and value > -1e7 else low
            for sign, name in (("≤", "le"), ("<", "lt")):
                value = getattr(one, name, None)
                high = f"{sign} {value:g}" if value is not None and value < 1e7 else high
    return ", ".join(limit for limit in (low, high) if limit)
