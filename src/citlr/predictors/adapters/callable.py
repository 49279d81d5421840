"""Any Python function from images to numbers as a model under audit, and objects found by import path."""

import hashlib
import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from citlr.errors import InputError, did_you_mean
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.content import digest
from citlr.predictors.declared import Declared
from citlr.predictors.foreign import require_file, user_code
from citlr.text import shown


class CallablePredictor(BatchedPredictor):
    """A function that takes a prepared numpy batch and gives one row of numbers per image.

    - `function`: float32 (n, C, H, W) (or (n, H, W, C)) to (n,) or (n, n_outputs).
    """

    def __init__(self, function: Callable[[Any], Any], **settings: Any) -> None:
        super().__init__(**settings)
        self._function = function

    def _forward(self, batch: torch.Tensor) -> Any:
        # a copy: a function that writes into its argument must not change the next model's images
        return self._function(batch.cpu().numpy().copy())

    def _content(self) -> str | None:
        return digest(self._function)


def takes(found: object) -> bool:
    """Whether an object can be called."""
    return callable(found)


def wrap(found: Callable[[Any], Any], declared: Declared, settings: dict[str, Any]) -> CallablePredictor:
    """Make a predictor of a function."""
    return CallablePredictor(found, **settings)


def import_object(path: str) -> Any:
    """Find an object by "package.module:name" or "folder/file.py:name"; this runs that module's code."""
    where, _, name = path.rpartition(":")
    if not where or not name:
        raise InputError(f"{shown(path)} is not an import path: write package.module:name or file.py:name.")
    with user_code(f"'{where}' cannot be imported"):
        found: Any = _import_file(where) if where.endswith(".py") else importlib.import_module(where)
        for part in name.split("."):
            if not hasattr(found, part):
                options = [option for option in dir(found) if not option.startswith("_")]
                near = did_you_mean(part, options)
                raise InputError(f"'{where}' has no '{name}'.{near if 'mean' in near else ''}")
            found = getattr(found, part)
    return found


def _import_file(where: str) -> ModuleType:
    path = require_file(where, "Python file").resolve()
    # one name per file, so that two models called model.py do not meet in sys.modules
    name = f"citlr_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickles in the file look themselves up here
    linecache.checkcache(str(path))
    try:
        # not by Python's own loader: its cache takes a file replaced within a second, of equal size, for the old one
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def call_factory(factory: Callable[[], Any], path: str) -> Any:
    """Call a factory without arguments."""
    with user_code(f"Factory '{path}' failed"):
        return factory()


def takes_arguments(function: Callable[..., Any]) -> bool:
    """Whether a callable has a parameter without a default: then it is the model, otherwise it makes the model."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True  # built in C without a signature: nothing without arguments would be a model's factory
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
