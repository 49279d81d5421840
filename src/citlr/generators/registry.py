"""From the name of a kind of generator to its class, imported when it is asked for; see `citlr.config.kinds`."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from citlr.config.kinds import GENERATORS, IMAGES
from citlr.errors import InputError, StateError, did_you_mean, require_kind, require_known
from citlr.generators.base import FORMAT
from citlr.generators.learnt import LearntGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.run.files import read_json


def _class_of(kind: str) -> type[LearntGenerator]:
    module, _, name = GENERATORS[kind].partition(":")
    found: type[LearntGenerator] = getattr(import_module(module), name)
    # What it is saved under: found out here, and not when a trained one is to be read again.
    own = getattr(found, "kind", None)
    if own != kind:
        raise StateError(f"{name} is '{kind}' in config/kinds.py and '{own}' in its class: give its `kind` that name.")
    return found


def load_generator(directory: Path) -> LearntGenerator | ImagesOnDisk:
    """Read a generator that `save` wrote.

    Parameters
    ----------
    directory : Path
        What `save` was given.

    Returns
    -------
    LearntGenerator or ImagesOnDisk
        Ready to redraw images; of somebody else's, what is on the disk.

    Raises
    ------
    InputError
        If the folder holds no generator, or one of an unknown kind.
    StateError
        If it was saved by a version of citlr whose generators work another way.
    """
    require_kind(directory, (str, os.PathLike), "directory", "the folder that `save` was given")
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory} holds no generator (config.json is missing); fit one and save it there.")
    content = read_json(directory / "config.json")
    kind = str(content.get("kind"))
    if kind not in (*GENERATORS, IMAGES):
        raise InputError(f"{directory} holds a generator of the unknown kind '{kind}'.{did_you_mean(kind, GENERATORS)}")
    if content.get("format") != FORMAT:
        raise StateError(
            f"{directory} holds a generator of format {content.get('format', 1)}, and this version of citlr reads "
            f"format {FORMAT}: train it again."
        )
    return ImagesOnDisk.load(directory) if kind == IMAGES else _class_of(kind).load(directory)


def build_generator(
    kind: str, *, size: int = 64, hold: Sequence[str] = (), preset: str = "laptop", **options: Any
) -> LearntGenerator:
    """Build a generator of any kind, not trained yet.

    Parameters
    ----------
    kind : str
        What `generator.kind` may be in `audit.yaml`, but for `images`: "edits" changes the original, "dldm" and "cldm"
        are latent diffusion, "vae" and "latent-shift" rivals to compare with.
    size : int, default 64
        Side of the redrawn images, pixels.
    hold : sequence of str, optional
        Labels and covariates that are kept as observed while an attribute is redrawn.
    preset : str, default "laptop"
        How large its networks are and how long they train: "tiny", "laptop", "workstation", "published" or "paper".
    **options
        Settings of the preset that you change one by one, as `generator.options` in `audit.yaml`.

    Returns
    -------
    LearntGenerator
        Call its `fit(train, validation, seed=0)`, and hand it to `citlr.generate`.

    Raises
    ------
    InputError
        If there is no such kind, preset or option, or a value that it cannot have.

    Examples
    --------
    >>> generator = build_generator("edits", size=64, hold=["view", "pneumonia"])
    >>> type(generator).__name__, generator.hold
    ('EditGenerator', ('view', 'pneumonia'))
    """
    require_known(kind, GENERATORS, f"There is no generator of the kind '{kind}'")
    return _class_of(kind)(size, hold=hold, preset=preset, **options)
