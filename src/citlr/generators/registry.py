"""Which class builds and which reads which kind of generator; imports are put off until one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citlr.errors import InputError, StateError, did_you_mean
from citlr.generators.base import FORMAT
from citlr.run.files import read_json

if TYPE_CHECKING:
    from citlr.generators.base import CounterfactualGenerator
    from citlr.generators.diffusion.ldm import LatentDiffusion
    from citlr.generators.rivals.direct import DirectGenerator


def _latent_diffusion(directory: Path) -> CounterfactualGenerator:
    from citlr.generators.diffusion.ldm import load_latent_diffusion

    return load_latent_diffusion(directory)


def _vae(directory: Path) -> CounterfactualGenerator:
    from citlr.generators.rivals.vae import load_vae

    return load_vae(directory)


def _latent_shift(directory: Path) -> CounterfactualGenerator:
    from citlr.generators.rivals.latent_shift import load_latent_shift

    return load_latent_shift(directory)


KINDS: dict[str, Callable[[Path], CounterfactualGenerator]] = {
    "dldm": _latent_diffusion,
    "cldm": _latent_diffusion,
    "vae": _vae,
    "latent-shift": _latent_shift,
}


def load_generator(directory: Path) -> CounterfactualGenerator:
    """Read a generator that `save` wrote.

    Parameters
    ----------
    directory : Path
        What `save` was given.

    Returns
    -------
    CounterfactualGenerator
        Ready to redraw images.

    Raises
    ------
    InputError
        If the folder holds no generator, or one of an unknown kind.
    StateError
        If it was saved by a version of citlr whose generators work another way.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InputError(f"{directory} holds no generator (config.json is missing); fit one and save it there.")
    content = read_json(directory / "config.json")
    kind = str(content.get("kind"))
    if kind not in KINDS:
        raise InputError(f"{directory} holds a generator of the unknown kind '{kind}'.{did_you_mean(kind, KINDS)}")
    if content.get("format") != FORMAT:
        raise StateError(
            f"{directory} holds a generator of format {content.get('format', 1)}, and this version of citlr reads "
            f"format {FORMAT}: train it again."
        )
    return KINDS[kind](directory)


def build_generator(
    kind: str, *, size: int, hold: Sequence[str] = (), preset: str = "small", **options: Any
) -> LatentDiffusion | DirectGenerator:
    """Build a generator of a kind, not trained yet.

    Parameters
    ----------
    kind : {"dldm", "cldm", "vae", "latent-shift"}
        What it is called in a configuration and in a saved generator.
    size : int
        Side of the images, 32 to 256.
    hold : sequence of str
        Covariates kept at their observed values.
    preset : str
        Where its other settings come from.
    **options
        Fields of its configuration.

    Raises
    ------
    InputError
        If the kind, the preset or an option is unknown.

    Examples
    --------
    >>> build_generator("vae", size=32, preset="tiny", beta=4.0).settings.beta
    4.0
    """
    from citlr.generators.diffusion.ldm import CLDM, DLDM
    from citlr.generators.rivals.latent_shift import LatentShift
    from citlr.generators.rivals.vae import ConditionalVAE

    built: dict[str, type[DLDM | CLDM | ConditionalVAE | LatentShift]] = {
        "dldm": DLDM,
        "cldm": CLDM,
        "vae": ConditionalVAE,
        "latent-shift": LatentShift,
    }
    if kind not in built:
        raise InputError(f"There is no generator of the kind '{kind}'.{did_you_mean(kind, built)}")
    return built[kind](size=size, hold=list(hold), preset=preset, **options)
