"""Which class reads which kind of saved generator; imports are put off until one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from citlr.generators.base import CounterfactualGenerator


def _latent_diffusion(directory: Path) -> CounterfactualGenerator:
    from citlr.generators.ldm import load_latent_diffusion

    return load_latent_diffusion(directory)


KINDS: dict[str, Callable[[Path], CounterfactualGenerator]] = {
    "dldm": _latent_diffusion,
    "cldm": _latent_diffusion,
}
