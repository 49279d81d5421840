"""Features that images are compared in (FID, KID): the user names the network, and nothing else takes its place."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from citlr.errors import InputError, require_known
from citlr.generators.base import Images
from citlr.run.files import digest_or_missing

EXTRACTORS = ("probe", "inception_v3", "torchxrayvision")
# What torchvision's ImageNet weights were trained with.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """Images (n, c, s, s) in [0, 1] to features (n, d), and the name that a report gives them."""

    name: str
    net: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Give features (n, d) of images (n, c, s, s) in [0, 1]."""
        parts = [
            self.net(torch.from_numpy(np.ascontiguousarray(images[start : start + 32]))).numpy()
            for start in range(0, len(images), 32)
        ]
        return np.concatenate(parts).astype(np.float32)


def load_extractor(spec: str) -> Extractor | None:
    """Find the network that a user named."""
    kind, _, rest = spec.partition(":")
    require_known(kind, EXTRACTORS, f"There is no feature extractor '{kind}'")
    if kind == "probe":
        if rest:
            raise InputError(f"'{spec}': the probe is this run's own and takes no weights; write probe.")
        return None
    if kind == "inception_v3":
        if not rest:
            raise InputError("'inception_v3' names no weights: write inception_v3:FILE with a local file.")
        return _inception(Path(rest))
    if not rest:
        raise InputError("'torchxrayvision' names no model: write torchxrayvision:densenet121-res224-all, for example.")
    name, _, file = rest.partition(":")
    return _xray(name, Path(file) if file else None)


def features_fingerprint(name: str) -> str:
    """Name a network of features by its weights' content, where they are a file of the user's."""
    file = name.split(":", 2 if name.startswith("torchxrayvision") else 1)[-1]
    return name if not Path(file).is_file() else f"{name.partition(':')[0]}:{digest_or_missing(file)}"


def _inception(file: Path) -> Extractor:
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, aux_logits=True, init_weights=False, transform_input=False)
    _fill(net, _read(file), file, optional=("AuxLogits.", "fc."))
    net.fc = nn.Identity()
    net.eval()
    mean, spread = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, SPREAD))

    def features(images: Tensor) -> Tensor:
        scaled = functional.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False, antialias=True)
        found: Tensor = net((scaled.expand(-1, 3, -1, -1) - mean) / spread)
        return found

    return Extractor(f"torchvision Inception-v3, weights {file.name}, 2048 features", features)


def _xray(name: str, file: Path | None) -> Extractor:
    try:
        import torchxrayvision as xrv
    except ImportError as error:
        raise InputError(
            "The feature extractor 'torchxrayvision' needs that package: pip install 'citlr[xray]'."
        ) from error
    known = [each for each in xrv.models.model_urls if each.startswith("densenet121-")]
    require_known(name, known, f"torchxrayvision has no model '{name}' to take features from")
    if file is None:
        cached = Path(xrv.utils.get_cache_dir()).expanduser() / Path(xrv.models.model_urls[name]["weights_url"]).name
        if not cached.is_file():
            raise InputError(
                f"The weights of torchxrayvision's '{name}' are not on this machine (no {cached.name} in its cache) "
                f"and nothing is downloaded here: fetch them once with that package, or name a file "
                f"(torchxrayvision:{name}:FILE)."
            )
        net = xrv.models.DenseNet(weights=name)
    else:
        net = xrv.models.DenseNet(weights=None, num_classes=18)
        _fill(net, _read(file), file, optional=("classifier.", "op_threshs"))
    net.eval()

    def features(images: Tensor) -> Tensor:
        scaled = functional.interpolate(images, size=(224, 224), mode="bilinear", align_corners=False, antialias=True)
        # That package scales images to [-1024, 1024].
        found: Tensor = net.features2((scaled * 2 - 1) * 1024)
        return found

    weights = "the package's weights" if file is None else f"weights {file.name}"
    return Extractor(f"torchxrayvision {name}, {weights}, 1024 features", features)


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise InputError(f"There are no weights at '{file}': give a local file; nothing is downloaded.")
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"'{file}' cannot be read as weights: give a state_dict, written as safetensors or by torch.save."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"'{file}' holds {type(content).__name__}, not a state_dict.")
    return content


def _fill(net: nn.Module, weights: Mapping[str, Any], file: Path, *, optional: tuple[str, ...]) -> None:
    """Load all weights but those of heads that no feature passes through."""
    try:
        outcome = net.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise InputError(f"The weights in '{file}' have other shapes than the network's.") from error
    missing = [name for name in outcome.missing_keys if not name.startswith(optional)]
    unexpected = [name for name in outcome.unexpected_keys if not name.startswith(optional)]
    if missing or unexpected:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{unexpected[0]}' is not the network's"
        raise InputError(f"The weights in '{file}' are another network's ({wrong}).")
