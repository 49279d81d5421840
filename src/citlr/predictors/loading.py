"""From whatever a model comes as to a predictor: `load_predictor`."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citlr.config.model import MODEL_FILES, InputConfig, OutputConfig
from citlr.errors import InputError
from citlr.predictors.adapters.callable import call_factory, import_object, takes_arguments
from citlr.predictors.base import BatchedPredictor, Predictor, choose_device
from citlr.predictors.beside import as_written
from citlr.predictors.declared import Declared, with_columns
from citlr.predictors.foreign import nearest, require_file, user_code
from citlr.predictors.named import build_named, is_named, normalisation, unnormalised
from citlr.predictors.specs import InputSpec, OutputSpec, require_choice, require_labels
from citlr.run.files import kind_of_path
from citlr.text import shown

KINDS = tuple(MODEL_FILES)
_SUFFIXES = {ending: kind for kind, endings in MODEL_FILES.items() for ending in endings}
_FOLDERS = {"huggingface": "Hugging Face folder", "monai": "MONAI bundle"}
_TABLES = {".csv", ".tsv", ".parquet", ".xlsx"}

Path_ = str | os.PathLike[str]


def load_predictor(
    source: Any,
    *,
    labels: Sequence[str] | None = None,
    kind: str | None = None,
    weights: Path_ | None = None,
    input: InputConfig | Mapping[str, Any] | None = None,
    output: OutputConfig | Mapping[str, Any] | str | None = None,
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
        A `torch.nn.Module`, a fitted scikit-learn classifier, any callable; a file (`.pt2` of
        `torch.export`, `.onnx`, TorchScript `.ts`/`.pt`, a pickled estimator `.joblib` with `trust`); or an import
        path, "package.module:name" or "file.py:name", of any of these objects or of a function without arguments that
        makes one; or a network by name, "torchvision:densenet121" or "timm:resnet50", with `weights`; or a local
        Hugging Face folder or MONAI bundle (the latter with `trust`) of an image classifier. An import path runs that
        module's code.
    labels : sequence of str, optional
        The label of each output; may be left out where the file carries them (this project's own exports do).
    kind : {"torch", "exported", "torchscript", "onnx", "sklearn", "huggingface", "monai", "callable"}, optional
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
        Whether pickles and the configurations of bundles may be read, which runs the code in them; a warning says so.

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
        with user_code(f"Model {shown(os.fspath(source))} cannot be loaded"), as_written():
            model = _from_text(os.fspath(source), kind, declared)
        if isinstance(model, BatchedPredictor):
            model.read_again(
                partial(
                    load_predictor,
                    _anywhere(os.fspath(source)),
                    labels=labels,
                    kind=kind,
                    weights=None if weights is None else Path(weights).absolute(),
                    input=input,
                    output=output,
                    columns=columns,
                    device=device,
                    batch_size=batch_size,
                    name=name,
                    trust=trust,
                )
            )
        return model
    with user_code(f"Model '{name or type(source).__name__}' cannot be loaded"):
        return _as_it_came(source, kind, declared, label=type(source).__name__)


def _anywhere(source: str) -> str:
    """Write a source so that it is the same one for a process in another folder."""
    where, colon, name = source.rpartition(":")
    if Path(source).exists() or not where.endswith(".py"):
        return str(Path(source).absolute()) if Path(source).exists() else source
    return f"{Path(where).absolute()}{colon}{name}"


def _from_text(source: str, kind: str | None, declared: Declared) -> Predictor:
    path = Path(source)
    there = kind_of_path(path)
    if not there and "://" in source:
        raise InputError(f"Model {shown(source)} is an address: download the file and give its path.")
    if not there and ":" in (path.name if path.is_absolute() else source):
        return _from_import(source, kind, declared)
    if not there:
        raise InputError(
            f"Model {shown(source)} is neither a file nor an import path (package.module:name).{nearest(path)}"
        )
    kind = _kind_of(path, kind, folder=there == "a folder")
    adapter = _adapter(kind)
    if not hasattr(adapter, "read"):
        raise InputError(f"Model file {shown(source)} is not a {kind}: write its import path, file.py:name.")
    if declared.weights is not None:
        raise InputError(
            f"Model {shown(source)} is a whole model, and weights are given besides: leave them out, or name the "
            "architecture as the source (package.module:factory or file.py:factory)."
        )
    model: Predictor = adapter.read(path, declared)
    return model


def _kind_of(path: Path, kind: str | None, *, folder: bool) -> str:
    """Find the kind of a file by its ending; a folder is a MONAI bundle, or one of Hugging Face."""
    source = os.fspath(path)
    if folder and kind in (None, *_FOLDERS):
        return kind or ("monai" if (path / "configs").is_dir() else "huggingface")
    require_file(path, "Model")
    if kind in _FOLDERS:
        raise InputError(f"Model {shown(source)} is a file: give the {_FOLDERS[kind]} that it is in.")
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
    # TorchScript is the only file, besides weights, in which a module comes whole.
    return "torchscript" if kind == "torch" and suffix != ".safetensors" else kind


def _from_import(source: str, kind: str | None, declared: Declared) -> Predictor:
    if is_named(source):
        network = build_named(source, declared)
        named = _from_object(network, kind, declared, label=source.partition(":")[2])
        if isinstance(named, BatchedPredictor) and not declared.says("mean", "std"):
            named.remarks = (*named.remarks, *normalisation(source, network))
        return named
    model = import_object(source)
    name = source.rpartition(":")[2]
    is_model = any(_takes(_adapter(one), model) for one in KINDS if one != "callable")
    if kind != "callable" and callable(model) and not is_model:
        if not takes_arguments(model):
            model = call_factory(make := model, source)
            if declared.weights is None and isinstance(model, torch.nn.Module):
                _require_trained(model, call_factory(make, source), source)
        elif isinstance(model, type):
            raise InputError(f"Class '{source}' needs arguments: write a function without any that makes the model.")
    return _as_it_came(model, kind, declared, label=name)


def _as_it_came(found: Any, kind: str | None, declared: Declared, *, label: str) -> Predictor:
    model = _from_object(found, kind, declared, label=label)
    if isinstance(model, BatchedPredictor):
        model.remarks = (*model.remarks, *unnormalised(model.name, found, declared))
    return model


def _require_trained(model: torch.nn.Module, again: Any, source: str) -> None:
    """Refuse a factory whose weights are drawn at random: an audit of an untrained network would look like any."""
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    if not all(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True) for one, other in pairs):
        raise InputError(
            f"Model {shown(source)} has other weights each time it is made: it is not trained. Name the file with its "
            "weights (`weights: FILE` below `model`; in Python, weights='FILE')."
        )


def _from_object(found: Any, kind: str | None, declared: Declared, *, label: str) -> Predictor:
    settings = declared.settings(label)
    name = settings["name"]
    if declared.weights is not None and not isinstance(found, torch.nn.Module):
        raise InputError(f"Model '{name}' is a {type(found).__name__}; only a torch module takes weights.")
    if isinstance(found, type):
        raise InputError(f"Model '{name}' is the class {found.__qualname__}; give an instance of it.")
    for one in KINDS if kind is None else (kind,):
        adapter = _adapter(one)
        if _takes(adapter, found):
            model: Predictor = adapter.wrap(found, declared, settings)
            return model
    raise InputError(
        f"Model '{name}' is a {type(found).__name__}, which is no "
        f"{kind or 'torch module, fitted scikit-learn classifier or callable'}."
    )


def _adapter(kind: str) -> Any:
    return import_module(f"citlr.predictors.adapters.{kind}")


def _takes(adapter: Any, found: object) -> bool:
    """Whether an object of Python is of this kind; of one that comes as a file only, none is."""
    return hasattr(adapter, "takes") and bool(adapter.takes(found))
