"""PyTorch modules as models under audit."""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citlr.errors import InputError
from citlr.predictors.base import BatchedPredictor, ask_network
from citlr.predictors.content import digest
from citlr.predictors.declared import Declared, read_card
from citlr.predictors.foreign import user_code
from citlr.predictors.training.zoo import ZooNetwork
from citlr.predictors.weights import WEIGHTS_ONLY, fill_module, read_states, read_weights


class TorchPredictor(BatchedPredictor):
    """A `torch.nn.Module` or a TorchScript archive, as a snapshot in evaluation mode.

    The module is copied, so that the caller's own object keeps its mode, device and gradients, and so that later
    training of it does not change what is audited. Images are given in the precision of its weights.

    - `origin`: SHA-256 of the archive that a scripted module came from; empty for a module given as an object.
    """

    def __init__(self, module: torch.nn.Module, *, origin: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        scripted = isinstance(module, torch.jit.ScriptModule)
        if not scripted:
            with user_code(f"Model '{self.name}' cannot be copied", "Give its import path and weights."):
                module = copy.deepcopy(module)
        with user_code(f"Model '{self.name}' cannot be moved to {self.device}", "Give another device."):
            self._module = module.to(self.device).eval()
            self.dtype = _precision(module)
        self._origin = origin
        # as it was before it was asked: what a call leaves behind, such as its last features, is not what it is
        shared = {id(one): one for one in (*self._module.parameters(), *self._module.buffers())}
        self._kept = self._module if origin or scripted else copy.deepcopy(self._module, shared)

    def _forward(self, batch: torch.Tensor) -> Any:
        return ask_network(self._module, batch)

    def _content(self) -> str | None:
        return self._origin or digest(self._kept)


def _precision(module: torch.nn.Module) -> torch.dtype:
    """Give the type of the first weights, or of the first buffer where there are none: what the first layer takes."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            return tensor.dtype
    return torch.float32


def takes(found: object) -> bool:
    """Whether an object is a torch module."""
    return isinstance(found, torch.nn.Module)


def wrap(found: torch.nn.Module, declared: Declared, settings: dict[str, Any]) -> TorchPredictor:
    """Make a predictor of a module, with the weights that were declared for it."""
    if declared.weights is not None:
        states = read_states(declared.weights, trust=declared.trust)
        fill_module(found, states, model=settings["name"], path=declared.weights)
    model = TorchPredictor(found, **settings)
    model.remarks = _scale_of_radiographs(found, model)
    return model


def _scale_of_radiographs(found: torch.nn.Module, model: TorchPredictor) -> tuple[str, ...]:
    """Say that a network of torchxrayvision is shown other grey values than it reads, which tell it hardly anything."""
    if not type(found).__module__.startswith("torchxrayvision."):
        return ()
    spec = model.input
    black, white = ((value - np.asarray(spec.mean)) / np.asarray(spec.std) for value in (spec.low, spec.high))
    if np.allclose([black, white], [np.full_like(black, -1024), np.full_like(white, 1024)], atol=1):
        return ()
    return (
        f"Model '{model.name}' is a network of torchxrayvision, which reads grey values from -1024 to 1024, and is "
        f"shown {black.min():g} to {white.max():g}: declare input: {{low: -1024, high: 1024}}, and the size of its "
        "training.",
    )


def read(path: Path, declared: Declared) -> TorchPredictor:
    """Read a network of this project out of a safetensors file; its card names the architecture."""
    card = read_card(path)
    if "arch" not in card:
        read_states(path)  # raises for a damaged file
        raise InputError(WEIGHTS_ONLY.format(path=path, name=path.name))
    settings = declared.settings(path.stem, card)
    # all heads of the file; which of them are asked for is a matter of columns
    network = ZooNetwork(card["arch"], card["labels"], dropout=card.get("dropout", 0.0))
    fill_module(network, read_weights(path), model=settings["name"], path=path)
    model = TorchPredictor(network, **settings)
    model.remarks = declared.remarks(model.name, card)
    return model
