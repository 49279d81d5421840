"""Weights from files: read without running code, found under whatever name they were saved, and put into a module."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from citlr.errors import InputError
from citlr.predictors.foreign import one_sentence, require_file, user_code
from citlr.text import shortened

StateDict = dict[str, torch.Tensor]
# what training frameworks put around a network
_WRAPPERS = {"module", "_orig_mod", "model", "net", "network"}
WEIGHTS_ONLY = (
    "Model file '{path}' holds weights only: say in two lines of the YAML what they belong to, `source: "
    "file.py:factory` (or package.module:factory) and `weights: {name}`; in Python, source and weights='{name}'."
)
_QUANTISED = "of whole numbers"
# a checkpoint keeps its weights under one or two names ("model", "state_dict"), not deeper
_DEEPEST = 3


def read_weights(path: str | os.PathLike[str]) -> StateDict:
    """Read a state_dict from safetensors, or from a `.pt`/`.pth` file without running code that it may hold."""
    states = read_states(path)
    if len(states) > 1:
        raise InputError(
            f"Weights file '{path}' holds several state_dicts ({_listed(states)}): save the one that is meant by "
            "itself."
        )
    return next(iter(states.values()))


def read_states(path: str | os.PathLike[str], *, trust: bool = False) -> dict[str, StateDict]:
    """Read every state_dict of a file, by the name that it has there ("" where it is all that the file holds)."""
    file = require_file(path, "Weights file")
    if file.suffix == ".safetensors":
        try:
            return {"": safetensors.torch.load_file(file)}
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise InputError(f"Weights file '{file}' cannot be read as safetensors ({one_sentence(error)}).") from error
    content = _load_pickle(file, trust)
    if isinstance(content, torch.nn.Module):
        with user_code(f"The module in '{file}' has no state_dict"):
            content = dict(content.state_dict())
    states = _find(content)
    if not states:
        keys = f", but {_listed(content)}" if isinstance(content, Mapping) and content else ""
        raise InputError(
            f"Weights file '{file}' holds no state_dict (a mapping of names to tensors){keys}: save "
            "module.state_dict()."
        )
    return states


def _listed(names: Mapping[Any, Any]) -> str:
    return shortened(", ".join(f"'{name}'" for name in names))


def _find(content: Any, name: str = "", depth: int = 0) -> dict[str, StateDict]:
    """Find the mappings of names to tensors, at whatever depth; what a checkpoint has beside them is left."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    nested = any(isinstance(value, Mapping) for value in content.values())
    states = {name: tensors} if tensors and not nested else {}
    for key, value in content.items():
        # moments of an optimiser are tensors, too, and never a model
        if "optim" not in str(key).lower():
            states |= _find(value, f"{name}.{key}".lstrip("."), depth + 1)
    return states


def require_whole(path: str | os.PathLike[str], what: str) -> None:
    """Raise `InputError` if an archive's parts are not what their checksums say; torch reads them all the same.

    Files of before torch 1.6 are no archives and have no checksums.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of a damaged archive anything may be wrong
        raise InputError(f"{what} '{path}' is damaged ({one_sentence(error)}): copy or save it again.") from error
    if damaged is not None:
        raise InputError(
            f"{what} '{path}' is damaged: its part '{damaged}' has another checksum than it was saved with (or it was "
            "saved without, by set_crc32_options); copy or save it again."
        )


def _load_pickle(path: Path, trust: bool) -> Any:
    require_whole(path, "Weights file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise InputError(
                f"Weights file '{path}' is not a file that torch.save wrote, or is damaged: save module.state_dict()."
            ) from error
        if not trust:
            raise InputError(
                f"Weights file '{path}' is a pickle that holds more than tensors, and reading it could run any code: "
                "save module.state_dict() as safetensors, or pass trust=True (--trust) if you know where it comes from."
            ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise InputError(
                f"Weights file '{path}' is a TorchScript archive, which is a whole model: name it as the source."
            ) from error
        raise InputError(
            f"Weights file '{path}' cannot be read ({one_sentence(error)}); it may be truncated."
        ) from error
    warn_trusted(path)
    with user_code(f"Weights file '{path}' cannot be unpickled", "Save module.state_dict() as safetensors."):
        return torch.load(path, map_location="cpu", weights_only=False)


def _is_pickle(path: Path) -> bool:
    """Whether a file is a zip archive, as torch writes it, or begins as a pickle does."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80" or zipfile.is_zipfile(path)


