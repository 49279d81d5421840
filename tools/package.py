"""Build wheel and sdist, check them, and try the wheel as a user would: `make package`.

The wheel is installed in an environment of its own, with nothing of the checkout on its path. There it gives its
version, a verdict from the table of examples, and an audit of the smallest world. `--python` names other interpreters.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a command outside of the checkout's own environment; its output, or the end of this program."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build() -> Path:
    """Build both, and return the wheel; it holds what is needed at run time, and nothing else."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir())
    (wheel,) = DIST.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("citlr/py.typed", "citlr/cli/main.py"):
        assert needed in names, f"{needed} is not in the wheel"
    assert any(name.startswith("citlr/report/templates/") for name in names), (
        "the page's templates are not in the wheel"
    )
    assert not [name for name in names if name.startswith(("tests/", "docs/", "tools/"))]
    return wheel


def try_out(wheel: Path, python: str) -> None:
    """Install the wheel with an interpreter, and use it."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        run(python, "-m", "venv", home / "env")
        folder = home / "env" / "bin"
        start = time.monotonic()
        run(folder / "pip", "install", "--quiet", "--no-compile", wheel)
        print(f"{python}: installed in {time.monotonic() - start:.0f} s", flush=True)
        print(run(folder / "citlr", "--version", cwd=home).strip(), flush=True)
        table = ROOT / "examples" / "predictions.csv"
        print(run(folder / "citlr", "assess", table, "--margin", ".05", "--attribute", "sex", cwd=home).split("\n")[0])
        shutil.copy(ROOT / "examples" / "smallest.py", home)
        start = time.monotonic()
        run(folder / "python", "smallest.py", cwd=home)
        run(folder / "citlr", "audit", "smallest/audit.yaml", "--out", "smallest/run", "--quiet", cwd=home)
        assert (home / "smallest" / "run" / "audit.html").is_file()
        print(f"{python}: the smallest world audited in {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    """Build, then try every interpreter that was named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--python", action="append", help="an interpreter; may be repeated; this one without it")
    options.add_argument("--build-only", action="store_true", help="build and check, install nothing")
    given = options.parse_args()
    wheel = build()
    print(wheel.relative_to(ROOT), flush=True)
    for python in () if given.build_only else given.python or [sys.executable]:
        try_out(wheel, python)


if __name__ == "__main__":
    main()
