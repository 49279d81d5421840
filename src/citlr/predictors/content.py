"""What a model's answers rest on, as one digest: values, code, and what the code names.

An object is taken apart as a pickle would (`__reduce_ex__`), which reaches every parameter, buffer and plain attribute.
Where its class says itself what a pickle holds, the code that restores it counts, or else all its attributes.
Code is followed through the names that it uses, so that a helper or a global array counts, and a function that nothing
calls does not. So does a file that a text names. Of a class every method counts, as nobody can say which are called
by a name that is made while predicting. What cannot be seen through (a session, a connection, a file that is read while
predicting) has no digest: then two models are never taken for the same one.
"""

import builtins
import hashlib
import inspect
import os
import sys
import types
import uuid
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._library.custom_ops import CustomOpDef
from torch.nn.modules import module as _of_all

from citlr.predictors.code import (
    ASKED,
    MAKING,
    RUNNING,
    SILENT,
    WRAPPERS,
    called_by_bases,
    globals_used,
    imports,
    installed,
    is_own,
    is_special,
    kernels,
    only_computes,
    operators,
    patched,
    readers,
    reads,
    scripted,
    version,
    written_here,
)
from citlr.run.files import digest_or_missing, kind_of_path

_UNKNOWN = "unknown:"
_RUN = (*WRAPPERS, CustomOpDef, types.CellType, types.CodeType, np.ufunc)
# What runs with every network: hooks that were registered for all
_OF_ALL_NETWORKS = (_of_all._global_forward_hooks, _of_all._global_forward_pre_hooks)
_PLAIN = (bool, int, float, complex, str, bytes, bytearray, range, slice, np.generic, np.dtype, type(None))
_TORCH_PLAIN = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)


class _UnknownError(Exception):
    """Something cannot be seen through; the message names it."""


def digest(thing: object) -> str | None:
    """Return the SHA-256 of an object's values and code; None where something in it cannot be seen through."""
    try:
        return _Content(thing).hexdigest()
    except Exception:  # also what an object of the user raises while it is taken apart: not seen through either
        return None


def never_equal() -> str:
    """Return a key that no other model has, nor this one when it is loaded again."""
    return f"{_UNKNOWN}{uuid.uuid4().hex}"


def is_unknown(fingerprint: str) -> bool:
    """Whether a fingerprint is that of a model whose content cannot be known."""
    return fingerprint.startswith(_UNKNOWN)


