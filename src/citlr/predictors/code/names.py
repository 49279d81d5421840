"""The names that compiled code uses, and which members of a class run without being named."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import types


def words(text: str) -> frozenset[str]:
    """Give the words of a text."""
    return frozenset(text.split())


# Members with two underscores run without being named, but for these
SILENT = words(
    "__init__ __new__ __post_init__ __init_subclass__ __class_getitem__ __repr__ __str__ __eq__ __hash__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __del__ __dir__ __doc__ __dict__ __module__ __annotations__ __weakref__"
)

# What reads that is not in the program, whatever package it is of: loadtxt, read_image, imread, open_memmap, readNet
_READS = re.compile(
    r"_?(im|mm)?(load|read|open|decode|fetch|download)($|_|[A-Z]|txt|mat)|.*(from_?(file|txt|url|pretrained)|memmap)"
)
_READING = words("environ getenv hub import_module VideoCapture DataSource")


def reads(name: str) -> bool:
    """Whether a name is that of something that reads files or asks servers; a network takes a state_dict from memory.

    >>> [reads(name) for name in ("load_npz", "decode_image", "readNetFromONNX", "decoder", "readout", "opening")]
    [True, True, True, False, False, False]
    """
    return name in _READING or (name != "load_state_dict" and _READS.match(name) is not None)


def is_special(name: str) -> bool:
    """Whether a name has two underscores on both sides."""
    return name.startswith("__") and name.endswith("__")


@functools.lru_cache
def named_in(base: type) -> list[tuple[str, set[str]]]:
    """Give the name of each method of a class, and the names that its code uses."""
    members = [(name, inspect.unwrap(member)) for name, member in vars(base).items() if name not in SILENT]
    return [(name, names_used(member.__code__)) for name, member in members if inspect.isfunction(member)]


def _parts(code: types.CodeType) -> list[types.CodeType]:
    """Give the code of a function and of all functions in it."""
    return [code, *(part for inner in code.co_consts if isinstance(inner, types.CodeType) for part in _parts(inner))]


def names_used(code: types.CodeType) -> set[str]:
    """Give all names in the code of a function: of members, globals and modules."""
    return {name for part in _parts(code) for name in part.co_names}


def globals_used(code: types.CodeType) -> set[str]:
    """Give the globals that a function uses."""
    steps = [step for part in _parts(code) for step in dis.get_instructions(part)]
    return {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def imports(code: types.CodeType) -> list[str]:
    """Give the modules that a function imports."""
    return [step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]
