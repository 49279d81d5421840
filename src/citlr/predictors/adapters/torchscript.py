"""TorchScript archives as models under audit."""

import os
import warnings
import zipfile
from pathlib import Path

import torch

from citlr.errors import InputError
from citlr.predictors.adapters.torch import TorchPredictor, takes, wrap
from citlr.predictors.declared import CARD, Card, Declared, parse_card
from citlr.predictors.foreign import one_sentence, require_same
from citlr.predictors.weights import WEIGHTS_ONLY, read_states, require_whole
from citlr.run.files import sha256

DEPRECATED = (
    "Model '{name}' is TorchScript, which torch no longer develops: it is read here, and torch.export (.pt2) is what "
    "to write from now on (citlr.predictors.export.export_program)."
)
__all__ = ["read", "takes", "wrap"]  # a scripted module is a module


def read(path: Path, declared: Declared) -> TorchPredictor:
    """Read an archive; a file of weights is refused, with what would do."""
    if not is_torchscript(path):
        if path.suffix in (".ts", ".torchscript"):
            load_torchscript(path, declared.device)  # raises: says what the file is not
        read_states(path, trust=declared.trust)  # raises for a pickle, and for a damaged file
        raise InputError(WEIGHTS_ONLY.format(path=path, name=path.name))
    origin = sha256(path)
    module, card = load_torchscript(path, declared.device)
    require_same(sha256(path), origin, path)
    model = TorchPredictor(module, origin=origin, **declared.settings(path.stem, card))
    model.remarks = (*declared.remarks(model.name, card), DEPRECATED.format(name=model.name))
    return model


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TorchScript archive: a zip file with a `code` folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in f"/{name}" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def load_torchscript(path: str | os.PathLike[str], device: torch.device) -> tuple[torch.jit.ScriptModule, Card]:
    """Load a TorchScript archive onto a device, with the card that this project writes into its own exports."""
    if not is_torchscript(path):
        raise InputError(
            f"'{path}' is not a TorchScript archive, or is damaged: save it with torch.jit.trace(...).save(...)."
        )
    require_whole(path, "TorchScript archive")
    extra = {CARD: ""}
    try:
        with warnings.catch_warnings():
            # said once, in a remark, and not in torch's words at every call
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
            module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device, _extra_files=extra
            )
    except Exception as error:  # a reader in C++: damaged files come as errors of many types
        raise InputError(
            f"TorchScript archive '{path}' cannot be read ({one_sentence(error)}); export it again."
        ) from error
    return module, parse_card(extra[CARD], path)
