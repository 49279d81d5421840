"""Write a torch classifier as safetensors, program of `torch.export`, TorchScript and ONNX, and check it."""

import copy
import importlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from citlr.errors import InputError, needed
from citlr.predictors.adapters.torch import TorchPredictor
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.declared import CARD, Card
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec, OutputSpec, require_labels
from citlr.run.files import atomic_write

TOLERANCE = 1e-4


def make_card(
    labels: Sequence[str], *, input: InputSpec, output: OutputSpec | None = None, **architecture: Any
) -> Card:
    """Say in plain JSON values what a file's model wants to see and gives; `load_predictor` reads it.

    `architecture` is what else to keep: `arch`, `dropout`, how it was started and trained.
    """
    given = (output or OutputSpec("logit")).model_dump()
    return {"labels": list(require_labels(labels)), "input": input.model_dump(), "output": given, **architecture}


def save_weights(module: torch.nn.Module, path: str | os.PathLike[str], card: Card) -> None:
    """Write a module's state_dict as safetensors, atomically, with the card in its metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with atomic_write(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={CARD: json.dumps(card)})


def export_torchscript(module: torch.nn.Module, path: str | os.PathLike[str], card: Card) -> float:
    """Write a module as a TorchScript archive and check it against the module.

    The module is copied, and the copy put in evaluation mode; the card names the size to trace at. Gives the largest
    absolute difference of the file's outputs, and refuses one above 1e-4. Shapes: (n, channels, H, W) to logits (n,
    n_labels).
    """
    still = _still(module)
    with warnings.catch_warnings():
        # the format is asked for by name; that torch now prefers torch.export is known
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)
        with torch.no_grad():
            traced = torch.jit.trace(still, _example(card), check_trace=False)  # type: ignore[no-untyped-call]
        # through memory: written to a path, the archive would hold that file's name, and two runs would differ
        archive = io.BytesIO()
        torch.jit.save(traced, archive, _extra_files={CARD: json.dumps(card)})
    return _written(archive, path, still, card)


def export_program(module: torch.nn.Module, path: str | os.PathLike[str], card: Card) -> float:
    """Write a module as a `torch.export` archive with a free batch axis and check it against the module.

    Takes, gives and raises what `export_torchscript` does; the file ends in `.pt2`.
    """
    # weights in another order (channels last) are written with a warning of torch's
    still = _still(module).to(memory_format=torch.contiguous_format)
    program = torch.export.export(still, (_example(card),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of this machine
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={CARD: json.dumps(card)})
    return _written(archive, path, still, card)


def export_onnx(module: torch.nn.Module, path: str | os.PathLike[str], card: Card) -> float:
    """Write a module as an ONNX graph with a free batch axis and check it against the module.

    Takes, gives and raises what `export_torchscript` does; the file ends in `.onnx`.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with needed(package, "onnx", "Export to ONNX"):
            importlib.import_module(package)
    still = _still(module)
    program = torch.onnx.export(
        still,
        (_example(card),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    assert program is not None  # None only where a file name was given
    for graph in (program.model.graph, *program.model.functions.values()):
        for node in graph:
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)  # the paths of this machine
    program.model.metadata_props[CARD] = json.dumps(card)
    with atomic_write(path) as temporary:
        program.save(str(temporary), external_data=False)
    return _compare(still, Path(path), card)


def _written(archive: io.BytesIO, path: str | os.PathLike[str], still: torch.nn.Module, card: Card) -> float:
    with atomic_write(path) as temporary:
        temporary.write_bytes(archive.getvalue())
    return _compare(still, Path(path), card)


def _still(module: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(module).to("cpu").eval().requires_grad_(False)


def _example(card: Card) -> torch.Tensor:
    spec = InputSpec.of(card["input"])
    if not spec.shape:
        raise InputError(
            "The card of a model to export names no input.size: give the size in pixels it was trained at."
        )
    return spec.prepare(torch.from_numpy(_images(spec, 2)))


def _images(spec: InputSpec, n: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((n, 1, *spec.shape), dtype=np.float32)


def _compare(module: torch.nn.Module, path: Path, card: Card) -> float:
    spec, output = InputSpec.of(card["input"]), OutputSpec.of(card["output"])
    settings: dict[str, Any] = {"name": path.stem, "labels": card["labels"], "input": spec, "output": output}
    reference = TorchPredictor(module, **settings)
    written = load_predictor(path, device="cpu")
    assert isinstance(written, BatchedPredictor)
    # one and five images: a batch axis frozen at the traced size would show
    gaps = [np.abs(written.outputs(x) - reference.outputs(x)).max() for x in (_images(spec, 1), _images(spec, 5))]
    if not max(gaps) <= TOLERANCE:
        raise InputError(
            f"The export '{path}' differs from the module by {max(gaps):.2g} (at most {TOLERANCE:g} is rounding): "
            "the module does something that a graph cannot hold, such as a branch on values."
        )
    return float(max(gaps))
