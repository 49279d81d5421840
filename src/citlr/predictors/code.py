"""What code names, and packages: which of a model's code is installed, which the user's own, what only computes."""

import dis
import functools
import inspect
import io
import itertools
import re
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS, CustomOpDef

from citlr.run.files import fingerprint, sha256


def words(text: str) -> frozenset[str]:
    """Give the words of a text."""
    return frozenset(text.split())


# Members with two underscores run without being named, but for these
SILENT = words(
    "__init__ __new__ __post_init__ __init_subclass__ __class_getitem__ __repr__ __str__ __eq__ __hash__ __reduce__ "
    "__reduce_ex__ __getstate__ __setstate__ __del__ __dir__ __doc__ __dict__ __module__ __annotations__ __weakref__"
)

# Functions of Python that read, or run text
RUNNING = words("open input exec eval __import__ globals locals vars")
# Members of a class that have done their work where the object is there
MAKING = words("__init__ __post_init__")
# Members of an estimator that pipelines and ensembles call, and that no base class has
ASKED = words("predict predict_proba predict_log_proba decision_function score_samples transform inverse_transform")
# What stands for a function that it was given
WRAPPERS = (
    property,
    staticmethod,
    classmethod,
    functools.cached_property,
    functools.partialmethod,
    functools._lru_cache_wrapper,
)

# What reads that is not in the program, whatever package it is of: loadtxt, read_image, imread, SVM_load, LoadImage
_READS = re.compile(
    r"(.*_)?(im|mm)?([Ll]oad|[Rr]ead|open|decode|fetch|download)($|_|[A-Z]|txt|mat|sav)"
    r"|.*(from_?(file|txt|url|pretrained)|memmap)"
)
# ... or makes a model by a path that it is given
_READING = words(
    "environ getenv hub import_module VideoCapture DataSource FileStorage CascadeClassifier netcdf_file Booster "
    "pipeline create_model create_model_and_transforms"
)


_OF_OBJECTS = words("LOAD_ATTR LOAD_METHOD STORE_ATTR")


def reads(name: str) -> bool:
    """Whether a name is that of something that reads files or asks servers; a network takes a state_dict from memory.

    >>> [reads(name) for name in ("load_npz", "SVM_load", "readNetFromONNX", "LoadImage", "pipeline")]
    [True, True, True, True, True]
    >>> [reads(name) for name in ("decoder", "readout", "binary_opening", "data_loader", "thread", "Pipeline")]
    [False, False, False, False, False, False]
    """
    return name in _READING or (name != "load_state_dict" and _READS.match(name) is not None)


def is_special(name: str) -> bool:
    """Whether a name has two underscores on both sides."""
    return name.startswith("__") and name.endswith("__")


@functools.lru_cache
def named_in(base: type) -> list[tuple[str, set[str]]]:
    """Give the name of each method of a class, and the names that its code uses."""
    members = [(name, inspect.unwrap(member)) for name, member in vars(base).items() if name not in SILENT]
    return [(name, names_used(member.__code__)) for name, member in members if inspect.isfunction(member)]


def _parts(code: types.CodeType) -> list[types.CodeType]:
    """Give the code of a function and of all functions in it."""
    return [code, *(part for inner in code.co_consts if isinstance(inner, types.CodeType) for part in _parts(inner))]


def names_used(code: types.CodeType) -> set[str]:
    """Give all names in the code of a function: of members, globals and modules."""
    return {name for part in _parts(code) for name in part.co_names}


