"""The chain from images to verdict, and the page that tells it.

The package can be called: `citlr.audit(model, counterfactuals, margin=0.02)` is `citlr.audit.api.audit`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A module that audits when it is called, so that the room and the verb can share the name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Audit a model; see `citlr.audit.api.audit`."""
        from citlr.audit.api import audit

        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
