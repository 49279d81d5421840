"""The publication's ten networks, and the one it probes the attribute with, on gray images.

Backbone of torchvision; global average pooling; for every label dropout, batch normalisation and a 1x1 convolution to
one logit.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from citlr.errors import InputError, require_known
from citlr.predictors.specs import require_labels
from citlr.predictors.weights import StateDict, fill_module, read_weights
from citlr.randomness import ALONE
from citlr.run.files import sha256

# what torchvision's ImageNet weights were trained with
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# below this side the last feature map of Inception-v3 is smaller than 2x2 (the others have 2x2 at 64)
_INCEPTION_SIDE = 128
SMALLEST = 64


@dataclass(frozen=True)
class _Recipe:
    build: Callable[[], nn.Module]
    cached: str  # torchvision's file name; its tail is the start of the file's SHA-256
    channels: int


def _model(name: str, **options: Any) -> Any:
    """Build one of torchvision's."""
    # Here, for it takes 2 s, of which an audit of another model has no need.
    from torchvision import models

    return getattr(models, name)(weights=None, **options)


def _densenet(name: str) -> Callable[[], nn.Module]:
    # torchvision applies this ReLU in forward, after the features
    return lambda: nn.Sequential(OrderedDict(features=_model(name).features, relu=nn.ReLU()))


def _vgg(letter: str, *, batch_norm: bool) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision.models import vgg  # Here, as above.

        # only the convolutions: the three linear layers would be 120 million numbers drawn to be thrown away
        features = vgg.make_layers(vgg.cfgs[letter], batch_norm=batch_norm)
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None  # VGG's convolutions have one
                nn.init.zeros_(layer.bias)
        return nn.Sequential(OrderedDict(features=features))

    return build


def _parts(name: str, drop: set[str], **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        children = _model(name, **options).named_children()
        return nn.Sequential(OrderedDict((child, part) for child, part in children if child not in drop))

    return build


_INCEPTION = {"AuxLogits", "avgpool", "dropout", "fc"}
_RECIPES = {
    "densenet121": _Recipe(_densenet("densenet121"), "densenet121-a639ec97.pth", 1024),
    "densenet169": _Recipe(_densenet("densenet169"), "densenet169-b2777c0a.pth", 1664),
    "densenet201": _Recipe(_densenet("densenet201"), "densenet201-c1103571.pth", 1920),
    "vgg13": _Recipe(_vgg("B", batch_norm=False), "vgg13-19584684.pth", 512),
    "vgg13_bn": _Recipe(_vgg("B", batch_norm=True), "vgg13_bn-abd245e5.pth", 512),
    "vgg16": _Recipe(_vgg("D", batch_norm=False), "vgg16-397923af.pth", 512),
    "vgg16_bn": _Recipe(_vgg("D", batch_norm=True), "vgg16_bn-6c64b313.pth", 512),
    "vgg19": _Recipe(_vgg("E", batch_norm=False), "vgg19-dcbb9e9d.pth", 512),
    "vgg19_bn": _Recipe(_vgg("E", batch_norm=True), "vgg19_bn-c79401a0.pth", 512),
    "inception_v3": _Recipe(
        _parts("inception_v3", _INCEPTION, init_weights=False), "inception_v3_google-0cc3c7bd.pth", 2048
    ),
    "resnet34": _Recipe(_parts("resnet34", {"avgpool", "fc"}), "resnet34-b627a593.pth", 512),
}
PROBE = "resnet34"
ARCHITECTURES = tuple(name for name in _RECIPES if name != PROBE)


@dataclass(frozen=True)
class Start:
    """Where a network's first weights came from, which every output says; `sha256` of a file, empty for chance."""

    kind: Literal["imagenet", "file", "random"]
    text: str
    sha256: str = ""


class ZooNetwork(nn.Module):
    """One of the networks: images (n, 1, H, W), or (n, 3, H, W) in colour, in [0, 1] to logits (n, n_labels)."""

    def __init__(self, arch: str, labels: Sequence[str], *, dropout: float = 0.2) -> None:
        super().__init__()
        require_known(arch, _RECIPES, f"There is no network '{arch}'")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; it must be at least 0 and below 1.")
        recipe = _RECIPES[arch]
        self.arch, self.labels, self.dropout = arch, require_labels(labels), dropout
        self.backbone = recipe.build()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Dropout(dropout), nn.BatchNorm2d(recipe.channels), nn.Conv2d(recipe.channels, 1, 1))
            for _ in self.labels
        )
        # not in the state_dict: they are the same for every network
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        # the same numbers in the order that convolutions on a CPU want: inference takes two thirds of the time
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (n, n_labels)."""
        if self.arch == "inception_v3" and min(images.shape[-2:]) < _INCEPTION_SIDE:
            images = nn.functional.interpolate(images, size=(_INCEPTION_SIDE, _INCEPTION_SIDE), mode="bilinear")
        colour = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        pooled = self.backbone(colour).mean(dim=(2, 3), keepdim=True)
        return torch.cat([head(pooled).flatten(1) for head in self.heads], dim=1)

    def architecture(self) -> dict[str, Any]:
        """Give what rebuilds the network, for its card."""
        return {"arch": self.arch, "dropout": self.dropout}


def build_network(
    arch: str, labels: Sequence[str], *, weights: str | Path | None = "auto", dropout: float = 0.2, seed: int = 0
) -> tuple[ZooNetwork, Start]:
    """Make one of the networks with the best first weights that can be had."""
    with ALONE, torch.random.fork_rng(devices=[]):  # torch's initialisers know no generator for whole networks
        torch.manual_seed(seed)
        network = ZooNetwork(arch, labels, dropout=dropout)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _RECIPES[arch].cached
    if weights is None:
        return network, Start("random", f"{arch} starts at random, as asked.")
    if weights != "auto":
        _fill_backbone(network, Path(weights))
        return network, Start("file", f"{arch} starts from the weights in '{weights}'.", sha256(weights))
    if not cached.is_file():
        text = (
            f"{arch} starts at random: there are no ImageNet weights for it in torchvision's cache "
            f"('{cached.name}' in '{cached.parent}'), and no weights file was given."
        )
        return network, Start("random", text)
    digest = sha256(cached)
    if not digest.startswith(cached.stem.rpartition("-")[2]):
        raise InputError(f"'{cached}' is damaged (its SHA-256 is not the one in its name): delete or replace it.")
    _fill_backbone(network, cached)
    return network, Start("imagenet", f"{arch} starts from ImageNet weights ('{cached.name}').", digest)


def _fill_backbone(network: ZooNetwork, path: Path) -> None:
    wanted = set(network.backbone.state_dict())
    given = {_renamed(name): value for name, value in read_weights(path).items()}
    # what torchvision's networks have on top of the backbone is left out; anything else left over is an error
    top = ("classifier.", "fc.", "AuxLogits.", "heads.")
    kept: StateDict = {
        name.removeprefix("backbone."): value
        for name, value in given.items()
        if name.removeprefix("backbone.") in wanted or not name.startswith(top)
    }
    fill_module(network.backbone, kept, model=network.arch, path=path)


def _renamed(name: str) -> str:
    """Undo the dots that torchvision's DenseNet files have inside layer names (`norm.1` for `norm1`)."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name)