def warn_trusted(path: str | os.PathLike[str], what: str = "a pickle") -> None:
    """Warn that a file is about to run."""
    warnings.warn(
        f"'{path}' is {what} and is read with trust=True: it can run any code on this machine.",
        UserWarning,
        stacklevel=3,
    )


def fill_module(
    module: torch.nn.Module, weights: StateDict | Mapping[str, StateDict], *, model: str, path: str | os.PathLike[str]
) -> None:
    """Put a state_dict into a module: the one of the file, or the part of it below a prefix, whose names all match."""
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    states = weights if weights and all(isinstance(v, Mapping) for v in weights.values()) else {"": weights}
    parts = {
        f"{name}.{prefix}".strip("."): part
        for name, state in states.items()
        for prefix, part in _by_prefix(state, wanted).items()  # type: ignore[arg-type]
    }
    fitting = {name: part for name, part in parts.items() if not _problems(part, wanted)}
    if not fitting:
        near = max(parts, key=lambda name: len(wanted.keys() & parts[name].keys()))
        problems = _problems(parts[near], wanted)
        counted = [f"{len(names)} {what} (first '{shortened(names[0])}')" for what, names in problems.items()]
        if list(problems) == [_QUANTISED]:
            raise InputError(
                f"Weights '{path}' are quantised: of {len(wanted)} tensors, {counted[0]}, which mean nothing without "
                f"their scales. Give the weights that model '{model}' had before, or the quantised model as a file."
            )
        raise InputError(
            f"Weights '{path}' are of another architecture than model '{model}': of {len(wanted)} tensors, "
            f"{', '.join(counted)}. Name the architecture that they were trained with."
        )
    first, *others = fitting.values()
    if any(not torch.equal(first[key], part[key]) for part in others for key in first):
        raise InputError(
            f"Weights '{path}' hold {len(fitting)} different sets for model '{model}' ({_listed(fitting)}): save the "
            "one that is meant by itself."
        )
    for key in wanted:  # a counter that evaluation does not read, and that old files lack
        if key.endswith("num_batches_tracked"):
            first = {key: wanted[key], **first}
    module.load_state_dict(first)


def _by_prefix(weights: StateDict, wanted: Mapping[str, torch.Tensor]) -> dict[str, StateDict]:
    """Give the weights as they are, and what is below each prefix (`module.`, `_orig_mod.`, `model.`) that may fit."""
    parts = {"": weights}
    known = next(iter(wanted), None)
    for name in weights:
        if known is None or not name.endswith(f".{known}"):
            continue
        prefix = name.removesuffix(known)
        below = {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}
        # a loss or a metric may stand beside the network; but a head is not a network because its names fit
        if len(below) == len(weights) or all(part in _WRAPPERS or "ema" in part for part in prefix[:-1].split(".")):
            parts[prefix] = below
    return parts


def _problems(weights: StateDict, wanted: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Say which tensors are missing, left over or of another kind; empty where the weights fit."""
    shared = wanted.keys() & weights.keys()
    missing = sorted(key for key in wanted.keys() - shared if not key.endswith("num_batches_tracked"))
    problems = {
        "missing": missing,
        "left over": sorted(weights.keys() - shared),
        "of another shape": sorted(key for key in shared if wanted[key].shape != weights[key].shape),
        _QUANTISED: sorted(
            key for key in shared if wanted[key].is_floating_point() and not weights[key].is_floating_point()
        ),
    }
    return {what: names for what, names in problems.items() if names}
