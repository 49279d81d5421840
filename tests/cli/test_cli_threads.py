"""Threads that wait do not burn the processor: the command line bounds their spinning before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = (
    "import os, sys\nsys.argv = ['citlr', '--version']\nfrom citlr.cli.main import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\n"
    "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
)


@pytest.mark.parametrize(
    ("given", "found"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")]
)
def test_spinning_is_bounded_unless_the_user_says_otherwise(given: dict[str, str], found: str) -> None:
    own = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**own, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{found} False"