def globals_used(code: types.CodeType) -> set[str]:
    """Give the globals that a function uses."""
    steps = [step for part in _parts(code) for step in dis.get_instructions(part)]
    return {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def imports(code: types.CodeType) -> list[str]:
    """Give the modules that a function imports."""
    return [step.argval for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"]


def readers(code: types.CodeType, spaces: list[Any]) -> list[str]:
    """Give the names of what reads, but for values that an object keeps under such a name, as in `self.pipeline`."""
    named = [name for name in code.co_names if reads(name)]
    if not named or code.co_varnames[:1] != ("self",):
        return named
    other = set()
    for before, step in itertools.pairwise(dis.get_instructions(code)):
        of = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
        if not (before.opname.startswith("LOAD_FAST") and of == "self" and step.opname in _OF_OBJECTS):
            other.add(step.argval)
    return [name for name in named if name in other or any(hasattr(space, name) for space in spaces)]


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
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if (found is None or file is None) and not is_packaged(module, None):
        # a namespace, or a module made by hand
        return getattr(found, "__spec__", None) is not None and not list(getattr(found, "__path__", [None]))
    return is_packaged(module, file)


def is_packaged(module: str, file: str | None) -> bool:
    """Whether a module of that name and file is Python's, this package's or an installed one's."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == __name__.partition(".")[0]:
        return True
    return file is not None and any(part in ("site-packages", "dist-packages") for part in Path(file).parts)


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


def written_here(function: Any) -> bool:
    """Whether code is the user's own; `functools.wraps` gives it the module of what it stands for."""
    if not isinstance(function, types.FunctionType):
        return False
    where = function.__globals__.get("__name__", function.__module__)
    return not installed(function.__module__) or not installed(where)


def is_own(kind: type, name: str) -> bool:
    """Whether a method of a class is the user's own code."""
    return written_here(getattr(kind, name, None))


def operators(names: set[str]) -> tuple[list[CustomOpDef], list[str]]:
    """Give the user's own among torch's operators that code names, and the names of those whose code nobody shows."""
    shown: list[CustomOpDef] = []
    hidden = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        # namespace::operator.overload
        if not names.issuperset(name.partition(".")[0].split("::")):
            continue
        known = OPDEFS.get(name)
        if known is not None and written_here(known._init_fn):
            shown.append(known)
        origins = re.findall(r"^(?!Meta)(.*) registered at (.+?):\d+", torch._C._dispatch_dump(name), re.MULTILINE)
        # built elsewhere, as torch itself; or into a library of the user's own
        own = [file for file in torch.ops.loaded_libraries if not is_packaged("", file)]
        if own or any(Path(file).exists() and not is_packaged("", _asker(kind, file)) for kind, file in origins):
            hidden.append(name)
    return shown, hidden


def scripted(model: Any) -> tuple[bytes, set[str]]:
    """Give the archive of a TorchScript model, and the names of the operators in its code, as of `ops.mine.scaled`."""
    archive = io.BytesIO()
    torch.jit.save(model, archive)
    with zipfile.ZipFile(archive) as parts:
        code = b"\n".join(parts.read(name) for name in parts.namelist() if name.endswith(".py"))
    named = re.findall(r"\bops\.(\w+)\.(\w+)", code.decode())
    return archive.getvalue(), {part for pair in named for part in pair}


def _asker(kind: str, file: str) -> str:
    """Give the file that put in an operator or its kernel; none where torch's own did so for anybody who asked."""
    return "" if kind == "debug:" and Path(file).parts[-2:] == ("torch", "library.py") else file


def kernels(operator: CustomOpDef) -> list[Any]:
    """Give the functions that an operator runs, one for each kind of device."""
    cells = [cell for one in operator._backend_fns.values() for cell in inspect.unwrap(one).__closure__ or ()]
    return [operator._init_fn, *(cell.cell_contents for cell in cells if inspect.isroutine(cell.cell_contents))]


def patched(space: Any) -> list[types.FunctionType]:
    """Give the functions of an installed class or module that code of the user has put in."""
    spaces = [base for base in space.__mro__ if installed(base.__module__)] if isinstance(space, type) else [space]
    return [member for base in spaces for member in vars(base).values() if written_here(member)]


def called_by_bases(kind: type, names: set[str]) -> set[str]:
    """Give what installed bases of a class call by name in what `names` reaches of them, as ResNet's `forward` does."""
    named = [pair for base in kind.__mro__ if installed(base.__module__) for pair in named_in(base)]
    reached = set(names)
    while True:
        new = set().union(*(used for name, used in named if name in reached or is_special(name))) - reached
        if not new:
            return reached
        reached |= new
