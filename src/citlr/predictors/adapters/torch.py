"""PyTorch modules as models under audit."""

import copy
import itertools
from collections.abc import Mapping, Sequence
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
from citlr.text import listed_few

# Where modules keep the names of their outputs, torchxrayvision's first.
_NAMES = ("pathologies", "targets", "class_names", "classes", "label_names", "labels")


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
        self._heads = output_names(module)

    def _forward(self, batch: torch.Tensor) -> Any:
        return ask_network(self._module, batch)

    def _columns(self, n_outputs: int) -> list[int]:
        if self.output.columns is not None or not self._names(n_outputs) or n_outputs != len(self.labels):
            return super()._columns(n_outputs)
        own = places_of(self.labels, self._heads)
        return [own[label] for label in self.labels] if len(own) == n_outputs else super()._columns(n_outputs)

    def _names(self, n_outputs: int) -> bool:
        # A head that was replaced may leave the names of the old one there; transformers numbers what has no name.
        return n_outputs == len(self._heads) and not self._heads[0].startswith("LABEL_")

    def naming(self, n_outputs: int) -> tuple[str, ...]:
        """Say where labels are found by the names of the outputs, and where the names contradict."""
        if not self._names(n_outputs):
            return ()
        said = f"Model '{self.name}' names its {n_outputs} outputs ({listed_few(self._heads)})"
        taken, own = self._columns(n_outputs), places_of(self.labels, self._heads)
        for label, column in zip(self.labels, taken, strict=True):
            if own.get(label, column) != column:
                return (f"{said}: output {column} is taken for '{label}', and is called '{self._heads[column]}'.",)
        if self.output.columns is None and len(own) < n_outputs:
            return (f"{said}, and not all labels are among these: outputs are taken in their order, as the labels.",)
        if self.output.columns is None and taken != [*range(n_outputs)]:
            return (f"{said}, and labels are found by these names: declare columns to take others.",)
        return ()

    def _content(self) -> str | None:
        return self._origin or digest(self._kept)


def _precision(module: torch.nn.Module) -> torch.dtype:
    """Give the type of the first weights, or of the first buffer where there are none: what the first layer takes."""
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            return tensor.dtype
    return torch.float32


def output_names(module: torch.nn.Module) -> tuple[str, ...]:
    """Give the names that a module, or else the first part of it, has for its outputs; none where none has."""
    return next((found for part in module.modules() if (found := _own_names(part))), ())


def _own_names(part: torch.nn.Module) -> tuple[str, ...]:
    numbered = getattr(getattr(part, "config", None), "id2label", None)  # of transformers
    if isinstance(numbered, Mapping) and {*numbered} == {*range(len(numbered))}:
        return tuple(str(numbered[place]) for place in range(len(numbered)))
    for name in _NAMES:
        found = getattr(part, name, None)
        if isinstance(found, list | tuple) and len(found) > 1 and all(isinstance(one, str) for one in found):
            return tuple(found)
    return ()


def places_of(labels: Sequence[str], heads: Sequence[str]) -> dict[str, int]:
    """Find labels among the names of outputs, whatever their case; those that are not there once are left out."""
    plain = [head.strip().casefold() for head in heads]
    wanted = {label: label.strip().casefold() for label in labels}
    return {label: plain.index(name) for label, name in wanted.items() if plain.count(name) == 1}


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
