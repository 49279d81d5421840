"""Small ONNX graphs, written down node by node: an export by torch takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_graph(
    path: Path,
    *,
    shape: Sequence[int | str] = ("n", 1, 8, 8),
    kind: int = TensorProto.FLOAT,
    weight: float = 1.0,
    outputs: int = 1,
    metadata: dict[str, Any] | None = None,
    **saving: Any,
) -> None:
    """Write a graph that gives `outputs` times the weighted mean of an image, plus 0, 1, ... for the columns."""
    axes = list(range(1, len(shape)))
    constants = {"weight": np.full((1, 1), weight, np.float32), "axes": np.array(axes, np.int64)}
    # so large that it can be kept in a file of its own
    constants["shift"] = np.arange(outputs, dtype=np.float32)[None].repeat(300, axis=0)
    constants["first"] = np.array([0], np.int64)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean4"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean4", "last"], ["mean"]),
        helper.make_node("Mul", ["mean", "weight"], ["scaled"]),
        helper.make_node("Gather", ["shift", "first"], ["row"], axis=0),
        helper.make_node("Add", ["scaled", "row"], ["scores"]),
    ]
    constants["last"] = np.array([1], np.int64)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", kind, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for name, value in (metadata or {}).items():
        helper.set_model_props(model, {name: value if isinstance(value, str) else json.dumps(value)})
    onnx.save_model(model, path, **saving)
