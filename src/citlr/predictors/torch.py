"""PyTorch modules and TorchScript archives as models under audit."""

from __future__ import annotations

import copy
import json
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
from citlr.predictors.base import BatchedPredictor, one_sentence
from citlr.predictors.content import digest

StateDict = dict[str, torch.Tensor]
Card = dict[str, Any]
# key of the card in the metadata of safetensors, TorchScript and ONNX files
CARD = "citlr.json"


class TorchPredictor(BatchedPredictor):
    """A `torch.nn.Module` or a TorchScript archive, as a snapshot in evaluation mode.

    The module is copied, so that the caller's own object keeps its mode, device and gradients, and so that later
    training of it does not change what is audited.

    Parameters
    ----------
    module : torch.nn.Module
        Takes a prepared batch, gives (n, n_outputs).
    origin : str
        SHA-256 of the archive that a scripted module came from; empty for a module given as an object.
    **settings
        As in `BatchedPredictor`.

    Raises
    ------
    InputError
        If the module cannot be copied.
    """

    def __init__(self, module: torch.nn.Module, *, origin: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        if not isinstance(module, torch.jit.ScriptModule):
            try:
                module = copy.deepcopy(module)
            except (RuntimeError, TypeError, ValueError) as error:
                raise InputError(
                    f"Model '{self.name}' cannot be copied ({one_sentence(error)}): give its import path and weights."
                ) from error
        self._module = module.to(self.device).eval()
        self._origin = origin

    def _forward(self, batch: torch.Tensor) -> Any:
        # picks of kernels that vary from run to run would break "same seed, same bits" on a GPU
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            given = self._module(batch)
        return given if isinstance(given, torch.Tensor | dict) else getattr(given, "logits", given)

    def _content(self) -> str | None:
        return self._origin or digest(self._module)


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TorchScript archive: a zip file with a `code` folder."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in f"/{name}" for name in archive.namelist())


def load_torchscript(path: str | os.PathLike[str], device: torch.device) -> tuple[torch.jit.ScriptModule, Card]:
    """Load a TorchScript archive onto a device, with the card that this project writes into its own exports.

    Raises
    ------
    InputError
        If the file is not a TorchScript archive or is damaged.
    """
    if not is_torchscript(path):
        raise InputError(f"'{path}' is not a TorchScript archive: save it with torch.jit.trace(...).save(...).")
    extra = {CARD: ""}
    try:
        with warnings.catch_warnings():
            # models under audit do come as TorchScript; that torch now prefers torch.export is not the user's matter
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device, _extra_files=extra
            )
    except RuntimeError as error:
        raise InputError(
            f"TorchScript archive '{path}' cannot be read ({one_sentence(error)}); export it again."
        ) from error
    return module, parse_card(extra[CARD])


def parse_card(text: str | bytes) -> Card:
    """Read a card (labels, input, output, architecture) from JSON; empty where there is none."""
    card = json.loads(text) if text else {}
    return dict(card) if isinstance(card, dict) else {}


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read the card from a safetensors file's metadata; empty where there is none."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return parse_card((file.metadata() or {}).get(CARD, ""))
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"Weights file '{path}' cannot be read as safetensors ({one_sentence(error)}).") from error


def read_weights(path: str | os.PathLike[str], *, trust: bool = False) -> StateDict:
    """Read a state_dict from safetensors, or from a `.pt`/`.pth` file without running code that it may hold.

    Parameters
    ----------
    path : path-like
        `.safetensors`, or a file that `torch.save` wrote; a state_dict, or a mapping with one under "state_dict",
        "model" or "weights".
    trust : bool
        Whether a pickle with arbitrary objects may run its code; a warning says that it did.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    InputError
        If the file is missing, damaged, a pickle of something else, or holds no state_dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Weights file '{path}' does not exist.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"Weights file '{path}' cannot be read as safetensors ({one_sentence(error)}).") from error
    return _tensors(_load_pickle(path, trust), path)


def _load_pickle(path: Path, trust: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise InputError(
                f"Weights file '{path}' is a pickle that holds more than tensors, and reading it could run any code: "
                "save module.state_dict() as safetensors, or pass trust=True (--trust) if you know where it comes from."
            ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"Weights file '{path}' cannot be read ({one_sentence(error)}); it may be truncated."
        ) from error
    warn_trusted(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(f"Weights file '{path}' cannot be unpickled ({one_sentence(error)}).") from error


def _tensors(content: Any, path: Path) -> StateDict:
    if isinstance(content, torch.nn.Module):
        return dict(content.state_dict())
    for key in ("state_dict", "model", "weights"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise InputError(f"Weights file '{path}' holds no state_dict (a mapping of names to tensors).")
    return dict(content)


def warn_trusted(path: str | os.PathLike[str]) -> None:
    """Warn that a pickle is about to run."""
    warnings.warn(
        f"'{path}' is a pickle and is read with trust=True: it can run any code on this machine.",
        UserWarning,
        stacklevel=3,
    )


def fill_module(module: torch.nn.Module, weights: StateDict, *, model: str, path: str | os.PathLike[str]) -> None:
    """Put a state_dict into a module; all names and shapes must match.

    Raises
    ------
    InputError
        If the weights are of another architecture; the message counts what is missing, left over or misshapen.
    """
    prefix = "module."
    if weights and all(name.startswith(prefix) for name in weights):  # written under DataParallel
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    wanted = module.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "left over": sorted(weights.keys() - wanted.keys()),
        "of another shape": sorted(k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape),
    }
    found = [f"{len(names)} {what} (first '{names[0]}')" for what, names in problems.items() if names]
    if found:
        raise InputError(
            f"Weights '{path}' are of another architecture than model '{model}': of {len(wanted)} tensors, "
            f"{', '.join(found)}. Name the architecture that they were trained with."
        )
    module.load_state_dict(weights)
