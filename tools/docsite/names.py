"""Which names of citlr a piece of Python uses that are not there, or that are nobody's but ours."""

from __future__ import annotations

import ast
import importlib

import citlr

# Besides `citlr` itself, what examples and tutorials may take names from.
DOORS = ("citlr.config", "citlr.exchange.predictions", "citlr.predictors", "citlr.simulators")


def lost(tree: ast.AST) -> list[str]:
    """Return every name of the package that is used, and is not public or not there."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "citlr":
            found += [] if node.attr in citlr.__all__ else [f"citlr.{node.attr}"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "citlr":
            module = importlib.import_module(str(node.module))
            open_ = str(node.module).startswith(DOORS)
            found += [f"{node.module}.{one.name}" for one in node.names if not (open_ and hasattr(module, one.name))]
    return found
