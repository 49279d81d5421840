from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from citlr.studies.kit.sweep import SweepTask, release_memory, run_sweep

_PINS: list[object] = []


def hoard(seed: int) -> dict[str, float]:
    """Take 400 MB in small pieces, and something that stays behind them: the heap cannot shrink from its end."""
    pieces = [np.ones(512) for _ in range(100_000)]
    _PINS.append(np.ones(512))
    return {"pieces": float(len(pieces)), "resident": resident()}


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back where the C library is glibc's")
def test_a_finished_task_gives_its_memory_back() -> None:
    release_memory()  # what other tests left free would be taken first
    before = resident()
    sweep = run_sweep(hoard, [SweepTask("a", seed=0, arguments={})], title="rows")
    assert sweep.done["resident"][0] > before + 300, "the task took what it was to take"
    # loky's own bound for a worker is 300 MB
    assert resident() < before + 100
