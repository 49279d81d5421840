"""Reading a configuration from YAML or plain settings, with every problem in words; and what differs between two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from citlr.config.audit import AuditConfig
from citlr.config.sections import ModelConfig, ReportConfig, Section
from citlr.errors import InputError, did_you_mean


def read_config(path: str | Path) -> AuditConfig:
    """Read and validate a YAML configuration; paths in it become absolute.

    Parameters
    ----------
    path : path-like
        The YAML file.

    Returns
    -------
    AuditConfig
        The settings.

    Raises
    ------
    InputError
        If the file is missing, is not YAML, or has a key or value that cannot be used; every message names the key and
        what would do.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(
            f"No configuration at '{source}': give the path of a YAML file (examples/nih_sex.yaml is one)."
        )
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"'{source}' is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"'{source}' holds {type(content).__name__}, not a mapping: see examples/nih_sex.yaml.")
    return parse_config(content, str(source)).resolved(source.resolve().parent)


def parse_config(content: dict[str, Any], where: str) -> AuditConfig:
    """Validate plain settings; `where` is named in the error."""
    try:
        return AuditConfig.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_sentence(problem) for problem in error.errors())
        raise InputError(f"In '{where}': {problems.rstrip('.')}.") from error


def parse_report(content: dict[str, Any]) -> ReportConfig:
    """Validate what a report shall show, as given on a command line.

    Raises
    ------
    InputError
        If a value cannot be used.
    """
    try:
        return ReportConfig.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"The report cannot be made: {'; '.join(_sentence(one) for one in error.errors())}."
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return "key: old -> new" for every setting that differs between two dumped configurations.

    Examples
    --------
    >>> differences({"test": {"margin": 0.02}}, {"test": {"margin": 0.05}})
    ['test.margin: 0.02 -> 0.05']
    """
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _sentence(problem: Any) -> str:
    """Turn one pydantic problem into words: the key, what was found, what would do."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location).replace("models.model.", "model.")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{did_you_mean(location[-1], _keys(location[:-1]))}".rstrip(".")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"'{key}' is {problem['input']!r}: {message}" if key else message


def _keys(location: Iterable[str]) -> list[str]:
    """Return the field names of the section at `location`."""
    section: type[BaseModel] = AuditConfig
    for part in location:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if part == "models":
            section = ModelConfig
        elif isinstance(annotation, type) and issubclass(annotation, Section):
            section = annotation
    names = list(section.model_fields)
    return [*names, "model"] if section is AuditConfig else names
