"""What every generator of counterfactuals can do, and the keyed noise and the fair coin that all of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from citlr.console import Narrator, Ticker, silent
from citlr.errors import InputError, StateError, did_you_mean

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

Images = npt.NDArray[np.float32]
# One level of one attribute, or one level of each of several attributes intervened on together.
Level = str | tuple[str, ...]
PLACEBO = "placebo"
COIN = ("heads", "tails")
# Of saved generators; one more whenever weights of before would mean something else. 2: latents hide what is held.
FORMAT = 2


@runtime_checkable
class CounterfactualGenerator(Protocol):
    """Redraws images under each level of an attribute.

    `attributes` names what can be intervened on and its levels, the fair coin "placebo" always among them; `hold` names
    the covariates that stay at their observed values.
    """

    size: int
    hold: tuple[str, ...]

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What can be intervened on, and its levels; the coin "placebo" is always there."""

    def fit(
        self,
        train: Cohort,
        validation: Cohort | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        narrator: Narrator | None = None,
    ) -> Self:
        """Train; checkpoints go to `directory`, and an interrupted call with the same arguments goes on from there."""

    def generate(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: str | Sequence[str],
        levels: Sequence[Level],
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        tick: Ticker = silent,
    ) -> Images:
        """Give images under do(attribute = level).

        Parameters
        ----------
        images : ndarray of float32, shape (n, 1, size, size), in [0, 1]
        frame : DataFrame
            Their rows.
        attribute : str or sequence of str
            What is intervened on; several attributes together.
        levels : sequence
            Levels; with several attributes a tuple for each, in their order.
        draws, seed : int
            Images per level, and the seed of their noise.
        guidance : float, optional
            Weight of the intervention; the generator's own without it.
        shared_seeds : bool
            Whether a draw has the same noise under every level.
        tick : callable
            Is told how many images are done.

        Returns
        -------
        ndarray of float32, shape (n, len(levels), draws, 1, size, size), in [0, 1]
        """

    def reconstruct(self, images: Images) -> Images:
        """Give what the generator's representation keeps of each image, (n, 1, size, size)."""

    def fingerprint(self) -> str:
        """Return a name that changes whenever other images would be drawn: what is kept of them is kept under it."""

    def save(self, directory: Path) -> None:
        """Write the generator as JSON and safetensors."""


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
    from citlr.generators.registry import KINDS
    from citlr.run.files import read_json

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


def hashed_seed(*parts: object) -> int:
    """Turn any parts into 63 bits that depend on all of them and on nothing else.

    Examples
    --------
    >>> hashed_seed(0, "a", 1) == hashed_seed(0, "a", 1), hashed_seed(0, "a", 1) == hashed_seed(0, "a", 2)
    (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_noise(keys: Sequence[tuple[object, ...]], shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal noise that belongs to its key: the same wherever in a batch the key stands.

    Parameters
    ----------
    keys : sequence of tuple
        One key per row, such as (seed, image_id, draw).
    shape : tuple of int
        Shape of one row.

    Returns
    -------
    Tensor of float32, shape (len(keys), *shape), on the CPU

    Examples
    --------
    >>> bool((keyed_noise([(0, "a", 0), (0, "b", 0)], (3,))[1] == keyed_noise([(0, "b", 0)], (3,))[0]).all())
    True
    """
    rows = torch.empty((len(keys), *shape))
    for row, key in zip(rows, keys, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(hashed_seed(*key)))
    return rows


def toss(patients: Sequence[object] | pd.Series, *, seed: int) -> npt.NDArray[np.str_]:
    """Toss one fair coin per patient: the placebo attribute, which no image can know.

    Examples
    --------
    >>> toss(["p1", "p2", "p1"], seed=0).tolist()[::2] in (["heads", "heads"], ["tails", "tails"])
    True
    """
    return np.asarray([COIN[hashed_seed("placebo", seed, patient) & 1] for patient in patients])
