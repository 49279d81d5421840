"""The page of every public name, for mkdocstrings to fill in."""

from __future__ import annotations

import importlib
import inspect

import citlr

HEAD = """# Every public name

`import citlr` costs nothing; a name is loaded when it is first used. Everything else in the package may change between
versions. Errors that you can act on are `citlr.errors.InputError`, one sentence each.
"""


def where(name: str) -> str:
    """Return the dotted path at which a public name is defined."""
    thing = getattr(citlr, name)
    if inspect.ismodule(thing):
        # The room of audits can be called: what is documented is the verb.
        return "citlr.audit.api.audit" if name == "audit" else thing.__name__
    return f"{thing.__module__}.{thing.__qualname__}"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for name in sorted(citlr.__all__, key=lambda name: (name[0].isupper(), name)):
        if name == "__version__":
            continue
        path = where(name)
        importlib.import_module(path.rsplit(".", 1)[0])  # a path that is not there would be an empty entry
        heading = f"heading: citlr.{name}\n      toc_label: citlr.{name}"
        parts.append(f"::: {path}\n    options:\n      {heading}\n      show_root_heading: true\n")
    return "\n".join(parts)
