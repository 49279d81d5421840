"""The kinds of values that settings are made of, with their limits; every section and every record shares them."""

import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from citlr.errors import InputError, require_known
from citlr.text import shortened, shown, visible

F = TypeVar("F", bound=Callable[..., Any])
# As Lightning Fabric names them.
Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"]
# A file system takes 255 bytes for a name and 4096 for a path.
LONGEST_NAME, LONGEST_PATH = 255, 4000
# Options of a generator are a handful of numbers; anything deeper is a mistake.
DEEPEST = 4


def scalar(value: object) -> object:
    """Turn a scalar of numpy or torch into Python's own."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def plain(value: Any) -> Any:
    """Replace tuples by lists and numbers that are not finite by None, so that the JSON is JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _number(value: object) -> object:
    value = scalar(value)
    if isinstance(value, bool):
        raise ValueError("this is yes or no; give a number")
    if isinstance(value, str | bytes):
        raise ValueError("this is text; give a number, without quotes")
    return value


def _flag(value: object) -> object:
    value = scalar(value)
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("give text, in quotes where it looks like a number")
    for sign in value:
        if (sign < " " and sign not in "\n\t") or "\x7f" <= sign <= "\x9f" or "\ud800" <= sign <= "\udfff":
            raise ValueError(f"it holds the character {sign!a}, which no text has; take it out")
    return value


def _name(value: object) -> object:
    if isinstance(value, str) and ("\n" in value or "\t" in value):
        raise ValueError("a name is one line without tabs")
    return value


def _file(value: object) -> object:
    if not isinstance(value, str | os.PathLike):
        raise ValueError("give a path, in quotes where it looks like a number")
    path = os.fspath(value)
    if isinstance(path, bytes) or not path.strip():
        raise ValueError("give a path")
    _text(path)
    _name(path)
    parts = [len(part.encode()) for part in path.split("/")]
    if len(path.encode()) > LONGEST_PATH or max(parts) > LONGEST_NAME:
        raise ValueError(f"no path is that long ({len(path)} characters); give one that exists")
    return value


def ordered(value: object) -> object:
    """Let a list of values through, and refuse one text, or values without an order."""
    if isinstance(value, str):
        raise ValueError(f"this is one text; give a list, such as [{shown(value)}]")
    if isinstance(value, Mapping | set | frozenset):
        raise ValueError("this has no order; give a list")
    return value


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"'{visible(name)}' is named twice; name it once")
    return names


def _option(value: object, depth: int = 0) -> object:
    value = scalar(value)
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply; give numbers, texts and lists of them")
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError("give a finite number")
        return value
    if isinstance(value, Mapping):
        return {str(_text(key)): _option(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_option(one, depth + 1) for one in value]
    what = "a date; write it in quotes" if isinstance(value, date) else f"a {type(value).__name__}"
    raise ValueError(f"it holds {what}; give numbers, texts and lists of them")


def _how_many(value: object) -> str:
    """Tell one value from one per name, and from a list: which of a union's kinds is meant."""
    if isinstance(value, Mapping):
        return "#mapping"
    return "#list" if isinstance(value, list | tuple) else "#one"


_FORMS = {"#one": "one value", "#list": "a list", "#mapping": "a mapping with a value for each name"}
ByForm = Discriminator(_how_many)
One, PerName, Listed = Tag("#one"), Tag("#mapping"), Tag("#list")

Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
# A number that may not exist: NaN here, null in JSON.
Real = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"type": ["number", "null"]}),
]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0, le=1e9)]
NotNegative = Annotated[Number, Field(ge=0, le=1e9)]
# What no audit can show: one decision in ten thousand takes 30 000 patients who all keep theirs.
Margin = Annotated[Number, Field(ge=1e-4, lt=1)]
# At 0 every decision is "yes", whatever the image shows, and every model would be equivalent.
Threshold = Annotated[Number, Field(gt=0, le=1)]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=-(2**63), lt=2**63)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Count = Annotated[Whole, Field(ge=1, le=100_000_000)]
CountOrNone = Annotated[Whole, Field(ge=0, le=100_000_000)]
Few = Annotated[Whole, Field(ge=1, le=10_000)]
Batch = Annotated[Whole, Field(ge=1, le=100_000)]
Blocks = Annotated[Whole, Field(ge=1, le=64)]
Side = Annotated[Whole, Field(ge=1, le=8192)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text), Field(max_length=10_000)]
Name = Annotated[Text, BeforeValidator(_name), Field(min_length=1, max_length=500)]
File = Annotated[Path, BeforeValidator(_file)]
Source = Annotated[str, BeforeValidator(_file)]
Names = Annotated[tuple[Name, ...], BeforeValidator(ordered), AfterValidator(_once)]
Widths = Annotated[tuple[Annotated[Whole, Field(ge=1, le=8192)], ...], Field(min_length=1, max_length=16)]
Options = Annotated[dict[Name, Any], AfterValidator(_option)]
Numbers = Annotated[Annotated[Number, One] | Annotated[dict[Name, Number], PerName], ByForm]
Thresholds = Annotated[Annotated[Threshold, One] | Annotated[dict[Name, Threshold], PerName], ByForm]


