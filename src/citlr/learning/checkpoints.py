"""Tensors and JSON in one safetensors file, written whole or not at all; never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from citlr.errors import StateError
from citlr.run.files import atomic_write


def save_state(file: Path, tensors: Mapping[str, Tensor], head: Any) -> None:
    """Write tensors with a JSON head (kept in the file's metadata, so that the two cannot part)."""
    # safetensors wants plain memory: no views that share it, no channels-last strides.
    plain = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}
    with atomic_write(file) as temporary:
        save_file(plain, temporary, metadata={"head": json.dumps(head)})


def load_head(file: Path) -> dict[str, Any]:
    """Read the JSON head alone, an empty one where there is none; errors as of `load_state`."""
    try:
        with safe_open(file, framework="pt") as content:
            head: dict[str, Any] = json.loads((content.metadata() or {}).get("head", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise StateError(f"{file} is damaged ({error}); remove it and train that part again.") from error
    return head


def load_state(file: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `save_state` wrote: the tensors, on the CPU, and the head."""
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a mapping
            head = json.loads((content.metadata() or {})["head"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise StateError(f"{file} is damaged ({error}); remove it and train that part again.") from error
    return tensors, head


def weights_fingerprint(modules: Mapping[str, nn.Module], head: Any) -> str:
    """Return the SHA-256 of all weights and of a JSON head, the same before and after they were saved.

    >>> net = nn.Linear(1, 1)
    >>> before = weights_fingerprint({"net": net}, {"step": 1})
    >>> _ = nn.init.constant_(net.weight, 0.5)
    >>> before == weights_fingerprint({"net": net}, {"step": 1})
    False
    """
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, default=str).encode())
    for part, module in sorted(modules.items()):
        for name, value in sorted(module.state_dict().items()):
            plain = value.detach().to("cpu").contiguous()
            digest.update(f"{part}\0{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def load_module(module: nn.Module, file: Path) -> None:
    """Read a module's weights from what `save_state` wrote.

    >>> import tempfile
    >>> net, other = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(Path(folder) / "net.safetensors", net.state_dict(), {})
    ...     load_module(other, Path(folder) / "net.safetensors")
    >>> bool(net.weight == other.weight)
    True
    """
    tensors, _ = load_state(file)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise StateError(
            f"{file} does not hold what its configuration says, so it is of another version of citlr or was changed; "
            "train the generator again."
        ) from error
