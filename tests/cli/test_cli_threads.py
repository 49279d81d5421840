"""What the package tells OpenMP before torch is loaded: how long waiting threads spin, and how many there are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from citlr.threads import processors, tell_openmp

VERB = (
    "import os, sys\nsys.argv = ['citlr', '--version']\nfrom citlr.cli.main import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\n"
)
PACKAGE = "import os, sys\nimport citlr.generators\n"
TOLD = "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"


@pytest.mark.parametrize("program", [VERB, PACKAGE], ids=["a verb", "the package in Python"])
@pytest.mark.parametrize(
    ("given", "found"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")]
)
def test_spinning_is_bounded_unless_the_user_says_otherwise(program: str, given: dict[str, str], found: str) -> None:
    own = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program + TOLD], env={**own, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{found} False"


HEAPS = """
import ctypes, sys, threading
{start}
held = threading.Barrier(9)
def work():
    mine = [bytes(5000) for _ in range(9)]
    held.wait()
    return mine
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
held.wait()
for thread in threads: thread.join()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[1].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such heaps")
@pytest.mark.parametrize(
    ("start", "given", "shared"),
    [("import citlr", {}, True), ("import citlr", {"MALLOC_ARENA_MAX": "6"}, False), ("", {}, False)],
    ids=["with the package", "as the user says", "without the package"],
)
def test_threads_share_two_heaps_unless_the_user_says_otherwise(
    start: str, given: dict[str, str], shared: bool, tmp_path: Path
) -> None:
    own = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    program = [sys.executable, "-c", HEAPS.format(start=start), str(tmp_path / "heaps.xml")]
    subprocess.run(program, env={**own, **given}, check=True)
    assert ((tmp_path / "heaps.xml").read_text().count("<heap nr=") <= 2) == shared


@pytest.mark.skipif(sys.platform != "linux", reason="Arrow's heaps are left alone elsewhere")
@pytest.mark.parametrize(("given", "pool"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_arrow_takes_its_memory_from_the_heaps_that_give_it_back(given: dict[str, str], pool: str) -> None:
    own = {key: value for key, value in os.environ.items() if key != "ARROW_DEFAULT_MEMORY_POOL"}
    program = "import citlr\nimport pyarrow\nprint(pyarrow.default_memory_pool().backend_name)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**own, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == pool


@pytest.mark.skipif(processors() < 2, reason="one processor cannot be halved")
def test_a_container_with_fewer_processors_than_the_machine_gets_as_many_threads(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    environment: dict[str, str] = {}
    tell_openmp(environment, tmp_path)
    assert environment["OMP_NUM_THREADS"] == "1"
    chosen = {"OMP_NUM_THREADS": "7"}
    tell_openmp(chosen, tmp_path)
    assert chosen["OMP_NUM_THREADS"] == "7"
    old = tmp_path / "old"
    (old / "cpu").mkdir(parents=True)
    (old / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (old / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert processors(old) == 1


def test_where_nothing_limits_the_processors_their_number_is_left_to_openmp(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    for place in (tmp_path, tmp_path / "nowhere"):
        environment: dict[str, str] = {}
        tell_openmp(environment, place)
        assert "OMP_NUM_THREADS" not in environment
        assert processors(place) == len(os.sched_getaffinity(0))