def said(problem: Any) -> str:
    """Say in words what one problem of pydantic is, without its key and value."""
    if problem["type"] == "union_tag_invalid":
        expected = str(problem["ctx"]["expected_tags"]).replace("'", "").split(", ")
        return f"give {' or '.join(_FORMS[tag] for tag in expected)}"
    # Whoever quotes it ends the sentence.
    message = str(problem["msg"]).removeprefix("Value error, ").removesuffix(".")
    return (
        message.replace("Input should be", "it should be").replace("valid tuple", "list").replace("Tuple", "the list")
    )


def require_fields(record: type[Any], given: Mapping[str, Any], more: Iterable[str] = ()) -> None:
    """Raise `InputError` for a name that is no field of a dataclass, nor one of those that it takes beside."""
    names = [*(field.name for field in dataclasses.fields(record)), *more]
    for name in given:
        require_known(name, names, f"'{shortened(name)}' is not a field of {record.__name__}")


@cache
def _kinds(record: Hashable) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cast(type, record), include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(cast(Any, record))}


def check_fields(record: Any) -> None:
    """Hold every field of a frozen dataclass against the kind of value it is annotated with, and make it that.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Budget:
    ...     steps: Count = 3
    ...     def __post_init__(self) -> None:
    ...         check_fields(self)
    >>> Budget(True)
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: steps=True: this is yes or no; give a number.
    """
    for name, kind in _kinds(cast(Hashable, type(record))).items():
        object.__setattr__(record, name, _taken(name, getattr(record, name), kind))


def check_value(name: str, value: Any, kind: Any) -> Any:
    """Return a single value as one of these kinds; InputError naming it, as of `check_fields`.

    >>> check_value("margin", "0.1", Margin)
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: margin='0.1': this is text; give a number, without quotes.
    """
    return _taken(name, value, TypeAdapter(kind))


def checked(function: F) -> F:
    """Make a function take its arguments as the kinds of values that they are annotated with."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name, kind in _arguments(cast(Hashable, function)).items():
            if name in given.arguments:
                given.arguments[name] = _taken(name, given.arguments[name], kind)
        return function(*given.args, **given.kwargs)

    return cast(F, call)


@cache
def _arguments(function: Hashable) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cast(Any, function), include_extras=True)
    return {name: TypeAdapter(hint) for name, hint in hints.items() if _is_kind(hint)}


def _is_kind(hint: Any) -> bool:
    return get_origin(hint) is Annotated or any(_is_kind(part) for part in get_args(hint))


def _taken(name: str, value: Any, kind: TypeAdapter[Any]) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name}={shown(value)}: {said(error.errors()[0])}.") from error
