"""ONNX graphs as models under audit, run by onnxruntime."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citlr.errors import InputError, MissingExtraError, did_you_mean
from citlr.predictors.base import BatchedPredictor, one_sentence
from citlr.predictors.specs import InputSpec
from citlr.predictors.torch import CARD, parse_card
from citlr.run.files import sha256

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxPredictor(BatchedPredictor):
    """An ONNX graph with one image input.

    A graph whose batch axis is fixed is fed in batches of that size, the last one filled up.

    Parameters
    ----------
    path : path-like
        The `.onnx` file.
    session : onnxruntime.InferenceSession
        From `open_session`.
    **settings
        As in `BatchedPredictor`.

    Raises
    ------
    InputError
        If the graph has several inputs, or its input contradicts the declared size or channels.
    """

    def __init__(self, path: str | os.PathLike[str], session: Any, **settings: Any) -> None:
        super().__init__(**settings)
        # now, for the file may be replaced while the session goes on with what it has read
        self._origin = " ".join(sha256(file) for file in (Path(path), *external_files(Path(path))))
        self._session = session
        node = _image_input(session, self.name)
        self._feed, self._type, self._flat = node.name, _TYPES[node.type], len(node.shape) == 2
        self._fixed = node.shape[0] if isinstance(node.shape[0], int) and node.shape[0] > 0 else None
        if self._fixed:
            self.batch_size = self._fixed
        _check_shape(self.input, node.shape, self.name)
        self._output = self._choose_output()

    def _choose_output(self) -> str:
        names = [node.name for node in self._session.get_outputs()]
        if self.output.name is None and len(names) == 1:
            return str(names[0])
        if self.output.name not in names:
            found = "" if self.output.name is None else f", and none is '{self.output.name}'"
            raise InputError(
                f"Model '{self.name}' has the outputs {', '.join(names)}{found}: say which with output.name."
            )
        return str(self.output.name)

    def _forward(self, batch: torch.Tensor) -> Any:
        array = batch.cpu().numpy().astype(self._type)
        n = len(array)
        if self._fixed and n < self._fixed:
            array = np.concatenate([array, np.repeat(array[-1:], self._fixed - n, axis=0)])
        if self._flat:
            array = array.reshape(len(array), -1)
        given = self._session.run([self._output], {self._feed: array})[0]
        return given[:n]

    def _content(self) -> str:
        return self._origin


def open_session(path: str | os.PathLike[str], device: torch.device) -> Any:
    """Open a graph with onnxruntime, deterministic, on the given device.

    Raises
    ------
    MissingExtraError
        If onnxruntime is not installed.
    InputError
        If the file is missing or not a readable graph, or onnxruntime has no support for the device.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", f"Model '{path}'") from error
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type, "")
    if provider not in runtime.get_available_providers():
        raise InputError(
            f"The installed onnxruntime cannot use device '{device}': install onnxruntime-gpu, or use 'cpu'."
        )
    options = runtime.SessionOptions()
    options.use_deterministic_compute = True
    options.intra_op_num_threads = torch.get_num_threads()
    # idle threads that spin take the cores from torch
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's own exception types share no base class
        raise InputError(f"ONNX file '{path}' cannot be read ({one_sentence(error)}); export it again.") from error


def external_files(path: Path) -> list[Path]:
    """Find the files beside a graph that hold its weights, in the order of their names."""
    content = path.read_bytes()
    # the key of an entry of external data; a graph without one keeps all in itself
    if b"location" not in content:
        return []
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx", f"Model '{path}', whose weights are in files beside it,") from error
    names: set[str] = set()
    _find_locations(onnx.load_model_from_string(content), names)
    return [path.parent / name for name in sorted(names)]


def _find_locations(message: Any, names: set[str]) -> None:
    """Collect the locations of external tensors, wherever a graph, a sub-graph or a function holds them."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            names.update(entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                _find_locations(part, names)


def session_card(session: Any) -> dict[str, Any]:
    """Read the card that this project writes into the graphs it exports (labels, input, output); empty without one."""
    return parse_card(session.get_modelmeta().custom_metadata_map.get(CARD, ""))


def session_input(session: Any, name: str) -> InputSpec:
    """Read size and channels from the graph, for a model whose input was not declared."""
    shape = _image_input(session, name).shape
    if len(shape) != 4:
        return InputSpec()
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels = shape[3] if last else shape[1]
    if channels not in (1, 3):
        raise InputError(f"Model '{name}' takes an input of shape {shape}: declare its channels (1 or 3) and layout.")
    size = tuple(shape[1:3] if last else shape[2:4])
    fixed = all(isinstance(side, int) for side in size)
    return InputSpec(
        size=size if fixed else None,
        channels=channels,
        layout="channels_last" if last else "channels_first",
    )


def _image_input(session: Any, name: str) -> Any:
    nodes = session.get_inputs()
    if len(nodes) != 1:
        raise InputError(
            f"Model '{name}' has {len(nodes)} inputs ({', '.join(n.name for n in nodes)}); it needs one image."
        )
    if nodes[0].type not in _TYPES:
        raise InputError(f"Model '{name}' takes {nodes[0].type}.{did_you_mean(nodes[0].type, _TYPES)}")
    if len(nodes[0].shape) not in (2, 4):
        raise InputError(
            f"Model '{name}' takes an input of shape {nodes[0].shape}; an image batch has 4 axes, or 2 if flat."
        )
    return nodes[0]


def _check_shape(spec: InputSpec, shape: list[Any], name: str) -> None:
    if len(shape) != 4:
        return
    sides = spec.shape or ("any", "any")
    declared = (spec.channels, *sides) if spec.layout == "channels_first" else (*sides, spec.channels)
    for wanted, given in zip(shape[1:], declared, strict=True):
        if isinstance(wanted, int) and isinstance(given, int) and wanted != given:
            raise InputError(
                f"Model '{name}' takes images of shape {tuple(shape[1:])}, but the declared input makes {declared}: "
                "set input.size, input.channels and input.layout to the model's."
            )
