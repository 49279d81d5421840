"""The page of every verb of the command line, from typer."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from citlr.cli.app import app

HEAD = """# Every command

This page is made from the code; `citlr VERB --help` says the same. Exit status: 0 done, 1 a gate said no, 2 bad
input or usage, 130 stopped by Ctrl-C, 143 terminated, 141 cut off by a reader that is gone.
A run that was stopped goes on with the same command.
"""


def verbs(group: Any = None, path: str = "citlr") -> Iterator[tuple[str, Any]]:
    """Walk over every verb, those of groups included, with its whole name."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def page() -> str:
    """Return the whole page: usage, help, arguments and options of every verb."""
    found = sorted(verbs(), key=lambda pair: pair[0])
    parts = [HEAD, *(f"- [`{name}`](#{name.replace(' ', '-')}): {_first(command)}" for name, command in found), ""]
    for name, command in found:
        parts += [f"## {name}\n", f"{inspect.cleandoc(command.help or '')}\n", *_table(command), ""]
    return "\n".join(parts)


def _first(command: Any) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")


def _table(command: Any) -> list[str]:
    hints = get_type_hints(command.callback, include_extras=True)
    rows = ["| argument, option | type | default | meaning |", "|---|---|---|---|"]
    for one in command.params:
        if getattr(one, "hidden", False) or one.name not in hints:
            continue
        argument = one.param_type_name == "argument"
        name = str(one.metavar or one.name).upper() if argument else ", ".join((*one.opts, *one.secondary_opts))
        default = "required" if one.required else _default(one.default)
        cells = (f"`{name}`", _kind(hints[one.name]), default, getattr(one, "help", None) or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return rows if len(rows) > 2 else ["It takes no argument.", ""]


def _default(value: Any) -> str:
    unsaid = value is None or value is False or value == () or value == "" or callable(value)
    return "" if unsaid else f"`{getattr(value, 'value', value)}`"


def _kind(hint: Any) -> str:
    """Say what an argument takes, with its limits; typer keeps both in the annotation."""
    said = next((one for one in (hint, *get_args(hint)) if get_origin(one) is Annotated), Annotated[hint, None])
    kind, info = get_args(said)[:2]
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    many = ""
    if get_origin(kind) is list:
        kind, many = get_args(kind)[0], ", several"
    limits = [f"≥ {info.min:.10g}"] if getattr(info, "min", None) is not None else []
    limits += [f"≤ {info.max:.10g}"] if getattr(info, "max", None) is not None else []
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind)) + many
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind) + many
    words = {int: "whole number", float: "number", bool: "flag", str: "text", Path: "path"}
    return " ".join([words[kind], *limits]) + many
