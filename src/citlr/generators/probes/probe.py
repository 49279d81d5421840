"""Probes: a small network that reads attributes and labels off images, and has no part in any generator's training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch.nn import functional

from citlr.errors import require_known
from citlr.generators.base import Images
from citlr.generators.probes.linear import LinearProbe, Offsets, describe, moved
from citlr.generators.probes.parts import ProbeNet, ResNetProbe, Target, make_net
from citlr.learning.checkpoints import load_module, load_state, save_state
from citlr.learning.store import spans
from citlr.run.files import read_json, write_json


@dataclass(frozen=True)
class Probes:
    """A trained probe.

    - `accuracy`: Mean over the levels of the share read rightly on the validation split.
    - `trusted`: Whether every level is told from the others better than by chance there (Mann-Whitney, one-sided, 1 %
      divided by the number of levels), or a number's readings go with it (Spearman, 1 %). What an untrusted target says
      is unknown, not nothing.
    - `linear`: Targets that a regression reads, as the network reads them no better than chance (`linear.py`).
    - `offsets`: Of each label, per level of the first attribute: what is added to the logits of images redrawn under
      that level (see `within_levels`); empty where labels are read as they are.
    """

    targets: tuple[Target, ...]
    size: int
    net: ProbeNet | ResNetProbe
    accuracy: Mapping[str, float]
    trusted: Mapping[str, bool]
    architecture: str = "small"
    offsets: Offsets = field(default_factory=dict)
    linear: Mapping[str, LinearProbe] = field(default_factory=dict)

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Levels of each target."""
        return {target.name: target.levels for target in self.targets}

    def target(self, name: str) -> Target:
        """Find what is read under a name."""
        targets = {target.name: target for target in self.targets}
        require_known(name, targets, f"The probe does not read '{name}'")
        return targets[name]

    @torch.no_grad()
    def read(self, images: Images, *, level: str | None = None) -> dict[str, npt.NDArray[np.float32]]:
        """Give the probability (n, levels) of each level of each target off images (n, c, size, size) in [0, 1]."""
        parts: list[list[npt.NDArray[np.float32]]] = []
        for span in spans(len(images), 64):
            logits = self.net(torch.from_numpy(np.ascontiguousarray(images[span])))
            parts.append([functional.softmax(part, dim=1).numpy() for part in logits])
        found = {
            target.name: np.concatenate([part[k] for part in parts])
            if parts
            else np.empty((0, len(target.levels)), np.float32)
            for k, target in enumerate(self.targets)
        }
        if self.linear and len(images):
            described = describe(images)
            found |= {
                name: softmax(one.logits(described), axis=1).astype(np.float32) for name, one in self.linear.items()
            }
        for name, own in self.offsets.items():
            if level is not None and level in own:
                found[name] = moved(found[name], own[level])
        return found

    @torch.no_grad()
    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Give the features (n, d) that the readings of images (n, 1, size, size) rest on; n is 1 at least."""
        parts = [
            self.net.features(torch.from_numpy(np.ascontiguousarray(images[span]))).numpy()
            for span in spans(len(images), 64)
        ]
        return np.concatenate(parts)

    def save(self, directory: Path) -> None:
        """Write `probe.json` and the weights."""
        save_state(Path(directory) / "probe.safetensors", self.net.state_dict(), {})
        parts = {
            f"{name}/{part.name}": torch.from_numpy(getattr(one, part.name))
            for name, one in self.linear.items()
            for part in fields(one)
        }
        save_state(Path(directory) / "linear.safetensors", parts, list(self.linear))
        content = {
            "targets": [
                {"name": t.name, "levels": list(t.levels), "cuts": list(t.cuts), "centres": list(t.centres)}
                for t in self.targets
            ],
            "architecture": self.architecture,
            "size": self.size,
            "accuracy": dict(self.accuracy),
            "trusted": dict(self.trusted),
            "offsets": {name: {level: list(one) for level, one in own.items()} for name, own in self.offsets.items()},
        }
        content |= {} if self.net.image_channels == 1 else {"image_channels": self.net.image_channels}
        write_json(Path(directory) / "probe.json", content)


def load_probes(directory: Path) -> Probes:
    """Read what `Probes.save` wrote."""
    content = read_json(Path(directory) / "probe.json")
    targets = tuple(
        Target(item["name"], tuple(item["levels"]), tuple(item["cuts"]), tuple(item["centres"]))
        for item in content["targets"]
    )
    counts = [len(target.levels) for target in targets]
    net = make_net(content["architecture"], counts, content["size"], content.get("image_channels", 1))
    load_module(net, Path(directory) / "probe.safetensors")
    net.eval()
    parts, names = load_state(Path(directory) / "linear.safetensors")
    linear = {
        name: LinearProbe(**{part.name: parts[f"{name}/{part.name}"].numpy() for part in fields(LinearProbe)})
        for name in names
    }
    known = (content["accuracy"], content["trusted"], content["architecture"], content["offsets"], linear)
    return Probes(targets, content["size"], net, *known)
