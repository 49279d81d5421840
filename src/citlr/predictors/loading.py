"""From whatever a model comes as to a predictor: `load_predictor`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citlr.errors import InputError
from citlr.predictors.adapters.callable import CallablePredictor, call_factory, import_object, takes_arguments
from citlr.predictors.adapters.onnx import OnnxPredictor, graph_digest, open_session, session_card, session_input
from citlr.predictors.adapters.sklearn import SklearnPredictor, read_estimator
from citlr.predictors.adapters.torch import TorchPredictor, is_torchscript, load_torchscript
from citlr.predictors.base import Predictor, choose_device
from citlr.predictors.card import read_card
from citlr.predictors.declared import Declared, with_columns
from citlr.predictors.foreign import user_code
from citlr.predictors.paths import kind_of_path, nearest, require_file
from citlr.predictors.specs import InputSpec, OutputSpec, require_choice, require_labels
from citlr.predictors.training.zoo import ZooNetwork
from citlr.predictors.weights import fill_module, read_states, read_weights
from citlr.run.files import sha256
from citlr.text import shown

KINDS = ("torch", "torchscript", "onnx", "sklearn", "callable")
_SUFFIXES = {
    ".onnx": "onnx",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".safetensors": "torch",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
}

_TABLES = {".csv", ".tsv", ".parquet", ".xlsx"}
_WEIGHTS_ONLY = (
    "Model file '{path}' holds weights only: name the architecture as the source (package.module:factory or "
    "file.py:factory) and give weights='{name}'."
)

Path_ = str | os.PathLike[str]


def load_predictor(
    source: Any,
    *,
    labels: Sequence[str] | None = None,
    kind: str | None = None,
    weights: Path_ | None = None,
    input: InputSpec | Mapping[str, Any] | None = None,
    output: OutputSpec | Mapping[str, Any] | str | None = None,
    columns: Sequence[int] | Mapping[str, int] | None = None,
    device: str = "auto",
    batch_size: int = 64,
    name: str | None = None,
    trust: bool = False,
) -> Predictor:
    """Make a predictor of a model, whatever it comes as.

    Parameters
    ----------
    source : object, path or import path
        A `torch.nn.Module`, a fitted scikit-learn classifier, any callable; a file (`.onnx`, TorchScript `.ts`/`.pt`,
        a pickled estimator `.joblib` with `trust`); or an import path,
        "package.module:name" or "file.py:name", of any of these objects or of a function without arguments that
        makes one. An import path runs that module's code.
    labels : sequence of str, optional
        The label of each output; may be left out where the file carries them (this project's own exports do).
    kind : {"torch", "torchscript", "onnx", "sklearn", "callable"}, optional
        What the source is; found from the source when not given.
    weights : path-like, optional
        A state_dict (`.safetensors`, or `.pt` with tensors only) for a torch module.
    input : InputSpec or mapping, optional
        What the model wants to see; by default what the file says of itself, else gray images in [0, 1] as they come.
    output : OutputSpec, mapping, "logit" or "probability", optional
        What the model gives; by default what the file says of itself, else probabilities.
    columns : sequence of int or mapping of str to int, optional
        The output column of each label.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
    batch_size : int
        Images per call of the model.
    name : str, optional
        What errors and the report call the model.
    trust : bool
        Whether pickles may be read, which runs the code in them; a warning says so.

    Returns
    -------
    Predictor

    Raises
    ------
    InputError
        If the source cannot be found, read or recognised, or contradicts what was declared.
    MissingExtraError
        If the kind needs an optional package that is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> model = load_predictor(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1)), labels=["flu"],
    ...                        output="logit", device="cpu")
    >>> model.predict(np.zeros((3, 1, 2, 2), dtype=np.float32)).shape
    (3, 1)
    """
    if kind is not None:
        require_choice(kind, KINDS, "kind")
    if not isinstance(trust, bool | np.bool_):
        raise InputError(f"trust is {shown(trust)}; give True or False.")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InputError(f"name is {shown(name)}; give a text, what the report calls the model.")
    declared = Declared(
        labels=None if labels is None else require_labels(labels),
        input=None if not input else InputSpec.of(input),
        output=with_columns(None if not output else OutputSpec.of(output), columns),
        device=choose_device(device),
        batch_size=batch_size,
        name=name,
        trust=bool(trust),
        weights=weights,
    )
    if isinstance(source, str | os.PathLike):
        with user_code(f"Model {shown(os.fspath(source))} cannot be loaded"):
            return _from_text(os.fspath(source), kind, declared)
    with user_code(f"Model '{name or type(source).__name__}' cannot be loaded"):
        return _from_object(source, kind, declared, label=type(source).__name__)


def _from_text(source: str, kind: str | None, declared: Declared) -> Predictor:
    path = Path(source)
    found = kind_of_path(path)
    if not found and "://" in source:
        raise InputError(f"Model {shown(source)} is an address: download the file and give its path.")
    if not found and ":" in (path.name if path.is_absolute() else source):
        return _from_import(source, kind, declared)
    if not found:
        raise InputError(
            f"Model {shown(source)} is neither a file nor an import path (package.module:name).{nearest(path)}"
        )
    require_file(path, "Model")
    suffix = path.suffix.lower()
    if kind is None and suffix in _TABLES:
        raise InputError(
            f"Model {shown(source)} is a table: the answers of a model that is run elsewhere come in through "
            "`citlr ingest` (kind: closed, see docs/closed.md)."
        )
    kind = kind or _SUFFIXES.get(suffix)
    if kind is None and suffix == ".py":
        raise InputError(
            f"Model {shown(source)} is a Python file: add the name of the model, or of the function that makes it "
            f"({path.name}:name)."
        )
    if kind is None:
        known = ", ".join(sorted(_SUFFIXES))
        raise InputError(f"Model {shown(source)} has an ending this project does not know ({known}): say its kind.")
    if kind == "callable":
        raise InputError(f"Model file {shown(source)} is not a callable: write its import path, file.py:name.")
    if declared.weights is not None:
        raise InputError(
            f"Model {shown(source)} is a whole model, and weights are given besides: leave them out, or name the "
            "architecture as the source (package.module:factory or file.py:factory)."
        )
    return _READERS[kind](path, declared)


def _read_torchscript(path: Path, declared: Declared) -> Predictor:
    if not is_torchscript(path):
        if path.suffix == ".ts" or path.suffix == ".torchscript":
            load_torchscript(path, declared.device)  # raises: says what the file is not
        read_states(path, trust=declared.trust)  # raises for a pickle, and for a damaged file
        raise InputError(_WEIGHTS_ONLY.format(path=path, name=path.name))
    origin = sha256(path)
    module, card = load_torchscript(path, declared.device)
    _require_same(sha256(path), origin, path)
    model = TorchPredictor(module, origin=origin, **declared.settings(path.stem, card))
    model.remarks = declared.remarks(model.name, card)
    return model


def _read_torch(path: Path, declared: Declared) -> Predictor:
    if path.suffix != ".safetensors":
        return _read_torchscript(path, declared)
    card = read_card(path)
    if "arch" not in card:
        read_states(path)  # raises for a damaged file
        raise InputError(_WEIGHTS_ONLY.format(path=path, name=path.name))
    settings = declared.settings(path.stem, card)
    # all heads of the file; which of them are asked for is a matter of columns
    network = ZooNetwork(card["arch"], card["labels"], dropout=card.get("dropout", 0.0))
    fill_module(network, read_weights(path), model=settings["name"], path=path)
    model = TorchPredictor(network, **settings)
    model.remarks = declared.remarks(model.name, card)
    return model


def _read_onnx(path: Path, declared: Declared) -> Predictor:
    origin = graph_digest(path)
    session = open_session(path, declared.device)
    _require_same(graph_digest(path), origin, path)
    name = declared.name or path.stem
    card = session_card(session, path)
    settings = declared.settings(name, card, lambda: session_input(session, name))
    model = OnnxPredictor(session, origin=origin, **settings)
    model.remarks = declared.remarks(name, card)
    return model


def _require_same(now: str, before: str, path: Path) -> None:
    """Refuse a file that was replaced while it was read: which of the two was loaded cannot be told."""
    if now != before:
        raise InputError(f"Model file '{path}' was written while it was read: run again when it is whole.")


def _read_sklearn(path: Path, declared: Declared) -> Predictor:
    return _from_object(read_estimator(path, trust=declared.trust), "sklearn", declared, label=path.stem)


_READERS: dict[str, Callable[[Path, Declared], Predictor]] = {
    "torch": _read_torch,
    "torchscript": _read_torchscript,
    "onnx": _read_onnx,
    "sklearn": _read_sklearn,
}


def _from_import(source: str, kind: str | None, declared: Declared) -> Predictor:
    found = import_object(source)
    name = source.rpartition(":")[2]
    if kind != "callable" and callable(found) and not isinstance(found, torch.nn.Module) and not _is_estimator(found):
        if not takes_arguments(found):
            found = call_factory(found, source)
        elif isinstance(found, type):
            raise InputError(f"Class '{source}' needs arguments: write a function without any that makes the model.")
    return _from_object(found, kind, declared, label=name)


def _from_object(found: Any, kind: str | None, declared: Declared, *, label: str) -> Predictor:
    settings = declared.settings(label)
    if isinstance(found, torch.nn.Module) and kind in (None, "torch", "torchscript"):
        if declared.weights is not None:
            states = read_states(declared.weights, trust=declared.trust)
            fill_module(found, states, model=settings["name"], path=declared.weights)
        return TorchPredictor(found, **settings)
    if declared.weights is not None:
        raise InputError(f"Model '{settings['name']}' is a {type(found).__name__}; only a torch module takes weights.")
    if _is_estimator(found) and kind in (None, "sklearn"):
        return SklearnPredictor(found, **settings)
    if isinstance(found, type):
        raise InputError(f"Model '{settings['name']}' is the class {found.__qualname__}; give an instance of it.")
    if callable(found) and kind in (None, "callable"):
        return CallablePredictor(found, **settings)
    raise InputError(
        f"Model '{settings['name']}' is a {type(found).__name__}, which is no "
        f"{kind or 'torch module, fitted scikit-learn classifier or callable'}."
    )


def _is_estimator(found: Any) -> bool:
    return (
        not isinstance(found, type)
        and hasattr(found, "fit")
        and (hasattr(found, "predict_proba") or hasattr(found, "decision_function") or hasattr(found, "get_params"))
    )
