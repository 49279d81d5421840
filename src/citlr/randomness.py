"""Everything random, keyed: seeds made of names and numbers, noise that belongs to its key, and the fair coin."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from torch import Tensor

PLACEBO = "placebo"
COIN = ("heads", "tails")


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

    Examples
    --------
    >>> bool((keyed_noise([(0, "a", 0), (0, "b", 0)], (3,))[1] == keyed_noise([(0, "b", 0)], (3,))[0]).all())
    True
    """
    import torch

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
