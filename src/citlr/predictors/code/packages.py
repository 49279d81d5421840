"""Packages: what of a model's code is installed and what the user's own, what only computes, and versions."""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path
from typing import Any

from citlr.predictors.code.names import is_special, named_in, words
from citlr.run.files import fingerprint, sha256

# Packages whose functions only compute; another one could ask a server or a file for its answer.
_COMPUTING = words(
    "numpy scipy torch torchvision sklearn skimage cv2 PIL kornia einops timm monai torchxrayvision transformers "
    "segmentation_models_pytorch open_clip xgboost lightgbm catboost citlr math cmath functools itertools operator "
    "collections typing typing_extensions types dataclasses enum abc copy copyreg numbers fractions decimal "
    "statistics re string warnings contextlib logging threading builtins"
)

_CODE = {".py", ".so", ".pyd"}


def installed(module: str | None) -> bool:
    """Whether a module belongs to Python or an installed package, not to the user's own files."""
    if module is None or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == __name__.partition(".")[0]:
        return True
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if found is None or file is None:
        # a namespace, or a module made by hand
        return getattr(found, "__spec__", None) is not None and not list(getattr(found, "__path__", [None]))
    return any(part in ("site-packages", "dist-packages") for part in Path(file).parts)


def version(module: str) -> str:
    """Return what tells two releases of a package apart; those of torch and numpy differ by rounding only.

    A house's own package often has no version, or keeps the one that it has: its files tell.
    """
    top = module.partition(".")[0]
    if top in ("torch", "numpy", __name__.partition(".")[0]) or top in sys.stdlib_module_names:
        return ""
    said = str(getattr(sys.modules.get(top), "__version__", ""))
    return said if said and only_computes(top) else f"{said} {_files(module)}".strip()


def _files(module: str) -> str:
    """Digest the code of the package that a module is of; of a namespace it is the folder of the module."""
    parts = module.split(".")
    above = (sys.modules.get(".".join(parts[: count + 1])) for count in range(len(parts)))
    file = Path(next(found for one in above if (found := getattr(one, "__file__", None))))
    whole = file.stem == "__init__" or "." in module
    files = [one for one in file.parent.rglob("*") if one.suffix in _CODE] if whole else [file]
    return fingerprint({str(one.relative_to(file.parent)): sha256(one) for one in files})


def only_computes(module: str) -> bool:
    """Whether no function of a package asks a server or a file for its answer, but for those with telling names."""
    return module.partition(".")[0].lstrip("_") in _COMPUTING


def is_own(kind: type, name: str) -> bool:
    """Whether a method of a class is the user's own code."""
    member = getattr(kind, name, None)
    return inspect.isfunction(member) and not installed(member.__module__)


def patched(space: Any) -> list[types.FunctionType]:
    """Give the methods of an installed class that code of the user has put in."""
    spaces = [base for base in space.__mro__ if installed(base.__module__)] if isinstance(space, type) else []
    found = [member for base in spaces for member in vars(base).values() if isinstance(member, types.FunctionType)]
    return [member for member in found if not installed(member.__globals__.get("__name__"))]


def called_by_bases(kind: type, names: set[str]) -> set[str]:
    """Give what installed bases of a class call by name in what `names` reaches of them, as ResNet's `forward` does."""
    named = [pair for base in kind.__mro__ if installed(base.__module__) for pair in named_in(base)]
    reached = set(names)
    while True:
        new = set().union(*(used for name, used in named if name in reached or is_special(name))) - reached
        if not new:
            return reached
        reached |= new
