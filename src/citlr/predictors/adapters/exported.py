"""Programs of `torch.export` (`.pt2`) as models under audit."""

import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from citlr.errors import InputError
from citlr.predictors.base import BatchedPredictor, ask_network
from citlr.predictors.declared import CARD, Card, Declared, parse_card
from citlr.predictors.foreign import one_sentence, require_same
from citlr.predictors.specs import InputSpec
from citlr.predictors.weights import require_whole
from citlr.run.files import sha256
from citlr.text import shortened

_AGAIN = "save it again with torch.export.save(torch.export.export(...), ...)"


class ExportedPredictor(BatchedPredictor):
    """A program of `torch.export` with one image input.

    A program whose batch axis is fixed is fed in batches of that size, the last one filled up.

    - `origin`: SHA-256 of the file.
    """

    def __init__(self, program: torch.export.ExportedProgram, *, origin: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._origin = origin
        image = image_input(program, self.name)
        _require_evaluation(program, self.name)
        self.dtype = image.dtype
        self._fix(image.shape[0])
        if self.device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self.device)
        self._module = program.module()

    def _forward(self, batch: torch.Tensor) -> Any:
        return ask_network(self._module, batch)

    def _content(self) -> str:
        return self._origin


def takes(found: object) -> bool:
    """Whether an object is such a program."""
    return isinstance(found, torch.export.ExportedProgram)


def wrap(found: torch.export.ExportedProgram, declared: Declared, settings: dict[str, Any]) -> ExportedPredictor:
    """Make a predictor of a program; its fingerprint is that of the file that it would be saved as."""
    buffer = io.BytesIO()
    torch.export.save(found, buffer)
    return ExportedPredictor(found, origin=_parts_digest(buffer), **settings)


def read(path: Path, declared: Declared) -> ExportedPredictor:
    """Read a file, with the card that this project writes into those that it exports."""
    origin = sha256(path)
    program, card = load_program(path, trust=declared.trust)
    require_same(sha256(path), origin, path)
    settings = declared.settings(path.stem, card, graph=lambda: program_input(program, path.stem))
    model = ExportedPredictor(program, origin=origin, **settings)
    model.remarks = declared.remarks(model.name, card)
    return model


def load_program(path: Path, *, trust: bool) -> tuple[torch.export.ExportedProgram, Card]:
    """Read a `.pt2` archive; what in it would run code is refused unless it is trusted."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"'{path}' is not a torch.export archive (.pt2), or is damaged: {_AGAIN}.")
    require_whole(path, "torch.export archive")
    pickled = _pickled(path)
    if pickled and not trust:
        raise InputError(
            f"The torch.export archive '{path}' holds a pickle ({shortened(pickled)}), which can run any code: "
            f"{_AGAIN}, with tensors only, or trust it (trust: true, --trust)."
        )
    extra = {CARD: ""}
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it prints the whole traceback of what is told below in a sentence
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # a reader of many formats: damaged and foreign files come as errors of many types
        raise InputError(
            f"'{path}' cannot be read as a torch.export archive ({one_sentence(error)}): {_AGAIN} of this torch."
        ) from error
    finally:
        log.setLevel(level)
    return program, parse_card(extra[CARD], path)


def image_input(program: torch.export.ExportedProgram, name: str) -> torch.Tensor:
    """Return the (symbolic) image that a program takes: four axes, numbers with a point, and no input besides."""
    wanted = program.graph_signature.user_inputs
    found = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    if len(wanted) != 1 or len(found) != 1 or not isinstance(found[0], torch.Tensor):
        names = shortened(", ".join(map(str, wanted)))
        raise InputError(f"Model '{name}' has {len(wanted)} inputs ({names}); it needs one image.")
    image = found[0]
    if image.ndim != 4 or not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise InputError(
            f"Model '{name}' takes an input of {image.ndim} axes of {kind}: export it with a batch of images, floating "
            "point, of 4 axes."
        )
    return image


def _require_evaluation(program: torch.export.ExportedProgram, name: str) -> None:
    """Refuse a program that was exported in training mode, which a batch of one image does not show."""
    graphs = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    found = {str(node.target) for part in graphs for node in part.graph.nodes if _trains(node)}
    if found:
        raise InputError(
            f"Model '{name}' was exported in training mode ({shortened(', '.join(sorted(found)))}), so that it answers "
            "by chance or by the other images: call eval() on the module and export it again."
        )


def _trains(node: torch.fx.Node) -> bool:
    """Whether a step drops by chance, or takes the statistics of the images in place of those that it has."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.overload_name == "no_stats":  # of each image by itself
        return False
    names = [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("dropout_p", 0) != 0:
        return True
    on = given.get("training") is True or given.get("train") is True
    return on and given.get("p", given.get("dropout", 1)) != 0 and given.get("running_mean", 1) is not None


def program_input(program: torch.export.ExportedProgram, name: str) -> InputSpec:
    """Read size and channels from the program, for a model whose input was not declared."""
    shape = image_input(program, name).shape
    spec = InputSpec.of_axes(shape)
    if spec is None:
        raise InputError(f"Model '{name}' takes an input of shape {tuple(shape)}: declare its channels (1 or 3).")
    return spec


def _pickled(path: Path) -> str:
    """Name a part of an archive that torch would unpickle without restraint; empty where there is none."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if not any(name.endswith("/archive_format") for name in names):
            return "an archive of torch before 2.8"
        for name in names:
            leaf = name.rpartition("/")[2]
            if leaf.startswith(("custom_obj", "opaque_obj")):
                return leaf
            if leaf.endswith("_config.json") and '"use_pickle": true' in json.dumps(json.loads(archive.read(name))):
                return leaf
            if "/sample_inputs/" in name and not _only_tensors(archive.read(name)):
                return leaf
    return ""


def _only_tensors(content: bytes) -> bool:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever is wrong with it, torch would go on and unpickle it
        return False
    return True


def _parts_digest(buffer: io.BytesIO) -> str:
    """Digest the checksums of an archive's parts, but for the mark that is new with every save."""
    with zipfile.ZipFile(buffer) as archive:
        parts = sorted((part.filename, part.CRC, part.file_size) for part in archive.infolist())
    return json.dumps([part for part in parts if "serialization_id" not in part[0]])
