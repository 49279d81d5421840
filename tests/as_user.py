"""Running the command line as a user does: a process of its own, with a small configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "cohort": {
        "table": "world/phantom.csv",
        "images": "world",
        "attribute": "sex",
        "labels": ["cardiomegaly"],
        "covariates": ["view"],
    },
    # Budgets of a few steps: what is tested here is the chain, not the pictures.
    "generator": {
        "preset": "tiny",
        "size": 32,
        "hold": ["view", "cardiomegaly"],
        "options": {"ae_steps": 12, "denoiser_steps": 12, "phi_steps": 4, "information_steps": 4},
    },
    "generate": {"draws": 2, "shard": 16},
    "model": {
        "name": "cnn",
        "source": "model.ts",
        "labels": ["cardiomegaly"],
        "input": {"size": 32},
        "output": "logit",
    },
    "test": {"randomizations": 199},
    "gates": {"probe_steps": 24},
    "controls": {"placebo_images": 16, "replicate_images": 10, "planted": [4.0], "bootstraps": 5},
    "report": {"gallery": 2},
}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "citlr", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120", "NO_COLOR": "1"}


def citlr(*arguments: str | Path, program: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line, or a program that wraps it."""
    words = command(*arguments) if not program else [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), timeout=300)
