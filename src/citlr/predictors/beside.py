"""The user's own modules as their files are now: Python keeps what it imported or compiled before."""

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from citlr.predictors.code import is_packaged
from citlr.run.files import digest_or_missing

# Of every module that a model has imported here.
_READ: dict[str, "_AsWritten"] = {}


class _AsWritten(SourceFileLoader):
    """Compiles a file; Python's cache takes one of equal size and time for the one that was there before."""

    digest = ""

    def get_code(self, fullname: str) -> CodeType:
        """Compile what the file holds."""
        content = self.get_data(self.path)
        self.digest = hashlib.sha256(content).hexdigest()
        code: CodeType = self.source_to_code(content, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run it, and note that it was read."""
        _READ[module.__name__] = self
        super().exec_module(module)


class _Own(MetaPathFinder):
    """Finds the modules that are the user's own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give a module with that loader; those of Python and of installed packages are left to Python."""
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader or is_packaged(fullname, spec.origin):
            return None
        spec.loader = _AsWritten(fullname, spec.loader.path)
        return spec


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Import own modules from their files, and again those that an earlier model imported, if one has changed."""
    if any(digest_or_missing(Path(loader.path)) != loader.digest for loader in _READ.values()):
        for name, loader in _READ.items():
            if getattr(sys.modules.get(name), "__loader__", None) is loader:
                del sys.modules[name]
        _READ.clear()
    importlib.invalidate_caches()
    finder = _Own()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
