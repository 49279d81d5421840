"""From whatever a model comes as to a predictor: `load_predictor`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from citlr.errors import InputError, did_you_mean
from citlr.predictors.base import Predictor, choose_device
from citlr.predictors.callable import CallablePredictor, call_factory, import_object, takes_arguments
from citlr.predictors.onnx import OnnxPredictor, open_session, session_card, session_input
from citlr.predictors.sklearn import SklearnPredictor, read_estimator
from citlr.predictors.specs import InputSpec, OutputSpec, require_choice
from citlr.predictors.torch import (
    TorchPredictor,
    fill_module,
    is_torchscript,
    load_torchscript,
    read_card,
    read_weights,
)
from citlr.predictors.zoo import ZooNetwork
from citlr.run.files import sha256

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
    declared = _Declared(labels, input, output, columns, choose_device(device), batch_size, name, trust, weights)
    if isinstance(source, str | os.PathLike):
        return _from_text(str(source), kind, declared)
    return _from_object(source, kind, declared, label=type(source).__name__)


class _Declared:
    """What the user said, before it meets what the file says of itself."""

    def __init__(
        self,
        labels: Sequence[str] | None,
        input: InputSpec | Mapping[str, Any] | None,
        output: OutputSpec | Mapping[str, Any] | str | None,
        columns: Sequence[int] | Mapping[str, int] | None,
        device: torch.device,
        batch_size: int,
        name: str | None,
        trust: bool,
        weights: Path_ | None,
    ) -> None:
        self.labels, self.input, self.output, self.columns = labels, input or None, output or None, columns
        self.device, self.batch_size, self.name, self.trust, self.weights = device, batch_size, name, trust, weights

    def settings(
        self, default_name: str, card: Mapping[str, Any] | None = None, graph: Callable[[], InputSpec] | None = None
    ) -> dict[str, Any]:
        """Give the settings of a `BatchedPredictor`: declared first, then of the card, the graph, the defaults."""
        card = card or {}
        name = self.name or default_name
        own = [str(label) for label in card.get("labels", [])]
        labels = self.labels if self.labels is not None else own
        if not labels:
            raise InputError(f"Model '{name}' does not say what its outputs are: name them with 'labels'.")
        spec = self.input if self.input is not None else card.get("input")
        output = OutputSpec.of(self.output if self.output is not None else card.get("output"))
        columns = self.columns
        if columns is None and output.columns is None and own and list(labels) != own:
            columns = {label: own.index(_known(label, own, name)) for label in labels}
        if columns is not None:
            output = OutputSpec(output.kind, output.activation, cast(Any, columns), output.name)
        return {
            "name": name,
            "labels": labels,
            "input": graph() if spec is None and graph is not None else InputSpec.of(spec),
            "output": output,
            "batch_size": self.batch_size,
            "device": self.device,
        }


def _known(label: str, own: Sequence[str], name: str) -> str:
    if label not in own:
        raise InputError(f"Model '{name}' has no label '{label}'.{did_you_mean(label, own)}")
    return label


def _from_text(source: str, kind: str | None, declared: _Declared) -> Predictor:
    path = Path(source)
    if not path.exists() and ":" in source and not path.is_absolute():
        return _from_import(source, kind, declared)
    if not path.exists() and ":" in path.name:
        return _from_import(source, kind, declared)
    kind = kind or _SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        near = _nearest_file(path)
        raise InputError(f"Model '{source}' is neither a file nor an import path (package.module:name).{near}")
    if kind is None and path.suffix.lower() in _TABLES:
        raise InputError(
            f"Model '{source}' is a table: the answers of a model that is run elsewhere come in through `citlr ingest` "
            "(kind: closed, see docs/closed.md)."
        )
    if kind is None:
        known = ", ".join(sorted(_SUFFIXES))
        raise InputError(f"Model file '{source}' has an ending this project does not know ({known}): say its kind.")
    if kind == "callable":
        raise InputError(f"Model file '{source}' is not a callable: write its import path, file.py:name.")
    return _READERS[kind](path, declared)


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" The folder '{path.parent}' does not exist."
    near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    return near if "mean" in near else ""


def _read_torchscript(path: Path, declared: _Declared) -> Predictor:
    if not is_torchscript(path):
        if path.suffix == ".ts" or path.suffix == ".torchscript":
            load_torchscript(path, declared.device)  # raises: says what the file is not
        read_weights(path, trust=declared.trust)  # raises for a pickle, and for a damaged file
        raise InputError(_WEIGHTS_ONLY.format(path=path, name=path.name))
    module, card = load_torchscript(path, declared.device)
    return TorchPredictor(module, origin=sha256(path), **declared.settings(path.stem, card))


def _read_torch(path: Path, declared: _Declared) -> Predictor:
    if path.suffix != ".safetensors":
        return _read_torchscript(path, declared)
    card = read_card(path)
    if "arch" not in card:
        raise InputError(_WEIGHTS_ONLY.format(path=path, name=path.name))
    settings = declared.settings(path.stem, card)
    # all heads of the file; which of them are asked for is a matter of columns
    network = ZooNetwork(card["arch"], card["labels"], dropout=card.get("dropout", 0.0))
    fill_module(network, read_weights(path), model=settings["name"], path=path)
    return TorchPredictor(network, **settings)


def _read_onnx(path: Path, declared: _Declared) -> Predictor:
    session = open_session(path, declared.device)
    name = declared.name or path.stem
    settings = declared.settings(name, session_card(session), lambda: session_input(session, name))
    return OnnxPredictor(path, session, **settings)


def _read_sklearn(path: Path, declared: _Declared) -> Predictor:
    return _from_object(read_estimator(path, trust=declared.trust), "sklearn", declared, label=path.stem)


_READERS: dict[str, Callable[[Path, _Declared], Predictor]] = {
    "torch": _read_torch,
    "torchscript": _read_torchscript,
    "onnx": _read_onnx,
    "sklearn": _read_sklearn,
}


def _from_import(source: str, kind: str | None, declared: _Declared) -> Predictor:
    found = import_object(source)
    name = source.rpartition(":")[2]
    if kind != "callable" and callable(found) and not isinstance(found, torch.nn.Module) and not _is_estimator(found):
        if not takes_arguments(found):
            found = call_factory(found, source)
        elif isinstance(found, type):
            raise InputError(f"Class '{source}' needs arguments: write a function without any that makes the model.")
    return _from_object(found, kind, declared, label=name)


def _from_object(found: Any, kind: str | None, declared: _Declared, *, label: str) -> Predictor:
    settings = declared.settings(label)
    if isinstance(found, torch.nn.Module) and kind in (None, "torch", "torchscript"):
        if declared.weights is not None:
            weights = read_weights(declared.weights, trust=declared.trust)
            fill_module(found, weights, model=settings["name"], path=declared.weights)
        return TorchPredictor(found, **settings)
    if declared.weights is not None:
        raise InputError(f"Model '{settings['name']}' is a {type(found).__name__}; only a torch module takes weights.")
    if _is_estimator(found) and kind in (None, "sklearn"):
        return SklearnPredictor(found, **settings)
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
