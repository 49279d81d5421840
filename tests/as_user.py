"""Running the command line as a user does: a process of its own, with a small configuration.

The processes are forked off a server that has imported already what every verb imports, for that takes five seconds of
each. What is imported when, and that the program starts at all, is tested with real starts.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
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
        "options": {
            "ae_steps": 12,
            "ae_channels": [8],
            "unet_channels": [16, 16],
            "denoiser_steps": 4,
            "phi_steps": 4,
            "information_steps": 4,
            "sampling_steps": 2,
            "recentre": 16,
        },
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
    "gates": {"probe_steps": 8},
    "controls": {"placebo_images": 16, "replicate_images": 10, "planted": [4.0], "bootstraps": 5},
    "quality": {"cycles": 1},
    "report": {"gallery": 2},
}
# The environment of a command: one thread, and output of one width.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120", "NO_COLOR": "1"}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "citlr.cli.app",
        "citlr.audit.chain",
        "citlr.report.publish",
        "citlr.generators.diffusion.ldm",
        "citlr.generators.rivals.vae",
        "citlr.generators.rivals.latent_shift",
        "citlr.studies.synthetic.run",
        "lightning_fabric",
        "matplotlib.pyplot",
        "monai.networks.nets",
        "pandas",
        "sklearn.linear_model",
        "sklearn.metrics",
        "statsmodels.api",
        *("citlr.audit.finished", "citlr.report.publish", "citlr.predictors.training"),
        *("citlr.predictors.adapters.torchscript", "kornia_rs", "pyarrow.dataset", "PIL.JpegImagePlugin"),
        *("torch._inductor", "torch._functorch.config", "torch.export.passes"),  # what a .pt2 takes .6 s to import
        "frozen",  # the last one
    ]
)


@contextmanager
def _environment() -> Any:
    """Set the environment that the server and its children inherit, and put back what was there.

    The server finds this folder by it, as Python 3.11 hands no path of modules on; `frozen` takes it out again.
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    own = {**ENVIRONMENT, "PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _main(arguments: list[str], folder: str, cwd: str, before: str) -> None:
    """Be the command: its output into files, its exit status that of the process; `before` is run first."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["citlr", *arguments]
    os.chdir(cwd)
    exec(before, {})
    from citlr.cli.main import main

    main()


def begin(*arguments: str | Path, folder: Path, cwd: Path | None = None, before: str = "") -> BaseProcess:
    """Start a command; what it writes is in `stdout` and `stderr` of the folder."""
    with _environment():
        words = [str(one) for one in arguments]
        process = SERVER.Process(target=_main, args=(words, str(folder), str(cwd or Path.cwd()), before))
        process.start()
    return process


def citlr(
    *arguments: str | Path, program: str = "", before: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line, or a program that wraps it; no forked process can have workers of its own.

    `program` starts Python anew; `before` is code that a forked process runs before it is the command.
    """
    words = [str(one) for one in arguments]
    if program:
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **ENVIRONMENT},
            timeout=300,
        )
    with tempfile.TemporaryDirectory() as folder:
        process = begin(*words, folder=Path(folder), cwd=cwd, before=before)
        process.join(300)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, 300)
        output = {name: (Path(folder) / name).read_text() for name in ("stdout", "stderr")}
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, **output)
