"""Everything random, keyed: seeds made of names and numbers, and the fair coin."""

import hashlib
import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

# The attribute that nothing in an image goes with, and its levels.
PLACEBO = "placebo"
COIN = ("heads", "tails")
# Held by who seeds torch's random state, which all threads share, until it is done: audits at once draw as alone.
ALONE = threading.RLock()
# A process that is forked meanwhile has the lock, and not the thread that would let go of it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=getattr(ALONE, "_at_fork_reinit"))  # noqa: B009 - as threading does with its own


def hashed_seed(*parts: object) -> int:
    """Turn any parts into 63 bits that depend on all of them and on nothing else.

    >>> hashed_seed(0, "a", 1) == hashed_seed(0, "a", 1), hashed_seed(0, "a", 1) == hashed_seed(0, "a", 2)
    (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def toss(patients: Sequence[object] | pd.Series, *, seed: int) -> npt.NDArray[np.str_]:
    """Toss one fair coin per patient: the levels of the placebo."""
    return np.asarray([COIN[hashed_seed(PLACEBO, seed, patient) & 1] for patient in patients])
