"""Tasks that the tests of the sweep run in other processes, which have to be able to import them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np


def divide(seed: int, numerator: int) -> dict[str, float]:
    """A quotient, a matrix product that depends on the order of sums, and failure at seed 0."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(120, 120))
    return {"ratio": numerator // seed, "trace": float(np.trace(a @ a.T))}


def count_calls(seed: int, log: str) -> dict[str, int]:
    """Leave a line per call, so that a test sees what was run again."""
    with Path(log).open("a") as file:
        file.write(f"{seed}\n")
    return {"twice": 2 * seed}


def dies(seed: int, log: str) -> dict[str, int]:
    """Kill the whole process at seed 3 as the system does; the first time only, where the log can be written."""
    if seed == 3 and not Path(log).exists():
        if Path(log).parent.is_dir():
            Path(log).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"twice": 2 * seed}
