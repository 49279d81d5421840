"""PyTorch modules and TorchScript archives as models under audit."""

from __future__ import annotations

import copy
import itertools
import os
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from citlr.errors import InputError
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.card import CARD, Card, parse_card
from citlr.predictors.content import digest
from citlr.predictors.foreign import one_sentence, user_code
from citlr.predictors.weights import require_whole


class TorchPredictor(BatchedPredictor):
    """A `torch.nn.Module` or a TorchScript archive, as a snapshot in evaluation mode.

    The module is copied, so that the caller's own object keeps its mode, device and gradients, and so that later
    training of it does not change what is audited. Images are given in the precision of its weights.

    - `module`: Takes a prepared batch, gives (n, n_outputs).
    - `origin`: SHA-256 of the archive that a scripted module came from; empty for a module given as an object.
    - `**settings`: As in `BatchedPredictor`.
    """

    def __init__(self, module: torch.nn.Module, *, origin: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        if not isinstance(module, torch.jit.ScriptModule):
            with user_code(f"Model '{self.name}' cannot be copied", "Give its import path and weights."):
                module = copy.deepcopy(module)
        with user_code(f"Model '{self.name}' cannot be moved to {self.device}", "Give another device."):
            self._module = module.to(self.device).eval()
            self.dtype = _precision(module)
        self._origin = origin

    def _forward(self, batch: torch.Tensor) -> Any:
        # picks of kernels that vary from run to run would break "same seed, same bits" on a GPU
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            given = self._module(batch)
        return given if isinstance(given, torch.Tensor | Mapping) else getattr(given, "logits", given)

    def _content(self) -> str | None:
        return self._origin or digest(self._module)


def _precision(module: torch.nn.Module) -> torch.dtype:
    """Give the type of the first weights, or of the first buffer where there are none: what the first layer takes."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            return tensor.dtype
    return torch.float32


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TorchScript archive: a zip file with a `code` folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in f"/{name}" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def load_torchscript(path: str | os.PathLike[str], device: torch.device) -> tuple[torch.jit.ScriptModule, Card]:
    """Load a TorchScript archive onto a device, with the card that this project writes into its own exports."""
    if not is_torchscript(path):
        raise InputError(
            f"'{path}' is not a TorchScript archive, or is damaged: save it with torch.jit.trace(...).save(...)."
        )
    require_whole(path, "TorchScript archive")
    extra = {CARD: ""}
    try:
        with warnings.catch_warnings():
            # models under audit do come as TorchScript; that torch now prefers torch.export is not the user's matter
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device, _extra_files=extra
            )
    except Exception as error:  # a reader in C++: damaged files come as errors of many types
        raise InputError(
            f"TorchScript archive '{path}' cannot be read ({one_sentence(error)}); export it again."
        ) from error
    return module, parse_card(extra[CARD], path)
