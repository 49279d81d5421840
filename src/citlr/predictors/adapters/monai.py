"""MONAI bundles of image classifiers as models under audit; their configuration is code, read only if trusted."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from citlr.errors import InputError
from citlr.predictors.adapters.huggingface import read_part
from citlr.predictors.adapters.torch import TorchPredictor
from citlr.predictors.adapters.torchscript import DEPRECATED, load_torchscript
from citlr.predictors.content import digest
from citlr.predictors.declared import Declared
from citlr.predictors.weights import fill_module, read_states, warn_trusted
from citlr.run.files import fingerprint, sha256
from citlr.text import shown

METADATA = "configs/metadata.json"
_INFERENCE = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
_STATES, _SCRIPTED = "models/model.pt", "models/model.ts"
_READ = {".py", ".json", ".yaml", ".yml"}
# What the cohort has done already: files are read, channels stand first, and grey is repeated.
_DONE = {"LoadImage", "EnsureChannelFirst", "AsChannelFirst", "AddChannel", "RepeatChannel"}
_DECLARE = "declare input: {size: 224, channels: 1, low: 0, high: 1}, as the network wants it"


def is_bundle(folder: Path) -> bool:
    """Whether a folder is laid out as a bundle."""
    return (folder / METADATA).is_file()


def read(folder: Path, declared: Declared) -> TorchPredictor:
    """Read a bundle: labels, size and grey scale of its metadata, network and preparation of its inference config."""
    if not is_bundle(folder):
        raise InputError(f"Model '{folder}' has no {METADATA}: give the folder of a MONAI bundle.")
    image, scores = _formats(read_part(folder / METADATA), folder)
    config = next((folder / name for name in _INFERENCE if (folder / name).is_file()), None)
    if config is None:
        raise InputError(f"Bundle '{folder}' has no {_INFERENCE[0]} (nor .yaml), which says what its network is.")
    if not declared.trust:
        raise InputError(
            f"Model '{folder}' is a MONAI bundle, whose {config.name} can run any code: trust it (trust: true, "
            "--trust) if you know where it comes from."
        )
    warn_trusted(config, "the configuration of a MONAI bundle")
    # Here, for it takes 2 s, and whoever gives an object asks all kinds whether it is theirs.
    from monai.bundle.config_parser import ConfigParser

    with _importable(folder):
        parser = ConfigParser()
        parser.read_config(str(config))
        parser["bundle_root"] = str(folder.absolute())
        network, weights = _network(parser, folder, declared)
        steps = _steps(parser, folder)
    card: dict[str, Any] = {"labels": labels} if (labels := _labels(scores)) else {}
    if activation := _activation(parser, folder, required=declared.output is None):
        card["output"] = {"kind": "logit", "activation": activation}
    if declared.input is None:
        card["input"] = _input(parser, image, steps, folder)
    prepared = Prepared(network, steps if declared.input is None else [], swapped=_swapped(parser))
    # a config names other configs and code of the whole bundle, and packages beside it
    parts = [weights, *sorted(part for part in folder.rglob("*") if part.suffix in _READ and part.is_file())]
    files = {str(part.relative_to(folder)): sha256(part) for part in parts}
    origin = fingerprint({"files": files, "content": digest(prepared)})
    model = TorchPredictor(prepared, origin=origin, **declared.settings(folder.name, card))
    scripted = (DEPRECATED.format(name=model.name),) if weights.name == Path(_SCRIPTED).name else ()
    told = prepared.remarks(model.name, model.input.low, model.input.high)
    model.remarks = (*told, *declared.remarks(model.name, card), *scripted)
    return model


class Prepared(torch.nn.Module):
    """A network behind the bundle's own preparation of one image, (c, h, w) or (c, w, h) as MONAI's readers have it."""

    def __init__(self, network: torch.nn.Module, steps: Sequence[Any], *, swapped: bool) -> None:
        super().__init__()
        # a copy of a scripted module has weights that are not its own's, and warns where they have gradients
        for weight in network.parameters():
            weight.requires_grad_(False)
        self.network = network
        self.steps = tuple(steps)
        self.swapped = swapped

    def forward(self, images: torch.Tensor) -> Any:
        """Prepare each image by itself; gives what the network gives for all of them."""
        images = images.transpose(-2, -1) if self.swapped else images
        return self.network(torch.stack([self._one(image) for image in images]) if self.steps else images)

    def _one(self, image: torch.Tensor) -> torch.Tensor:
        from monai.transforms.transform import MapTransform

        device, kind = image.device, image.dtype
        for step in self.steps:
            if isinstance(step, MapTransform):
                key = step.keys[0]
                image = step({key: image})[key]
            else:
                image = step(image)
        return torch.as_tensor(getattr(image, "array", image)).to(device, kind)

    def remarks(self, model: str, low: float, high: float) -> tuple[str, ...]:
        """Say what is done to an image."""
        told = []
        if self.steps:
            names = ", ".join(type(step).__name__ for step in self.steps)
            told.append(f"Images go from {low:g} to {high:g} through the preprocessing of bundle '{model}' ({names}).")
        if self.swapped:
            told.append(f"Bundle '{model}' loads images by MONAI's readers, so it is shown width before height.")
        return tuple(told)


def _formats(metadata: Mapping[str, Any], folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Give what goes in and what comes out; whatever is not one image in, one score per label out, is refused."""
    found = metadata.get("network_data_format")
    sides = [found.get(side) if isinstance(found, Mapping) else None for side in ("inputs", "outputs")]
    for side, what in zip(sides, ("inputs", "outputs"), strict=True):
        if not isinstance(side, Mapping) or not all(isinstance(one, Mapping) for one in side.values()) or not side:
            raise InputError(f"Bundle '{folder}' does not say its {what} (network_data_format in {METADATA}).")
        if len(side) > 1:
            raise InputError(
                f"Bundle '{folder}' has {len(side)} {what} ({', '.join(map(str, side))}); what can be audited takes "
                "one image and gives one output."
            )
    image, scores = (next(iter(side.values())) for side in sides)  # type: ignore[union-attr]
    if len(_shape(image)) != 2:
        raise InputError(
            f"Bundle '{folder}' takes images of {len(_shape(image))} dimensions (spatial_shape "
            f"{shown(image.get('spatial_shape'))}); what can be audited takes two."
        )
    if image.get("num_channels") not in (1, 3):
        raise InputError(
            f"Bundle '{folder}' takes {shown(image.get('num_channels'))} channels; images here have 1 or 3."
        )
    shape, count = _shape(scores), scores.get("num_channels")
    if scores.get("format") == "segmentation" or not all(side in (1, count) for side in shape):
        raise InputError(
            f"Bundle '{folder}' is no image classifier: it gives {shown(scores.get('format'))} of shape "
            f"{shown(scores.get('spatial_shape'))}, and one number per label is due."
        )
    return image, scores


