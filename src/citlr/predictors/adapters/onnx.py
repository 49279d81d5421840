"""ONNX graphs as models under audit, run by onnxruntime."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from citlr.errors import InputError, needed
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.declared import CARD, Declared, parse_card
from citlr.predictors.foreign import one_sentence, require_same
from citlr.predictors.specs import InputSpec
from citlr.run.files import sha256
from citlr.text import shortened

_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_WHOLE = {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
# Grey values that rounding must leave: those of an image of 8 bits.
_GREYS = 255


class OnnxPredictor(BatchedPredictor):
    """An ONNX graph with one image input.

    A graph whose batch axis is fixed is fed in batches of that size, the last one filled up.
    """

    def __init__(self, session: Any, *, origin: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._origin = origin
        self._session = session
        node = _image_input(session, self.name)
        self._feed, self._flat = node.name, len(node.shape) == 2
        self._type = np.dtype((_FLOATS | _WHOLE)[node.type])
        if node.type in _FLOATS:
            self.dtype = getattr(torch, _FLOATS[node.type])
        else:
            _check_whole(self.input, self._type, self.name)
        self._fix(node.shape[0])
        _check_shape(self.input, node.shape, self.name)
        self._outputs = self._choose_outputs()

    def _choose_outputs(self) -> list[str]:
        names = [str(node.name) for node in self._session.get_outputs()]
        if self.output.name is None and len(names) == 1:
            return names
        if self.output.name is None and self.output.columns is None and set(self.labels) <= set(names):
            return list(self.labels)  # an output for each label, by its name
        if self.output.name not in names:
            absent = "" if self.output.name is None else f", and none is '{self.output.name}'"
            raise InputError(
                f"Model '{self.name}' has the outputs {', '.join(names)}{absent}: say which with output.name."
            )
        return [str(self.output.name)]

    def _forward(self, batch: torch.Tensor) -> Any:
        array = batch.cpu().numpy()
        array = array if self._type.kind == "f" else np.rint(array).astype(self._type)
        if self._flat:
            array = array.reshape(len(array), -1)
        given = self._session.run(self._outputs, {self._feed: array})
        return (
            given[0] if self.output.name is None and len(given) == 1 else dict(zip(self._outputs, given, strict=True))
        )

    def _content(self) -> str:
        return self._origin


def read(path: Path, declared: Declared) -> OnnxPredictor:
    """Read a graph, with the card that this project writes into those that it exports."""
    origin = graph_digest(path)
    session = open_session(path, declared.device)
    require_same(graph_digest(path), origin, path)
    name = declared.name or path.stem
    card = parse_card(session.get_modelmeta().custom_metadata_map.get(CARD, ""), path)
    settings = declared.settings(name, card, lambda: session_input(session, name))
    model = OnnxPredictor(session, origin=origin, **settings)
    model.remarks = declared.remarks(name, card)
    return model


def open_session(path: str | os.PathLike[str], device: torch.device) -> Any:
    """Open a graph with onnxruntime, deterministic, on the given device."""
    with needed("onnxruntime", "onnx", f"Model '{path}'"):
        runtime = importlib.import_module("onnxruntime")
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


def graph_digest(path: Path) -> str:
    """Return the SHA-256 of a graph and of the files that hold its weights."""
    return " ".join(sha256(file) for file in (path, *_external_files(path)))


def _external_files(path: Path) -> list[Path]:
    """Find the files beside a graph that hold its weights, in the order of their names."""
    content = path.read_bytes()
    # the key of an entry of external data; a graph without one keeps all in itself
    if b"location" not in content:
        return []
    with needed("onnx", "onnx", f"Model '{path}', whose weights are in files beside it,"):
        onnx = importlib.import_module("onnx")
    names: set[str] = set()
    try:
        _find_locations(onnx.load_model_from_string(content), names)
    except Exception as error:  # protobuf's own, which it exports under no steady name
        raise InputError(f"ONNX file '{path}' cannot be read ({one_sentence(error)}); export it again.") from error
    # one that is missing is named by onnxruntime
    return [path.parent / name for name in sorted(names) if (path.parent / name).is_file()]


def _find_locations(message: Any, names: set[str]) -> None:
    """Collect the locations of external tensors, wherever a graph, a sub-graph or a function holds them."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            names.update(entry.value for entry in value if entry.key == "location")
        elif field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                _find_locations(part, names)


def session_input(session: Any, name: str) -> InputSpec:
    """Read size, channels and scale from the graph, for a model whose input was not declared."""
    node = _image_input(session, name)
    # a graph that takes bytes takes them as a file has them
    scale = 255.0 if node.type == "tensor(uint8)" else 1.0
    if len(node.shape) != 4:
        return InputSpec(high=scale)
    spec = InputSpec.of_axes(node.shape, high=scale)
    if spec is None:
        raise InputError(
            f"Model '{name}' takes an input of shape {node.shape}: declare its channels (1 or 3) and layout."
        )
    return spec


def _image_input(session: Any, name: str) -> Any:
    nodes = session.get_inputs()
    if len(nodes) != 1:
        names = shortened(", ".join(node.name for node in nodes))
        raise InputError(f"Model '{name}' has {len(nodes)} inputs ({names}); it needs one image.")
    if nodes[0].type not in _FLOATS | _WHOLE:
        supported = ", ".join([*_FLOATS, *_WHOLE])
        raise InputError(
            f"Model '{name}' takes {nodes[0].type}, which no image can be made of; export it with one of {supported}."
        )
    if len(nodes[0].shape or ()) not in (2, 4):
        raise InputError(
            f"Model '{name}' takes an input of shape {nodes[0].shape}; an image batch has 4 axes, or 2 if flat."
        )
    return nodes[0]


def _check_whole(spec: InputSpec, kind: np.dtype[Any], name: str) -> None:
    """Refuse a declared scale of which rounding to whole numbers would leave little, or which they cannot hold."""
    mean, std = np.atleast_1d(spec.mean), np.atleast_1d(spec.std)
    low, high = float(((spec.low - mean) / std).max()), float(((spec.high - mean) / std).min())
    limits = np.iinfo(kind)
    if high - low < _GREYS or low < limits.min or high > limits.max:
        raise InputError(
            f"Model '{name}' takes whole numbers ({kind}), but the declared input makes values from {low:g} to "
            f"{high:g}: set input.low and input.high to what black and white are to the model, such as 0 and 255."
        )


def _check_shape(spec: InputSpec, shape: list[Any], name: str) -> None:
    if len(shape) != 4:
        return

    def differ(declared: InputSpec) -> bool:
        made = declared.shape_of(spec.shape or ("any", "any"))  # type: ignore[arg-type]
        return any(
            isinstance(wanted, int) and isinstance(given, int) and wanted != given
            for wanted, given in zip(shape[1:], made, strict=True)
        )

    if not differ(spec):
        return
    other: Literal["channels_first", "channels_last"] = "channels_first"
    if spec.layout == other:
        other = "channels_last"
    means = (
        f"declare input.layout: {other}."
        if not differ(spec.model_copy(update={"layout": other}))
        else "set input.size, input.channels and input.layout to the model's."
    )
    made = spec.shape_of(spec.shape or ("any", "any"))  # type: ignore[arg-type]
    raise InputError(
        f"Model '{name}' takes images of shape {tuple(shape[1:])}, but the declared input makes {made}: {means}"
    )