class _Content:
    """Walks an object and the code that it reaches; the order of the walk is that of the object, not of memory."""

    def __init__(self, root: object) -> None:
        self._hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        # what was seen must live on, or another object could get its address
        self._alive: list[object] = []
        self._names = {"forward"}
        self._spaces: list[Any] = []
        self._folders, self._own = {"": None}, set[str]()
        self._done: set[tuple[int, str]] = set()
        self._made: set[type] = set()
        self._restored: set[type] = set()
        self._loose = False
        self._add(root)
        self._add_members()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _text(self, text: str) -> None:
        self._hash.update(f"{len(text)}:{text}".encode(errors="surrogatepass"))

    def _add(self, thing: Any) -> None:
        if isinstance(thing, (*_PLAIN, *_TORCH_PLAIN)) or thing is Ellipsis:
            self._text(f"{type(thing).__name__} {thing!r}")
            self._add_file(thing)
            return
        # which constants of a compiled file are one object is chance
        if not isinstance(thing, tuple | frozenset | types.CodeType):
            if id(thing) in self._seen:
                self._text(f"seen {self._seen[id(thing)]}")
                return
            self._seen[id(thing)] = len(self._seen)
            self._alive.append(thing)
        if isinstance(thing, torch.Tensor | np.ndarray):
            self._add_numbers(thing)
        elif type(thing) in (tuple, list, dict, OrderedDict, set, frozenset):
            self._add_items(thing)
        elif isinstance(thing, type | types.ModuleType):
            self._add_space(thing)
        elif inspect.isroutine(thing) or isinstance(thing, _RUN):
            self._add_routine(thing)
        elif isinstance(thing, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            archive, named = scripted(thing)
            self._text(hashlib.sha256(archive).hexdigest())
            self._names |= named
        else:
            self._add_object(thing)

    def _add_file(self, thing: Any) -> None:
        """Take in the file that a text or a path names, in this folder or beside the code that was met."""
        if self._loose or not isinstance(thing, str | os.PathLike):
            return
        for folder in self._folders:
            path = Path(folder, thing)
            if kind_of_path(path) == "a file":
                self._text(f"{os.fspath(thing)} {digest_or_missing(path)}")

    def _add_numbers(self, array: Any) -> None:
        self._text(f"{type(array).__name__} {tuple(array.shape)} {array.dtype}")
        if isinstance(array, torch.Tensor):
            try:
                array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised, of a subclass
                raise _UnknownError(f"a {type(array).__name__} ({array.layout})") from error
        if array.dtype.hasobject:
            self._add(array.tolist())
        elif array.dtype.names:
            # field by field: the bytes between the fields are chance
            for name in array.dtype.names:
                self._add_numbers(array[name])
        else:
            self._hash.update(np.ascontiguousarray(array).tobytes())

    def _add_items(self, items: Any) -> None:
        self._text(f"{type(items).__name__} {len(items)}")
        if isinstance(items, dict):
            items = [part for pair in items.items() for part in pair]
        elif isinstance(items, set | frozenset):
            if not all(isinstance(item, (*_PLAIN, *_TORCH_PLAIN, tuple)) for item in items):
                raise _UnknownError("a set of objects")
            items = sorted(items, key=repr)
        for item in items:
            self._add(item)

    def _add_space(self, space: Any) -> None:
        """Take in a class or a module: by name where it is installed, by the members that code reaches if not."""
        name = space.__module__ if isinstance(space, type) else space.__name__
        shown = space.__qualname__ if isinstance(space, type) else name
        if installed(name):
            self._require_computing(name, base=space)
            if isinstance(space, type) and reads(space.__name__):
                raise _UnknownError(f"'{shown}'")
            self._text(f"{name} {shown} {version(name)}")
            for member in patched(space):
                self._add_value(member)
            return
        self._text(shown)
        self._spaces.append(space)
        if isinstance(space, type):
            for base in (*space.__mro__[1:], type(space)):
                self._add(base)

    def _require_computing(self, module: str, base: Any = None) -> None:
        if only_computes(module):
            return
        if isinstance(base, type) and (issubclass(base, torch.nn.Module) or hasattr(base, "get_params")):
            return
        raise _UnknownError(f"'{module}'")

    def _add_routine(self, routine: Any) -> None:
        if isinstance(routine, types.CellType):
            self._add(routine.cell_contents)
        elif isinstance(routine, types.CodeType):
            self._add_code(routine)
        elif isinstance(routine, CustomOpDef):
            self._add_value([routine._qualname, kernels(routine)])
        elif isinstance(routine, WRAPPERS):
            parts = ("fget", "__wrapped__", "func", "args", "keywords")
            self._add_value([getattr(routine, part, None) for part in parts])
        elif isinstance(routine, types.MethodType):
            self._names.add(routine.__func__.__name__)
            self._add([routine.__self__, routine.__func__])
        elif written_here(routine):
            self._add_function(routine)
        else:
            owner = getattr(routine, "__self__", None)
            if owner is not None and not isinstance(owner, type | types.ModuleType):
                self._add(owner)
            module = getattr(routine, "__module__", None) or getattr(owner, "__name__", None) or "builtins"
            name = getattr(routine, "__qualname__", getattr(routine, "__name__", type(routine).__qualname__))
            self._require_computing(module if isinstance(module, str) else "builtins")
            if isinstance(routine, np.ufunc) and " " in name:  # of np.frompyfunc, which shows nobody its function
                raise _UnknownError(f"'{name}'")
            if reads(name.rpartition(".")[2]):
                raise _UnknownError(f"'{name}'")
            self._text(f"{module} {name} {version(str(module))}")

    def _add_function(self, function: types.FunctionType) -> None:
        self._text(f"function {function.__qualname__}")
        self._folders[str(Path(function.__code__.co_filename).parent)] = None
        used = {name: function.__globals__.get(name) for name in globals_used(function.__code__)}
        self._own |= {name for name, one in used.items() if written_here(one)}
        self._add_value([function.__defaults__, function.__kwdefaults__, function.__dict__])
        for cell in function.__closure__ or ():
            try:
                self._add_value(cell.cell_contents)
            except ValueError:  # not filled yet
                self._text("empty")
        self._add_code(function.__code__)
        for name in sorted(used):
            self._text(name)
            if name in function.__globals__:
                self._add_value(function.__globals__[name])
            elif name in RUNNING and not self._loose:
                raise _UnknownError(f"'{name}'")
            elif hasattr(builtins, name):
                self._add_value(getattr(builtins, name))

    def _add_code(self, code: types.CodeType) -> None:
        if not self._loose and (reading := [name for name in readers(code, self._spaces) if not self._is_own(name)]):
            raise _UnknownError(f"'{min(reading)}'")
        self._hash.update(code.co_code)
        self._add([code.co_names, code.co_varnames, code.co_freevars, code.co_flags, code.co_exceptiontable])
        self._names.update(code.co_names)
        # a text may be a name that getattr is given
        self._names.update(value for value in code.co_consts if isinstance(value, str) and value.isidentifier())
        for value in code.co_consts:
            self._add(value)
        for module in () if self._loose else imports(code):
            # whether it was imported yet is chance
            found = import_module(module) if only_computes(module) else sys.modules.get(module)
            if found is None:
                raise _UnknownError(f"'{module}'")
            self._add(found)

    def _is_own(self, name: str) -> bool:
        """Whether a name that sounds of reading is the user's own, whose code is followed; not so np.load."""
        own = name in self._own or any(inspect.isfunction(vars(space).get(name)) for space in self._spaces)
        return own and name not in ("load", "open")

    def _add_value(self, thing: Any) -> None:
        (self._add_loosely if self._loose else self._add)(thing)

    def _add_loosely(self, thing: Any) -> None:
        """Take in of code that may never run what no two processes have different: a text may be a path."""
        try:
            if isinstance(thing, list | tuple | dict):
                for part in thing.items() if isinstance(thing, dict) else thing:
                    self._add_loosely(part)
            elif not isinstance(thing, str) or thing.isidentifier():
                self._add(thing)
        except Exception:  # what cannot be seen through need not run
            self._text("unclear")

    def _add_members(self) -> None:
        """Take in the members of the user's own classes and modules: what runs, and then loosely what may run."""
        while reached := self._members(self._runs) or self._members(self._makes) or self._operators():
            for thing in reached:
                self._add(thing)
        self._loose = True
        while reached := self._members(self._may_run):
            for thing in reached:
                self._add_loosely(thing)

    def _members(self, reaches: Callable[[Any, str], bool]) -> list[Any]:
        """Give the members of this kind that are new, and take in their names."""
        found = [
            (space, name)
            for space in self._spaces
            for name in sorted(vars(space))
            if (id(space), name) not in self._done and reaches(space, name)
        ]
        for space, name in found:
            self._done.add((id(space), name))
            self._text(f"member {name}")
        return [vars(space)[name] for space, name in found]

    def _operators(self) -> list[Any]:
        """Give the operators that are new, of those that the user put in among torch's."""
        shown, hidden = operators(self._names)
        if hidden:
            raise _UnknownError(f"'{min(hidden)}'")
        return [one for one in shown if id(one) not in self._seen]

    def _runs(self, space: object, name: str) -> bool:
        if not isinstance(space, type):
            return name == "__getattr__" or (name in self._names and not is_special(name))
        if is_special(name):
            runs = name not in SILENT or (space in self._restored and name in self._names)
            return runs and inspect.isroutine(vars(space)[name])
        if name in ASKED and hasattr(space, "fit") and not issubclass(space, torch.nn.Module):
            return True
        return name in self._names or name in called_by_bases(space, self._names)

    def _makes(self, space: object, name: str) -> bool:
        if not isinstance(space, type) or name not in MAKING or space in self._made:
            return False
        # that of a dataclass is generated, and does no work of its own
        code = getattr(vars(space)[name], "__code__", None)
        return code is None or not code.co_filename.startswith("<")

    def _may_run(self, space: object, name: str) -> bool:
        if not isinstance(space, type):
            code = isinstance(vars(space)[name], type | types.FunctionType)
            return not is_special(name) and (name in self._names or (code and "getattr" in self._names))
        return not is_special(name) or inspect.isroutine(vars(space)[name])

    def _add_object(self, thing: Any) -> None:
        self._add_file(thing)
        if hasattr(thing, "_forward") and hasattr(thing, "fingerprint"):  # a model that was loaded here, in another
            known = thing.fingerprint()
            if is_unknown(known):
                raise _UnknownError(f"the model '{thing.name}'")
            self._text(known)
            return
        self._made.update(type(thing).__mro__)
        self._add(type(thing))
        if self._loose:
            return
        if isinstance(thing, torch.nn.Module):
            self._add([torch.nn.functional, *_OF_ALL_NETWORKS])
        try:
            parts: Any = thing.__reduce_ex__(4)
        except Exception as error:
            raise _UnknownError(f"a {type(thing).__qualname__}") from error
        # a text is the name under which a module has the object
        parts = (parts,) if isinstance(parts, str) else parts
        for part in (*parts[:3], *parts[5:]):
            self._add(part)
        for pairs in parts[3:5]:
            self._add(None if pairs is None else list(pairs))
        if not any(is_own(type(thing), name) for name in ("__getstate__", "__reduce__", "__reduce_ex__")):
            return
        if len(parts) > 2 and parts[2] is not None and is_own(type(thing), "__setstate__"):
            self._restored.update(type(thing).__mro__)
            self._names.add("__setstate__")
        else:
            self._add(object.__getstate__(thing))
