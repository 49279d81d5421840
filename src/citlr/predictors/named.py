"""Networks by name, of torchvision or timm, filled with weights from a local file; nothing is downloaded."""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from citlr.errors import InputError, needed, require_known
from citlr.predictors.declared import Declared
from citlr.predictors.weights import read_states
from citlr.text import shown

LIBRARIES = ("torchvision", "timm")
# Outputs of a network as it comes; a head of another size is known by the weights.
_USUAL = 1000
# What torchvision subtracts and divides by in the training of all its networks.
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def is_named(source: str) -> bool:
    """Whether a source is a library's name of a network, `torchvision:densenet121`."""
    return source.partition(":")[0] in LIBRARIES and source.count(":") == 1


def build_named(source: str, declared: Declared) -> torch.nn.Module:
    """Build a network with as many outputs as the weights have; they are filled in by the torch adapter."""
    library, _, name = source.partition(":")
    if declared.weights is None:
        raise InputError(
            f"Model '{source}' names a network and no weights: give the file with weights (a state_dict, .safetensors "
            "or .pt); nothing is downloaded."
        )
    states = read_states(declared.weights, trust=declared.trust)
    with torch.device("meta"):
        usual = _build(library, name, _USUAL)
    if hasattr(usual, "transform_input"):
        raise InputError(
            f"Model '{source}' is built with transform_input or without, which changes its answers, and weights do not "
            "show it: write a function that makes it as it was trained, and name file.py:function as the source."
        )
    shapes = {key: tuple(value.shape) for key, value in usual.state_dict().items()}
    return _build(library, name, _outputs(states, shapes))


def normalisation(source: str, network: torch.nn.Module) -> tuple[str, ...]:
    """Say with which mean and std the library trained its own weights, for a network that is shown images without."""
    library, _, name = source.partition(":")
    known: Any = getattr(network, "pretrained_cfg", None) or {}
    if library == "torchvision":
        published = next(iter(importlib.import_module("torchvision.models").get_model_weights(name)), None)
        known = {} if published is None else vars(published.transforms())
    return _shown_otherwise(source, library, known)


def unnormalised(name: str, network: object, declared: Declared) -> tuple[str, ...]:
    """Say the same of a library's network that comes as an object, where it reads three channels."""
    library = type(network).__module__.partition(".")[0]
    if library not in LIBRARIES or declared.says("mean", "std") or getattr(declared.input, "channels", 1) != 3:
        return ()
    return _shown_otherwise(name, library, getattr(network, "pretrained_cfg", None) or _IMAGENET)


def _shown_otherwise(name: str, library: str, known: Mapping[str, Any]) -> tuple[str, ...]:
    if "mean" not in known or "std" not in known:
        return ()
    mean, std = (shown([round(value, 4) for value in known[what]]) for what in ("mean", "std"))
    return (
        f"Model '{name}' is shown images without mean and std, and {library} trains it with both: declare input: "
        f"{{channels: 3, mean: {mean}, std: {std}}} if its weights were trained so.",
    )


def _build(library: str, name: str, outputs: int) -> torch.nn.Module:
    with needed(library, library, f"Model '{library}:{name}'"):
        maker: Any = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    known = maker.list_models()
    require_known(name, known, f"{library} has no network '{name}'")
    with warnings.catch_warnings():
        # of weights that are started at random, and overwritten here
        warnings.filterwarnings("ignore", message="The default weight initialization")
        if library == "timm":
            return maker.create_model(name, pretrained=False, num_classes=outputs)  # type: ignore[no-any-return]
        return maker.get_model(name, weights=None, num_classes=outputs)  # type: ignore[no-any-return]


def _outputs(states: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Read the number of outputs off the weights: the length of what has the usual number in the network."""
    flat = {"": states} if not all(isinstance(one, Mapping) for one in states.values()) else states
    found = {
        int(value.shape[0])
        for state in flat.values()
        for key, value in state.items()
        for own, shape in shapes.items()
        if (key == own or key.endswith(f".{own}")) and shape == (_USUAL,) and getattr(value, "ndim", 0) == 1
    }
    return found.pop() if len(found) == 1 else _USUAL
