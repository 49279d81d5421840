"""What the package needs of the system it runs on."""

from __future__ import annotations

import subprocess
import sys


def test_where_the_system_does_not_say_the_memory_used_a_run_goes_on() -> None:
    """In a process in which `resource` cannot be imported, as on Windows."""
    script = (
        "import sys; sys.modules['resource'] = None\n"
        "from citlr.run.machine import peak_memory_mb\n"
        "import citlr.run.stages\n"
        "print(peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
