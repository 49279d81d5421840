"""How many threads compute, how long one that waits keeps a processor, and how many heaps they have.

Told to OpenMP and to the C library before torch loads. A thread that spins for long takes processor time from whoever
else is on the machine, from this package's own threads too; one that sleeps at once is woken late. What costs what:
`benchmarks/threads.py`, docs/benchmarks.md. What the user has set is never touched.
"""

import ctypes
import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

# Turns for which a thread of libgomp spins before it sleeps.
SPIN = "5000"
COUNT, SPINNING, POLICY = "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_GROUPS = Path("/sys/fs/cgroup")
# glibc gives every thread a heap of its own, up to eight a processor, and each keeps what was freed in it: the longer a
# run, the more.
HEAPS, MOST_HEAPS, _ARENA_MAX = "MALLOC_ARENA_MAX", 2, -8
# Arrow's own heaps, one a thread too, keep what tables took that are gone; what is in the C library's is given back.
ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"


def tell_openmp(environment: MutableMapping[str, str] = os.environ, groups: Path = _GROUPS) -> None:
    """Set what the user has not: how long threads spin, and their number where a container has fewer than the machine.

    Where nothing limits the processors OpenMP finds their number itself. Workers take it from who starts them.
    """
    if POLICY not in environment:
        environment.setdefault(SPINNING, SPIN)
    allowed = processors(groups)
    if COUNT not in environment and allowed < _affinity():
        environment[COUNT] = str(allowed)


def share_heaps(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Have all threads, and Arrow, share two heaps, unless the user says otherwise; False where there is no glibc."""
    if sys.platform.startswith("linux"):
        environment.setdefault(ARROW_POOL, "system")
    return HEAPS not in environment and _call_libc("mallopt", _ARENA_MAX, MOST_HEAPS)


def give_back() -> bool:
    """Give what is free in the heaps back to the system; False where the C library is not glibc."""
    return _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> bool:
    """Call a function of glibc; False where there is none, or where it says so."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    return hasattr(library, name) and bool(getattr(library, name)(*arguments))


def processors(groups: Path = _GROUPS) -> int:
    """Count the processors that this process may use: those it may run on, and no more than its container's share.

    OpenMP sees the whole machine in a container of two of its processors, and starts a thread for each.
    """
    return max(1, min(_affinity(), _quota(groups)))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _quota(groups: Path) -> int:
    """Give the processors of a control group, rounded up, of either version; as many as there are without a limit."""
    try:
        if (groups / "cpu.max").is_file():
            quota, period = (groups / "cpu.max").read_text().split()
        else:
            quota, period = (
                (groups / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such groups, or "max"
        return _affinity()
    return math.ceil(share) if share > 0 else _affinity()
