"""What a model's answers rest on, as one digest: values, code, and what the code names.

An object is taken apart as a pickle would (`__reduce_ex__`), which reaches every parameter, buffer and plain attribute.
Code is followed through the names that it uses, so that a helper or a global array counts, and a function that nothing
calls does not. What cannot be seen through (a session, a connection, a file that is read while predicting) has no
digest: then two models are never taken for the same one.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import inspect
import io
import sys
import types
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNKNOWN = "unknown:"
# Packages whose functions only compute; another one could ask a server or a file for its answer.
_COMPUTING = _words(
    "numpy scipy torch torchvision sklearn skimage cv2 PIL kornia einops timm monai torchxrayvision transformers "
    "segmentation_models_pytorch open_clip xgboost lightgbm catboost citlr math cmath functools itertools operator "
    "collections typing typing_extensions types dataclasses enum abc copy copyreg numbers fractions decimal "
    "statistics re string warnings contextlib builtins"
)
# ... the names in them that read what is not in the program, and the functions of Python that do so or run text
_READING = _words(
    "open load load_file loadtxt genfromtxt fromfile memmap from_file loadmat mmread imread read_image read_file hub "
    "load_state_dict_from_url load_library from_pretrained import_module VideoCapture"
)
_RUNNING = _words("open input exec eval __import__ globals locals vars")
# Members of a class that run without being named; a constructor has done its work.
_SILENT = _words(
    "__init__ __new__ __post_init__ __init_subclass__ __class_getitem__ __repr__ __str__ __eq__ __hash__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __del__ __dir__ __doc__ __dict__ __module__ __annotations__ __weakref__"
)
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
        self._done: set[tuple[int, str]] = set()
        self._add(root)
        self._add_members()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _text(self, text: str) -> None:
        self._hash.update(f"{len(text)}:{text}".encode(errors="surrogatepass"))

    def _add(self, thing: Any) -> None:
        if isinstance(thing, (*_PLAIN, *_TORCH_PLAIN)) or thing is Ellipsis:
            self._text(f"{type(thing).__name__} {thing!r}")
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
        elif inspect.isroutine(thing) or isinstance(thing, property | types.CellType | types.CodeType | np.ufunc):
            self._add_routine(thing)
        elif isinstance(thing, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            archive = io.BytesIO()
            torch.jit.save(thing, archive)
            self._text(hashlib.sha256(archive.getvalue()).hexdigest())
        else:
            self._add_object(thing)

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
        if _installed(name):
            self._require_computing(name, base=space)
            self._text(f"{name} {shown} {_version(name)}")
            return
        self._text(shown)
        self._spaces.append(space)
        if isinstance(space, type):
            for base in space.__mro__[1:]:
                self._add(base)

    def _require_computing(self, module: str, base: Any = None) -> None:
        if module.partition(".")[0].lstrip("_") in _COMPUTING:
            return
        if isinstance(base, type) and (issubclass(base, torch.nn.Module) or hasattr(base, "get_params")):
            return
        raise _UnknownError(f"'{module}'")

    def _add_routine(self, routine: Any) -> None:
        if isinstance(routine, types.CellType):
            self._add(routine.cell_contents)
        elif isinstance(routine, types.CodeType):
            self._add_code(routine)
        elif isinstance(routine, property):
            self._add([routine.fget])
        elif isinstance(routine, staticmethod | classmethod):
            self._add(routine.__func__)
        elif isinstance(routine, types.MethodType):
            self._names.add(routine.__func__.__name__)
            self._add([routine.__self__, routine.__func__])
        elif isinstance(routine, types.FunctionType) and not _installed(routine.__module__):
            self._add_function(routine)
        else:
            owner = getattr(routine, "__self__", None)
            if owner is not None and not isinstance(owner, type | types.ModuleType):
                self._add(owner)
            module = getattr(routine, "__module__", None) or getattr(owner, "__name__", None) or "builtins"
            name = getattr(routine, "__qualname__", getattr(routine, "__name__", repr(routine)))
            self._require_computing(module if isinstance(module, str) else "builtins")
            if name.rpartition(".")[2] in _READING:
                raise _UnknownError(f"'{name}'")
            self._text(f"{module} {name} {_version(str(module))}")

    def _add_function(self, function: types.FunctionType) -> None:
        self._text(f"function {function.__qualname__}")
        self._add([function.__defaults__, function.__kwdefaults__, function.__dict__])
        for cell in function.__closure__ or ():
            try:
                self._add(cell.cell_contents)
            except ValueError:  # not filled yet
                self._text("empty")
        self._add_code(function.__code__)
        for name in sorted(_globals_used(function.__code__)):
            self._text(name)
            if name in function.__globals__:
                self._add(function.__globals__[name])
            elif name in _RUNNING:
                raise _UnknownError(f"'{name}'")
            elif hasattr(builtins, name):
                self._add(getattr(builtins, name))

    def _add_code(self, code: types.CodeType) -> None:
        reading = _READING.intersection(code.co_names)
        if reading:
            raise _UnknownError(f"'{min(reading)}'")
        self._hash.update(code.co_code)
        self._add([code.co_names, code.co_varnames, code.co_freevars, code.co_flags, code.co_exceptiontable])
        self._names.update(code.co_names)
        # a text may be a name that getattr is given
        self._names.update(value for value in code.co_consts if isinstance(value, str) and value.isidentifier())
        for value in code.co_consts:
            self._add(value)
        for module in _imports(code):
            found = sys.modules.get(module)
            if found is None:
                raise _UnknownError(f"'{module}'")
            self._add(found)

    def _add_members(self) -> None:
        """Take in what the code names of the user's own classes and modules, until nothing new is reached."""
        while True:
            reached = [
                (space, name)
                for space in self._spaces
                for name in sorted(vars(space))
                if (id(space), name) not in self._done and self._reaches(space, name)
            ]
            if not reached:
                return
            for space, name in reached:
                self._done.add((id(space), name))
                self._text(f"member {name}")
                self._add(vars(space)[name])

    def _reaches(self, space: object, name: str) -> bool:
        if name.startswith("__") and name.endswith("__"):
            return isinstance(space, type) and name not in _SILENT and inspect.isroutine(vars(space)[name])
        return name in self._names

    def _add_object(self, thing: Any) -> None:
        self._add(type(thing))
        try:
            parts = thing.__reduce_ex__(4)
        except Exception as error:
            raise _UnknownError(f"a {type(thing).__qualname__}") from error
        if isinstance(parts, str):
            self._text(parts)
            return
        for part in parts[:3]:
            self._add(part)
        for pairs in parts[3:5]:
            self._add(None if pairs is None else list(pairs))


def _installed(module: str | None) -> bool:
    """Whether a module belongs to Python or an installed package, not to the user's own files."""
    if module is None or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == __name__.partition(".")[0]:
        return True
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if found is None or file is None:
        # a namespace, or a module made by hand
        return getattr(found, "__spec__", None) is not None and not list(getattr(found, "__path__", [None]))
    return any(part in ("site-packages", "dist-packages") for part in Path(file).parts)


def _version(module: str) -> str:
    """Return the version of an installed package; torch and numpy differ between versions by rounding only."""
    top = module.partition(".")[0]
    if top in ("torch", "numpy", __name__.partition(".")[0]) or top in sys.stdlib_module_names:
        return ""
    return str(getattr(sys.modules.get(top), "__version__", ""))


def _globals_used(code: types.CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            names |= _globals_used(part)
    return names


def _imports(code: types.CodeType) -> list[str]:
    return [step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]