def _shape(part: Mapping[str, Any]) -> Sequence[Any]:
    shape = part.get("spatial_shape")
    return shape if isinstance(shape, list) else []


def _labels(scores: Mapping[str, Any]) -> list[str]:
    """Give the names of the outputs in their order; none where they are not all named."""
    named = scores.get("channel_def")
    count = scores.get("num_channels")
    if not isinstance(named, Mapping) or sorted(map(str, named)) != sorted(map(str, range(int(count or 0)))):
        return []
    return [str(named[key]) for key in sorted(named, key=int)]


def _targets(parser: Any, section: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Give key, name and settings of each transform of a section; `LoadImage` and `LoadImaged` have one name."""
    given = parser.get(section)
    listed = given.get("transforms", []) if isinstance(given, Mapping) else given or []
    key = f"{section}#transforms" if isinstance(given, Mapping) else section
    found = []
    for place, one in enumerate(listed if isinstance(listed, list) else []):
        settings = one if isinstance(one, Mapping) else {}
        name = str(settings.get("_target_", "")).rpartition(".")[2]
        found.append((f"{key}#{place}", name.removesuffix("Dict").removesuffix("d").removesuffix("D"), settings))
    return found


def _steps(parser: Any, folder: Path) -> list[Any]:
    """Make the transforms of an image; a random one would give two answers."""
    steps = []
    for key, name, _ in _targets(parser, "preprocessing"):
        if name in _DONE:
            continue
        if name.startswith("Rand"):
            raise InputError(f"Bundle '{folder}' prepares images by chance ({name} in preprocessing): {_DECLARE}.")
        step = parser.get_parsed_content(key)
        if step is not None:  # switched off (_disabled_)
            steps.append(step)
    return steps


def _swapped(parser: Any) -> bool:
    """Whether files are loaded with the width before the height, as all readers of MONAI do unless told otherwise."""
    for _, name, settings in _targets(parser, "preprocessing"):
        if name == "LoadImage":
            usual = "PIL" in str(settings.get("reader", "PILReader"))
            return bool(settings.get("swap_ij", True)) and settings.get("reverse_indexing", usual) == usual
    return False


def _input(parser: Any, image: Mapping[str, Any], steps: Sequence[Any], folder: Path) -> dict[str, Any]:
    """Say at which size and grey scale images come to the bundle's own preparation, or else to its network."""
    sides, scale = _shape(image), image.get("value_range")
    if any(type(step).__module__.startswith("monai.transforms.intensity") for step in steps):
        scale = [0, 255]  # as files have it
    for key, name, _ in reversed(_targets(parser, "preprocessing")):
        if name == "Resize":
            sides = parser.get_parsed_content(f"{key}#spatial_size")
        if name == "ScaleIntensityRange":
            scale = [parser.get_parsed_content(f"{key}#{end}") for end in ("a_min", "a_max")]
    sides = list(sides) if isinstance(sides, Sequence) else [sides, sides]
    whole = len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
    if not isinstance(scale, Sequence) or len(scale) != 2:
        raise InputError(f"Bundle '{folder}' says no value_range of its image in {METADATA}: {_DECLARE}.")
    size = tuple(reversed(sides) if _swapped(parser) else sides) if whole else None
    return {"size": size, "channels": image["num_channels"], "low": float(scale[0]), "high": float(scale[1])}


def _activation(parser: Any, folder: Path, *, required: bool) -> str:
    for _, name, settings in _targets(parser, "postprocessing"):
        for activation in ("sigmoid", "softmax"):
            if name == "Activations" and settings.get(activation) is True:
                return activation
    if not required:
        return ""
    raise InputError(
        f"Bundle '{folder}' does not say what makes probabilities of its outputs (Activationsd in postprocessing): "
        "declare output: {kind: logit, activation: softmax}, sigmoid, or output: probability."
    )


def _network(parser: Any, folder: Path, declared: Declared) -> tuple[torch.nn.Module, Path]:
    """Build the network and fill it, or take the scripted one; the file of its weights is the second."""
    states, scripted = folder / _STATES, folder / _SCRIPTED
    if not states.is_file() or parser.get("network_def") is None:
        if not scripted.is_file():
            raise InputError(
                f"Bundle '{folder}' has no network: it needs {_STATES} and a network_def in its inference config, or "
                f"{_SCRIPTED}; nothing is downloaded."
            )
        return load_torchscript(scripted, declared.device)[0], scripted
    if isinstance(parser["network_def"], Mapping) and "pretrained" in parser["network_def"]:
        parser["network_def#pretrained"] = False  # would be downloaded, and then be replaced
    network = parser.get_parsed_content("network_def")
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"The network_def of bundle '{folder}' makes a {type(network).__name__}, which is no network.")
    fill_module(network, read_states(states, trust=declared.trust), model=declared.name or folder.name, path=states)
    return network, states


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a bundle's config name its own scripts; another bundle's have the same names, so none is kept."""
    root = str(folder.resolve())
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path.remove(root)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(root + "/"):
                del sys.modules[name]
