"""YAML as it is meant: text stays as it is written, keys come once, and no few bytes become a flood."""

import re
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from citlr.config.sections import Section
from citlr.errors import InputError
from citlr.text import shortened

# A configuration has some hundred values; a policy fewer.
MOST_BYTES, MOST_NODES, DEEPEST = 1_000_000, 100_000, 30
_TAG = "tag:yaml.org,2002:"
# Numbers that YAML 1.2 knows and YAML 1.1 takes for text.
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def read_yaml(path: str | Path, section: type[Section], what: str) -> dict[str, Any]:
    """Read a mapping from a YAML file, every scalar as the kind of value that `section` has in its place."""
    source = Path(path)
    try:
        there, size = source.is_file(), source.stat().st_size if source.is_file() else 0
    except (OSError, ValueError):  # a name that no file can have
        there, size = False, 0
    if not there:
        raise InputError(f"No {what} at '{shortened(str(source))}': give the path of a YAML file.")
    if size > MOST_BYTES:
        raise InputError(f"'{source}' has {size} bytes, and no {what} has more than {MOST_BYTES}: give a {what}.")
    try:
        text = source.read_text(encoding="utf-8")
        _require_small(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = None if node is None else _build(node, section)
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{source}' cannot be read ({shortened(str(error))}): give a text file in UTF-8.") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"'{source}' is not valid YAML{line}: {shortened(problem)}.") from error
    if content is not None and not isinstance(content, dict):
        raise InputError(
            f"'{source}' holds {type(content).__name__}, not a mapping of the keys {', '.join(section.model_fields)}."
        )
    return content or {}


def _require_small(text: str, source: Path) -> None:
    """Refuse, before anything is built, what is nested too deeply, holds itself, or grows through its aliases."""
    sizes: dict[str, tuple[int, int]] = {}  # of every anchor: how many values it stands for, and how deep they are
    # Of the document and of every open collection: values so far, depth so far, anchor.
    open_: list[tuple[int, int, str | None]] = [(0, 0, None)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((1, 1, event.anchor))
            if len(open_) > DEEPEST:
                raise InputError(f"'{source}' is nested more than {DEEPEST} levels deep: no setting is.")
            continue
        ended = _ended(event, sizes, open_, source)
        if ended is None:
            continue
        count, depth, anchor = ended
        if anchor is not None:
            sizes[anchor] = (count, depth)
        total, deepest, name = open_[-1]
        open_[-1] = (total + count, max(deepest, depth + 1), name)
        if total + count > MOST_NODES or len(open_) + depth - 1 > DEEPEST:
            raise InputError(
                f"'{source}' stands for more than {MOST_NODES} values, or is nested more than {DEEPEST} levels deep, "
                "with its aliases: write out what is meant."
            )


def _ended(
    event: yaml.Event, sizes: dict[str, tuple[int, int]], open_: list[tuple[int, int, str | None]], source: Path
) -> tuple[int, int, str | None] | None:
    """Return size, depth and anchor of the value that ends with an event; None where none does."""
    if isinstance(event, yaml.CollectionEndEvent):
        return open_.pop()
    if isinstance(event, yaml.AliasEvent):
        if event.anchor in sizes:
            return (*sizes[event.anchor], None)
        if any(event.anchor == name for _, _, name in open_):
            raise InputError(f"In '{source}' the value '&{event.anchor}' holds itself: write out what is meant.")
        return None  # the composer names the anchor that is not there
    return (1, 1, event.anchor) if isinstance(event, yaml.ScalarEvent) else None


def _build(node: yaml.Node, kind: Any) -> Any:
    kinds = alternatives(kind)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, kinds)
    if node.tag not in (f"{_TAG}seq", f"{_TAG}map"):
        raise yaml.YAMLError(f"a value of the kind {node.tag} is none that a setting has")
    if isinstance(node, yaml.SequenceNode):
        within = [one for kind in kinds if get_origin(kind) in (tuple, list) for one in get_args(kind)]
        element = next((one for one in within if one is not Ellipsis), Any)
        return [_build(one, element) for one in node.value]
    assert isinstance(node, yaml.MappingNode)  # the third and last kind of node
    return _mapping(node, kinds)


def _mapping(node: yaml.MappingNode, kinds: list[Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == f"{_TAG}merge":
            parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for part in reversed(parts):
                if not isinstance(part, yaml.MappingNode):
                    raise yaml.YAMLError("what follows '<<' is no mapping: name the anchor of one")
                merged |= _mapping(part, kinds)
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.YAMLError("a key is a list or a mapping; keys are names")
        key = key_node.value
        if key in given:
            line = key_node.start_mark.line + 1
            raise yaml.YAMLError(f"the key '{shortened(key)}' is there twice, again in line {line}; keep one of them")
        given[key] = _build(value_node, inside(kinds, key))
    return {**merged, **given}


def _scalar(node: yaml.ScalarNode, kinds: list[Any]) -> Any:
    tag = node.tag.removeprefix(_TAG)
    plain = tag in ("str", "bool", "int", "float", "null", "timestamp", "value", "merge")
    if plain and any(kind in (str, Path) or (get_origin(kind) is Literal and _texts(kind)) for kind in kinds):
        others = {"null": type(None), "bool": bool, "int": float, "float": float}.get(tag)
        taken = others in kinds or (others is float and int in kinds)
        if not (taken and node.style is None):
            return node.value
    if tag == "str" and node.style is None and _EXPONENT.fullmatch(node.value):
        return float(node.value)
    return yaml.constructor.SafeConstructor().construct_object(node)


def _texts(kind: Any) -> bool:
    return all(isinstance(value, str) for value in get_args(kind))


def alternatives(kind: Any) -> list[Any]:
    """Take apart what a field may hold: `Annotated[A, ...] | B | None` is A, B and the type of None."""
    origin = get_origin(kind)
    if origin is Annotated:
        return alternatives(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in alternatives(part)]
    return [kind]


def inside(kinds: list[Any], key: Hashable) -> Any:
    """Return what a mapping of these kinds has under a key; anything where nobody says."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Section):
            if key in kind.model_fields:
                return kind.model_fields[str(key)].annotation
            if key in kind.besides:
                return kind.besides[str(key)]
        elif get_origin(kind) is dict:
            return get_args(kind)[1]
    return Any
