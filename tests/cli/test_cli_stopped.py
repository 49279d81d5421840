"""Stopped from outside: a sentence and the status of the signal, whatever is being imported or computed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from as_user import citlr


def listens(process: int) -> bool:
    """Say whether a process has a handler of SIGTERM of its own, which is set before anything heavy is imported."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="when a process listens is read from /proc")
@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGINT, 4.0), (signal.SIGTERM, 1.0)])
def test_a_stop_says_what_stays(tmp_path: Path, number: signal.Signals, seconds: float) -> None:
    def listen() -> None:  # a shell gives its foreground command the default, whatever the runner of the tests has
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        [sys.executable, "-m", "citlr", "demo", "--out", "demo", "--quiet"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        preexec_fn=listen,
    )
    while not listens(process.pid):
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == "citlr: Stopped: what was finished stays; the same command goes on.\n"


ALARM = """
import signal, sys, time, types
from citlr.cli.main import main
signal.signal(signal.SIGALRM, lambda number, frame: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.2)
sys.modules["citlr.cli.app"] = types.SimpleNamespace(app=lambda: time.sleep(0.6))
main()
"""


def test_until_somebody_stops_an_alarm_is_the_callers() -> None:
    done = subprocess.run([sys.executable, "-c", ALARM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alarm\n", "")


# A shell that runs its commands in the background has them ignore Ctrl-C: here it has its default.
AT_ONCE = """
import os, signal, sys
from citlr.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
real = signal.signal
def listen(number, handler):
    before = real(number, handler)
    if number == signal.SIGTERM and before == signal.SIG_DFL:  # the last one: from here on all are listened to
        os.kill(os.getpid(), signal.SIGINT)
    return before
signal.signal = listen
sys.argv = ["citlr", "--version"]
main()
"""


def test_a_stop_in_the_moment_in_which_it_is_listened_to_is_a_sentence_too() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "citlr: Stopped: what was finished stays; the same command goes on.\n"


STOPPED = """
import os, signal, sys, time, types
def app():
    {body}
sys.modules["citlr.cli.app"] = types.SimpleNamespace(app=app)
"""
# Dataclasses are made of code that is given as a string, so that many a moment of an import is such a one.
IN_A_STRING = """exec("import os, signal; os.kill(os.getpid(), signal.SIGTERM); [0 for _ in range(10**6)]")"""
SWALLOWED = """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    except BaseException:
        pass
    time.sleep(60)
"""


@pytest.mark.parametrize("body", [IN_A_STRING, SWALLOWED], ids=["in a string", "swallowed"])
def test_a_stop_has_its_status_wherever_it_falls(body: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPPED.format(body=body))
    done = subprocess.run(
        [sys.executable, "-m", "citlr"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.stderr == "citlr: Stopped: what was finished stays; the same command goes on.\n"
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "n" * 5000),
        ("audit", "n" * 300 + ".yaml"),
        ("demo", "--seed", "-1"),
        ("demo", "--seed", str(10**18)),
        ("report", "none", "--images", "-3"),
        ("calibrate", "--workers", "0"),
        ("train-classifier", "c.parquet", "--arch", "resnet18", "--rounds", str(10**18)),
    ],
)
def test_values_of_the_command_line_are_held_to_limits(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = citlr(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1500
    assert not any(tmp_path.iterdir())
